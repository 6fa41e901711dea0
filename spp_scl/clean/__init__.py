"""Cleaning: from raw rows to one table of texts, readable pictures and labels, with every drop counted."""
