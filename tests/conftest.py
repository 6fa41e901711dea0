"""Fixtures: small real files, made once a session."""

import signal
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import spp_scl.encoders.torchvision_ops  # noqa: F401  (before anything that imports torchvision)
from spp_scl.batches.data import load_data
from spp_scl.clean.cleaning import clean_rows
from spp_scl.encoders.pictures import encode_images
from spp_scl.encoders.texts import encode_texts
from spp_scl.encoders.views import encode_views
from spp_scl.raw.datasets import DATASETS
from spp_scl.raw.sample import write_sample
from spp_scl.split.splitting import split_table

# A shell's background jobs ignore Ctrl-C, and so would the stages that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

ENCODING: dict[str, Any] = {"weights": "untrained", "seed": 1, "batch_size": 8, "precision": "auto"}


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    """The sample at 60 pairs, as far as the features; treat its files as read-only."""
    folder = tmp_path_factory.mktemp("sample")
    raw = folder / "raw"
    write_sample(raw, pairs=60, seed=3)
    dataset = DATASETS["sample"]
    table, _, _ = clean_rows(dataset.read(raw), raw, dataset, "drop", "drop")
    split, _ = split_table(table, "sample", folder, "stratified", seed=3)
    files = SimpleNamespace(
        raw=raw,
        table=table,
        clean=folder / "clean.parquet",
        split=folder / "split.parquet",
        images=folder / "image.h5",
        texts=folder / "text.h5",
        views=folder / "views",
    )
    table.to_parquet(files.clean, index=False)
    split.to_parquet(files.split, index=False)
    encode_images(table, raw, files.images, **ENCODING)
    encode_texts(table, files.texts, max_positions=202, **ENCODING)
    train = split.loc[split["split"] == "train", "id"]
    train = table[table["id"].isin(train)].reset_index(drop=True)
    # Some with a translation, some without a second view.
    translations = [None if i % 5 == 0 else f"{text} too" for i, text in enumerate(train["text"])]
    views = {
        "content": "features",
        "draws": 2,
        "seed": 3,
        "image": ENCODING,
        "text": {**ENCODING, "max_positions": 202},
    }
    files.views.mkdir()
    images, texts = files.views / "image.h5", files.views / "text.h5"
    encode_views(train, translations, raw, images, texts, views, table["text"].tolist())
    return files


@pytest.fixture(scope="session")
def data(sample):
    return load_data(sample.clean, sample.split, sample.images, sample.texts, sample.views)


@pytest.fixture(autouse=True)
def _repeatable():
    torch.manual_seed(0)
