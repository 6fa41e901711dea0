"""What the authors have released, read into this project."""
