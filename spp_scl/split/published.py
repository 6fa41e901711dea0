"""CLMLF's published splits of MVSA: three JSON files, each a list of {"id", "text", "emotion_label"}."""

from pathlib import Path

from spp_scl.errors import UserError
from spp_scl.files import read_json

_FILES = {"train": "train.json", "valid": "dev.json", "test": "test.json"}


def has_published(folder: Path) -> bool:
    """Whether any of the three files is there (a part of them is a mistake, which reading reports)."""
    return any((folder / name).is_file() for name in _FILES.values())


def read_published(folder: Path) -> dict[str, str]:
    """Read the split of every id.

    Raises:
        UserError: the files are missing or malformed, or an id stands in them twice.
    """
    missing = [name for name in _FILES.values() if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder}: the published split needs {', '.join(missing)}. Get train.json, dev.json and "
            "test.json from https://github.com/Link-Li/CLMLF (dataset/data/MVSA-single/10-flod-1 or its "
            f"counterpart of MVSA-multiple) and put them into {folder}, or choose "
            "`-S split.protocol=stratified` or `-S split.protocol=grouped`"
        )
    splits: dict[str, str] = {}
    for split, name in _FILES.items():
        path = folder / name
        entries = read_json(path, "the published split")
        if not isinstance(entries, list):
            raise UserError(f"{path}: expected a list of objects with an `id`")
        for number, entry in enumerate(entries, start=1):
            if not isinstance(entry, dict) or "id" not in entry:
                raise UserError(f"{path}, entry {number}: expected an object with an `id`")
            row_id = str(entry["id"])
            if row_id in splits:
                raise UserError(f"{path}, entry {number}: id {row_id!r} stands in the split twice")
            splits[row_id] = split
    return splits
