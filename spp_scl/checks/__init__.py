"""What the data alone says, before any training: repeats between the splits, and floors for the metrics."""
