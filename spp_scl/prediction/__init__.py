"""A trained model for use: the bundle in `models/`, and labels for posts."""
