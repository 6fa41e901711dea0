"""Everything that training and evaluation read, checked to belong together."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from spp_scl.batches.batch import FeatureStore, Source
from spp_scl.batches.inputs import InputStore
from spp_scl.batches.views import add_views
from spp_scl.clean.table import SPLITS, read_clean, read_parquet
from spp_scl.errors import UserError
from spp_scl.features.device import choose_device
from spp_scl.features.encoder import EncoderInfo
from spp_scl.features.store import (
    ImageFeatures,
    ImageInputs,
    TextFeatures,
    TextInputs,
    fingerprint,
    read_images,
    read_texts,
    require_rows,
)


@dataclass(frozen=True)
class Data:
    """A dataset, ready for the network.

    Args:
        table: the clean table, N rows.
        classes: names, in the order of the labels.
        selection: the metric on validation data that chooses the epoch, `f1_weighted` or `f1_macro`.
        labels: (N,) int64, on the CPU.
        rows: for train, valid and test, (n,) int64.
        source: gives batches of the N rows.
        encoders: whose features or inputs these are, by `image` and `text`.
        fingerprint: of both encoders.
        digest: a hash of selection, labels, split and features.
    """

    table: pd.DataFrame
    classes: list[str]
    selection: str
    labels: torch.Tensor
    rows: Mapping[str, torch.Tensor]
    source: Source
    encoders: Mapping[str, EncoderInfo]
    fingerprint: str
    digest: str

    def ids(self, split: str) -> list[str]:
        """The ids of a split's tweets."""
        return self.table["id"].iloc[self.rows[split].numpy()].tolist()


def load_dataset(name: str, root: Path | str = "data", views: bool = False) -> Data:
    """`load_data` of a dataset's files, where the stages write them; `views`: with second views."""
    root = Path(root)
    return load_data(
        root / f"clean/{name}.parquet",
        root / f"split/{name}.parquet",
        root / f"features/{name}/image.h5",
        root / f"features/{name}/text.h5",
        root / f"views/{name}" if views else None,
    )


def load_data(
    clean: Path | str, split: Path | str, images: Path | str, texts: Path | str, views: Path | None = None
) -> Data:
    """Read a clean table, its split and its features; and from the folder `views` train's second views.

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
    image_file, text_file = read_images(images), read_texts(texts)
    require_rows(image_file, table["id"].tolist(), images)
    require_rows(text_file, table["id"].tolist(), texts)
    labels = torch.tensor(table["label"].cat.codes.to_numpy(), dtype=torch.int64)
    digest = hashlib.sha256(f"{selection} {image_file.digest} {text_file.digest}".encode())
    for part in (labels, *rows.values()):
        digest.update(part.numpy().tobytes())
    source: FeatureStore | InputStore
    if isinstance(image_file, ImageFeatures) and isinstance(text_file, TextFeatures):
        source = FeatureStore(image_file, text_file, labels, choose_device())
    elif isinstance(image_file, ImageInputs) and isinstance(text_file, TextInputs):
        source = InputStore(image_file, text_file, labels, choose_device())
    else:
        raise UserError(
            f"{images} and {texts}: one holds features and the other what encoders read; rebuild both with "
            "`dvc repro`"
        )
    if views is not None:
        digest.update(add_views(source, image_file, text_file, labels, rows["train"], views).encode())
    return Data(
        table,
        [str(name) for name in table["label"].cat.categories],
        selection,
        labels,
        rows,
        source,
        {"image": image_file.encoder, "text": text_file.encoder},
        fingerprint(image_file, text_file),
        digest.hexdigest(),
    )
