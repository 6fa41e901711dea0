"""What the metrics rest on: batches, repeats, the gate, floors and uncertainty."""
