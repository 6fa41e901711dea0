"""Splitting: which clean row trains, validates or tests."""

from typing import Literal

# Here, so that parameters are checked without loading scikit-learn.
Protocol = Literal["auto", "published", "stratified", "grouped"]
