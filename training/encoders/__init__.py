"""Dense image encoders and their text encoders, one file a family."""
