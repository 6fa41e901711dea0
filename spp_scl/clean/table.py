"""The clean table: one row a kept pair, in the order of the source."""

import hashlib
import io
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


# A key of Parquet's footer, and Thrift's mark of a text of 64 bytes that follows it: the file's hash.
_KEY = "spp_scl.sha256"
_BEFORE_HASH = _KEY.encode() + b"\x18\x40"


def write_parquet(table: pd.DataFrame, path: Path | str) -> None:
    """Write a table into a Parquet file that carries its own hash, for `read_parquet` to compare.

    Parquet's own checksums are of its pages: they leave out the pages' headers and the footer.
    """
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    buffer = io.BytesIO()
    pq.write_table(arrow.replace_schema_metadata({**arrow.schema.metadata, _KEY: "0" * 64}), buffer)
    before, _, after = _around_hash(buffer.getvalue())
    Path(path).write_bytes(before + _hash(before, after) + after)


def read_parquet(path: Path | str, stage: str) -> pd.DataFrame:
    """Read a Parquet file that `stage` wrote.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        content = Path(path).read_bytes()
        if _BEFORE_HASH in content:
            before, known, after = _around_hash(content)
            # First of all: a damaged file can crash the parser, or what works on what it returns.
            if known != _hash(before, after):
                raise ValueError("it differs from its hash")
        return pd.read_parquet(io.BytesIO(content))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; make it with `dvc repro {stage}`") from None
    except Exception as error:  # a damaged file makes the parser raise whatever it runs into
        look_again(path)
        raise UserError(
            f"{path}: damaged ({first_line(error)}); `dvc repro` rebuilds it (by itself: `dvc repro {stage}`)"
        ) from None


def _around_hash(content: bytes) -> tuple[bytes, bytes, bytes]:
    place = content.rindex(_BEFORE_HASH) + len(_BEFORE_HASH)
    return content[:place], content[place : place + 64], content[place + 64 :]


def _hash(before: bytes, after: bytes) -> bytes:
    return hashlib.sha256(before + after).hexdigest().encode()
