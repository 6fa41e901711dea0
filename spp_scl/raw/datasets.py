"""The registry of datasets: their classes, their splits and the metric that their papers report."""

from dataclasses import dataclass
from typing import Literal

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Dataset:
    """One dataset.

    Args:
        classes: in the order of their codes; None: those that occur, sorted.
        selection: the metric on validation data that chooses the epoch.
        published: where a published split comes from: `inside` the raw data, in `files` of its own
            (CLMLF's), or nowhere (None).
        only_published: whether any other split would be wrong.
    """

    classes: tuple[str, ...] | None
    selection: Literal["f1_weighted", "f1_macro"] = "f1_weighted"
    published: Literal["inside", "files"] | None = None
    only_published: bool = False


SENTIMENTS = ("positive", "neutral", "negative")

DATASETS = {
    "sample": Dataset(SENTIMENTS),
    "mvsa_single": Dataset(SENTIMENTS, published="files"),
    "mvsa_multiple": Dataset(SENTIMENTS, published="files"),
    # HFM's training labels come from hashtags and its other labels from people: they must not mix.
    "hfm": Dataset(("not sarcastic", "sarcastic"), "f1_macro", published="inside", only_published=True),
    "table": Dataset(None, published="inside"),
}
