"""The static page on which a curator looks at every picture and decides."""
