"""Which weights an encoder takes."""

from pathlib import Path

from spp_scl.errors import UserError


def choose_weights(weights: str, dataset: str) -> str:
    """Resolve `auto`: the sample needs no download, and every other dataset deserves pretrained weights."""
    if weights != "auto":
        return weights
    return "untrained" if dataset == "sample" else "pretrained"


def require_weights(image: str, text: str) -> None:
    """Refuse local weights that do not exist, of either encoder, before the first one starts.

    Args:
        image: `image_features.weights`.
        text: `text_features.weights`; whether a hub name exists is only known when it is downloaded.

    Raises:
        UserError: they do not exist.
    """
    if image not in ("auto", "pretrained", "untrained"):
        require_image_weights(image)
    if text not in ("auto", "pretrained", "untrained"):
        require_text_weights(text)


def require_image_weights(weights: str) -> Path:
    """The file of local weights of the image encoder.

    Raises:
        UserError: there is no such file.
    """
    path = Path(weights).expanduser()
    if not path.is_file():
        raise UserError(
            f"image_features.weights: {path}: no such file. It takes a file, pretrained, untrained or auto"
        )
    return path


def require_text_weights(weights: str) -> str:
    """The local directory of a text encoder, or its hub name as it is.

    Raises:
        UserError: there is no such directory, or it has no config.json.
    """
    if not is_path(weights):
        return weights
    path = Path(weights).expanduser()
    if not Path(path, "config.json").is_file():
        raise UserError(
            f"text_features.weights: {path}: no such directory with a config.json. It takes a directory, a "
            "hub name, pretrained, untrained or auto"
        )
    return str(path)


def is_path(weights: str) -> bool:
    """Whether a text encoder is a local directory: a hub name has at most one slash and begins like none."""
    return weights.startswith((".", "/", "~")) or weights.count("/") > 1 or Path(weights).exists()
