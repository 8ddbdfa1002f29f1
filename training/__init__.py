"""How the embedded model was made: data, training and export scripts. Not part of the installed package."""
