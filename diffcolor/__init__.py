"""DiffColor (arXiv 2308.01655) on images in memory: two training stages, alignment, exact luminance. No Ray, no I/O."""
