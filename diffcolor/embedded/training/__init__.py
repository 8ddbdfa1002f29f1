"""How the embedded mini model was made: data, training and export scripts."""
