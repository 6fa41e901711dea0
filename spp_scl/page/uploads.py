"""What people upload to the page: checked before it is read, and refused with a reason."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pandas as pd
from PIL import Image

from spp_scl.errors import UserError
from spp_scl.prediction.posts import Post, read_post
from spp_scl.prediction.predictor import Predictor
from spp_scl.prediction.reading import Columns, read_rows
from spp_scl.prediction.scoring import score_file

# Bytes of a file. Gradio refuses larger ones while they arrive.
LARGEST_FILE = 10 * 2**20

_MEGAPIXELS = 25
_TOO_LARGE = f"The picture has more than {_MEGAPIXELS} megapixels; make it smaller."
_CHARACTERS = 10_000
_POSTS = 1_000
# Not Parquet: a file of kilobytes can unpack to gigabytes.
_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")


def read_upload(text: str, picture: str | None) -> tuple[Post, str]:
    """A post from the page, and what to say of it; empty: nothing.

    Args:
        text: as typed.
        picture: the path of the uploaded file; None: there is none.

    Raises:
        UserError: it is empty, too large, or the picture cannot be read.
    """
    if len(text) > _CHARACTERS:
        raise UserError(f"The text is longer than {_CHARACTERS:,} characters.")
    if not text.strip() and picture is None:
        raise UserError("Type a text, add a picture, or both.")
    notice = "" if picture is None else _check_picture(Path(picture))
    try:
        return read_post({"text": text, "image": None if picture is None else Path(picture)}), notice
    except UserError as error:  # it begins with the place of the file here
        raise UserError(f"The picture {str(error).removeprefix(f'{picture}: ')}") from None


def _check_picture(path: Path) -> str:
    """What the head of its file says; returns a notice.

    Raises:
        UserError: it is no picture, or too large.
    """
    if not path.is_file():
        raise UserError("The picture is no longer here: uploads are kept for some minutes. Add it again.")
    try:
        with Image.open(path, formats=_FORMATS) as picture:
            size, frames = picture.size, getattr(picture, "n_frames", 1)
    except Image.DecompressionBombError:  # Pillow's own limit
        raise UserError(_TOO_LARGE) from None
    except Exception:  # on damaged files decoders raise many kinds
        known = ", ".join(_FORMATS)
        raise UserError(f"This is no picture that can be read; it may be {known}.") from None
    if size[0] * size[1] > _MEGAPIXELS * 10**6:
        raise UserError(_TOO_LARGE)
    return "The picture is animated: its first frame alone is read." if frames > 1 else ""


def score_upload(predictor: Predictor, files: Sequence[str], folder: Path) -> tuple[Path, pd.DataFrame]:
    """Score an uploaded file of posts.

    Args:
        predictor: the model.
        files: paths of one table, and of the pictures that its column `image` names.
        folder: an empty one, on the files' disk, for the scores and for links to the pictures.

    Returns:
        The scores, as a file and as a table: see `score_file`.

    Raises:
        UserError: there is not one table, or it cannot be read, or has too many posts.
    """
    tables = [Path(file) for file in files if Path(file).suffix.lower() in _TABLES]
    pictures = [Path(file) for file in files if Path(file).suffix.lower() not in _TABLES]
    if len(tables) != 1:
        raise UserError(f"Upload one file of posts ({', '.join(_TABLES)}), and the pictures that it names.")
    own = folder / "pictures"
    own.mkdir()
    for path in pictures:
        _check_picture(path)
        (own / path.name).hardlink_to(path)
    columns = Columns("text", "image", own)
    try:
        count = sum(1 for _ in islice(read_rows(tables[0], columns), _POSTS + 1))
        if not count:
            raise UserError(f"{tables[0].name}: no posts")
        if count > _POSTS:
            raise UserError(f"More than {_POSTS:,} posts; for these there is `spp-scl predict`.")
        path = folder / "scores.csv"
        score_file(predictor, tables[0], path, columns)
    except UserError as error:
        raise UserError(str(error).replace(str(tables[0]), tables[0].name)) from None
    scores = pd.read_csv(path, dtype={"id": "str", "error": "str"})
    # Where files are on the server's disk is nobody's business.
    scores["error"] = (
        scores["error"]
        .str.replace(f"{own}/", "", regex=False)
        .str.replace(str(own), "the uploaded pictures", regex=False)
    )
    scores.to_csv(path, index=False)
    return path, scores
