"""The HDF5 files between the encoders and the training: features in float16, or what an encoder gets.

Ids are in row order, and attributes say who wrote a file. It is read through a memory map, so that it may be
larger than the memory. Each item carries the hash of what was encoded, by which a later run finds and copies
it, and a CRC-32 of its content, which shows damage.

Shapes: N rows, M different pictures, P positions (as 7 x 7), C channels, H x W pixels, W words in all,
T tokens in all, L layers, D width, V vocabulary, E width of its vectors.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from spp_scl.errors import UserError, first_line
from spp_scl.features.encoder import EncoderInfo
from spp_scl.previous import damaged_output

FORMAT = 3

# What is written item by item, of each kind and content of a file.
ARRAYS: dict[tuple[str, str], dict[str, np.dtype]] = {
    ("image", "features"): {"maps": np.dtype("<f2")},
    ("image", "inputs"): {"pixels": np.dtype("u1")},
    ("text", "features"): {"cls": np.dtype("<f2"), "words": np.dtype("<f2")},
    ("text", "inputs"): {"tokens": np.dtype("<i4")},
}
# And what belongs to no item alone, beside ids and keys.
_TABLES: dict[tuple[str, str], tuple[str, ...]] = {
    ("image", "features"): ("index",),
    ("image", "inputs"): ("index",),
    ("text", "features"): ("offsets", "pieces", "vocabulary"),
    ("text", "inputs"): ("offsets",),
}
# Of these an item has as many as its text has words, or tokens; of the others, one.
_MANY = ("words", "tokens")


@dataclass(frozen=True)
class ImageFeatures:
    """Feature maps: equal pictures share one, blank ones have none.

    Args:
        ids: N ids.
        index: (N,) which map is a row's; -1: a blank picture, all zeros.
        maps: (M, P, C) float16, the positions row by row.
        encoder: who wrote them.
        digest: a hash of all this.
    """

    ids: list[str]
    index: torch.Tensor
    maps: torch.Tensor
    encoder: EncoderInfo
    digest: str


@dataclass(frozen=True)
class ImageInputs:
    """Prepared pictures: equal ones share one, blank ones have none.

    Args:
        ids: N ids.
        index: (N,) which picture is a row's; -1: a blank one.
        pixels: (M, 3, H, W) uint8.
        encoder: whose they are.
        digest: a hash of all this.
    """

    ids: list[str]
    index: torch.Tensor
    pixels: torch.Tensor
    encoder: EncoderInfo
    digest: str


@dataclass(frozen=True)
class TextFeatures:
    """Hidden states of the last layers, real words only.

    Args:
        ids: N ids.
        offsets: (N + 1,); row i's words are `words[offsets[i]:offsets[i + 1]]`.
        words: (W, L, D) float16.
        cls: (N, L, D) float16, of the token that stands for a text: BERT's [CLS].
        pieces: (W,) int32, the token id of each word.
        vocabulary: (V, E) float16, the encoder's vectors of its tokens.
        encoder: who wrote them.
        digest: a hash of all this.
    """

    ids: list[str]
    offsets: torch.Tensor
    words: torch.Tensor
    cls: torch.Tensor
    pieces: torch.Tensor
    vocabulary: torch.Tensor
    encoder: EncoderInfo
    digest: str


@dataclass(frozen=True)
class TextInputs:
    """Token ids, special ones included; a blank text has none.

    Args:
        ids: N ids.
        offsets: (N + 1,); row i's tokens are `tokens[offsets[i]:offsets[i + 1]]`.
        tokens: (T,) int32.
        prefix: special tokens in front of a text.
        suffix: and behind it.
        pad_id: the token that fills a batch up.
        max_positions: no text is longer.
        padding: `masked`, or `kept`: padding to `max_positions` counts as words.
        padding_side: `left` or `right`.
        encoder: whose they are.
        digest: a hash of all this.
    """

    ids: list[str]
    offsets: torch.Tensor
    tokens: torch.Tensor
    prefix: int
    suffix: int
    pad_id: int
    max_positions: int
    padding: str
    padding_side: str
    encoder: EncoderInfo
    digest: str


Images = ImageFeatures | ImageInputs
Texts = TextFeatures | TextInputs


class FeatureFile:
    """An open file as a list of items (maps, or texts), each with its key, its arrays and its CRC.

    Item i of the array `name` is `array[bounds[name][i]:bounds[name][i + 1]]`.
    """

    def __init__(self, file: h5py.File, kind: str):
        self.file, self.kind, self.content = file, kind, str(file.attrs["content"])
        self.encoder = str(file.attrs["encoder"])
        self.keys = file["keys"][:]
        self.sums = file["sums"][:]
        dtypes = ARRAYS[kind, self.content]
        self.arrays = {name: file[name] for name in dtypes}
        if any(array.dtype != dtypes[name] for name, array in self.arrays.items()):
            raise ValueError("its numbers are of another type")
        self.one_each = self.arrays.keys() - set(_MANY)
        single = np.arange(len(self.keys) + 1)
        self.bounds = {n: single if n in self.one_each else file["offsets"][:] for n in self.arrays}

    def read(self, item: int) -> list[np.ndarray]:
        """The item's arrays."""
        return [a[self.bounds[n][item] : self.bounds[n][item + 1]] for n, a in self.arrays.items()]


