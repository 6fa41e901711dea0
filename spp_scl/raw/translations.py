"""Back-translated texts: CLMLF's published JSON, or a file of one's own."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from spp_scl.errors import UserError
from spp_scl.files import read_json

Entry = tuple[str, str]  # an id, and the translation that the file gives it


def read_translations(path: Path) -> list[Entry]:
    """Read translations in the order of their file.

    Args:
        path: a JSON list of {"id", "text_translation"}, as CLMLF publishes, or a CSV file of these columns.

    Raises:
        UserError: it is missing or malformed, or an id stands in it twice.
    """
    entries: list[Entry] = []
    seen: set[str] = set()
    for number, record in enumerate(_records(path), start=1):
        values = record.get("id"), record.get("text_translation")
        if not all(isinstance(value, str) for value in values):
            raise UserError(f"{path}, entry {number}: expected the texts `id` and `text_translation`")
        row_id, text = str(values[0]), str(values[1])
        if row_id in seen:
            raise UserError(f"{path}, entry {number}: id {row_id!r} stands in it twice")
        seen.add(row_id)
        entries.append((row_id, text))
    return entries


def _records(path: Path) -> Sequence[dict]:
    if not path.is_file():
        raise UserError(f"{path}: no such file of translations")
    if path.suffix == ".json":
        found = read_json(path, "the translations")
        if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
            raise UserError(f"{path}: expected a list of objects with `id` and `text_translation`")
        return found
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: neither JSON (.json) nor CSV in UTF-8: {error}") from None


def repair_shift(
    entries: Sequence[Entry], texts: Mapping[str, str], streams: Mapping[str, str]
) -> list[Entry]:
    """Give each tweet the translation that is its own, where the file's have slipped.

    HFM's were made line by line: a tweet with line breaks used one entry a line and pushed all later ones
    on. The tweets of a stream, in the file's order, take their entries back; the last few get none.

    Args:
        entries: as the file has them.
        texts: each id's tweet, its line breaks kept.
        streams: what each id was translated in one go with.
    """
    repaired: list[Entry] = []
    for stream in dict.fromkeys(streams.values()):
        own = [(row_id, text) for row_id, text in entries if streams.get(row_id) == stream]
        place = 0
        for row_id, _ in own:
            lines = 1 + texts[row_id].count("\n")
            if place + lines > len(own):
                break
            repaired.append((row_id, " ".join(text for _, text in own[place : place + lines])))
            place += lines
    return repaired
