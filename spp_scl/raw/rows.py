"""The row that every reader returns, and the checks that hold for every dataset."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from spp_scl.errors import UserError, first_line

Record = TypeVar("Record")


@dataclass(frozen=True)
class RawRow:
    """One pair of a text and a picture as its source gives it.

    Args:
        id: unique in its dataset.
        text: the tweet; None when its file is missing.
        image: the picture's path relative to the dataset's folder (it may not exist), or None.
        label: a class name; None when the dataset's rules give none, and then `dropped` says why.
        split: train, valid or test where the source itself assigns one, else None.
        dropped: the rule of the dataset that drops this row, or None.
        encoding: of the tweet's own text file; None where it has no file of its own.
        text_label: what the text alone was labeled, where the dataset says so; else None.
        image_label: what the picture alone was labeled, likewise.
    """

    id: str
    text: str | None
    image: str | None
    label: str | None
    split: str | None = None
    dropped: str | None = None
    encoding: str | None = None
    text_label: str | None = None
    image_label: str | None = None


def parse_rows(records: Iterable[tuple[str, Record]], parse: Callable[[Record, str], RawRow]) -> list[RawRow]:
    """Parse every record, and name all bad ones in one message.

    Args:
        records: pairs of where a record stands (file and line) and the record itself.
        parse: makes a row of a record and of where it stands, or raises UserError.

    Raises:
        UserError: records are bad or repeat an id; the message has the first five and their number.
    """
    rows: list[RawRow] = []
    problems: list[str] = []
    first: dict[str, str] = {}
    for where, record in records:
        try:
            row = parse(record, where)
        except UserError as error:
            problems.append(str(error))
            continue
        if first.setdefault(row.id, where) != where:
            problems.append(
                f"{where}: duplicate id {row.id!r}, first at {first[row.id]}; remove one of the two"
            )
        rows.append(row)
    if len(problems) == 1:
        raise UserError(problems[0])
    if problems:
        shown = first_five(problems, separator="\n  ")
        raise UserError(f"{len(problems)} bad rows:\n  {shown}")
    return rows


def first_five(items: Sequence[str], separator: str = ", ") -> str:
    """The first five items, and how many more there are."""
    more = [f"and {len(items) - 5} more"] if len(items) > 5 else []
    return separator.join([*items[:5], *more])


def require_folder(folder: Path, missing: str) -> None:
    """Refuse a dataset's folder that does not exist; `missing` says how to get it."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. {missing}")


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
