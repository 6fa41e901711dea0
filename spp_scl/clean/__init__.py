"""Cleaning: from raw rows to one table of texts, readable pictures and labels, with every drop counted."""

from typing import Literal

# What happens to a row without a picture or without a text. Here, so that parameters are checked without
# loading pandas.
Policy = Literal["drop", "blank", "error"]
