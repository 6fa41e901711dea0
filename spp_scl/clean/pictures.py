"""Opening pictures: whatever people upload becomes RGB or a reason why not."""

import errno
import hashlib
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from spp_scl.errors import UserError, first_line

# A larger file is an attack or a poster, not a tweet's picture; decoding it would take gigabytes.
MAX_PIXELS = 89_000_000

# Longer side to shorter one. Scaled to the encoder's height, a longer picture would take gigabytes.
MAX_RATIO = 100

# Not the file's fault: dropping it would make what is kept depend on the state of the machine.
_MACHINE = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM)

# open_picture refuses such a picture; Pillow's own warning would only repeat it.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


class UnreadablePictureError(Exception):
    """A picture file that cannot be decoded to its end."""


def open_picture(path: Path | str | IO[bytes] | Image.Image) -> Image.Image:
    """Decode a picture, whole, to RGB: the first frame of an animation, without transparency.

    It is not turned as its EXIF orientation says, nor does the published code turn it.

    Args:
        path: of the picture, or its file, or what Pillow has opened.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadablePictureError: it is damaged, truncated, not a picture, too large or too narrow.
        UserError: the machine does not let it be read.
    """
    try:
        # What somebody else has opened is theirs to close.
        with nullcontext(path) if isinstance(path, Image.Image) else Image.open(path) as picture:
            if picture.format == "EPS":
                raise UnreadablePictureError("PostScript, a program that draws a picture")
            if picture.width * picture.height > MAX_PIXELS:
                raise UnreadablePictureError(f"more than {MAX_PIXELS} pixels")
            if max(picture.size) > MAX_RATIO * min(picture.size):
                raise UnreadablePictureError(f"narrower than 1 to {MAX_RATIO}")
            return _to_rgb(picture)
    except (FileNotFoundError, UnreadablePictureError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _MACHINE:
            raise UserError(f"{path}: cannot be read: {first_line(error)}") from None
        # On damaged files decoders raise many kinds of errors: OSError, SyntaxError, struct.error, ...
        raise UnreadablePictureError(first_line(error)) from error


def reopen_picture(path: Path) -> Image.Image:
    """Open a picture that cleaning has kept.

    Raises:
        UserError: it is missing, or cannot be decoded any more.
    """
    try:
        return open_picture(path)
    except (FileNotFoundError, UnreadablePictureError) as error:
        raise _unreadable_now(path, error) from None


def describe_picture(path: Path) -> tuple[int, int, int, str]:
    """Width, height, bytes and format of a picture that cleaning has kept, from the head of its file.

    Raises:
        UserError: it is missing, or is no picture any more.
    """
    try:
        with Image.open(path) as picture:
            return *picture.size, path.stat().st_size, str(picture.format)
    except Exception as error:  # as in `open_picture`
        raise _unreadable_now(path, error) from None


def hash_picture(picture: Image.Image) -> str:
    """SHA-256 of a picture's size and pixels."""
    digest = hashlib.sha256(f"{picture.size}".encode())
    # In strips: all pixels of a large picture, copied in every thread, would take gigabytes.
    for top in range(0, picture.height, 256):
        strip = (0, top, picture.width, min(top + 256, picture.height))
        digest.update(picture.crop(strip).tobytes())
    return digest.hexdigest()


def _unreadable_now(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: readable when the data was cleaned, and not now ({first_line(error)}); run `dvc repro "
        "clean`"
    )


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        # 16 bits a pixel: Pillow would cut everything above 255 off instead of scaling it.
        values = np.asarray(picture).clip(0, 2**16 - 1) >> 8
        picture = Image.fromarray(values.astype(np.uint8))
    return picture.convert("RGB")
