"""The HDF5 files of features: float16, ids in row order, and attributes that say who wrote them.

A file is read through a memory map, so that it may be larger than the memory. Each item carries the hash of
what was encoded, by which a later run finds and copies it, and a CRC-32 of its features, which shows damage.

Shapes: N rows, M different pictures, P positions (7 x 7), C channels, W words in all, L layers, D width.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

from spp_scl.errors import UserError, first_line
from spp_scl.features.encoder import EncoderInfo
from spp_scl.previous import damaged_output

FORMAT = 2

_ARRAYS = {"image": ("maps",), "text": ("cls", "words")}


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
class TextFeatures:
    """Hidden states of the last layers, real words only.

    Args:
        ids: N ids.
        offsets: (N + 1,); row i's words are `words[offsets[i]:offsets[i + 1]]`.
        words: (W, L, D) float16.
        cls: (N, L, D) float16, the [CLS] vectors.
        encoder: who wrote them.
        digest: a hash of all this.
    """

    ids: list[str]
    offsets: torch.Tensor
    words: torch.Tensor
    cls: torch.Tensor
    encoder: EncoderInfo
    digest: str


class FeatureFile:
    """An open feature file as a list of items (maps, or texts), each with its key, its arrays and its CRC.

    Item i of the array `name` is `array[bounds[name][i]:bounds[name][i + 1]]`.
    """

    def __init__(self, file: h5py.File, kind: str):
        self.file = file
        self.kind = kind
        self.encoder = str(file.attrs["encoder"])
        self.keys = file["keys"][:]
        self.sums = file["sums"][:]
        self.arrays = {name: file[name] for name in _ARRAYS[kind]}
        one_each = np.arange(len(self.keys) + 1)
        self.bounds = {name: file["offsets"][:] if name == "words" else one_each for name in self.arrays}

    def read(self, item: int) -> list[np.ndarray]:
        """The item's arrays."""
        return [a[self.bounds[n][item] : self.bounds[n][item + 1]] for n, a in self.arrays.items()]


def read_images(path: Path | str) -> ImageFeatures:
    """Map an image feature file into memory, and check all of it.

    Raises:
        UserError: it is missing, damaged or of another kind.
    """
    ids, encoder, index, (maps,), digest = _read(path, "image")
    if len(index) != len(ids) or maps.ndim != 3 or (index >= len(maps)).any():
        raise _damaged(path, "image", "its parts do not fit together")
    return ImageFeatures(ids, index, maps, encoder, digest)


def read_texts(path: Path | str) -> TextFeatures:
    """Map a text feature file into memory, and check all of it.

    Raises:
        UserError: it is missing, damaged or of another kind.
    """
    ids, encoder, offsets, (cls, words), digest = _read(path, "text")
    if (
        len(offsets) != len(ids) + 1
        or len(cls) != len(ids)
        or cls.shape[1:] != words.shape[1:]
        or offsets[-1] != len(words)
        or (offsets.diff() < 0).any()
    ):
        raise _damaged(path, "text", "its parts do not fit together")
    return TextFeatures(ids, offsets, words, cls, encoder, digest)


def require_rows(features: ImageFeatures | TextFeatures, ids: Sequence[str], path: Path | str) -> None:
    """Refuse features that were computed for other rows than the clean table's.

    Raises:
        UserError: the ids differ, in number or in order.
    """
    if features.ids != list(ids):
        kind = "image" if isinstance(features, ImageFeatures) else "text"
        raise UserError(
            f"{path}: the features belong to other rows ({len(features.ids)}) than the clean table "
            f"({len(ids)}); rebuild them with `dvc repro {kind}_features --force`"
        )


def fingerprint(images: ImageFeatures, texts: TextFeatures) -> str:
    """One hash of both encoders, for a model to remember."""
    return hashlib.sha256((images.encoder.fingerprint + texts.encoder.fingerprint).encode()).hexdigest()


def _read(
    path: Path | str, kind: str
) -> tuple[list[str], EncoderInfo, torch.Tensor, list[torch.Tensor], str]:
    """The ids, the encoder, `index` or `offsets`, the mapped features, and a hash of all this."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file; make it with `dvc repro {kind}_features`")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs["kind"] != kind or file.attrs["format"] != FORMAT:
                raise _damaged(path, kind, "it is of another kind or format")
            encoder = EncoderInfo(**json.loads(file.attrs["encoder"]))
            rows = "index" if kind == "image" else "offsets"
            tables = {name: file[name][...] for name in ("ids", rows, "keys")}
            known = (file.attrs["fingerprint"], file.attrs["tables"])
            if known != (encoder.fingerprint, hash_tables(tables)):
                raise _damaged(path, kind, "its attributes and tables do not agree")
            opened = FeatureFile(file, kind)
            arrays = {name: _map(path, dataset) for name, dataset in opened.arrays.items()}
            if bad := _count_damaged(arrays, opened):
                raise _damaged(path, kind, f"{bad} of {len(opened.keys)} items differ from their CRC")
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise _damaged(path, kind, first_line(error)) from None
    ids = [row_id.decode() for row_id in tables["ids"]]
    digest = hash_tables({**tables, "sums": opened.sums, "encoder": np.array([encoder.to_json().encode()])})
    return ids, encoder, torch.from_numpy(tables[rows]), list(map(torch.from_numpy, arrays.values())), digest


def _map(path: Path, dataset: h5py.Dataset) -> np.ndarray:
    if not dataset.size:
        return np.zeros(dataset.shape, np.float16)
    offset = dataset.id.get_offset()
    if dataset.dtype != np.float16 or offset is None:
        raise ValueError(f"{dataset.name} is not a plain float16 array")
    # Copy on write: torch wants an array that it could write to.
    return np.memmap(path, np.float16, "c", offset, dataset.shape)


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


def hash_tables(tables: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of named arrays."""
    digest = hashlib.sha256()
    for name, table in tables.items():
        digest.update(f"{name} {table.dtype} {table.shape}\n".encode())
        digest.update(np.ascontiguousarray(table).view(np.uint8).reshape(-1).data)
    return digest.hexdigest()


def _damaged(path: Path | str, kind: str, why: str) -> UserError:
    return damaged_output(f"or not a file of {kind} features: {why}", path)
