"""Splitting: which clean row trains, validates or tests."""
