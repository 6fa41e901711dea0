"""Image encoders, and the pictures of a table through one of them: one map of features a picture.

Shapes: B batch, H x W of a prepared picture, P positions, C channels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL
import PIL.Image
import torch

import spp_scl.encoders.torchvision_ops  # noqa: F401  (before torchvision)

# isort: split
import torchvision

from spp_scl.clean.pictures import hash_picture, reopen_picture
from spp_scl.encoders.encode import encode
from spp_scl.encoders.weights import RESNETS, describe_source, find_image_weights, read_local_config
from spp_scl.encoders.writing import image_layout, pixels_layout
from spp_scl.errors import UserError
from spp_scl.features.device import DTYPES, autocast, choose_device, choose_precision, describe_hardware
from spp_scl.features.encoder import EncoderInfo, hash_code, hash_weights
from spp_scl.options import Content

# Pictures a core computes at once: the activations of 32 do not fit into its cache, and moving them took two
# thirds of the time.
AT_ONCE = 8
# The code that decides prepared pictures, and features beside the encoder's own.
_PIXELS = ("clean/pictures.py", "encoders/image.py")
_FEATURES = ("encoders/encode.py", "features/device.py")


class ImageEncoder(torch.nn.Module, ABC):
    """From a picture to a vector for each of its regions. One family a module of its own.

    Attributes:
        positions: P.
        channels: C.
        side: (H, W).
        name: the network, in words.
        preparation: what is done to a picture, in words.
        software: the libraries of the family, with their versions.
        code: its modules, for `hash_code`.
        net: the network, all weights and nothing else.
    """

    positions: int
    channels: int
    side: tuple[int, int]
    name: str
    preparation: str
    software: str
    code: tuple[str, ...]
    net: torch.nn.Module
    _arithmetic: Callable[[], AbstractContextManager] = nullcontext

    @abstractmethod
    def prepare(self, picture: PIL.Image.Image) -> torch.Tensor:
        """An RGB picture, resized and cropped to (3, H, W) uint8; what follows is the forward pass's."""

    @abstractmethod
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """From (B, 3, H, W) uint8 to (B, P, C), the positions row by row."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What `rebuild_image_encoder` needs, in JSON."""

    def optimize(self, device: torch.device, precision: str) -> None:
        """Move to the device and make it fast, for encoding alone: it cannot be trained any more."""
        for module in self.net.modules():
            if type(module) in (torch.nn.Linear, torch.nn.Conv2d):  # which autocast computes in `precision`
                module.to(DTYPES[precision])
        self._arithmetic = partial(autocast, device, precision)
        self.to(device)


def load_image_encoder(weights: str, seed: int) -> ImageEncoder:
    """Open an encoder: in evaluation mode, frozen, on the CPU.

    Args:
        weights: `pretrained` or `resnet50`, `resnet101` (torchvision's IMAGENET1K_V1), `untrained` (a
            ResNet-50), a state dict of either (.safetensors, or .pth with nothing but tensors), a local
            directory in timm's or transformers' format, or a hub name (`timm/...`, or of transformers).
        seed: draws untrained weights.

    Raises:
        UserError: the encoder cannot be had, gives no map of a picture, has code of its own, or differs from
            what its files say.
    """
    source = find_image_weights(weights)
    encoder: ImageEncoder
    if source in RESNETS or Path(source).is_file():
        from spp_scl.encoders import resnet

        encoder = resnet.load(source, seed)
    elif _is_timm(source):
        from spp_scl.encoders import timm_image

        encoder = timm_image.load(source, weights)
    else:
        from spp_scl.encoders import hf_image

        encoder = hf_image.load(source, weights)
    return encoder.eval().requires_grad_(False)


def rebuild_image_encoder(description: dict[str, Any]) -> ImageEncoder:
    """The encoder that `describe` describes; its weights are to be loaded.

    Raises:
        UserError: the libraries have no such network.
    """
    from spp_scl.encoders import hf_image, resnet, timm_image

    families: dict[str, Callable[[dict[str, Any]], ImageEncoder]] = {
        "resnet": resnet.rebuild,
        "timm": timm_image.rebuild,
        "transformers": hf_image.rebuild,
    }
    return families[description["family"]](description).eval().requires_grad_(False)


def _is_timm(source: str) -> bool:
    if not Path(source).is_dir():
        return source.startswith(("timm/", "hf-hub:"))
    config = read_local_config(source, "image_features.weights")
    return "architecture" in config and "model_type" not in config


class _Pictures:
    """The different pictures of a clean table."""

    name = "pictures"

    def __init__(
        self, table: pd.DataFrame, folder: Path, encoder: ImageEncoder, device: torch.device, batch_size: int
    ):
        # Rows with equal pictures share one map; -1 is what factorize gives a missing one.
        self.index, self.hashes = pd.factorize(table["picture"])
        first = pd.Series(range(len(table))).groupby(self.index).first().drop(-1, errors="ignore")
        self.paths = [folder / image for image in table["image"].iloc[first]]
        self.keys = np.frombuffer(b"".join(map(bytes.fromhex, self.hashes)), np.uint8).reshape(-1, 32)
        self.ids = table["id"].tolist()
        self.layout = image_layout(self.ids, self.index, self.keys, encoder.positions, encoder.channels)
        self.encoder, self.device, self.batch_size = encoder, device, batch_size

    def batches(self, items: Sequence[int]) -> Iterator[list[int]]:
        for start in range(0, len(items), self.batch_size):
            yield list(items[start : start + self.batch_size])

    def prepare(self, batch: Sequence[int]) -> tuple[torch.Tensor, ...]:
        # Channels last, as pictures come and as the network wants them.
        pixels = torch.zeros(self.batch_size, *self.encoder.side, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        for i, item in enumerate(batch):
            pixels[i] = prepare_picture(self.paths[item], self.hashes[item], self.encoder)
        return (pixels,)

    def forward(self, *prepared: torch.Tensor) -> torch.Tensor:
        parts = prepared[0].split(AT_ONCE if self.device.type == "cpu" else self.batch_size)
        return torch.cat([self.encoder(part).to(torch.float16) for part in parts])

    def parts(self, item: int, features: np.ndarray) -> tuple[np.ndarray, ...]:
        return (features,)


class _PreparedPictures(_Pictures):
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

    Raises:
        UserError: the encoder cannot be had, a picture has gone, the disk is full.
    """
    device = choose_device()
    precision = choose_precision(device, precision)
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
    encode(_Pictures(table, folder, encoder, device, batch_size), path, info)


def prepare_picture(path: Path, known: str, encoder: ImageEncoder) -> torch.Tensor:
    """Decode, resize and crop a picture to (3, H, W) uint8.

    Raises:
        UserError: it is missing, cannot be decoded, or is not the one whose hash is `known`.
    """
    picture = reopen_picture(path)
    if hash_picture(picture) != known:
        raise UserError(f"{path}: not the picture that it was when the data was cleaned; run `dvc repro`")
    return encoder.prepare(picture)
