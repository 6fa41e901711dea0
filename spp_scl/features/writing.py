"""Writing a file of features (`store`): item by item, taking over what an earlier run has encoded.

Shapes: as in `store`.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import h5py
import numpy as np

from spp_scl.errors import UserError, is_disk_full
from spp_scl.features.encoder import EncoderInfo
from spp_scl.features.store import FORMAT, FeatureFile, crc, hash_tables
from spp_scl.files import require_space, unfinished

# Seconds after which what was computed is surely in the file: what a killed run may lose.
_FLUSH_EVERY = 10


class FeatureWriter:
    """Fills a feature file item by item; an item is a map, or a text's [CLS] and words."""

    def __init__(self, file: FeatureFile, descriptor: int):
        """Write to `file`, open for writing as `descriptor` too."""
        self._file = file
        self._descriptor = descriptor
        self._offsets = {name: array.id.get_offset() for name, array in file.arrays.items()}
        self._flushed = time.monotonic()
        self.missing = list(range(len(file.keys)))

    def write(self, item: int, *parts: np.ndarray) -> None:
        """Write a map (49, 2048), or a text's [CLS] (L, D) and words (T, L, D); float16."""
        self._write(item, [parts[0][None], *parts[1:]])
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
                other = FeatureFile(opened, kind)
                if opened.attrs["format"] != FORMAT or other.encoder != self._file.encoder:
                    return
                where = {key.tobytes(): item for item, key in enumerate(other.keys)}
                missing = []
                for item in self.missing:
                    source = where.get(self._file.keys[item].tobytes())
                    parts = None if source is None else other.read(source)
                    if parts is None or crc(parts) != other.sums[source]:
                        missing.append(item)
                    else:
                        self._write(item, parts)
                self.missing = missing
        except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
            if is_disk_full(error):
                raise
            # Missing, damaged, or of an earlier format: then there is nothing to take over.

    def _write(self, item: int, parts: Sequence[np.ndarray]) -> None:
        parts = [np.ascontiguousarray(part, np.float16) for part in parts]
        for (name, array), part in zip(self._file.arrays.items(), parts, strict=True):
            start, end = self._file.bounds[name][item], self._file.bounds[name][item + 1]
            if part.shape != (end - start, *array.shape[1:]):
                raise ValueError(f"{name}: {part.shape} does not fit item {item}")
            # Past HDF5, whose call takes longer than the copying, and holds the interpreter's lock.
            if part.size:
                offset = self._offsets[name] + start * (array.nbytes // len(array))
                _write_at(self._descriptor, part, offset)
        self._file.sums[item] = crc(parts)


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
                file.attrs["format"] = FORMAT
                file.attrs["kind"] = kind
                file.attrs["encoder"] = encoder.to_json()
                file.attrs["fingerprint"] = encoder.fingerprint
                file.attrs["tables"] = hash_tables(tables)
                for name, table in tables.items():
                    file.create_dataset(name, data=table)
                file.create_dataset("sums", data=np.zeros(len(keys), np.uint32))
                for name, shape in arrays.items():
                    _create(file, name, shape)
                _reserve(file, aside)
                descriptor = opened.enter_context(aside.open("r+b", buffering=0)).fileno()
                writer = FeatureWriter(FeatureFile(file, kind), descriptor)
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


def _write_at(descriptor: int, part: np.ndarray, offset: int) -> None:
    rest = memoryview(part.reshape(-1).view(np.uint8))
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written
