"""What other systems say of their images: newspapers (METS, ALTO) and IIIF, as manifest rows."""