def read_images(path: Path | str) -> Images:
    """Map an image file into memory, and check all of it.

    Raises:
        UserError: it is missing, damaged or of another kind.
    """
    content, common, parts, _ = _read(path, "image")
    array, dimensions = (parts["maps"], 3) if content == "features" else (parts["pixels"], 4)
    index = parts["index"]
    if len(index) != len(common["ids"]) or array.dim() != dimensions or (index >= len(array)).any():
        raise _damaged(path, "image", "its parts do not fit together")
    return ImageFeatures(**common, **parts) if content == "features" else ImageInputs(**common, **parts)


def read_texts(path: Path | str) -> Texts:
    """Map a text file into memory, and check all of it.

    Raises:
        UserError: it is missing, damaged or of another kind.
    """
    content, common, parts, attributes = _read(path, "text")
    offsets, items, rows = (
        parts["offsets"],
        parts["words" if content == "features" else "tokens"],
        common["ids"],
    )
    fits = len(offsets) == len(rows) + 1 and offsets[-1] == len(items) and not (offsets.diff() < 0).any()
    if content == "features":
        cls, pieces, vocabulary = parts["cls"], parts["pieces"], parts["vocabulary"]
        fits = fits and len(cls) == len(rows) and cls.shape[1:] == items.shape[1:] and vocabulary.dim() == 2
        fits = fits and len(pieces) == len(items) and not ((pieces < 0) | (pieces >= len(vocabulary))).any()
    if not fits:
        raise _damaged(path, "text", "its parts do not fit together")
    if content == "features":
        return TextFeatures(**common, **parts)
    return TextInputs(**common, **parts, **attributes)


def require_rows(features: Images | Texts, ids: Sequence[str], path: Path | str) -> None:
    """Refuse features that were computed for other rows than the clean table's.

    Raises:
        UserError: the ids differ, in number or in order.
    """
    if features.ids != list(ids):
        kind = "image" if isinstance(features, Images) else "text"
        raise UserError(
            f"{path}: the features belong to other rows ({len(features.ids)}) than the clean table "
            f"({len(ids)}); rebuild them with `dvc repro {kind}_features --force`"
        )


def fingerprint(images: Images, texts: Texts) -> str:
    """One hash of both encoders, for a model to remember."""
    return hashlib.sha256((images.encoder.fingerprint + texts.encoder.fingerprint).encode()).hexdigest()


def _read(path: Path | str, kind: str) -> tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The content, what all contents have, tables and mapped arrays by name (tensors), and attributes."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file; make it with `dvc repro {kind}_features`")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs["kind"] != kind or file.attrs["format"] != FORMAT:
                raise _damaged(path, kind, "it is of another kind or format")
            encoder = EncoderInfo(**json.loads(file.attrs["encoder"]))
            opened = FeatureFile(file, kind)
            names = ("ids", *_TABLES[kind, opened.content], "keys")
            # A vocabulary may be larger than all else.
            tables = {n: _map(path, file[n]) if n == "vocabulary" else file[n][...] for n in names}
            attributes = str(file.attrs["attributes"])
            hashed = hash_tables(tables, attributes)
            if (file.attrs["fingerprint"], file.attrs["tables"]) != (encoder.fingerprint, hashed):
                raise _damaged(path, kind, "its attributes and tables do not agree")
            arrays = {name: _map(path, dataset) for name, dataset in opened.arrays.items()}
            if bad := _count_damaged(arrays, opened):
                raise _damaged(path, kind, f"{bad} of {len(opened.keys)} items differ from their CRC")
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise _damaged(path, kind, first_line(error)) from None
    digest = hash_tables({"sums": opened.sums}, hashed, encoder.to_json())
    common = {"ids": [i.decode() for i in tables["ids"]], "encoder": encoder, "digest": digest}
    found = {**{n: tables[n] for n in names[1:-1]}, **arrays}
    return opened.content, common, {n: torch.from_numpy(a) for n, a in found.items()}, json.loads(attributes)


def _map(path: Path, dataset: h5py.Dataset) -> np.ndarray:
    if not dataset.size:
        return np.zeros(dataset.shape, dataset.dtype)
    offset = dataset.id.get_offset()
    if offset is None:
        raise ValueError(f"{dataset.name} is not a plain array")
    # Copy on write: torch wants an array that it could write to.
    return np.memmap(path, dataset.dtype, "c", offset, dataset.shape)


def _count_damaged(arrays: Mapping[str, np.ndarray], opened: FeatureFile) -> int:
    def count(items: np.ndarray) -> int:
        found = 0
        for item in items:
            parts = [a[opened.bounds[n][item] : opened.bounds[n][item + 1]] for n, a in arrays.items()]
            found += crc(parts) != opened.sums[item]
        return found

    # A CRC releases the interpreter's lock, so threads are enough.
    with ThreadPoolExecutor() as pool:
        return sum(pool.map(count, np.array_split(np.arange(len(opened.keys)), 8 * (os.cpu_count() or 1))))


def crc(parts: Sequence[np.ndarray]) -> int:
    """CRC-32 of arrays, one after the other."""
    value = 0
    for part in parts:
        value = zlib.crc32(part.reshape(-1).view(np.uint8).data, value)
    return value


def hash_tables(tables: Mapping[str, np.ndarray], *more: str) -> str:
    """SHA-256 of named arrays, and of further texts."""
    digest = hashlib.sha256()
    for name, table in tables.items():
        digest.update(f"{name} {table.dtype} {table.shape}\n".encode())
        digest.update(np.ascontiguousarray(table).view(np.uint8).reshape(-1).data)
    for text in more:
        digest.update(text.encode())
    return digest.hexdigest()


def _damaged(path: Path | str, kind: str, why: str) -> UserError:
    return damaged_output(f"or not a file of {kind} features: {why}", path)
