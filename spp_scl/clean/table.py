"""The clean table: one row for each kept pair, in the order of the source."""

from pathlib import Path
from typing import get_args

import pandas as pd

from spp_scl.errors import UserError, first_line
from spp_scl.options import Selection
from spp_scl.previous import damaged_output

# picture: SHA-256 of the decoded pixels, so that equal pictures are found under any name and metadata;
# split: where the source itself assigns one; text_label, image_label: what each of the two was labeled alone,
# where the source says so.
COLUMNS = ("id", "text", "image", "picture", "label", "split", "text_label", "image_label")

SPLITS = ("train", "valid", "test")


def read_clean(path: Path | str) -> pd.DataFrame:
    """Read a clean table.

    Returns:
        A table of `COLUMNS`. `label` is categorical, its categories are the classes in order;
        `attrs["selection"]` is the dataset's metric on validation data that chooses the epoch.

    Raises:
        UserError: it is missing, damaged or not a clean table.
    """
    table = read_parquet(path, "clean")
    if (
        tuple(table.columns) != COLUMNS
        or not isinstance(table["label"].dtype, pd.CategoricalDtype)
        or table.attrs.get("selection") not in get_args(Selection)
    ):
        raise damaged_output("not a clean table", path)
    return table


def write_parquet(table: pd.DataFrame, path: Path | str) -> None:
    """Write a table, its `attrs` included, with checksums for `read_parquet`."""
    table.to_parquet(path, index=False, write_page_checksum=True)


def read_parquet(path: Path | str, stage: str) -> pd.DataFrame:
    """Read a Parquet file that `stage` wrote.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return pd.read_parquet(path, page_checksum_verification=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; make it with `dvc repro {stage}`") from None
    except Exception as error:  # on a damaged file the parser raises many kinds of errors
        raise damaged_output(first_line(error), path) from None
