"""Raw datasets: one reader for each layout; every reader returns the same rows."""

from typing import Literal

# The metric on validation data that chooses the epoch. Here, because the clean table carries it to training
# and evaluation, which must not depend on the readers.
Selection = Literal["f1_weighted", "f1_macro"]
