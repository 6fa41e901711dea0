"""Writing a file of features (`store`) item by item; what an earlier run has encoded is copied.

Shapes: as in `store`.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from spp_scl.errors import UserError, is_disk_full
from spp_scl.features.encoder import EncoderInfo
from spp_scl.features.store import ARRAYS, FORMAT, FeatureFile, crc, hash_tables
from spp_scl.files import require_space
from spp_scl.options import Content
from spp_scl.previous import previous_output

# Seconds between two flushes: a killed run loses what it has computed since the last one.
_FLUSH_EVERY = 10


@dataclass(frozen=True)
class Layout:
    """What a file is made for; an item is a picture's map or pixels, a text's vectors or tokens.

    Args:
        kind: `image` or `text`.
        ids: N ids.
        tables: what belongs to no item alone: `index` or `offsets`, and more.
        keys: (items, 32) uint8, a SHA-256 of what the encoder gets for each item.
        blank: (items,) whether an item is all zeros, or empty, without being encoded.
        arrays: names and shapes of what is written item by item.
        content: what that is.
        attributes: what else a reader must know.
    """

    kind: str
    ids: Sequence[str]
    tables: Mapping[str, np.ndarray]
    keys: np.ndarray
    blank: np.ndarray
    arrays: Mapping[str, tuple[int, ...]]
    content: Content = "features"
    attributes: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all arrays and tables."""
        dtypes = ARRAYS[self.kind, self.content]
        arrays = sum(dtypes[n].itemsize * int(np.prod(s, dtype=np.int64)) for n, s in self.arrays.items())
        return arrays + sum(table.nbytes for table in self.tables.values())


def image_layout(
    ids: Sequence[str], index: np.ndarray, keys: np.ndarray, positions: int, channels: int
) -> Layout:
    """A file of maps: `index` (N,) says which one is a row's, -1: none."""
    arrays = {"maps": (len(keys), positions, channels)}
    return Layout("image", ids, {"index": index.astype(np.int64)}, keys, np.zeros(len(keys), bool), arrays)


def pixels_layout(ids: Sequence[str], index: np.ndarray, keys: np.ndarray, side: tuple[int, int]) -> Layout:
    """A file of prepared pictures, of height and width `side`."""
    arrays, blank = {"pixels": (len(keys), 3, *side)}, np.zeros(len(keys), bool)
    return Layout("image", ids, {"index": index.astype(np.int64)}, keys, blank, arrays, "inputs")


def text_layout(
    ids: Sequence[str],
    lengths: np.ndarray,
    keys: np.ndarray,
    blank: np.ndarray,
    states: tuple[int, int],
    pieces: np.ndarray,
    vocabulary: np.ndarray,
) -> Layout:
    """A file of texts with `lengths` (N,) words; `states` are layers and width; tables as in `store`."""
    arrays = {"cls": (len(ids), *states), "words": (int(lengths.sum()), *states)}
    tables = {"offsets": _offsets(lengths), "pieces": pieces, "vocabulary": vocabulary}
    return Layout("text", ids, tables, keys, blank, arrays)


def tokens_layout(
    ids: Sequence[str],
    lengths: np.ndarray,
    keys: np.ndarray,
    blank: np.ndarray,
    attributes: Mapping[str, str | int],
) -> Layout:
    """A file of texts with `lengths` (N,) tokens, special ones included."""
    arrays = {"tokens": (int(lengths.sum()),)}
    return Layout("text", ids, {"offsets": _offsets(lengths)}, keys, blank, arrays, "inputs", attributes)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


