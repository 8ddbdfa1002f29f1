"""Scans in, colour pictures out: formats, metadata, exact pixels. No model, no store."""
