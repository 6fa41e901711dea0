"""Image features: the frozen ResNet-50 up to `layer4`, one 7 x 7 x 2048 map a picture."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import PIL
import torch

import spp_scl.encoders.torchvision_ops  # noqa: F401  (before torchvision)

# isort: split
import torchvision
from torchvision.models import ResNet50_Weights, resnet50
from torchvision.transforms import CenterCrop, Compose, Resize

from spp_scl.clean.pictures import hash_picture, reopen_picture
from spp_scl.encoders.encode import encode
from spp_scl.encoders.fused import fuse
from spp_scl.encoders.state_dict import read_state_dict, require_fit
from spp_scl.encoders.weights import require_image_weights
from spp_scl.encoders.writing import image_layout
from spp_scl.errors import UserError
from spp_scl.features.device import DTYPES, choose_device, choose_precision, describe_hardware
from spp_scl.features.encoder import EncoderInfo, hash_code, hash_weights

# The preparation of torchvision's IMAGENET1K_V1 weights.
_SIDE = 224
_prepare = Compose([Resize(256), CenterCrop(_SIDE)])
_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
_STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)

# Pictures a core computes at once: the activations of 32 do not fit into its cache, and moving them took two
# thirds of the time.
AT_ONCE = 8
# What decides the features, beside the libraries.
_CODE = (
    "clean/pictures.py",
    "encoders/encode.py",
    "encoders/fused.py",
    "encoders/image.py",
    "features/device.py",
)
_PREPARATION = "RGB, shorter side 256 (bilinear), center crop 224, ImageNet mean and std"


class ImageEncoder(torch.nn.Module):
    """ResNet-50 without its pooling and its classifier, in evaluation mode and frozen."""

    positions = (_SIDE // 32) ** 2

    def __init__(self, weights: str, seed: int):
        """Build it.

        Args:
            weights: `pretrained` (torchvision's IMAGENET1K_V1), `untrained`, or a local state dict
                (.safetensors, or .pth with nothing but tensors).
            seed: draws untrained weights.

        Raises:
            UserError: the weights cannot be had or do not fit.
        """
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = resnet50(weights=None)
        self.channels = self.net.fc.in_features
        # An identity instead of a cut keeps torchvision's names, which every published file has.
        self.net.avgpool = torch.nn.Identity()
        self.net.fc = torch.nn.Identity()
        if weights == "pretrained":
            self._load(_pretrained(), "torchvision's IMAGENET1K_V1")
        elif weights != "untrained":
            path = require_image_weights(weights)
            self._load(read_state_dict(path, f"image_features.weights: {path}"), weights)
        self.eval().requires_grad_(False)
        self.net.to(memory_format=torch.channels_last)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """From (B, 3, 224, 224) uint8 to (B, 49, 2048), the positions row by row."""
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

    def _load(self, state: dict[str, torch.Tensor], source: str) -> None:
        state = {name: t for name, t in state.items() if not name.startswith("fc.")}
        own = self.net.state_dict()
        # Counters that evaluation never reads, and that files older than they are, as torchvision's, lack.
        require_fit(
            missing=[n for n in own.keys() - state.keys() if not n.endswith("num_batches_tracked")],
            unknown=list(state.keys() - own.keys()),
            misshapen=[n for n in own.keys() & state.keys() if own[n].shape != state[n].shape],
            problem=f"image_features.weights: {source} is not a ResNet-50 state dict",
        )
        self.net.load_state_dict({**own, **state})


class _Pictures:
    """The different pictures of a clean table."""

    name = "pictures"

    def __init__(
        self, table: pd.DataFrame, folder: Path, encoder: ImageEncoder, device: torch.device, batch_size: int
    ):
        # Rows with equal pictures share one map; -1 is what factorize gives a missing one.
        index, self.hashes = pd.factorize(table["picture"])
        first = pd.Series(range(len(table))).groupby(index).first().drop(-1, errors="ignore")
        self.paths = [folder / image for image in table["image"].iloc[first]]
        keys = np.frombuffer(b"".join(map(bytes.fromhex, self.hashes)), np.uint8).reshape(-1, 32)
        ids = table["id"].tolist()
        self.layout = image_layout(ids, index, keys, encoder.positions, encoder.channels)
        self.encoder, self.device, self.batch_size = encoder, device, batch_size

    def batches(self, items: Sequence[int]) -> Iterator[list[int]]:
        for start in range(0, len(items), self.batch_size):
            yield list(items[start : start + self.batch_size])

    def prepare(self, batch: Sequence[int]) -> tuple[torch.Tensor, ...]:
        # Channels last, as pictures come and as the network wants them.
        pixels = torch.zeros(self.batch_size, _SIDE, _SIDE, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        for i, item in enumerate(batch):
            pixels[i] = prepare_picture(self.paths[item], self.hashes[item])
        return (pixels,)

    def forward(self, *prepared: torch.Tensor) -> torch.Tensor:
        parts = prepared[0].split(AT_ONCE if self.device.type == "cpu" else self.batch_size)
        return torch.cat([self.encoder(part).to(torch.float16) for part in parts])

    def parts(self, item: int, features: np.ndarray) -> tuple[np.ndarray, ...]:
        return (features,)


def encode_images(
    table: pd.DataFrame,
    folder: Path,
    path: Path | str,
    *,
    weights: str,
    seed: int,
    batch_size: int,
    precision: str,
) -> None:
    """Encode the pictures of a clean table, each different one once, into an HDF5 file.

    Pictures that the last file or a killed run has, from the same encoder, are copied.

    Args:
        table: a clean table.
        folder: the raw folder that its `image` column is relative to.
        path: the file to write.
        weights: see `ImageEncoder`.
        seed: draws untrained weights.
        batch_size: pictures a batch; every batch is filled up to it, so that a picture's features do
            not depend on how many others there are.
        precision: `auto`, `fp32`, `bf16` or `fp16`.

    Raises:
        UserError: the weights cannot be had, a picture has gone, the disk is full.
    """
    device = choose_device()
    precision = choose_precision(device, precision)
    encoder = ImageEncoder(weights, seed)
    info = EncoderInfo(
        architecture="resnet50 layer4",
        weights=_name(weights, seed),
        sha256=hash_weights(encoder.net.state_dict()),
        preparation=_PREPARATION,
        precision=precision,
        software=(
            f"torch {torch.__version__}, torchvision {torchvision.__version__}, Pillow {PIL.__version__}"
        ),
        hardware=describe_hardware(device),
        batch_size=batch_size,
        code=hash_code(*_CODE),
    )
    encoder.optimize(device, precision)
    encode(_Pictures(table, folder, encoder, device, batch_size), path, info)


def prepare_picture(path: Path, known: str) -> torch.Tensor:
    """Decode, resize and crop a picture to (3, 224, 224) uint8.

    Raises:
        UserError: it is missing, cannot be decoded, or is not the one whose hash is `known`.
    """
    picture = reopen_picture(path)
    if hash_picture(picture) != known:
        raise UserError(f"{path}: not the picture that it was when the data was cleaned; run `dvc repro`")
    return torch.from_numpy(np.array(_prepare(picture))).permute(2, 0, 1)


def _name(weights: str, seed: int) -> str:
    named = {"pretrained": "torchvision IMAGENET1K_V1", "untrained": f"untrained, seed {seed}"}
    return named.get(weights, f"local file {Path(weights).name}")


_WAYS_OUT = (
    "Either give a local file (-S image_features.weights=/path/to/resnet50.pth) "
    "or go without (-S image_features.weights=untrained)"
)


def _pretrained() -> dict[str, torch.Tensor]:
    weights = ResNet50_Weights.IMAGENET1K_V1
    try:
        return weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"torchvision's ResNet-50 weights IMAGENET1K_V1 cannot be downloaded from {weights.url} "
            f"({error}). {_WAYS_OUT}"
        ) from None
