"""Encoders: how pictures and texts become features."""
