"""Frozen encoders and the files that keep what they computed."""
