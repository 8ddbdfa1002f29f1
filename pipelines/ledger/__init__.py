"""What is done and what is left to do, kept in the output store. Knows no image and no Ray."""
