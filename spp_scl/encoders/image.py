"""Image encoders: from a picture to a vector for each of its regions.

A family is a module of its own, whose library is imported when one of it is opened.

Shapes: B batch, H x W of a prepared picture, P positions, C channels.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import PIL.Image
import torch

from spp_scl.encoders.weights import RESNETS, find_image_weights, read_local_config
from spp_scl.features.device import DTYPES, autocast

# The module of each family.
_FAMILIES = {"resnet": "resnet", "timm": "timm_image", "transformers": "hf_image"}


class ImageEncoder(torch.nn.Module, ABC):
    """From a picture to a vector for each of its regions.

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
    if source in RESNETS or Path(source).is_file():
        family = "resnet"
    else:
        family = "timm" if _is_timm(source) else "transformers"
    encoder: ImageEncoder = _module(family).load(source, weights, seed)
    return encoder.eval().requires_grad_(False)


def rebuild_image_encoder(description: dict[str, Any]) -> ImageEncoder:
    """The encoder that `describe` describes; its weights are to be loaded.

    Raises:
        UserError: the libraries have no such network.
    """
    encoder: ImageEncoder = _module(description["family"]).rebuild(description)
    return encoder.eval().requires_grad_(False)


def _module(family: str) -> Any:
    return importlib.import_module(f"spp_scl.encoders.{_FAMILIES[family]}")


def _is_timm(source: str) -> bool:
    if not Path(source).is_dir():
        return source.startswith(("timm/", "hf-hub:"))
    config = read_local_config(source, "image_features.weights")
    return "architecture" in config and "model_type" not in config
