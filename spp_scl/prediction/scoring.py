"""A file of posts scored into another: in bounded memory, and going on after an interruption."""

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from spp_scl.errors import UserError
from spp_scl.files import remove, replacing
from spp_scl.prediction.posts import Prepared, read_post
from spp_scl.prediction.predictor import Predictor
from spp_scl.prediction.reading import Columns, Row, read_rows
from spp_scl.progress import progress

log = logging.getLogger(__name__)

# Rows of a part, which is what an interruption loses at most, and what is in memory.
_ROWS = 512

OUTPUTS = (".csv", ".jsonl", ".parquet")


def score_file(
    predictor: Predictor, path: Path, out: Path, columns: Columns, batch_size: int | None = None
) -> tuple[int, int]:
    """Score every post of a file.

    `out` has a row for each row of the file, in its order: `row` (from 1), `id` (the file's, where it has
    one), `prediction`, a probability a class (`p_<class>`), and `error`, why there is no prediction. Parts
    are kept beside it until all is done; the same call goes on from them.

    Args:
        predictor: the model.
        path: a CSV, Parquet or JSON Lines file.
        out: likewise.
        columns: of the file.
        batch_size: see `Predictor`.

    Returns:
        How many rows there are, and how many of them have an error.

    Raises:
        UserError: a file is missing or of another kind, or has no such column.
    """
    if out.suffix.lower() not in OUTPUTS:
        raise UserError(f"--out {out}: it is one of {', '.join(OUTPUTS)}")
    if out.resolve() == path.resolve():
        raise UserError(f"--out {out}: the file of the posts itself")
    parts = out.with_name(f".{out.name}.parts")
    _begin(parts, _key(predictor, path, columns, batch_size))
    rows = read_rows(path, columns)
    files: list[Path] = []
    with progress(desc="predict", unit="posts") as bar:
        while chunk := list(islice(rows, _ROWS)):
            files.append(parts / f"{len(files):07}.parquet")
            if not files[-1].exists():
                table = _score(predictor, chunk, batch_size)
                with replacing(files[-1]) as aside:
                    table.to_parquet(aside, index=False)
            bar.update(len(chunk))
    with replacing(out) as aside:
        counts = _join(files, aside, out.suffix.lower(), predictor.classes)
    remove(parts)
    return counts


def _key(predictor: Predictor, path: Path, columns: Columns, batch_size: int | None) -> str:
    """Other input, another model or other columns have other parts."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    status = path.stat()
    known = predictor.bundle.config["model"]["sha256"]
    facts: list[object] = [str(path.resolve()), status.st_size, status.st_mtime_ns, known, batch_size, _ROWS]
    facts += [predictor.precisions, predictor.device.type]
    return json.dumps([*facts, columns.text, columns.image, str(columns.folder.resolve())])


def _begin(parts: Path, key: str) -> None:
    path = parts / "key.json"
    if path.is_file() and path.read_text(encoding="utf-8") == key:
        log.info("going on where the last run has stopped")
        return
    remove(parts)
    parts.mkdir(parents=True)
    path.write_text(key, encoding="utf-8")


def _score(predictor: Predictor, rows: Sequence[Row], batch_size: int | None) -> pd.DataFrame:
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding releases the interpreter's lock
        posts = list(pool.map(lambda row: _read(row, predictor), rows))
    good = [post for post in posts if isinstance(post, Prepared)]
    predictions = iter(predictor.predict(good, batch_size))
    lines = []
    for row, post in zip(rows, posts, strict=True):
        line: dict[str, object] = {"row": row.number, "id": row.id, "prediction": None, "error": None}
        if isinstance(post, Prepared):
            found = next(predictions)
            line["prediction"] = found.label
            line |= {f"p_{name}": value for name, value in found.probabilities.items()}
        else:
            line["error"] = post
        lines.append(line)
    probabilities = [f"p_{name}" for name in predictor.classes]
    table = pd.DataFrame(lines, columns=["row", "id", "prediction", *probabilities, "error"])
    types = dict.fromkeys(("id", "prediction", "error"), "str") | dict.fromkeys(probabilities, "float64")
    return table.astype(types)


def _read(row: Row, predictor: Predictor) -> Prepared | str:
    """The post, or why there is none. Of its picture only what the encoder gets is kept."""
    if row.error:
        return row.error
    try:
        return predictor.prepare(read_post({"text": row.text, "image": row.image}))
    except UserError as error:
        return str(error)


def _join(files: Sequence[Path], out: Path, kind: str, classes: Sequence[str]) -> tuple[int, int]:
    """One file of all parts, one part at a time."""
    schema = pa.schema(
        [
            ("row", pa.int64()),
            ("id", pa.string()),
            ("prediction", pa.string()),
            *((f"p_{name}", pa.float64()) for name in classes),
            ("error", pa.string()),
        ]
    )
    rows = errors = 0
    with _writer(out, kind, schema) as write:
        for path in files:
            table = pd.read_parquet(path)[schema.names]
            write(table)
            rows, errors = rows + len(table), errors + int(table["error"].notna().sum())
    return rows, errors


@contextmanager
def _writer(out: Path, kind: str, schema: pa.Schema) -> Iterator[Callable[[pd.DataFrame], object]]:
    """What adds a table to the file."""
    if kind == ".parquet":
        with pq.ParquetWriter(out, schema) as parquet:
            yield lambda table: parquet.write_table(pa.Table.from_pandas(table, schema, preserve_index=False))
        return
    with out.open("w", encoding="utf-8", newline="") as file:
        if kind == ".csv":
            pd.DataFrame(columns=schema.names).to_csv(file, index=False)
            yield lambda table: table.to_csv(file, index=False, header=False)
        else:
            yield lambda table: table.to_json(file, orient="records", lines=True, force_ascii=False)
