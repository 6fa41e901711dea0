"""The registry of datasets: how each is read, its classes and the metric that its papers report."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from spp_scl.raw import hfm, mvsa
from spp_scl.raw.rows import RawRow
from spp_scl.raw.table import read_table


@dataclass(frozen=True)
class Dataset:
    """One dataset.

    Args:
        read: from the raw folder to rows.
        classes: in the order of their codes; None: those that occur, sorted.
        selection: the metric on validation data that chooses the epoch.
        published: where a published split comes from: `inside` the raw data, in `files` of its own
            (CLMLF's), or nowhere (None).
        only_published: whether any other split would be wrong.
    """

    read: Callable[[Path], list[RawRow]]
    classes: tuple[str, ...] | None
    selection: Literal["f1_weighted", "f1_macro"] = "f1_weighted"
    published: Literal["inside", "files"] | None = None
    only_published: bool = False


DATASETS = {
    "sample": Dataset(partial(mvsa.read_mvsa, annotators=1), mvsa.CLASSES),
    "mvsa_single": Dataset(partial(mvsa.read_mvsa, annotators=1), mvsa.CLASSES, published="files"),
    "mvsa_multiple": Dataset(
        partial(mvsa.read_mvsa, annotators=3), mvsa.CLASSES, published="files"
    ),
    # HFM's training labels come from hashtags and its other labels from people: they must not mix.
    "hfm": Dataset(hfm.read_hfm, hfm.CLASSES, "f1_macro", published="inside", only_published=True),
    "table": Dataset(read_table, None, published="inside"),
}
