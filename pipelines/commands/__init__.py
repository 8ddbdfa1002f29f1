"""The commands that need no models: what runs, what has been made, what a curator decides."""
