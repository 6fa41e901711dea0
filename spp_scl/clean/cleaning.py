"""From raw rows to the clean table, the rows that were dropped and the counts of both."""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from spp_scl.clean.pictures import UnreadablePictureError, hash_picture, open_picture
from spp_scl.clean.table import COLUMNS
from spp_scl.clean.texts import clean_text, is_empty
from spp_scl.errors import UserError
from spp_scl.options import Policy
from spp_scl.progress import progress
from spp_scl.raw.datasets import Dataset
from spp_scl.raw.rows import RawRow, first_five


@dataclass(frozen=True)
class _Checked:
    """A raw row with what cleaning found.

    Args:
        row: the raw row.
        text: the clean text; empty when nothing in it can be seen.
        picture: the picture's hash, or None and then `reason` and `detail` say why.
        reason: missing_image or unreadable_image.
        detail: the file, and what is wrong with it.
    """

    row: RawRow
    text: str = ""
    picture: str | None = None
    reason: str = ""
    detail: str = ""


def clean_rows(
    rows: Sequence[RawRow], folder: Path, dataset: Dataset, missing_image: Policy, empty_text: Policy
) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    """Apply the dataset's rules, and the policies for what is missing.

    Args:
        rows: as the dataset's reader returns them.
        folder: the dataset's raw folder, which `RawRow.image` is relative to.
        dataset: gives the classes in the order of their codes, and the selection metric.
        missing_image: what to do with a picture that is missing or unreadable; `blank` keeps the row
            with `image` null.
        empty_text: what to do with a tweet that has no text.

    Returns:
        The clean table (`spp_scl.clean.table`); the dropped rows (id, reason, detail); the counts.

    Raises:
        UserError: a policy is `error` and there is such a row; nothing is kept; fewer than two classes.
    """
    checked = _check_rows(rows, folder)
    candidates = [c for c in checked if c.row.dropped is None]
    if missing_image == "error":
        _refuse("missing_image", [f"{c.row.id} ({c.detail})" for c in candidates if c.picture is None])
    if empty_text == "error":
        _refuse("empty_text", [c.row.id for c in candidates if not c.text])
    kept: list[_Checked] = []
    dropped: list[tuple[str, str, str]] = []
    for c in checked:
        reason = _drop_reason(c, missing_image, empty_text)
        if reason is None:
            kept.append(c)
        else:
            dropped.append((c.row.id, *reason))
    reasons = Counter(reason for _, reason, _ in dropped)
    if not kept:
        raise UserError(f"{folder}: no pair is left after cleaning; {_describe_drops(reasons)}")
    table = _build_table(kept, dataset)
    counts = table["label"].value_counts(sort=False)
    if (counts > 0).sum() < 2:
        raise UserError(f"{folder}: only one class ({counts.idxmax()!r}) is left; at least two are needed")
    report = {
        "rows": len(rows),
        "kept": len(kept),
        "dropped": dict(sorted(reasons.items())),
        "blank_images": sum(c.picture is None for c in kept),
        "empty_texts": sum(not c.text for c in kept),
        "encodings": dict(sorted(Counter(row.encoding for row in rows if row.encoding).items())),
        "classes": {str(label): int(count) for label, count in counts.items()},
    }
    return table, pd.DataFrame(dropped, columns=["id", "reason", "detail"]), report


def _check_rows(rows: Sequence[RawRow], folder: Path) -> list[_Checked]:
    # Decoding releases the interpreter's lock, so threads are enough.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        checked = pool.map(lambda row: _check_row(row, folder), rows)
        return list(progress(checked, desc="clean", unit="pairs", total=len(rows)))


def _check_row(row: RawRow, folder: Path) -> _Checked:
    if row.dropped is not None:  # by the dataset's own rules: its picture need not be decoded
        return _Checked(row)
    text = clean_text(row.text or "")
    if is_empty(text):
        text = ""
    if row.image is None:
        return _Checked(row, text, None, "missing_image", "no image given")
    try:
        picture = open_picture(folder / row.image)
    except FileNotFoundError:
        return _Checked(row, text, None, "missing_image", f"{row.image}: no such file")
    except UnreadablePictureError as error:
        return _Checked(row, text, None, "unreadable_image", f"{row.image}: {error}")
    return _Checked(row, text, hash_picture(picture))


def _drop_reason(checked: _Checked, missing_image: Policy, empty_text: Policy) -> tuple[str, str] | None:
    """Why the row is dropped, and the detail; None where it is kept."""
    if checked.row.dropped is not None:
        return checked.row.dropped, ""
    if not checked.text and empty_text == "drop":
        return "empty_text", "no such file" if checked.row.text is None else ""
    if checked.picture is None and missing_image == "drop":
        return checked.reason, checked.detail
    return None


def _build_table(kept: Sequence[_Checked], dataset: Dataset) -> pd.DataFrame:
    table = pd.DataFrame([_values(c) for c in kept], columns=list(COLUMNS))
    classes = dataset.classes or sorted(set(table["label"]))
    table["label"] = pd.Categorical(table["label"], categories=classes)
    # A column of nulls has no type of its own in Parquet.
    table = table.astype({name: "str" for name in COLUMNS if name != "label"})
    table.attrs["selection"] = dataset.selection
    return table


def _values(checked: _Checked) -> tuple[str | None, ...]:
    """In the order of `COLUMNS`."""
    row, picture = checked.row, checked.picture
    image = row.image if picture else None
    return row.id, checked.text, image, picture, row.label, row.split, row.text_label, row.image_label


def _refuse(name: str, rows: list[str]) -> None:
    """Refuse rows that a policy `error` does not allow, if there are any."""
    if rows:
        raise UserError(
            f"clean.{name} is `error`, and {len(rows)} row(s) have it: {first_five(rows, '; ')}. "
            f"Mend them, or choose `-S clean.{name}=drop` or `-S clean.{name}=blank`"
        )


def _describe_drops(reasons: Counter[str]) -> str:
    counts = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    hint = f"dropped: {counts or 'nothing'}"
    if reasons["missing_image"]:
        hint += ". To go on without pictures: -S clean.missing_image=blank"
    return hint
