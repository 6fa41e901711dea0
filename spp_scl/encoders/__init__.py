"""Frozen encoders: how pictures and texts become features."""
