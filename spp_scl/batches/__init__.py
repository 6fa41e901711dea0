"""Batches: what a method sees of some rows, from features in the cache or from encoders in the loop."""
