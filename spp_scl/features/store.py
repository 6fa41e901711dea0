"""The HDF5 files of features: float16, ids in row order, and attributes that say who wrote them.

Shapes: N rows, M different pictures, W words in all, L = 4 layers, D the text encoder's width.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

from spp_scl.errors import UserError, first_line, is_disk_full
from spp_scl.features.encoder import EncoderInfo
from spp_scl.files import replacing, require_space

_FORMAT = 1


@dataclass(frozen=True)
class ImageFeatures:
    """Feature maps: equal pictures share one, blank ones have none.

    Args:
        ids: N ids.
        index: (N,) which map is a row's; -1: a blank picture, all zeros.
        maps: (M, 49, 2048) float16, the 7 x 7 positions row by row.
        encoder: who wrote them.
    """

    ids: list[str]
    index: torch.Tensor
    maps: torch.Tensor
    encoder: EncoderInfo


@dataclass(frozen=True)
class TextFeatures:
    """Hidden states of the last four layers, real words only.

    Args:
        ids: N ids.
        offsets: (N + 1,); row i's words are `words[offsets[i]:offsets[i + 1]]`.
        words: (W, L, D) float16.
        cls: (N, L, D) float16, the [CLS] vectors.
        encoder: who wrote them.
    """

    ids: list[str]
    offsets: torch.Tensor
    words: torch.Tensor
    cls: torch.Tensor
    encoder: EncoderInfo


@contextmanager
def writing_images(
    path: Path | str, ids: Sequence[str], index: np.ndarray, maps: int, encoder: EncoderInfo
) -> Iterator[h5py.Dataset]:
    """Yield the dataset (maps, 49, 2048) to fill; the file takes its place when the block succeeds."""
    shape = (maps, 49, 2048)
    with _writing(path, "image", ids, encoder, shape) as file:
        file.create_dataset("index", data=index.astype(np.int64))
        yield file.create_dataset("maps", shape, np.float16)


@contextmanager
def writing_texts(
    path: Path | str, ids: Sequence[str], lengths: np.ndarray, width: int, encoder: EncoderInfo
) -> Iterator[tuple[h5py.Dataset, h5py.Dataset, np.ndarray]]:
    """Yield the datasets of words and of [CLS] vectors to fill, and the offsets."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    words, cls = (int(offsets[-1]), 4, width), (len(ids), 4, width)
    with _writing(path, "text", ids, encoder, words, cls) as file:
        file.create_dataset("offsets", data=offsets)
        yield (
            file.create_dataset("words", words, np.float16),
            file.create_dataset("cls", cls, np.float16),
            offsets,
        )


def read_images(path: Path | str) -> ImageFeatures:
    """Read an image feature file into memory.

    Raises:
        UserError: it is missing, corrupt or of another kind.
    """
    ids, encoder, arrays = _read(path, "image", ("index", "maps"))
    index, maps = arrays
    if len(index) != len(ids) or maps.shape[1:] != (49, 2048) or (index >= len(maps)).any():
        raise _damaged(path, "image", "its parts do not fit together")
    return ImageFeatures(ids, index, maps, encoder)


def read_texts(path: Path | str) -> TextFeatures:
    """Read a text feature file into memory.

    Raises:
        UserError: it is missing, corrupt or of another kind.
    """
    ids, encoder, arrays = _read(path, "text", ("offsets", "words", "cls"))
    offsets, words, cls = arrays
    if (
        len(offsets) != len(ids) + 1
        or len(cls) != len(ids)
        or cls.shape[1:] != words.shape[1:]
        or offsets[-1] != len(words)
        or (offsets.diff() < 0).any()
    ):
        raise _damaged(path, "text", "its parts do not fit together")
    return TextFeatures(ids, offsets, words, cls, encoder)


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
    path: Path | str, kind: str, ids: Sequence[str], encoder: EncoderInfo, *shapes: tuple[int, ...]
) -> Iterator[h5py.File]:
    require_space(path, sum(2 * int(np.prod(shape, dtype=np.int64)) for shape in shapes))
    with replacing(path) as aside:
        try:
            with h5py.File(aside, "w") as file:
                file.attrs["format"] = _FORMAT
                file.attrs["kind"] = kind
                file.attrs["encoder"] = encoder.to_json()
                file.attrs["fingerprint"] = encoder.fingerprint
                # Strings of one length: HDF5 keeps others in a heap, slower and in no fixed order.
                encoded = np.array([row_id.encode() for row_id in ids])
                file.create_dataset("ids", data=encoded)
                yield file
        except (OSError, RuntimeError) as error:
            # HDF5 reports a full disk in words of its own, sometimes only on closing.
            if is_disk_full(error):
                raise UserError(
                    f"no space left on the device while writing {path}; the earlier outputs are as they "
                    "were. Free some space and run again."
                ) from None
            raise


def _read(
    path: Path | str, kind: str, names: Sequence[str]
) -> tuple[list[str], EncoderInfo, list[torch.Tensor]]:
    if not Path(path).exists():
        raise UserError(f"{path}: no such file; make it with `dvc repro {kind}_features`")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs["kind"] != kind or file.attrs["format"] != _FORMAT:
                raise _damaged(path, kind, "it is of another kind or format")
            encoder = EncoderInfo(**json.loads(file.attrs["encoder"]))
            if encoder.fingerprint != file.attrs["fingerprint"]:
                raise _damaged(path, kind, "its attributes do not agree")
            ids = [row_id.decode() for row_id in file["ids"][:]]
            return ids, encoder, [torch.from_numpy(file[name][...]) for name in names]
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise _damaged(path, kind, first_line(error)) from None


def _damaged(path: Path | str, kind: str, why: str) -> UserError:
    return UserError(
        f"{path}: damaged, or not a file of {kind} features ({why}); "
        f"rebuild it with `dvc repro {kind}_features --force`"
    )
