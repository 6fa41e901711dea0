"""From raw rows to the clean table, the rows that were dropped and the counts of both."""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pandas as pd

from spp_scl.clean.pictures import UnreadablePictureError, hash_picture, open_picture
from spp_scl.clean.table import COLUMNS
from spp_scl.clean.texts import clean_text, is_empty
from spp_scl.errors import UserError
from spp_scl.progress import progress
from spp_scl.raw.rows import RawRow

Policy = Literal["drop", "blank", "error"]


def clean_rows(
    rows: Sequence[RawRow],
    folder: Path,
    classes: Sequence[str] | None,
    missing_image: Policy,
    empty_text: Policy,
) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    """Apply the dataset's rules and the policies for what is missing.

    Args:
        rows: as a reader returns them.
        folder: the dataset's raw folder, which `RawRow.image` is relative to.
        classes: the classes in the order of their codes; None: those that are kept, sorted.
        missing_image: what to do with a picture that is missing or unreadable; `blank` keeps the row
            with `image` null.
        empty_text: what to do with a tweet that has no text.

    Returns:
        The clean table (`spp_scl.clean.table`); the dropped rows (id, reason, detail); the counts.

    Raises:
        UserError: a policy is `error` and there is such a row; nothing is kept; fewer than two classes.
    """
    kept, dropped = [], []
    problems: dict[str, list[str]] = {"missing_image": [], "empty_text": []}
    blank_images = blank_texts = 0
    # Rows that the dataset's own rules drop need no look at their picture.
    candidates = [row for row in rows if row.dropped is None]
    looks = dict(zip([row.id for row in candidates], _look_all(candidates, folder), strict=True))
    for row in rows:
        if row.dropped is not None:
            dropped.append((row.id, row.dropped, ""))
            continue
        text = clean_text(row.text or "")
        picture, reason, detail = looks[row.id]
        no_text = is_empty(text)
        if no_text:
            problems["empty_text"].append(row.id)
        if picture is None:
            problems["missing_image"].append(row.id)
        if no_text and empty_text == "drop":
            dropped.append((row.id, "empty_text", "" if row.text is not None else "no such file"))
        elif picture is None and missing_image == "drop":
            dropped.append((row.id, reason, detail))
        else:
            blank_images += picture is None
            blank_texts += no_text
            image = row.image if picture is not None else None
            kept.append((row.id, "" if no_text else text, image, picture, row.label, row.split))
    for name, policy in (("missing_image", missing_image), ("empty_text", empty_text)):
        if policy == "error" and problems[name]:
            _refuse(name, problems[name], looks)
    if not kept:
        raise UserError(f"{folder}: no pair is left after cleaning; {_hint(dropped)}")
    table = pd.DataFrame(kept, columns=list(COLUMNS))
    table["label"] = pd.Categorical(table["label"], categories=classes or sorted(set(table["label"])))
    if table["label"].nunique() < 2:
        raise UserError(
            f"{folder}: only one class ({table['label'].iloc[0]!r}); two are needed to tell apart"
        )
    # A column of nulls has no type of its own in Parquet.
    table = table.astype({name: "str" for name in COLUMNS if name != "label"})
    report = {
        "rows": len(rows),
        "kept": len(kept),
        "dropped": dict(sorted(Counter(reason for _, reason, _ in dropped).items())),
        "blank_images": blank_images,
        "empty_texts": blank_texts,
        "encodings": dict(sorted(Counter(row.encoding for row in rows).items())),
        "classes": {str(c): int((table["label"] == c).sum()) for c in table["label"].cat.categories},
    }
    return table, pd.DataFrame(dropped, columns=["id", "reason", "detail"]), report


def _look_all(rows: Sequence[RawRow], folder: Path) -> list[tuple[str | None, str, str]]:
    # Decoding releases the interpreter's lock, so threads are enough.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = pool.map(lambda row: _look(row, folder), rows)
        return list(progress(looks, desc="clean", unit="pairs", total=len(rows)))


def _look(row: RawRow, folder: Path) -> tuple[str | None, str, str]:
    """The picture's hash, or None with the reason and its detail."""
    if row.image is None:
        return None, "missing_image", "no image given"
    try:
        picture = open_picture(folder / row.image)
    except FileNotFoundError:
        return None, "missing_image", f"{row.image}: no such file"
    except UnreadablePictureError as error:
        return None, "unreadable_image", f"{row.image}: {error}"
    return hash_picture(picture), "", ""


def _refuse(name: str, ids: list[str], looks: dict[str, tuple[str | None, str, str]]) -> None:
    if name == "missing_image":
        shown = "; ".join(f"{row_id} ({looks[row_id][2]})" for row_id in ids[:5])
    else:
        shown = ", ".join(ids[:5])
    more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
    raise UserError(
        f"clean.{name} is `error` and {len(ids)} row(s) have it: {shown}{more}. "
        f"Mend them, or choose `-S clean.{name}=drop` or `-S clean.{name}=blank`"
    )


def _hint(dropped: list[tuple[str, str, str]]) -> str:
    counts = Counter(reason for _, reason, _ in dropped)
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
    hint = f"dropped: {reasons or 'nothing'}"
    if counts.get("missing_image"):
        hint += ". To go on without pictures: -S clean.missing_image=blank"
    return hint
