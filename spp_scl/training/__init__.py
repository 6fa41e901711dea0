"""Training of any method: the loop, its log and checkpoint, and the file of the trained model."""
