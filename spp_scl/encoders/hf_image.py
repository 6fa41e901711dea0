"""Image encoders that transformers loads: ViT, ConvNeXt, DINOv2, the vision towers of CLIP and SigLIP."""

import json
import math
from typing import Any

import numpy as np
import PIL.Image
import torch

import spp_scl.encoders.torchvision_ops  # noqa: F401  (before transformers)

# isort: split
import transformers
from transformers import AutoImageProcessor, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from spp_scl.encoders.huggingface import IMAGE, build_model, describe_model, load_model, unavailable, unfit
from spp_scl.encoders.image import ImageEncoder
from spp_scl.errors import UserError, first_line


class HFImageEncoder(ImageEncoder):
    """A network of transformers, with its image processor."""

    code = ("encoders/hf_image.py", "encoders/huggingface.py")
    software = f", transformers {transformers.__version__}"
    net: PreTrainedModel
    _mean: torch.Tensor
    _std: torch.Tensor

    def __init__(self, model: PreTrainedModel, processor: Any):
        """Put it together.

        Raises:
            ValueError: it gives no map of a picture, or its preparation is none that can be kept.
        """
        super().__init__()
        self.net, self._processor = model, processor
        self.name = type(model).__name__
        self._scale = float(processor.rescale_factor) if processor.do_rescale else 1.0
        for name, value, neutral in (("mean", processor.image_mean, 0.0), ("std", processor.image_std, 1.0)):
            values = torch.tensor(value if processor.do_normalize else neutral, dtype=torch.float32)
            self.register_buffer(f"_{name}", values.expand(3).view(1, 3, 1, 1).clone(), persistent=False)
        self.side = self._require_preparation()
        settings = sorted(describe_processor(processor).items())
        self.preparation = "RGB, " + ", ".join(f"{key} {json.dumps(value)}" for key, value in settings)
        self.eval()
        with torch.inference_mode():
            blank = torch.zeros(1, 3, *self.side, dtype=torch.uint8)
            features = self._features(blank)
            self._prefix = self._count_prefix(features)
            _, self.positions, self.channels = self._as_positions(features).shape
        self.train()  # some networks drop there what they derived from weights, which may be loaded later

    def prepare(self, picture: PIL.Image.Image) -> torch.Tensor:
        prepared = self._processor(picture, do_rescale=False, do_normalize=False, return_tensors="pt")
        return prepared["pixel_values"][0].round().clamp(0, 255).to(torch.uint8)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._as_positions(self._features(pixels))

    def describe(self) -> dict[str, Any]:
        return {
            "family": "transformers",
            **describe_model(self.net),
            "processor": {
                "class": type(self._processor).__name__,
                "settings": describe_processor(self._processor),
            },
        }

    def _features(self, pixels: torch.Tensor) -> torch.Tensor:
        x = (pixels.float() * self._scale - self._mean) / self._std
        with self._arithmetic():
            return self.net(pixel_values=x).last_hidden_state

    def _as_positions(self, features: torch.Tensor) -> torch.Tensor:
        if features.dim() == 4:
            return features.flatten(2).transpose(1, 2)
        return features[:, self._prefix :]

    def _count_prefix(self, features: torch.Tensor) -> int:
        """How many tokens stand before those of the picture's regions."""
        if not isinstance(features, torch.Tensor) or features.dim() not in (3, 4):
            raise ValueError("it gives no map and no tokens of a picture")
        if features.dim() == 4:
            return 0
        tokens, config = features.shape[1], self.net.config
        patch = getattr(config, "patch_size", None)
        if isinstance(patch, int):
            prefix = tokens - (self.side[0] // patch) * (self.side[1] // patch)
            # [CLS], a token to distill into, registers.
            if prefix in (0, 1, 2, 1 + (getattr(config, "num_register_tokens", 0) or 0)):
                return prefix
        rows = math.sqrt(tokens * self.side[0] / self.side[1])  # as of a network that merges its patches
        if rows != int(rows):
            raise ValueError(f"it gives {tokens} tokens, which are no grid over a picture")
        return 0

    def _require_preparation(self) -> tuple[int, int]:
        """The side of every prepared picture.

        Raises:
            ValueError: pictures come in different sizes, or the processor does more than resizing, cropping,
                rescaling and normalizing.
        """
        sides = set()
        # A level of 256: a processor may resize floating-point numbers, which nothing rounds.
        level = 1.1 * self._scale / float(self._std.min())
        rng = np.random.default_rng(0)
        for size in ((240, 320), (320, 240), (90, 90)):
            picture = PIL.Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
            pixels = self.prepare(picture)
            whole = self._processor(picture, return_tensors="pt")["pixel_values"][0]
            again = ((pixels.float() * self._scale - self._mean) / self._std)[0]
            if whole.shape != again.shape or not torch.allclose(whole.float(), again, rtol=0, atol=level):
                raise ValueError("its image processor does more than resize, crop, rescale and normalize")
            sides.add((int(pixels.shape[1]), int(pixels.shape[2])))
        if len(sides) > 1:
            raise ValueError("its image processor makes pictures of different sizes")
        return sides.pop()


def load(source: str, weights: str, seed: int) -> HFImageEncoder:
    """The encoder of a local directory or a hub name.

    Raises:
        UserError: see `image.load_image_encoder`.
    """
    model = load_model(source, weights, IMAGE)
    try:
        processor = AutoImageProcessor.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # no such file, a damaged one, code of its own: each has its own
        raise unavailable(IMAGE, weights, f"its image processor: {first_line(error)}") from None
    try:
        return HFImageEncoder(model, processor)
    except ValueError as error:
        raise unfit(IMAGE, weights, first_line(error)) from None
    except Exception as error:  # a network may refuse a picture in any way
        raise unfit(IMAGE, weights, f"it cannot take a picture ({first_line(error)})") from None


def rebuild(description: dict[str, Any]) -> HFImageEncoder:
    """See `image.rebuild_image_encoder`."""
    named = description["processor"]
    cls = getattr(transformers, named["class"], None)
    if not (isinstance(cls, type) and issubclass(cls, BaseImageProcessor)):
        raise UserError(f"transformers {transformers.__version__} has no image processor {named['class']}")
    return HFImageEncoder(build_model(description), cls(**named["settings"]))


def describe_processor(processor: BaseImageProcessor) -> dict[str, Any]:
    """Its settings, in JSON."""
    settings = json.loads(processor.to_json_string())
    return {key: value for key, value in settings.items() if key != "image_processor_type"}
