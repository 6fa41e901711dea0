"""What people upload to the page: checked before it is read, and refused with a reason."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import pandas as pd
from PIL import Image

from spp_scl.errors import UserError
from spp_scl.methods.shared.method import Reads
from spp_scl.prediction.posts import Post, read_post
from spp_scl.prediction.predictor import Predictor
from spp_scl.prediction.reading import MAX_CHARACTERS, Columns, read_rows
from spp_scl.prediction.scoring import score_file

# Bytes of a file. Gradio refuses larger ones while they arrive.
LARGEST_FILE = 10 * 2**20

_MEGAPIXELS = 25
_TOO_LARGE = f"more than {_MEGAPIXELS} megapixels; make it smaller"
_POSTS = 1_000
# Not Parquet: a file of kilobytes can unpack to gigabytes.
_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_ANIMATED = ("GIF", "PNG", "WEBP")


def read_upload(text: str, picture: str | None, reads: Reads) -> tuple[Post, str]:
    """A post from the page, and what to say of it; empty: nothing.

    Args:
        text: as typed.
        picture: the path of the uploaded file; None: there is none.
        reads: what the model reads.

    Raises:
        UserError: there is nothing that the model reads, it is too large, or the picture cannot be read.
    """
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"The text is longer than {MAX_CHARACTERS:,} characters.")
    notice = ""
    try:
        if picture is not None:
            notice = _check_picture(Path(picture))
        post = read_post({"text": text, "image": None if picture is None else Path(picture)})
    except UserError as error:  # it may begin with the place of the file here
        raise UserError(f"The picture: {str(error).removeprefix(f'{picture}: ')}.") from None
    if not (post.text and reads.text) and (post.picture is None or not reads.image):
        raise UserError(f"Give a {' or a '.join(reads.kinds).replace('image', 'picture')}.")
    return post, notice


def _check_picture(path: Path) -> str:
    """What the head of its file says; returns a notice.

    Raises:
        UserError: it is no picture, or too large.
    """
    if not path.is_file():
        raise UserError("no longer here: uploads are kept for some minutes; add it again")
    try:
        with Image.open(path, formats=_FORMATS) as picture:
            size = picture.size
            animated = picture.format in _ANIMATED and getattr(picture, "is_animated", False)
    except Image.DecompressionBombError:  # Pillow's own limit
        raise UserError(_TOO_LARGE) from None
    except Exception:  # on damaged files decoders raise many kinds
        raise UserError(f"no picture that can be read; it may be {', '.join(_FORMATS)}") from None
    if size[0] * size[1] > _MEGAPIXELS * 10**6:
        raise UserError(_TOO_LARGE)
    return "The picture is animated: its first frame alone is read." if animated else ""


def score_upload(predictor: Predictor, files: Sequence[str], folder: Path) -> tuple[Path, pd.DataFrame]:
    """Score an uploaded file of posts.

    Args:
        predictor: the model.
        files: paths of one table, and of the pictures that its column `image` names.
        folder: an empty one, on the files' disk, for the scores and for links to the pictures.

    Returns:
        The scores, as a file and as a table: see `score_file`.

    Raises:
        UserError: there is not one table, or it cannot be read, or has too many posts; or two pictures have
            one name.
    """
    tables = [Path(file) for file in files if Path(file).suffix.lower() in _TABLES]
    pictures = [Path(file) for file in files if Path(file).suffix.lower() not in _TABLES]
    if len(tables) != 1:
        raise UserError(f"Upload one file of posts ({', '.join(_TABLES)}), and the pictures that it names.")
    own = folder / "pictures"
    own.mkdir()
    refused = _link_pictures(pictures, own)
    columns = Columns("text", "image", own)
    try:
        count = sum(1 for _ in islice(read_rows(tables[0], columns), _POSTS + 1))
        if not count:
            raise UserError(f"{tables[0].name}: no posts")
        if count > _POSTS:
            raise UserError(f"More than {_POSTS:,} posts; for these there is `spp-scl predict`.")
        score_file(predictor, tables[0], folder / "scores.parquet", columns)
    except UserError as error:
        raise UserError(str(error).replace(str(tables[0]), tables[0].name)) from None
    scores = pd.read_parquet(folder / "scores.parquet")
    scores["error"] = scores["error"].map(
        lambda error: _without_places(error, own, refused), na_action="ignore"
    )
    path = folder / "scores.csv"
    scores.to_csv(path, index=False)
    return path, scores


def _link_pictures(pictures: Sequence[Path], folder: Path) -> dict[str, str]:
    """Link pictures into one folder; returns those that cannot be read, with the reason."""
    refused = {}
    for path in pictures:
        if path.name in refused or (folder / path.name).exists():
            raise UserError(f"Two files are named {path.name}.")
        try:
            _check_picture(path)
            (folder / path.name).hardlink_to(path)
        except UserError as error:
            refused[path.name] = str(error)
    return refused


def _without_places(error: str, folder: Path, refused: Mapping[str, str]) -> str:
    """An error without the places of files on this machine, which are nobody's business."""
    error = error.replace(f"{folder}/", "").replace(str(folder), "the uploaded pictures")
    name = error.removesuffix(": no such picture")
    return f"{name}: {refused[name]}" if name in refused else error
