"""The three protocols: published, stratified 8:1:1, and grouped 8:1:1 without repeats across splits."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from spp_scl.clean.table import SPLITS
from spp_scl.clean.texts import normalize
from spp_scl.errors import UserError
from spp_scl.options import Protocol
from spp_scl.raw.datasets import DATASETS
from spp_scl.split.published import has_published, read_published

_FOLDS = 10  # of groups: one for test, one for validation, eight for training


def split_table(
    table: pd.DataFrame, dataset: str, published: Path, protocol: Protocol, seed: int
) -> tuple[pd.DataFrame, dict]:
    """Assign the rows of a clean table.

    Args:
        table: a clean table.
        dataset: a key of the registry.
        published: the folder for the dataset's published split files.
        protocol: `published`, `stratified`, `grouped`, or `auto`: published where there is one, else
            stratified.
        seed: draws the stratified and the grouped split.

    Returns:
        The split (id, split), in the table's order, rows without a split left out; and its counts.

    Raises:
        UserError: there is no published split, or the dataset allows no other, or a split has no row of
            some class.
    """
    chosen = _choose_protocol(table, dataset, published, protocol)
    absent = 0
    if chosen == "published":
        if DATASETS[dataset].published == "files":
            named = read_published(published)
            splits = table["id"].map(named)
            absent = len(named.keys() - set(table["id"]))
        else:
            splits = table["split"]
    elif chosen == "stratified":
        splits = stratified(table["label"].cat.codes.to_numpy(), seed)
    else:
        splits = grouped(table["label"].cat.codes.to_numpy(), repeats(table), seed)
    split = pd.DataFrame({"id": table["id"], "split": splits, "label": table["label"]})
    unassigned = int(split["split"].isna().sum())
    split = split[split["split"].notna()].astype({"split": "str"}).reset_index(drop=True)
    counts = pd.crosstab(split["split"], split["label"], dropna=False)
    _require_every_class(counts.reindex(SPLITS, fill_value=0), chosen)
    report = {
        "protocol": chosen,
        # Rows that no split names, and rows that the published files name and cleaning has not kept.
        "unassigned": unassigned,
        "absent": absent,
        **{
            name: {
                "rows": int(counts.loc[name].sum()),
                "classes": {str(c): int(n) for c, n in counts.loc[name].items()},
            }
            for name in SPLITS
        },
    }
    return split[["id", "split"]], report


def stratified(labels: np.ndarray, seed: int) -> np.ndarray:
    """A split for each row, 8:1:1 within each class. `labels`: (n,) integers."""
    rng = np.random.default_rng(seed)
    splits = np.full(len(labels), "train", dtype=object)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        tenth = max(1, round(len(rows) / 10))
        splits[rows[:tenth]] = "test"
        splits[rows[tenth : 2 * tenth]] = "valid"
    return splits


def grouped(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """About 8:1:1 with the classes' shares, and no group in two splits. `groups`: (n,) integers."""
    if np.bincount(labels).max() < _FOLDS or len(np.unique(groups)) < _FOLDS:
        raise UserError(
            f"split.protocol `grouped` needs {_FOLDS} rows of some class and {_FOLDS} groups of rows that do "
            "not repeat each other; give the data more rows, or choose `-S split.protocol=stratified`"
        )
    folding = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    folds = [rows for _, rows in folding.split(labels, labels, groups)]
    # A large group makes its fold large: the two folds nearest to a tenth are taken, and it stays in train.
    folds.sort(key=lambda rows: abs(len(rows) - len(labels) / _FOLDS))
    splits = np.full(len(labels), "train", dtype=object)
    splits[folds[0]], splits[folds[1]] = "test", "valid"
    return splits


def repeats(table: pd.DataFrame) -> np.ndarray:
    """Group the rows that repeat each other: (n,) integers.

    Two rows are in one group when their normalized texts or their pictures are equal, directly or
    through others. An empty text and a missing picture repeat nothing.
    """
    keys = pd.concat([table["text"].map(normalize).replace("", None), table["picture"]], ignore_index=True)
    present = keys.notna().to_numpy()
    rows = np.tile(np.arange(len(table)), 2)[present]
    # A bipartite graph of rows and keys: a connected component is one group.
    codes = pd.factorize(keys[present])[0] + len(table)
    size = int(codes.max(initial=len(table) - 1)) + 1
    graph = coo_array((np.ones(len(rows), dtype=np.int8), (rows, codes)), shape=(size, size))
    return connected_components(graph, directed=False)[1][: len(table)]


def _choose_protocol(table: pd.DataFrame, dataset: str, published: Path, protocol: Protocol) -> Protocol:
    source = DATASETS[dataset].published
    available = (source == "inside" and bool(table["split"].notna().any())) or (
        source == "files" and has_published(published)
    )
    if protocol == "auto":
        return "published" if available else "stratified"
    if protocol == "published" and not available:
        if source == "files":
            read_published(published)  # says which files, where from and where to
        raise UserError(
            f"split.protocol is `published`, but {dataset} has no published split"
            + (" (no `split` column)" if source else "")
            + "; choose `-S split.protocol=stratified` or `-S split.protocol=grouped`"
        )
    if protocol != "published" and DATASETS[dataset].only_published:
        raise UserError(
            f"split.protocol is `{protocol}`, but {dataset} allows only its own split: its parts were "
            "labeled in different ways and must not mix. Choose `-S split.protocol=published`"
        )
    return protocol


def _require_every_class(counts: pd.DataFrame, protocol: str) -> None:
    for split, row in counts.iterrows():
        empty = [str(label) for label, count in row.items() if count == 0]
        if empty:
            raise UserError(
                f"split.protocol `{protocol}`: the {split} split has no row of class {', '.join(empty)}; "
                "every class must stand in train, valid and test. Give these classes more rows, "
                "or assign the rows yourself in a `split` column of dataset `own`"
            )
