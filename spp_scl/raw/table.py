"""A user's own tweets: `table.csv` or `table.parquet` with id, text, image, label and optionally split."""

from pathlib import Path, PurePosixPath

import pandas as pd

from spp_scl.errors import UserError
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
    table = _load(path)
    missing = [name for name in _COLUMNS if name not in table.columns]
    if missing:
        raise UserError(f"{path}: no column named {', '.join(missing)}; it has {', '.join(table.columns)}")
    if table.empty:
        raise UserError(f"{path}: no rows in it")
    has_split = "split" in table.columns
    rows = []
    for number, row in enumerate(table.to_dict("records"), start=1):
        where = f"{path}, row {number}"
        check_id(row["id"], where)
        if not row["label"]:
            raise UserError(f"{where}: id {row['id']!r} has no label")
        rows.append(
            RawRow(
                row["id"],
                row["text"],
                _image(row["image"], where),
                row["label"],
                _split(row["split"], where) if has_split else None,
            )
        )
    check_unique((row.id, f"{path}, row {n}") for n, row in enumerate(rows, start=1))
    return rows


def _load(path: Path) -> pd.DataFrame:
    try:
        if path.suffix == ".csv":
            # Every value as it stands: "NA", "null" and "007" are texts and ids like any other.
            return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        table = pd.read_parquet(path)
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; save the table as UTF-8") from None
    except (
        ValueError,
        OSError,
    ) as error:  # pandas' parser errors are ValueErrors and name the line
        raise UserError(f"{path}: cannot be read: {error}") from None
    present = table.notna()
    return table.astype(object).where(present, "").map(str)


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
