"""The HDF5 files of features: float16, ids in row order, and attributes that say who wrote them.

A file is read through a memory map, so that it may be larger than the memory. Each item carries the hash of
what was encoded, by which a later run takes it over, and a CRC-32 of its features, by which damage is found.

Shapes: N rows, M different pictures, W words in all, L = 4 layers, D the text encoder's width.
"""

import hashlib
import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

from spp_scl.errors import UserError, first_line, is_disk_full
from spp_scl.features.encoder import EncoderInfo
from spp_scl.files import look_again, require_space, unfinished

_FORMAT = 2

# Seconds after which what was computed is surely in the file: what a killed run may lose.
_FLUSH_EVERY = 10


@dataclass(frozen=True)
class ImageFeatures:
    """Feature maps: equal pictures share one, blank ones have none.

    Args:
        ids: N ids.
        index: (N,) which map is a row's; -1: a blank picture, all zeros.
        maps: (M, 49, 2048) float16, the 7 x 7 positions row by row.
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
    """Hidden states of the last four layers, real words only.

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


class _File:
    """An open feature file as a list of items (maps, or texts), each with its key, its arrays and its CRC.

    Item i of the array `name` is `array[bounds[name][i]:bounds[name][i + 1]]`.
    """

    def __init__(self, file: h5py.File, kind: str, descriptor: int | None = None):
        self.file = file
        self.encoder = str(file.attrs["encoder"])
        self.keys = file["keys"][:]
        self.sums = file["sums"][:]
        self.arrays = {name: file[name] for name in _ARRAYS[kind]}
        one_each = np.arange(len(self.keys) + 1)
        self.bounds = {name: file["offsets"][:] if name == "words" else one_each for name in self.arrays}
        self.offsets = {name: array.id.get_offset() for name, array in self.arrays.items()}
        self.descriptor = descriptor

    def read(self, item: int) -> list[np.ndarray]:
        return [a[self.bounds[n][item] : self.bounds[n][item + 1]] for n, a in self.arrays.items()]

    def write(self, item: int, parts: Sequence[np.ndarray]) -> None:
        parts = [np.ascontiguousarray(part, np.float16) for part in parts]
        for (name, array), part in zip(self.arrays.items(), parts, strict=True):
            start, end = self.bounds[name][item], self.bounds[name][item + 1]
            if part.shape != (end - start, *array.shape[1:]):
                raise ValueError(f"{name}: {part.shape} does not fit item {item}")
            # Past HDF5, whose call takes longer than the copying, and holds the interpreter's lock.
            if part.size:
                _write_at(self.descriptor, part, self.offsets[name] + start * (array.nbytes // len(array)))
        self.sums[item] = _crc(parts)


_ARRAYS = {"image": ("maps",), "text": ("cls", "words")}


class FeatureWriter:
    """Fills a feature file item by item; an item is a map, or a text's [CLS] and words."""

    def __init__(self, file: _File):
        self._file = file
        self._flushed = time.monotonic()
        self.missing = list(range(len(file.keys)))

    def write(self, item: int, *parts: np.ndarray) -> None:
        """Write a map (49, 2048), or a text's [CLS] (L, D) and words (T, L, D); float16."""
        first = [parts[0][None], *parts[1:]]
        self._file.write(item, first)
        if time.monotonic() - self._flushed > _FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Hand everything written so far to the operating system, where no kill can reach it."""
        self._file.file["sums"][...] = self._file.sums
        self._file.file.flush()
        self._flushed = time.monotonic()

    def take_over(self, path: Path, kind: str) -> None:
        """Copy the items that another file of the same encoder holds undamaged."""
        try:
            with h5py.File(path, "r") as opened:
                other = _File(opened, kind)
                if opened.attrs["format"] != _FORMAT or other.encoder != self._file.encoder:
                    return
                where = {key.tobytes(): item for item, key in enumerate(other.keys)}
                missing = []
                for item in self.missing:
                    source = where.get(self._file.keys[item].tobytes())
                    parts = None if source is None else other.read(source)
                    if parts is None or _crc(parts) != other.sums[source]:
                        missing.append(item)
                    else:
                        self._file.write(item, parts)
                self.missing = missing
        except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
            if is_disk_full(error):
                raise
            # Missing, damaged, or of an earlier format: then there is nothing to take over.


@contextmanager
def writing_images(
    path: Path | str, ids: Sequence[str], index: np.ndarray, keys: np.ndarray, encoder: EncoderInfo
) -> Iterator[FeatureWriter]:
    """Yield a writer of maps; its `missing` are those that neither the last file nor a killed run has.

    Args:
        path: the file, replaced when the block succeeds. When it does not, what was computed stays beside it
            for the next run.
        ids: N ids.
        index: (N,) which map is a row's, or -1.
        keys: (M, 32) uint8, a hash of each picture.
        encoder: who writes.
    """
    arrays = {"maps": (len(keys), 49, 2048)}
    with _writing(path, "image", ids, {"index": index.astype(np.int64)}, keys, arrays, encoder) as writer:
        yield writer


@contextmanager
def writing_texts(
    path: Path | str,
    ids: Sequence[str],
    lengths: np.ndarray,
    width: int,
    keys: np.ndarray,
    encoder: EncoderInfo,
) -> Iterator[FeatureWriter]:
    """Yield a writer of texts; see `writing_images`.

    Args:
        path: the file.
        ids: N ids.
        lengths: (N,) words of each text.
        width: D.
        keys: (N, 32) uint8, a hash of each text.
        encoder: who writes.
    """
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    arrays = {"cls": (len(ids), 4, width), "words": (int(offsets[-1]), 4, width)}
    with _writing(path, "text", ids, {"offsets": offsets}, keys, arrays, encoder) as writer:
        yield writer


def read_images(path: Path | str) -> ImageFeatures:
    """Map an image feature file into memory, and check all of it.

    Raises:
        UserError: it is missing, damaged or of another kind.
    """
    ids, encoder, tables, (maps,), digest = _read(path, "image")
    index = tables["index"]
    if len(index) != len(ids) or maps.shape[1:] != (49, 2048) or (index >= len(maps)).any():
        raise _damaged(path, "image", "its parts do not fit together")
    return ImageFeatures(ids, index, maps, encoder, digest)


def read_texts(path: Path | str) -> TextFeatures:
    """Map a text feature file into memory, and check all of it.

    Raises:
        UserError: it is missing, damaged or of another kind.
    """
    ids, encoder, tables, (cls, words), digest = _read(path, "text")
    offsets = tables["offsets"]
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


@contextmanager
def _writing(
    path: Path | str,
    kind: str,
    ids: Sequence[str],
    tables: Mapping[str, np.ndarray],
    keys: np.ndarray,
    arrays: Mapping[str, tuple[int, ...]],
    encoder: EncoderInfo,
) -> Iterator[FeatureWriter]:
    path = Path(path)
    require_space(path, sum(2 * int(np.prod(shape, dtype=np.int64)) for shape in arrays.values()))
    # Strings of one length: HDF5 keeps others in a heap, slower and in no fixed order.
    tables = {"ids": np.array([row_id.encode() for row_id in ids]), **tables, "keys": keys}
    with unfinished(path) as (aside, killed), ExitStack() as opened:
        try:
            # On the borders of pages, for the memory map.
            with h5py.File(aside, "w", alignment_threshold=2**16, alignment_interval=4096) as file:
                file.attrs["format"] = _FORMAT
                file.attrs["kind"] = kind
                file.attrs["encoder"] = encoder.to_json()
                file.attrs["fingerprint"] = encoder.fingerprint
                file.attrs["tables"] = _hash(tables)
                for name, table in tables.items():
                    file.create_dataset(name, data=table)
                file.create_dataset("sums", data=np.zeros(len(keys), np.uint32))
                for name, shape in arrays.items():
                    _create(file, name, shape)
                _reserve(file, aside)
                descriptor = opened.enter_context(aside.open("r+b", buffering=0)).fileno()
                writer = FeatureWriter(_File(file, kind, descriptor))
                for source in (killed, path):
                    if source.exists():
                        writer.take_over(source, kind)
                writer.flush()
                killed.unlink(missing_ok=True)
                try:
                    yield writer
                finally:
                    # An interrupted run too leaves what it has for the next one.
                    writer.flush()
        except (OSError, RuntimeError) as error:
            # HDF5 reports a full disk in words of its own, sometimes only on closing.
            if is_disk_full(error):
                raise UserError(
                    f"no space left on the device while writing {path}; the earlier outputs are as they "
                    "were. Free some space and run again."
                ) from None
            raise


def _create(file: h5py.File, name: str, shape: tuple[int, ...]) -> None:
    # Space from the start: a killed run's file is then whole but for the features that it lacks.
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)  # equal features are equal files
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F16LE, space, dcpl=properties)


def _reserve(file: h5py.File, path: Path) -> None:
    # So that a disk that others fill meanwhile cannot stop the writing; HDF5 may crash when it cannot write.
    file.flush()
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, os.fstat(opened.fileno()).st_size)


def _read(
    path: Path | str, kind: str
) -> tuple[list[str], EncoderInfo, dict[str, torch.Tensor], list[torch.Tensor], str]:
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file; make it with `dvc repro {kind}_features`")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs["kind"] != kind or file.attrs["format"] != _FORMAT:
                raise _damaged(path, kind, "it is of another kind or format")
            encoder = EncoderInfo(**json.loads(file.attrs["encoder"]))
            other = "index" if kind == "image" else "offsets"
            tables = {name: file[name][...] for name in ("ids", other, "keys")}
            if encoder.fingerprint != file.attrs["fingerprint"] or _hash(tables) != file.attrs["tables"]:
                raise _damaged(path, kind, "its attributes and tables do not agree")
            opened = _File(file, kind)
            arrays = {name: _map(path, dataset) for name, dataset in opened.arrays.items()}
            bad = _damaged_items(arrays, opened)
            if bad:
                raise _damaged(path, kind, f"{len(bad)} of {len(opened.keys)} items differ from their CRC")
            ids = [row_id.decode() for row_id in tables["ids"]]
            return (
                ids,
                encoder,
                {other: torch.from_numpy(tables[other])},
                [torch.from_numpy(array) for array in arrays.values()],
                _hash({**tables, "sums": opened.sums, "encoder": np.array([encoder.to_json().encode()])}),
            )
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise _damaged(path, kind, first_line(error)) from None


def _map(path: Path, dataset: h5py.Dataset) -> np.ndarray:
    if not dataset.size:
        return np.zeros(dataset.shape, np.float16)
    offset = dataset.id.get_offset()
    if dataset.dtype != np.float16 or offset is None:
        raise ValueError(f"{dataset.name} is not a plain float16 array")
    # Copy on write: torch wants an array that it could write to.
    return np.memmap(path, np.float16, "c", offset, dataset.shape)


def _damaged_items(arrays: Mapping[str, np.ndarray], opened: _File) -> list[int]:
    def bad(items: np.ndarray) -> list[int]:
        found = []
        for item in items:
            parts = [a[opened.bounds[n][item] : opened.bounds[n][item + 1]] for n, a in arrays.items()]
            if _crc(parts) != opened.sums[item]:
                found.append(int(item))
        return found

    # A CRC releases the interpreter's lock, so threads are enough.
    with ThreadPoolExecutor() as pool:
        shares = np.array_split(np.arange(len(opened.keys)), 8 * (os.cpu_count() or 1))
        return [item for found in pool.map(bad, shares) for item in found]


def _write_at(descriptor: int, part: np.ndarray, offset: int) -> None:
    rest = memoryview(part.reshape(-1).view(np.uint8))
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written


def _crc(parts: Sequence[np.ndarray]) -> int:
    crc = 0
    for part in parts:
        crc = zlib.crc32(part.reshape(-1).view(np.uint8), crc)
    return crc


def _hash(tables: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, table in tables.items():
        digest.update(f"{name} {table.dtype} {table.shape}\n".encode())
        digest.update(np.ascontiguousarray(table).view(np.uint8).reshape(-1))
    return digest.hexdigest()


def _damaged(path: Path, kind: str, why: str) -> UserError:
    look_again(path)
    return UserError(
        f"{path}: damaged, or not a file of {kind} features ({why}); `dvc repro` rebuilds it "
        f"(by itself: `dvc repro {kind}_features`)"
    )
