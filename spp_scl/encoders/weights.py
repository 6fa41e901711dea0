"""Which weights an encoder takes: a name, a file, a directory or a hub name."""

import json
from pathlib import Path
from typing import Any

from spp_scl.errors import UserError, first_line
from spp_scl.params import ImageFeaturesParams, TextFeaturesParams

# The image encoders that torchvision has.
RESNETS = ("pretrained", "resnet50", "resnet101", "untrained")

_FILES = (".safetensors", ".pth", ".pt", ".bin")


def choose_weights(weights: str, dataset: str) -> str:
    """Resolve `auto`: the sample needs no download, and every other dataset deserves pretrained weights."""
    if weights != "auto":
        return weights
    return "untrained" if dataset == "sample" else "pretrained"


def choose_sources(
    image: ImageFeaturesParams, text: TextFeaturesParams, dataset: str
) -> dict[str, dict[str, Any]]:
    """What `load_image_encoder` and `load_text_encoder` take, by `image` and `text`."""
    return {
        "image": {"weights": choose_weights(image.weights, dataset), "seed": image.seed},
        "text": {
            "weights": choose_weights(text.weights, dataset),
            "seed": text.seed,
            "max_positions": text.max_positions,
        },
    }


def require_encoders(image: str, text: str, dataset: str) -> None:
    """Open both encoders and discard them: a bad one is refused before anything is encoded.

    Args:
        image: `image_features.weights`.
        text: `text_features.weights`.
        dataset: decides what `auto` is.

    Raises:
        UserError: one of them cannot be had, is no encoder of its kind, or does not fit its own files.
    """
    image, text = choose_weights(image, dataset), choose_weights(text, dataset)
    # What can be seen at once before what may take a download. An untrained encoder is always at hand.
    find_image_weights(image)
    find_text_weights(text)
    if text != "untrained":
        from spp_scl.encoders.text import load_text_encoder

        load_text_encoder(text, seed=0, texts=[], max_positions=512)
    if image != "untrained":
        from spp_scl.encoders.image import load_image_encoder

        load_image_encoder(image, seed=0)


def find_image_weights(weights: str) -> str:
    """One of `RESNETS`, a local file or directory, or a hub name.

    Raises:
        UserError: there is no such file or directory.
    """
    if weights in RESNETS or not (is_path(weights) or "/" not in weights):
        return weights
    path = Path(weights).expanduser()
    if not path.is_file() and not Path(path, "config.json").is_file():
        raise UserError(
            f"image_features.weights: {path}: no such file, and no directory with a config.json. It takes a "
            "file, a directory, a hub name with a slash, resnet50, resnet101, pretrained, untrained or auto"
        )
    return str(path)


def find_text_weights(weights: str) -> str:
    """`pretrained`, `untrained`, a local directory, or a hub name.

    Raises:
        UserError: there is no such directory, or it has no config.json.
    """
    if weights in ("pretrained", "untrained") or not is_path(weights):
        return weights
    path = Path(weights).expanduser()
    if not Path(path, "config.json").is_file():
        raise UserError(
            f"text_features.weights: {path}: no such directory with a config.json. It takes a directory, a "
            "hub name, pretrained, untrained or auto"
        )
    return str(path)


def is_path(weights: str) -> bool:
    """Whether it is a local file or directory: a hub name has at most one slash and begins like none."""
    return (
        weights.startswith((".", "/", "~"))
        or weights.count("/") > 1
        or weights.endswith(_FILES)
        or Path(weights).exists()
    )


def describe_source(weights: str, seed: int, pretrained: str) -> str:
    """Where an encoder comes from, without the folders that lead to it; `pretrained` in full."""
    if weights == "untrained":
        return f"untrained, seed {seed}"
    if weights == "pretrained":
        return pretrained
    if not is_path(weights):
        return weights
    path = Path(weights).expanduser()
    return f"local {'file' if path.is_file() else 'directory'} {path.name}"


def read_local_config(folder: str, parameter: str) -> dict:
    """The config.json of the local encoder that a parameter names.

    Raises:
        UserError: it is damaged.
    """
    try:
        config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("not an encoder's configuration")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{parameter}: {folder}: config.json cannot be read ({first_line(error)}). Either give another "
            f"encoder (-S {parameter}=/path/to/encoder) or go without (-S {parameter}=untrained)"
        ) from None
    return config
