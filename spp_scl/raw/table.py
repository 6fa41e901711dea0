"""A user's own tweets: `table.csv` or `table.parquet` with id, text, image, label and optionally split."""

import csv
from pathlib import Path, PurePosixPath

import pandas as pd

from spp_scl.errors import UserError, first_line
from spp_scl.raw.datasets import SPLITS
from spp_scl.raw.rows import RawRow, check_id, check_unique, require_folder

_COLUMNS = ("id", "text", "image", "label")
_SPLIT_NAMES = {name: name for name in SPLITS} | dict.fromkeys(("val", "validation", "dev"), "valid")


def read_table(folder: Path) -> list[RawRow]:
    """Read a user's table; `image` is a path relative to `folder`, or empty.

    Raises:
        UserError: no table or two of them, one that cannot be parsed, a missing column, an empty id or
            label, a repeated id, an image outside the folder, an unknown split.
    """
    what = "table.csv or table.parquet (columns id, text, image, label, optionally split)"
    require_folder(folder, what, "your own data")
    found = [p for p in (folder / "table.csv", folder / "table.parquet") if p.is_file()]
    if len(found) != 1:
        raise UserError(f"{folder}: expected one of table.csv and table.parquet, found {len(found)}")
    path = found[0]
    columns, records = _read_csv(path) if path.suffix == ".csv" else _read_parquet(path)
    missing = [name for name in _COLUMNS if name not in columns]
    if missing:
        raise UserError(f"{path}: no column named {', '.join(missing)}; it has {', '.join(columns)}")
    if not records:
        raise UserError(f"{path}: no rows in it")
    check_unique((record["id"], where) for where, record in records)
    return [_row(record, where) for where, record in records]


def _row(record: dict[str, str], where: str) -> RawRow:
    check_id(record["id"], where)
    label = record["label"].strip()
    if not label:
        raise UserError(f"{where}: id {record['id']!r} has no label")
    image = _image(record["image"], where)
    return RawRow(record["id"], record["text"], image, label, _split(record.get("split", ""), where))


def _read_csv(path: Path) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    """The columns, and each row with where it stands. Every value is text: "NA" and "007" as well."""
    csv.field_size_limit(2**31 - 1)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            records = [(f"{path}:{reader.line_num}", record) for record in reader]
            columns = list(reader.fieldnames or [])
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; save the table as UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not valid CSV: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from None
    for where, record in records:
        # The reader keeps what is too much under None, and gives None for what is too little.
        if None in record or None in record.values():
            raise UserError(
                f"{where}: expected {len(columns)} values, one for each of {', '.join(columns)}; "
                'a value with a comma in it needs quotes ("...")'
            )
    return columns, records


def _read_parquet(path: Path) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    try:
        table = pd.read_parquet(path)
        table.columns = [str(name) for name in table.columns]
        # Inside too: bytes that are not UTF-8 are found only when the text is asked for.
        table = table.astype(object).where(table.notna(), "").map(str)
    except Exception as error:  # a damaged file makes the parser raise whatever it runs into
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from None
    records = table.to_dict("records")
    return list(table.columns), [(f"{path}, row {n}", record) for n, record in enumerate(records, start=1)]


def _image(image: str, where: str) -> str | None:
    if not image.strip():
        return None
    path = PurePosixPath(image.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in image:
        raise UserError(
            f"{where}: the image {image!r} points outside its folder; give a path relative to the table"
        )
    return str(path)


def _split(split: str, where: str) -> str | None:
    name = split.strip().lower()
    if not name:
        return None
    if name not in _SPLIT_NAMES:
        raise UserError(f"{where}: unknown split {split!r}; allowed: train, valid, test or empty")
    return _SPLIT_NAMES[name]
