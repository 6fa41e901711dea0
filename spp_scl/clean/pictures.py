"""Opening pictures: whatever people upload becomes RGB or a reason why not."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

# Past this a file is an attack or a poster, not a tweet's picture; decoding it would take gigabytes.
MAX_PIXELS = 89_000_000

# The check below says it as an error; Pillow's own warning would only repeat it.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


class UnreadablePictureError(Exception):
    """A picture file that cannot be decoded to its end."""


def open_picture(path: Path) -> Image.Image:
    """Decode a picture, whole, to RGB (the first frame of an animation; transparency is dropped).

    Raises:
        FileNotFoundError: there is no such file.
        UnreadablePictureError: it is damaged, truncated, not a picture or too large.
    """
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise UnreadablePictureError(f"more than {MAX_PIXELS} pixels")
            return _to_rgb(picture)
    except (FileNotFoundError, UnreadablePictureError):
        raise
    except Exception as error:
        # Decoders of damaged files raise whatever they run into: OSError, SyntaxError, struct.error, ...
        raise UnreadablePictureError(str(error) or type(error).__name__) from error


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        # 16 bits a pixel: Pillow would cut everything above 255 off instead of scaling it.
        values = np.asarray(picture).clip(0, 2**16 - 1) >> 8
        picture = Image.fromarray(values.astype(np.uint8))
    return picture.convert("RGB")
