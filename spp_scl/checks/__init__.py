"""What the data alone says, before any training: repeats between the splits, floors, and shortcuts."""
