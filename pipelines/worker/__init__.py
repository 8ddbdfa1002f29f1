"""One process with its models: reads scans, adapts the model to them, paints and stores the pictures."""
