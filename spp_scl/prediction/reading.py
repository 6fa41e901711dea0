"""Files of posts, row by row: CSV, Parquet, JSON Lines. A bad row is a reason, and stops nothing."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from spp_scl.errors import UserError, first_line

_DELIMITERS = ",;\t"
# A longer line, or field, is no post; reading it would take the memory that was promised.
_LONGEST = 2**24
# What a text of a post may have.
MAX_CHARACTERS = 100_000
_ROWS = 256


@dataclass(frozen=True)
class Columns:
    """Which columns hold what, and where pictures are.

    Args:
        text: its name; a file may lack it.
        image: likewise, with paths relative to `folder`.
        folder: of the pictures; none is read from outside it.
        named: those of the two that somebody asked for by name: a file without them is refused.
        hint: what to do where neither is there, for the error.
    """

    text: str
    image: str
    folder: Path
    named: Sequence[str] = ()
    hint: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a file.

    Args:
        number: from 1.
        id: its `id`, where the file has one.
        text: None: it has none.
        image: a path; None: it has none.
        error: why it cannot be read; empty: it can.
    """

    number: int
    id: str | None = None
    text: str | None = None
    image: Path | None = None
    error: str = ""


def read_rows(path: Path, columns: Columns) -> Iterator[Row]:
    """Read a file of posts, a few rows at a time.

    Raises:
        UserError: the file is missing, of another kind, or has neither of the columns.
    """
    readers = {
        ".csv": _read_csv,
        ".tsv": _read_csv,
        ".jsonl": _read_json_lines,
        ".ndjson": _read_json_lines,
        ".parquet": _read_parquet,
    }
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.suffix.lower() not in readers:
        raise UserError(f"{path}: a file of posts is one of {', '.join(readers)}")
    for number, found in enumerate(readers[path.suffix.lower()](path, columns), start=1):
        yield Row(number, error=found) if isinstance(found, str) else _make_row(number, found, columns)


def _make_row(number: int, values: Mapping[str, Any], columns: Columns) -> Row:
    # Half an emoji that some tool has cut cannot be written as UTF-8.
    own = None if values.get("id") is None else str(values["id"]).encode("utf-8", "replace").decode()
    text, image = values.get(columns.text), values.get(columns.image)
    if not isinstance(text, str | None) or not isinstance(image, str | None):
        kind = type(image if isinstance(text, str | None) else text).__name__
        return Row(number, own, error=f"text and image are strings, or missing; this is {kind}")
    text, image = text or None, (image or "").strip() or None
    if len(text or "") > MAX_CHARACTERS:
        return Row(number, own, error=f"a text of more than {MAX_CHARACTERS:,} characters")
    if text is None and image is None:
        return Row(number, own, error="neither a text nor an image")
    if image is None:
        return Row(number, own, text)
    place = _find_picture(image, columns.folder)
    if place is None:
        return Row(number, own, error=f"the image {image!r} lies outside {columns.folder}")
    return Row(number, own, text, place)


def _find_picture(image: str, folder: Path) -> Path | None:
    """Where a picture is; None: not in the folder. Links are followed: what counts is where it lies."""
    relative = PurePosixPath(image.replace("\\", "/"))
    try:
        inside = not relative.is_absolute() and (folder / relative).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # a link to itself, half an emoji, a null byte
        return None
    return folder / relative if inside else None


def _require_columns(path: Path, found: Any, columns: Columns) -> None:
    if missing := [name for name in columns.named if name not in found]:
        raise UserError(f"{path}: no column named {missing[0]}; it has {', '.join(map(str, found))[:200]}")
    if columns.text not in found and columns.image not in found:
        raise UserError(
            f"{path}: no column named {columns.text} and none named {columns.image}; it has "
            f"{', '.join(map(str, found))[:200]}{columns.hint}"
        )


def _read_csv(path: Path, columns: Columns) -> Iterator[Mapping[str, Any] | str]:
    csv.field_size_limit(_LONGEST)
    # What is not UTF-8 becomes U+FFFD: a single bad byte is no reason to lose a row.
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        first = file.readline(_LONGEST)
        delimiter = "\t" if path.suffix.lower() == ".tsv" else max(_DELIMITERS, key=first.count)
        header = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
        _require_columns(path, header, columns)
        reader = csv.reader(file, delimiter=delimiter)
        while True:
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield f"not valid CSV: {first_line(error)}"
                continue
            if values and len(values) != len(header):
                yield f"{len(values)} values where the header has {len(header)}"
            elif values:
                yield dict(zip(header, values, strict=True))


def _read_json_lines(path: Path, columns: Columns) -> Iterator[Mapping[str, Any] | str]:
    with path.open("rb") as file:
        while line := file.readline(_LONGEST):
            if len(line) == _LONGEST and not line.endswith(b"\n"):
                while (rest := file.readline(_LONGEST)) and not rest.endswith(b"\n"):
                    pass
                yield f"a line longer than {_LONGEST // 2**20} MiB"
            elif line.strip():
                yield _parse_json(line)


def _parse_json(line: bytes) -> Mapping[str, Any] | str:
    try:
        values = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        return f"not valid JSON: {first_line(error)}"
    return values if isinstance(values, dict) else "not a JSON object"


def _read_parquet(path: Path, columns: Columns) -> Iterator[Mapping[str, Any] | str]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            names = file.schema_arrow.names
            _require_columns(path, names, columns)
            wanted = [name for name in ("id", columns.text, columns.image) if name in names]
            for batch in file.iter_batches(_ROWS, columns=wanted):
                yield from batch.to_pylist()
    except (ArrowException, OSError) as error:
        raise UserError(f"{path}: damaged, or no Parquet file: {first_line(error)}") from None