class FeatureWriter:
    """Fills a feature file; `missing` are the items that have to be encoded."""

    def __init__(self, file: FeatureFile):
        """Write to `file`, in which every item is missing."""
        self._file = file
        self._flushed = time.monotonic()
        self.missing = list(range(len(file.keys)))

    def write(self, item: int, *parts: np.ndarray) -> None:
        """Write a map, pixels, a text's summary (L, D) and words (T, L, D), or its tokens (T,)."""
        one_each = self._file.one_each
        self._write(
            item,
            [part[None] if n in one_each else part for n, part in zip(self._file.arrays, parts, strict=True)],
        )
        if time.monotonic() - self._flushed > _FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Hand all of it to the operating system: from then on a kill does not lose it."""
        self._file.file["sums"][...] = self._file.sums
        self._file.file.flush()
        self._flushed = time.monotonic()

    def fill_zeros(self, blank: np.ndarray) -> None:
        """Write the blank items."""
        for item in np.flatnonzero(blank).tolist():
            self._write(item, [np.zeros_like(part) for part in self._file.read(item)])
        self.missing = [item for item in self.missing if not blank[item]]

    def copy_known(self, path: Path) -> None:
        """Copy the missing items that another file has, undamaged and of the same encoder."""
        try:
            with h5py.File(path, "r") as opened:
                other = FeatureFile(opened, self._file.kind)
                same = other.encoder == self._file.encoder and other.content == self._file.content
                if opened.attrs["format"] != FORMAT or not same:
                    return
                # Equal texts have equal keys, and a killed run may have encoded only one of them.
                known = {key.tobytes(): item for item, key in enumerate(other.keys) if other.sums[item]}
                missing = []
                for item in self.missing:
                    source = known.get(self._file.keys[item].tobytes())
                    parts = None if source is None else other.read(source)
                    if parts is None or crc(parts) != other.sums[source]:
                        missing.append(item)
                    else:
                        self._write(item, parts)
                self.missing = missing
        except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
            if is_disk_full(error):
                raise
            # Damaged or of an earlier format: then there is nothing to copy.

    def _write(self, item: int, parts: Sequence[np.ndarray]) -> None:
        arrays = self._file.arrays
        parts = [np.ascontiguousarray(p, a.dtype) for p, a in zip(parts, arrays.values(), strict=True)]
        for (name, array), part in zip(arrays.items(), parts, strict=True):
            start, end = self._file.bounds[name][item], self._file.bounds[name][item + 1]
            if part.shape != (end - start, *array.shape[1:]):
                raise ValueError(f"{name}: {part.shape} does not fit item {item}")
            array[start:end] = part
        self._file.sums[item] = crc(parts)


@contextmanager
def writing(path: Path | str, layout: Layout, encoder: EncoderInfo) -> Iterator[FeatureWriter]:
    """Yield a writer of `path`, which is replaced when the block succeeds.

    When it does not, what was encoded stays beside it for the next run. Items of the same key and the same
    encoder are copied from there, and from the last output, in its place or in DVC's cache.

    Raises:
        UserError: the disk is full.
    """
    path = Path(path)
    require_space(path, layout.size)
    aside, part = path.with_name(f".{path.name}.tmp"), path.with_name(f".{path.name}.part.tmp")
    if part.exists():
        aside.unlink(missing_ok=True)  # its run ended while it still copied from the part
    elif aside.exists():
        aside.rename(part)
    try:
        # Aligned to pages, for the memory map.
        with h5py.File(aside, "w", alignment_threshold=2**16, alignment_interval=4096) as file:
            _create(file, layout, encoder)
            _reserve(file, aside)
            writer = FeatureWriter(FeatureFile(file, layout.kind))
            writer.fill_zeros(layout.blank)
            for source in (part, path):
                if source.exists():
                    writer.copy_known(source)
            if writer.missing and not path.exists() and (cached := previous_output(path)):
                writer.copy_known(cached)
            writer.flush()
            part.unlink(missing_ok=True)
            try:
                yield writer
            finally:
                writer.flush()
    except (OSError, RuntimeError) as error:
        # HDF5 reports a full disk in words of its own, sometimes only on closing.
        if is_disk_full(error):
            raise UserError(
                f"no space left on the device while writing {path}. Free some space and run again."
            ) from None
        raise
    aside.replace(path)


def _create(file: h5py.File, layout: Layout, encoder: EncoderInfo) -> None:
    # Strings of one length: HDF5 keeps others in a heap, slower and in no fixed order.
    ids = np.array([row_id.encode() for row_id in layout.ids])
    tables = {"ids": ids, **layout.tables, "keys": layout.keys}
    attributes = json.dumps(dict(layout.attributes), sort_keys=True)
    file.attrs["format"] = FORMAT
    file.attrs["kind"] = layout.kind
    file.attrs["content"] = layout.content
    file.attrs["attributes"] = attributes
    file.attrs["encoder"] = encoder.to_json()
    file.attrs["fingerprint"] = encoder.fingerprint
    file.attrs["tables"] = hash_tables(tables, attributes)
    for name, table in tables.items():
        file.create_dataset(name, data=table)
    file.create_dataset("sums", data=np.zeros(len(layout.keys), np.uint32))
    for name, shape in layout.arrays.items():
        # In one piece, as a memory map needs it, and at a place fixed now: else it would depend on what is
        # written first, and so on what is copied.
        early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        dtype = ARRAYS[layout.kind, layout.content][name]
        file.create_dataset(name, shape, dtype, fill_time="never", dcpl=early)


def _reserve(file: h5py.File, path: Path) -> None:
    # All of its room now: HDF5 ends the process by a segmentation fault when the disk fills up later.
    file.flush()
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, os.fstat(opened.fileno()).st_size)
