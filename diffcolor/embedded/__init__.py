"""The embedded mini model and the scripts that trained it."""
