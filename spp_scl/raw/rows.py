"""What every reader returns, and the checks that hold for every source."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from spp_scl.errors import UserError, first_line


@dataclass(frozen=True)
class RawRow:
    """One pair as its source gives it.

    Args:
        id: unique in its dataset.
        text: the tweet; None when its file is missing.
        image: the picture's path relative to the dataset's folder (it may not exist), or None.
        label: a class name; None when the dataset's rules give none, and then `dropped` says why.
        split: train, valid or test where the source itself assigns one, else None.
        dropped: the rule of the dataset that drops this row, or None.
        encoding: how the text's bytes were read.
    """

    id: str
    text: str | None
    image: str | None
    label: str | None
    split: str | None = None
    dropped: str | None = None
    encoding: str = "utf-8"


def require_folder(folder: Path, what: str, source: str) -> None:
    """Refuse a dataset's folder that is not there, saying what belongs there and where to get it."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. Put {what} there ({source})")


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file.

    Raises:
        UserError: the file is missing or is not UTF-8.
    """
    try:
        # Reading as text would break at a lone \r too, and str.splitlines at U+2028; tweets hold both.
        text = path.read_bytes().decode("utf-8-sig")
        return text.replace("\r\n", "\n").rstrip("\n").split("\n")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file, and the dataset needs it") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not UTF-8 text") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from None


def check_id(row_id: str, where: str) -> None:
    """Refuse an id that could not name a file, or would name one outside its folder."""
    try:
        too_long = len(row_id.encode()) > 200
    except UnicodeEncodeError:
        raise UserError(f"{where}: the id {row_id!r} is not valid text") from None
    if too_long:
        raise UserError(f"{where}: the id {row_id[:40]!r}... is too long for a file's name")
    if row_id in ("", ".", "..") or any(c in row_id for c in "/\\\0"):
        raise UserError(f"{where}: the id {row_id!r} points outside its folder; an id is a file's name")


def check_unique(ids: Iterable[tuple[str, str]]) -> None:
    """Refuse a repeated id; `ids` are pairs of an id and where it stands."""
    first: dict[str, str] = {}
    for row_id, where in ids:
        if row_id in first:
            raise UserError(
                f"{where}: duplicate id {row_id!r}, first at {first[row_id]}; remove one of the two"
            )
        first[row_id] = where
