"""The image file formats: one table, and a reader and a writer for each."""
