"""The clean table: one row a kept pair, in the order of the source."""

from pathlib import Path

import pandas as pd

from spp_scl.errors import UserError, first_line

# picture: SHA-256 of the decoded pixels, so that equal pictures are found under any name and metadata;
# split: where the source itself assigns one.
COLUMNS = ("id", "text", "image", "picture", "label", "split")


def read_clean(path: Path | str) -> pd.DataFrame:
    """Read a clean table; `label` is categorical, its categories are the classes in order.

    Raises:
        UserError: it is missing, damaged or not a clean table.
    """
    table = read_parquet(path, "clean")
    if tuple(table.columns) != COLUMNS or not isinstance(table["label"].dtype, pd.CategoricalDtype):
        raise UserError(f"{path}: not a clean table; rebuild it with `dvc repro clean --force`")
    return table


def read_parquet(path: Path | str, stage: str) -> pd.DataFrame:
    """Read a Parquet file that `stage` wrote.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; make it with `dvc repro {stage}`") from None
    except Exception as error:  # a damaged file makes the parser raise whatever it runs into
        raise UserError(
            f"{path}: damaged ({first_line(error)}); rebuild it with `dvc repro {stage} --force`"
        ) from None
