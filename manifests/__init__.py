"""What is asked for: the schema of a manifest row, and reading, validating and building manifests."""
