"""Image features: the frozen ResNet-50 up to `layer4`, one 7 x 7 x 2048 map a picture."""

import logging
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import PIL
import torch

import spp_scl.features.torchvision_ops  # noqa: F401  (before torchvision)

# isort: split
import torchvision
from torchvision.models import ResNet50_Weights, resnet50
from torchvision.transforms import CenterCrop, Compose, Resize

from spp_scl.clean import pictures
from spp_scl.clean.pictures import hash_picture, reopen_picture
from spp_scl.errors import UserError
from spp_scl.features import device as features_device
from spp_scl.features import fused
from spp_scl.features.device import DTYPES, all_finite, choose_device, choose_precision, describe_hardware
from spp_scl.features.encoder import EncoderInfo, hash_code, hash_weights
from spp_scl.features.fused import fuse
from spp_scl.features.state_dict import read_state_dict, require_fit
from spp_scl.features.workers import in_order
from spp_scl.features.writing import writing_images
from spp_scl.progress import progress

log = logging.getLogger(__name__)

# The preparation of torchvision's IMAGENET1K_V1 weights.
_prepare = Compose([Resize(256), CenterCrop(224)])
_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
_STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)

# Pictures whose activations a core's cache can hold; of 32, two thirds of the time went into moving them.
AT_ONCE = 8
_PREPARATION = "RGB, shorter side 256 (bilinear), center crop 224, ImageNet mean and std"


class ImageEncoder(torch.nn.Module):
    """ResNet-50 without its pooling and its classifier, in evaluation mode and frozen."""

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
        # An identity instead of a cut keeps torchvision's names, which every published file has.
        self.net.avgpool = torch.nn.Identity()
        self.net.fc = torch.nn.Identity()
        if weights == "pretrained":
            self._load(_pretrained(), "torchvision's IMAGENET1K_V1")
        elif weights != "untrained":
            self._load(_local(Path(weights).expanduser()), weights)
        self.eval().requires_grad_(False)
        self.to(memory_format=torch.channels_last)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """From (B, 3, 224, 224) uint8 to (B, 49, 2048), the positions row by row."""
        net = self.net
        mean, std = _MEAN.to(pixels.device), _STD.to(pixels.device)
        x = ((pixels.float() / 255 - mean) / std).to(next(net.parameters()).dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        x = net.layer4(net.layer3(net.layer2(net.layer1(x))))
        return x.flatten(2).transpose(1, 2)

    def quicken(self, device: torch.device, precision: str) -> None:
        """Move to the device, for encoding alone: see `fused`."""
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
            told=f"image_features.weights: {source} is not a ResNet-50 state dict",
        )
        self.net.load_state_dict({**own, **state})


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

    What `path` holds already, from the same encoder, is taken over; so is what a killed run has computed.

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
        code=hash_code(sys.modules[__name__], pictures, features_device, fused),
    )
    encoder.quicken(device, precision)
    log.info("image encoder: %s, %s on %s", info.weights, precision, device.type)
    # Rows with equal pictures share one map; -1 is what factorize gives a missing one.
    index, unique = pd.factorize(table["picture"])
    first = pd.Series(range(len(table))).groupby(index).first().drop(-1, errors="ignore")
    images = table["image"].iloc[first].tolist()
    keys = np.frombuffer(b"".join(map(bytes.fromhex, unique)), np.uint8).reshape(-1, 32)

    def encode(batch: list[int]) -> np.ndarray:
        # Channels last, as pictures come and as the network wants them.
        pixels = torch.zeros(batch_size, 224, 224, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        for i, item in enumerate(batch):
            pixels[i] = prepare_picture(folder / images[item], unique[item])
        with torch.inference_mode():
            parts = pixels.to(device).split(AT_ONCE if device.type == "cpu" else batch_size)
            features = torch.cat([encoder(part).to(torch.float16) for part in parts])[: len(batch)]
        if not all_finite(features):
            raise UserError("the image encoder's features are not finite; are its weights damaged?")
        return features.cpu().numpy()

    with writing_images(path, table["id"].tolist(), index, keys, info) as writer:
        missing = writer.missing
        if len(missing) < len(images):
            log.info("%d of %d pictures were encoded before", len(images) - len(missing), len(images))
        batches = [missing[start : start + batch_size] for start in range(0, len(missing), batch_size)]
        with progress(desc="images", unit="pictures", total=len(missing)) as bar:
            for batch, maps in zip(batches, in_order(encode, batches, device), strict=True):
                for item, features in zip(batch, maps, strict=True):
                    writer.write(item, features)
                bar.update(len(batch))


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


def _local(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise UserError(
            f"image_features.weights: {path}: no such file. It takes a file, pretrained, untrained or auto"
        )
    return read_state_dict(path, f"image_features.weights: {path}")
