"""Data of MVSA-Single's size and shapes, made from a seed: features as files, pictures as JPEG, texts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from spp_scl.batches.data import Data, load_data
from spp_scl.clean.pictures import hash_picture, open_picture
from spp_scl.clean.table import COLUMNS
from spp_scl.encoders.text import TextEncoder
from spp_scl.encoders.writing import image_layout, text_layout, writing
from spp_scl.features.encoder import EncoderInfo
from spp_scl.features.store import read_images, read_texts

Ids = tuple[torch.Tensor, torch.Tensor]

ROWS = 4511  # MVSA-Single after cleaning, by its published split: 3,611, 450, 450
WIDTH = 768  # of BERT-base
WORDS = (
    "good",
    "bad",
    "day",
    "night",
    "happy",
    "sad",
    "love",
    "hate",
    "sun",
    "rain",
    "people",
    "city",
    "food",
)


def sorted_batches(
    encoder: TextEncoder, strings: Sequence[str], size: int, device: torch.device
) -> list[Ids]:
    """Token ids and masks of texts of like length, padded to a multiple of 8, as the feature stage's."""
    ordered = sorted(encoder.tokenize(strings), key=len, reverse=True)
    batches = []
    for start in range(0, len(ordered), size):
        rows = ordered[start : start + size]
        ids = torch.zeros(size, -(-len(rows[0]) // 8) * 8, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        batches.append((ids.to(device), (ids != 0).long().to(device)))
    return batches


def lengths(rows: int) -> np.ndarray:
    """WordPiece lengths with the mean (28.7) and the spread (12.7) of MVSA-Single's tweets."""
    drawn = np.random.default_rng(0).gamma(5.1, 28.7 / 5.1, rows)
    return drawn.astype(np.int64).clip(1, 127)


def write_features(folder: Path, rows: int = ROWS) -> None:
    """Write the four files that training reads, with random features."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    ids = [str(i) for i in range(rows)]
    keys = np.frombuffer(rng.bytes(32 * rows), np.uint8).reshape(-1, 32)
    table = pd.DataFrame({"id": ids, "text": "x", "image": "x", "picture": "x", "label": "", "split": None})
    classes = ["positive", "neutral", "negative"]
    table["label"] = pd.Categorical(rng.choice(classes, rows), categories=classes)
    table.attrs["selection"] = "f1_weighted"
    table.reindex(columns=list(COLUMNS)).to_parquet(folder / "clean.parquet", index=False)
    split = np.array(["train"] * rows, dtype=object)
    split[: rows // 5] = "valid"
    split[: rows // 10] = "test"
    pd.DataFrame({"id": ids, "split": split}).to_parquet(folder / "split.parquet", index=False)
    info = EncoderInfo("random", "none", "0", "none", "fp32", "none", "none", 1, "none")
    # A few blocks, each row a stretch of one: drawing them all would take longer than the benchmark.
    maps = np.maximum(rng.standard_normal((64, 49, 2048), dtype=np.float32), 0).astype(np.float16)
    with writing(folder / "image.h5", image_layout(ids, np.arange(rows), keys, 49, 2048), info) as writer:
        for i in writer.missing:
            writer.write(i, np.roll(maps[i % 64], i // 64, axis=0))
    words = rng.standard_normal((512, 4, WIDTH), dtype=np.float32).astype(np.float16)
    pieces = np.zeros(lengths(rows).sum(), np.int32)
    vocabulary = np.zeros((30522, WIDTH), np.float16)
    layout = text_layout(ids, lengths(rows), keys, np.zeros(rows, bool), (4, WIDTH), pieces, vocabulary)
    with writing(folder / "text.h5", layout, info) as writer:
        for i, length in enumerate(lengths(rows)):
            start = rng.integers(512 - length)
            writer.write(i, words[start], words[start : start + length])


def write_views(folder: Path) -> None:
    """Write the training rows' second views, with their own features: one draw, all of them translated."""
    train = pd.read_parquet(folder / "split.parquet").query("split == 'train'")["id"].tolist()
    images, texts = read_images(folder / "image.h5"), read_texts(folder / "text.h5")
    rows = [int(row_id) for row_id in train]
    keys = np.frombuffer(np.random.default_rng(5).bytes(32 * len(rows)), np.uint8).reshape(-1, 32)
    (folder / "views").mkdir()
    layout = image_layout(
        [f"{row_id} 0" for row_id in train], np.arange(len(rows)), keys, *images.maps.shape[1:]
    )
    with writing(folder / "views/image.h5", layout, images.encoder) as writer:
        for i in writer.missing:
            writer.write(i, images.maps[int(images.index[rows[i]])].numpy())
    words = texts.offsets.diff()[rows].numpy()
    blank, pieces = np.zeros(len(rows), bool), np.zeros(words.sum(), np.int32)
    layout = text_layout(train, words, keys, blank, texts.words.shape[1:], pieces, texts.vocabulary.numpy())
    with writing(folder / "views/text.h5", layout, texts.encoder) as writer:
        for i, row in enumerate(rows):
            start, end = texts.offsets[row : row + 2].tolist()
            writer.write(i, texts.cls[row].numpy(), texts.words[start:end].numpy())


def load_features(folder: Path, views: bool = False) -> Data:
    """Read them as the training stage does."""
    files = (folder / name for name in ("clean.parquet", "split.parquet", "image.h5", "text.h5"))
    return load_data(*files, folder / "views" if views else None)


def write_pictures(folder: Path, number: int) -> pd.DataFrame:
    """Write JPEG files of 640 x 480, about 70 kB each as a photograph; returns a clean table of them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(2)
    for i in range(number):
        smooth = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).resize((640, 480))
        pixels = np.asarray(smooth).astype(np.int16) + rng.integers(-12, 12, (480, 640, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.jpg", quality=85)
    names = [f"{i}.jpg" for i in range(number)]
    hashes = [hash_picture(open_picture(folder / name)) for name in names]
    return pd.DataFrame({"id": names, "text": "x", "image": names, "picture": hashes})


def texts(number: int) -> list[str]:
    """Different texts of MVSA-Single's lengths, in words that the vocabulary will hold whole."""
    rng = np.random.default_rng(3)
    return [" ".join(rng.choice(WORDS, length)) for length in lengths(number)]
