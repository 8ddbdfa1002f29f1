"""Pixels and image files: decoding scans, exact composition, metadata. Knows no store and no model."""
