"""Evaluation: metrics, predictions, what the classes are taken for, and the embeddings."""
