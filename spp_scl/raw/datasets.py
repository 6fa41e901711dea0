"""The registry of datasets. A new one is a reader in this folder and one entry here."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from spp_scl.options import Selection
from spp_scl.raw import hfm, mvsa, own
from spp_scl.raw.rows import RawRow


@dataclass(frozen=True)
class Dataset:
    """One dataset; its key in `DATASETS` is also the name of its folder in data/raw.

    Args:
        read: reads the raw folder. It raises UserError when a file is missing or malformed.
        classes: in the order of their codes; None: those that occur, sorted.
        selection: the metric on validation data that chooses the epoch: the F1 that its papers report.
        published: where a published split comes from: `inside` the raw data, three JSON `files` (CLMLF's
            format) in data/published, or nowhere (None).
        only_published: whether its splits were labeled in different ways, so that any other split would
            mix them.
        translated_together: the splits whose texts CLMLF translated in one go, where its published file has
            slipped against the ids; empty: it has not.
    """

    read: Callable[[Path], list[RawRow]]
    classes: tuple[str, ...] | None
    selection: Selection = "f1_weighted"
    published: Literal["inside", "files"] | None = None
    only_published: bool = False
    translated_together: tuple[tuple[str, ...], ...] = ()


DATASETS: dict[str, Dataset] = {
    "sample": Dataset(
        partial(mvsa.read_mvsa, annotators=1, missing="Generate it with `dvc repro sample`"), mvsa.CLASSES
    ),
    "mvsa_single": Dataset(partial(mvsa.read_mvsa, annotators=1), mvsa.CLASSES, published="files"),
    "mvsa_multiple": Dataset(partial(mvsa.read_mvsa, annotators=3), mvsa.CLASSES, published="files"),
    # Training labels come from hashtags, the others from people.
    "hfm": Dataset(
        hfm.read_hfm,
        hfm.CLASSES,
        "f1_macro",
        published="inside",
        only_published=True,
        translated_together=(("train",), ("valid", "test")),
    ),
    "own": Dataset(own.read_own, None, published="inside"),
}
