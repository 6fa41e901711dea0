"""The pictures of a table through an image encoder: one map of features a picture.

Shapes: H x W of a prepared picture, P positions, C channels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL
import torch

import spp_scl.encoders.torchvision_ops  # noqa: F401  (before torchvision)

# isort: split
import torchvision

from spp_scl.clean.pictures import hash_picture, reopen_picture
from spp_scl.encoders.encode import encode
from spp_scl.encoders.image import ImageEncoder, load_image_encoder
from spp_scl.encoders.weights import describe_source
from spp_scl.encoders.writing import image_layout, pixels_layout
from spp_scl.errors import UserError
from spp_scl.features.device import choose_device, choose_precision, describe_hardware
from spp_scl.features.encoder import EncoderInfo, hash_code, hash_weights
from spp_scl.options import Content

# Pictures a core computes at once: the activations of 32 do not fit into its cache, and moving them took two
# thirds of the time.
AT_ONCE = 8
# The code that decides prepared pictures, and features beside the encoder's own.
_PIXELS = ("clean/pictures.py", "encoders/image.py", "encoders/pictures.py")
_FEATURES = ("encoders/encode.py", "features/device.py")


class PictureBatches(ABC):
    """Pictures in batches, through an image encoder."""

    name = "pictures"

    def __init__(self, encoder: ImageEncoder, device: torch.device, batch_size: int):
        self.encoder, self.device, self.batch_size = encoder, device, batch_size

    @abstractmethod
    def prepare_one(self, item: int) -> torch.Tensor:
        """A picture as the encoder gets it, (3, H, W) uint8."""

    def batches(self, items: Sequence[int]) -> Iterator[list[int]]:
        for start in range(0, len(items), self.batch_size):
            yield list(items[start : start + self.batch_size])

    def prepare(self, batch: Sequence[int]) -> tuple[torch.Tensor, ...]:
        # Channels last, as pictures come and as the network wants them.
        pixels = torch.zeros(self.batch_size, *self.encoder.side, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        for i, item in enumerate(batch):
            pixels[i] = self.prepare_one(item)
        return (pixels,)

    def forward(self, *prepared: torch.Tensor) -> torch.Tensor:
        parts = prepared[0].split(AT_ONCE if self.device.type == "cpu" else self.batch_size)
        return torch.cat([self.encoder(part) for part in parts])


class Pictures(PictureBatches):
    """The different pictures of a clean table."""

    def __init__(
        self, table: pd.DataFrame, folder: Path, encoder: ImageEncoder, device: torch.device, batch_size: int
    ):
        super().__init__(encoder, device, batch_size)
        # Rows with equal pictures share one map; -1 is what factorize gives a missing one.
        self.index, self.hashes = pd.factorize(table["picture"])
        first = pd.Series(range(len(table))).groupby(self.index).first().drop(-1, errors="ignore")
        self.paths = [folder / image for image in table["image"].iloc[first]]
        self.keys = np.frombuffer(b"".join(map(bytes.fromhex, self.hashes)), np.uint8).reshape(-1, 32)
        self.ids = table["id"].tolist()
        self.layout = image_layout(self.ids, self.index, self.keys, encoder.positions, encoder.channels)

    def prepare_one(self, item: int) -> torch.Tensor:
        """See `PictureBatches`."""
        return prepare_picture(self.paths[item], self.hashes[item], self.encoder)

    def parts(self, item: int, features: np.ndarray) -> tuple[np.ndarray, ...]:
        return (features,)


class _PreparedPictures(Pictures):
    """The same, prepared and no more."""

    def __init__(self, *of: Any):
        super().__init__(*of)
        self.layout = pixels_layout(self.ids, self.index, self.keys, self.encoder.side)

    def forward(self, *prepared: torch.Tensor) -> torch.Tensor:
        return prepared[0]


def encode_images(
    table: pd.DataFrame,
    folder: Path,
    path: Path | str,
    *,
    weights: str,
    seed: int,
    batch_size: int,
    precision: str,
    content: Content = "features",
    pictures: Callable[..., Pictures] = Pictures,
) -> None:
    """Encode the pictures of a clean table, each different one once, into an HDF5 file.

    Pictures that the last file or a killed run has, from the same encoder, are copied.

    Args:
        table: a clean table.
        folder: the raw folder that its `image` column is relative to.
        path: the file to write.
        weights: see `load_image_encoder`.
        seed: draws untrained weights.
        batch_size: pictures a batch; every batch is filled up to it, so that a picture's features do
            not depend on how many others there are.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        content: `features`, or `inputs`: the prepared pictures, for training with the encoder in the loop.
        pictures: puts together what is encoded as features.

    Raises:
        UserError: the encoder cannot be had, a picture has gone, the disk is full.
    """
    device = choose_device()
    if content == "features":
        precision = choose_precision(device, precision, "image_features.precision")
    encoder = load_image_encoder(weights, seed)
    inputs = content == "inputs"
    info = EncoderInfo(
        architecture=encoder.name,
        weights=describe_source(weights, seed, "torchvision IMAGENET1K_V1"),
        sha256=hash_weights(encoder.state_dict()),
        preparation=encoder.preparation,
        # What is only prepared is the same on any processor.
        precision="prepared" if inputs else precision,
        software=(
            f"torch {torch.__version__}, torchvision {torchvision.__version__}, Pillow {PIL.__version__}"
            f"{encoder.software}"
        ),
        hardware="any" if inputs else describe_hardware(device),
        batch_size=0 if inputs else batch_size,
        code=hash_code(*_PIXELS, *encoder.code) if inputs else hash_code(*_PIXELS, *_FEATURES, *encoder.code),
    )
    if inputs:
        encode(_PreparedPictures(table, folder, encoder, torch.device("cpu"), batch_size), path, info)
        return
    encoder.optimize(device, precision)
    encode(pictures(table, folder, encoder, device, batch_size), path, info)


def prepare_picture(path: Path, known: str, encoder: ImageEncoder) -> torch.Tensor:
    """Decode, resize and crop a picture to (3, H, W) uint8.

    Raises:
        UserError: it is missing, cannot be decoded, or is not the one whose hash is `known`.
    """
    picture = reopen_picture(path)
    if hash_picture(picture) != known:
        raise UserError(f"{path}: not the picture that it was when the data was cleaned; run `dvc repro`")
    return encoder.prepare(picture)
