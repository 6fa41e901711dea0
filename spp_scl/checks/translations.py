"""The training tweets' translations, and whether they belong to their tweets."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from spp_scl.clean.texts import clean_text, normalize
from spp_scl.raw.datasets import DATASETS
from spp_scl.raw.translations import read_translations, repair_shift

PUBLISHED = "translations.json"


def find_translations(
    table: pd.DataFrame, dataset: str, raw: Path, published: Path, views: dict[str, Any]
) -> list[str | None]:
    """Each row's translation, or None.

    Args:
        table: rows of a clean table.
        dataset: its name.
        raw: its raw folder, read where the translations have to be repaired.
        published: the folder that may hold CLMLF's file.
        views: `translations`, a file or `auto`: CLMLF's where it is, else none; `repair`: see `repair_shift`.

    Raises:
        UserError: the file is missing or malformed.
    """
    path = published / PUBLISHED if views["translations"] == "auto" else Path(views["translations"])
    if views["translations"] == "auto" and not path.is_file():
        return [None] * len(table)
    entries = read_translations(path)
    together = DATASETS[dataset].translated_together
    if together and views["repair"]:
        rows = {row.id: row for row in DATASETS[dataset].read(raw)}
        streams = {split: str(number) for number, splits in enumerate(together) for split in splits}
        known = [(row_id, text) for row_id, text in entries if row_id in rows]
        entries = repair_shift(
            known,
            {row_id: rows[row_id].text or "" for row_id, _ in known},
            {row_id: streams[rows[row_id].split or ""] for row_id, _ in known},
        )
    found = {row_id: clean_text(text) for row_id, text in entries}
    return [found.get(row_id) or None for row_id in table["id"]]


def describe_translations(texts: Sequence[str], translations: Sequence[str | None]) -> dict[str, Any]:
    """How many there are, and the share of a tweet's words that its translation has.

    Args:
        texts: the tweets.
        translations: theirs.

    Returns:
        `rows`, `translated`; `overlap` with the own tweet and `overlap_next` with the next one, means over
        the translated tweets that have a word, None without any; and `same`, whose translation is the tweet.
    """
    pairs = [
        (normalize(text), normalize(found))
        for text, found in zip(texts, translations, strict=True)
        if found is not None
    ]
    having = [(set(text.split()), set(found.split())) for text, found in pairs if text]
    shifted = [(text, having[(i + 1) % len(having)][1]) for i, (text, _) in enumerate(having)]

    def overlap(of: Sequence[tuple[set[str], set[str]]]) -> float | None:
        return fmean(len(text & found) / len(text) for text, found in of) if of else None

    return {
        "rows": len(texts),
        "translated": len(pairs),
        "same": sum(text == found for text, found in pairs),
        "overlap": overlap(having),
        "overlap_next": overlap(shifted),
    }
