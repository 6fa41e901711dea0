"""A user's own posts: `posts.csv` or `posts.parquet` with id, text, image, label and optionally split."""

import codecs
import csv
import io
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from spp_scl.errors import UserError, first_line
from spp_scl.raw.rows import RawRow, check_id, parse_rows, require_folder

MISSING = "Put posts.csv or posts.parquet there, with columns id, text, image, label and optionally split"

_COLUMNS = ("id", "text", "image", "label")
_DELIMITERS = ",;\t"
_SPLITS = {
    "": None,
    "train": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
}

# Where each record stands (file and line), and its values in the order of the columns.
_Records = list[tuple[str, Sequence[str]]]


def read_own(folder: Path) -> list[RawRow]:
    """Read a user's own posts.

    `image` is a path relative to `folder`. It may be empty: then the parameter clean.missing_image decides.

    Raises:
        UserError: no file or two of them, one that cannot be parsed, a missing column, an empty id or
            label, a repeated id, an image outside the folder, an unknown split.
    """
    require_folder(folder, MISSING)
    found = [p for p in (folder / "posts.csv", folder / "posts.parquet") if p.is_file()]
    if len(found) != 1:
        raise UserError(f"{folder}: expected one of posts.csv and posts.parquet, found {len(found)}")
    path = found[0]
    columns, records = _read_csv(path) if path.suffix == ".csv" else _read_parquet(path)
    missing = [name for name in _COLUMNS if name not in columns]
    if missing:
        raise UserError(f"{path}: no column named {', '.join(missing)}; it has {', '.join(columns)}")
    if not records:
        raise UserError(f"{path}: no rows in it")

    def parse(values: Sequence[str], where: str) -> RawRow:
        if len(values) != len(columns):
            raise UserError(
                f"{where}: expected {len(columns)} values ({', '.join(columns)}), found {len(values)}; "
                'a value that contains the delimiter needs quotes ("...")'
            )
        return _parse(dict(zip(columns, values, strict=True)), where)

    return parse_rows(records, parse)


def _read_csv(path: Path) -> tuple[list[str], _Records]:
    """The columns and the records. Every value is text: "NA" and "007" as well."""
    csv.field_size_limit(2**31 - 1)
    text = _read_text(path)

    def header(delimiter: str) -> list[str]:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        return next((row for row in reader if row), [])

    # The delimiter that finds most of the needed columns.
    delimiter = max(_DELIMITERS, key=lambda d: len(set(_COLUMNS) & set(header(d))))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [(f"{path}:{reader.line_num}", row) for row in reader if row]
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not valid CSV: {error}") from None
    return (rows[0][1] if rows else []), list(rows[1:])


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from None
    utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if not utf16 and b"\0" in raw.split(b"\n", 1)[0]:
        raise UserError(
            f"{path}:1: null bytes in the header; is it UTF-16 without its mark? Save the file as UTF-8"
        )
    try:
        return raw.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        encoding = "UTF-16" if utf16 else "UTF-8"
        raise UserError(f"{path}:{line}: not {encoding} text; save the file as UTF-8") from None


def _read_parquet(path: Path) -> tuple[list[str], _Records]:
    import pandas as pd  # here: it takes a second, and whoever reads the registry's names imports this module

    try:
        table = pd.read_parquet(path)
        # Inside too: bytes that are not UTF-8 are found only when the text is asked for.
        values = table.astype(object).where(table.notna(), "").map(str)
    except Exception as error:  # on a damaged file the parser raises many kinds of errors
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from None
    records = enumerate(values.itertuples(index=False, name=None), start=1)
    return [str(name) for name in table.columns], [(f"{path}, row {n}", row) for n, row in records]


def _parse(record: dict[str, str], where: str) -> RawRow:
    check_id(record["id"], where)
    label = record["label"].strip()
    if not label:
        raise UserError(f"{where}: id {record['id']!r} has no label")
    split = record.get("split", "")
    name = split.strip().lower()
    if name not in _SPLITS:
        raise UserError(f"{where}: unknown split {split!r}; allowed: train, valid, test or empty")
    return RawRow(record["id"], record["text"], _parse_image(record["image"], where), label, _SPLITS[name])


def _parse_image(image: str, where: str) -> str | None:
    if not image.strip():
        return None
    path = PurePosixPath(image.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in image:
        raise UserError(f"{where}: the image {image!r} points outside its folder; give a path relative to it")
    return str(path)
