"""Image encoders of timm: what `forward_features` gives, as positions, whether a map or tokens."""

import math
from typing import Any

import PIL.Image
import torch

import spp_scl.encoders.torchvision_ops  # noqa: F401  (before timm)

# isort: split
import timm
from timm.data import create_transform, resolve_data_config

from spp_scl.encoders.huggingface import IMAGE, quieten, unavailable, unfit
from spp_scl.encoders.image import ImageEncoder
from spp_scl.errors import first_line

# Of the configuration that timm keeps with a network: where its weights came from does not rebuild it.
_SOURCES = ("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "label_names")

_REASON = 300  # characters of timm's own message


class TimmEncoder(ImageEncoder):
    """A network of timm without its classifier."""

    code = ("encoders/timm_image.py",)
    software = f", timm {timm.__version__}"
    net: Any
    _mean: torch.Tensor
    _std: torch.Tensor

    def __init__(self, net: Any, num_classes: int):
        """Put it together.

        Args:
            net: as `timm.create_model` makes it, with the classifier of `num_classes`.

        Raises:
            ValueError: it gives no map of an RGB picture.
        """
        super().__init__()
        config: dict[str, Any] = net.pretrained_cfg
        self._description = {
            "family": "timm",
            "architecture": config["architecture"],
            "arguments": dict(getattr(net, "_model_args", {})),
            "pretrained_cfg": {k: v for k, v in config.items() if k not in _SOURCES and v is not None},
            "num_classes": num_classes,
        }
        _drop_classifier(net)
        self.net = net
        data = resolve_data_config(pretrained_cfg=config, model=net)
        if data["input_size"][0] != 3:
            raise ValueError(f"it takes {data['input_size'][0]} channels, not RGB")
        self.side = (int(data["input_size"][1]), int(data["input_size"][2]))
        self._transform = create_transform(**data, normalize=False)
        for name in ("mean", "std"):
            value = torch.tensor(data[name], dtype=torch.float32).view(1, 3, 1, 1)
            self.register_buffer(f"_{name}", value, persistent=False)
        self.preparation = (
            f"RGB, {data['interpolation']}, crop {data['crop_pct']} {data['crop_mode']}, "
            f"{self.side[0]} x {self.side[1]}, mean {data['mean']}, std {data['std']}"
        )
        self.name = f"timm {config['architecture']}"
        self.eval()
        with torch.inference_mode():
            blank = torch.zeros(1, 3, *self.side, dtype=torch.uint8)
            _, self.positions, self.channels = self.forward(blank).shape
        self.train()  # some networks drop there what they derived from weights, which may be loaded later

    def prepare(self, picture: PIL.Image.Image) -> torch.Tensor:
        return self._transform(picture)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = (pixels.float() / 255 - self._mean) / self._std
        with self._arithmetic():
            return self._as_positions(self.net.forward_features(x))

    def describe(self) -> dict[str, Any]:
        return self._description

    def _as_positions(self, features: Any) -> torch.Tensor:
        if not isinstance(features, torch.Tensor) or features.dim() not in (3, 4):
            raise ValueError("it gives no map and no tokens of a picture")
        if features.dim() == 4:
            if self._channels_last(features):
                return features.flatten(1, 2)
            return features.flatten(2).transpose(1, 2)
        tokens = features[:, int(getattr(self.net, "num_prefix_tokens", 0)) :]
        rows = math.sqrt(tokens.shape[1] * self.side[0] / self.side[1])
        if rows != int(rows):
            raise ValueError(f"it gives {tokens.shape[1]} tokens, which are no grid over a picture")
        return tokens

    def _channels_last(self, features: torch.Tensor) -> bool:
        if hasattr(self.net, "output_fmt"):
            return str(getattr(self.net.output_fmt, "value", self.net.output_fmt)) == "NHWC"
        channels = getattr(self.net, "num_features", None)
        return features.shape[3] == channels != features.shape[1]


def load(source: str, weights: str, seed: int) -> TimmEncoder:
    """The encoder of a local directory in timm's format, or of a hub name.

    Raises:
        UserError: see `image.load_image_encoder`.
    """
    quieten(source, weights)
    local = not source.startswith(("timm/", "hf-hub:"))
    name = f"local-dir:{source}" if local else f"hf-hub:{source.removeprefix('hf-hub:')}"
    try:
        with torch.random.fork_rng(devices=[]):
            # With its classifier: without one, timm draws at random whatever else a file lacks.
            net: Any = timm.create_model(name, pretrained=True)
    except Exception as error:  # no network, no such name or network, weights that do not fit
        reason = " ".join(str(error).split())[:_REASON] or type(error).__name__
        raise unavailable(IMAGE, weights, reason) from None
    try:
        return TimmEncoder(net, net.num_classes)
    except ValueError as error:
        raise unfit(IMAGE, weights, first_line(error)) from None
    except Exception as error:  # a network may refuse a picture in any way
        raise unfit(IMAGE, weights, f"it cannot take a picture ({first_line(error)})") from None


def rebuild(description: dict[str, Any]) -> TimmEncoder:
    """See `image.rebuild_image_encoder`."""
    with torch.random.fork_rng(devices=[]):
        net = timm.create_model(
            description["architecture"],
            pretrained=False,
            pretrained_cfg=description["pretrained_cfg"],
            **{**description["arguments"], "num_classes": description["num_classes"]},
        )
    return TimmEncoder(net, description["num_classes"])


def _drop_classifier(net: Any) -> None:
    try:
        net.reset_classifier(0, "")
    except (TypeError, AssertionError):  # a network that knows no pooling, or not this one
        net.reset_classifier(0)
