"""How good a model is: distances to real pictures, reconstruction, what judges find in pictures."""
