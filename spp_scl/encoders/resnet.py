"""ResNet-50 and ResNet-101 up to `layer4`: one 7 x 7 x 2048 map a picture."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

import spp_scl.encoders.torchvision_ops  # noqa: F401  (before torchvision)

# isort: split
from torchvision.models import ResNet, ResNet50_Weights, ResNet101_Weights, resnet50, resnet101
from torchvision.transforms import CenterCrop, Compose, Resize

from spp_scl.encoders.fused import fuse
from spp_scl.encoders.image import ImageEncoder
from spp_scl.encoders.state_dict import read_state_dict, require_fit
from spp_scl.errors import UserError
from spp_scl.features.device import DTYPES

_PUBLISHED = {"pretrained": 50, "resnet50": 50, "resnet101": 101}

# The preparation of torchvision's IMAGENET1K_V1 weights.
_SIDE = 224
_prepare = Compose([Resize(256), CenterCrop(_SIDE)])
_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
_STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


class ResNetEncoder(ImageEncoder):
    """A ResNet without its pooling and its classifier."""

    net: ResNet
    side = (_SIDE, _SIDE)
    positions = (_SIDE // 32) ** 2
    preparation = "RGB, shorter side 256 (bilinear), center crop 224, ImageNet mean and std"
    software = ""
    code = ("encoders/fused.py", "encoders/resnet.py")

    def __init__(self, depth: int, seed: int):
        """Draw one from a seed; `depth` is 50 or 101."""
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = {50: resnet50, 101: resnet101}[depth](weights=None)
        self.depth, self.name = depth, f"resnet{depth} layer4"
        self.channels = self.net.fc.in_features
        # An identity instead of a cut keeps torchvision's names, which every published file has.
        self.net.avgpool = torch.nn.Identity()  # type: ignore[assignment]
        self.net.fc = torch.nn.Identity()  # type: ignore[assignment]
        self.net.to(memory_format=torch.channels_last)

    def prepare(self, picture: PIL.Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(_prepare(picture))).permute(2, 0, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        net = self.net
        mean, std = _MEAN.to(pixels.device), _STD.to(pixels.device)
        x = ((pixels.float() / 255 - mean) / std).to(next(net.parameters()).dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        x = net.layer4(net.layer3(net.layer2(net.layer1(x))))
        return x.flatten(2).transpose(1, 2)

    def optimize(self, device: torch.device, precision: str) -> None:
        """Move to the device and make it fast, for encoding alone: see `fused`."""
        fuse(self.net, DTYPES[precision], device)
        self.to(device)

    def describe(self) -> dict[str, Any]:
        return {"family": "resnet", "depth": self.depth}

    def load(self, state: dict[str, torch.Tensor], problem: str) -> None:
        """Take weights, with or without those of a classifier.

        Raises:
            UserError: they are not of this network; the message begins with `problem`.
        """
        state = {name: t for name, t in state.items() if not name.startswith("fc.")}
        own = self.net.state_dict()
        # Counters that evaluation never reads, and that files older than they are, as torchvision's, lack.
        require_fit(
            missing=[n for n in own.keys() - state.keys() if not n.endswith("num_batches_tracked")],
            unknown=list(state.keys() - own.keys()),
            misshapen=[n for n in own.keys() & state.keys() if own[n].shape != state[n].shape],
            problem=problem,
        )
        self.net.load_state_dict({**own, **state})


def load(source: str, weights: str, seed: int) -> ResNetEncoder:
    """A network by its name, or of a state dict.

    Raises:
        UserError: see `image.load_image_encoder`.
    """
    if source == "untrained":
        return ResNetEncoder(50, seed)
    if depth := _PUBLISHED.get(source):
        encoder = ResNetEncoder(depth, seed)
        encoder.load(_published(depth), f"torchvision's weights are not those of a ResNet-{depth}")
        return encoder
    state = read_state_dict(Path(source), f"image_features.weights: {source}")
    depth = 101 if any(name.startswith("layer3.6.") for name in state) else 50
    encoder = ResNetEncoder(depth, seed)
    encoder.load(state, f"image_features.weights: {source} is not a ResNet-{depth} state dict")
    return encoder


def rebuild(description: dict[str, Any]) -> ResNetEncoder:
    """See `image.rebuild_image_encoder`."""
    return ResNetEncoder(int(description["depth"]), 0)


def _published(depth: int) -> dict[str, torch.Tensor]:
    weights = {50: ResNet50_Weights, 101: ResNet101_Weights}[depth].IMAGENET1K_V1
    try:
        return weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"torchvision's ResNet-{depth} weights IMAGENET1K_V1 cannot be downloaded from {weights.url} "
            f"({error}). Either give a local file (-S image_features.weights=/path/to/resnet{depth}.pth) "
            "or go without (-S image_features.weights=untrained)"
        ) from None
