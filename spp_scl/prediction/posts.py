"""Posts as people have them: a text and a picture, either of which may be missing."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from spp_scl.clean.pictures import UnreadablePictureError, open_picture
from spp_scl.clean.texts import clean_text, is_empty
from spp_scl.errors import UserError

Picture = str | Path | bytes | Image.Image | np.ndarray


@dataclass(frozen=True)
class Post:
    """A post as cleaning leaves it.

    Args:
        text: on one line; empty: there is none.
        picture: RGB; None: there is none.
    """

    text: str
    picture: Image.Image | None


@dataclass(frozen=True)
class Prepared:
    """A post as the encoders get it.

    Args:
        text: as in `Post`.
        pixels: (3, H, W) uint8; None: there is no picture, or the model reads none.
    """

    text: str
    pixels: torch.Tensor | None


def read_post(post: Mapping[str, Any] | tuple[Any, Any]) -> Post:
    """Read a post, and prepare it as the pipeline's cleaning does.

    Args:
        post: `text`, a string or None; `image`, a path, the bytes of a file, a PIL image, an array, or None.
            As a mapping, either may be missing; as a tuple, the text comes first.

    Raises:
        UserError: the picture cannot be read, a value is of another kind, or a key is not known.
    """
    if isinstance(post, tuple):
        post = dict(zip(("text", "image"), post, strict=True))
    if unknown := post.keys() - {"text", "image"}:
        raise UserError(f"a post has `text` and `image`, and no {', '.join(map(repr, sorted(unknown)))}")
    text, image = post.get("text"), post.get("image")
    if not isinstance(text, str | None):
        raise UserError(f"the text is not a string but {type(text).__name__}")
    text = clean_text(text or "")
    return Post("" if is_empty(text) else text, None if image is None else _read_picture(image))


def _read_picture(image: Any) -> Image.Image:
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    if not isinstance(image, str | Path | bytes | Image.Image):
        raise UserError(
            f"the image is neither a path nor bytes, a PIL image or an array but {type(image).__name__}"
        )
    try:
        return open_picture(io.BytesIO(image) if isinstance(image, bytes) else image)
    except FileNotFoundError:
        raise UserError(f"{image!s}: no such picture") from None
    except UnreadablePictureError as error:
        name = str(image) if isinstance(image, str | Path) else "the picture"
        raise UserError(f"{name}: cannot be read: {error}") from None


def _from_array(image: np.ndarray) -> Image.Image:
    """From (H, W), (H, W, 3) or (H, W, 4) uint8."""
    fits = image.dtype == np.uint8 and (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4)))
    if not fits or 0 in image.shape:
        raise UserError(
            f"an array is a picture as (height, width), with 3 or 4 channels behind, of uint8; this is of "
            f"{image.dtype}, {image.shape}"
        )
    return Image.fromarray(image)
