"""Evaluation: metrics, predictions and embeddings."""
