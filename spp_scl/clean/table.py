"""The clean table: one row a kept pair, in the order of the source."""

import hashlib
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from spp_scl.errors import UserError, first_line
from spp_scl.files import look_again

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


def write_parquet(table: pd.DataFrame, path: Path | str) -> None:
    """Write a table with a hash of its content, for `read_parquet` to compare.

    Parquet's own checksums are of its pages: they leave out the pages' headers and the footer.
    """
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    arrow = arrow.replace_schema_metadata({**arrow.schema.metadata, _HASH: _hash(table)})
    pq.write_table(arrow, path)


def read_parquet(path: Path | str, stage: str) -> pd.DataFrame:
    """Read a Parquet file that `stage` wrote.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        table = pd.read_parquet(path)
        known = (pq.read_schema(path).metadata or {}).get(_HASH)
        if known is not None and known != _hash(table):
            raise ValueError("its content differs from its hash")
        return table
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; make it with `dvc repro {stage}`") from None
    except Exception as error:  # a damaged file makes the parser raise whatever it runs into
        look_again(path)
        raise UserError(
            f"{path}: damaged ({first_line(error)}); `dvc repro` rebuilds it (by itself: `dvc repro {stage}`)"
        ) from None


_HASH = b"sha256"


def _hash(table: pd.DataFrame) -> bytes:
    classes = [list(t.categories) for t in table.dtypes if isinstance(t, pd.CategoricalDtype)]
    content = table.to_json(orient="values", double_precision=15)
    return hashlib.sha256(json.dumps([list(table), classes, content]).encode()).hexdigest().encode()
