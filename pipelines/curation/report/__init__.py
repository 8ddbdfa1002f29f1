"""The static page on which a curator reviews every picture."""
