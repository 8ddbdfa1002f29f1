"""Manifest rows from other systems' descriptions of their images: newspapers (METS, ALTO) and IIIF."""
