"""Everything that training and evaluation read, checked to belong together."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from spp_scl.clean.table import SPLITS, read_clean, read_parquet
from spp_scl.errors import UserError
from spp_scl.features.device import choose_device
from spp_scl.features.store import fingerprint, read_images, read_texts, require_rows
from spp_scl.model.batches import FeatureStore


@dataclass(frozen=True)
class Data:
    """A dataset, ready for the network.

    Args:
        table: the clean table, N rows.
        classes: names, in the order of the labels.
        selection: the metric on validation data that chooses the epoch, `f1_weighted` or `f1_macro`.
        labels: (N,) int64, on the CPU.
        rows: for train, valid and test, (n,) int64.
        features: of all N rows.
        text_width: of the text encoder.
        fingerprint: of both encoders.
        digest: a hash of selection, labels, split and features.
    """

    table: pd.DataFrame
    classes: list[str]
    selection: str
    labels: torch.Tensor
    rows: Mapping[str, torch.Tensor]
    features: FeatureStore
    text_width: int
    fingerprint: str
    digest: str

    def ids(self, split: str) -> list[str]:
        """The ids of a split's tweets."""
        return self.table["id"].iloc[self.rows[split].numpy()].tolist()


def load_dataset(name: str, root: Path | str = "data") -> Data:
    """`load_data` of a dataset's files, where the stages write them."""
    root = Path(root)
    return load_data(
        root / f"clean/{name}.parquet",
        root / f"split/{name}.parquet",
        root / f"features/{name}/image.h5",
        root / f"features/{name}/text.h5",
    )


def load_data(clean: Path | str, split: Path | str, images: Path | str, texts: Path | str) -> Data:
    """Read a clean table, its split and its features.

    Raises:
        UserError: a file is missing or damaged, or they are not of the same rows.
    """
    table = read_clean(clean)
    selection = str(table.attrs["selection"])
    assigned = read_parquet(split, "split")
    if tuple(assigned.columns) != ("id", "split") or not assigned["id"].isin(table["id"]).all():
        raise UserError(
            f"{split}: the split belongs to other rows than {clean}; "
            "rebuild it with `dvc repro split --force`"
        )
    row_of = pd.Series(range(len(table)), index=table["id"])
    rows = {}
    for name in SPLITS:
        ids = assigned.loc[assigned["split"] == name, "id"]
        rows[name] = torch.tensor(row_of[ids].to_numpy(), dtype=torch.int64)
    image_features, text_features = read_images(images), read_texts(texts)
    require_rows(image_features, table["id"].tolist(), images)
    require_rows(text_features, table["id"].tolist(), texts)
    labels = torch.tensor(table["label"].cat.codes.to_numpy(), dtype=torch.int64)
    digest = hashlib.sha256(f"{selection} {image_features.digest} {text_features.digest}".encode())
    for part in (labels, *rows.values()):
        digest.update(part.numpy().tobytes())
    return Data(
        table,
        [str(name) for name in table["label"].cat.categories],
        selection,
        labels,
        rows,
        FeatureStore(image_features, text_features, choose_device()),
        text_features.words.shape[2],
        fingerprint(image_features, text_features),
        digest.hexdigest(),
    )
