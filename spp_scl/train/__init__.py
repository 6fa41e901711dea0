"""Training with SPP-SCL: the losses, the gate, the two steps, and the file of the trained model."""
