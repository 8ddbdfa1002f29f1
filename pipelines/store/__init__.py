"""Bytes at rest on any fsspec store: objects, retries, the lease, the event log. Knows no row, image or model."""
