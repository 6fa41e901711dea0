"""HFM, also known as MMSD: `text/{train,valid2,test2}.txt`, `images/<id>.jpg`.

Cai, Cai and Wan (2019), "Multi-Modal Sarcasm Detection in Twitter with Hierarchical Fusion Model". The
tweets are already tokenized and in lower case; the dataset splits itself.
"""

import ast
from pathlib import Path

from spp_scl.errors import UserError
from spp_scl.raw.datasets import DATASETS
from spp_scl.raw.rows import RawRow, check_id, check_unique, read_lines, require_folder

CLASSES = DATASETS["hfm"].classes
SOURCE = "from https://github.com/headacheboy/data-of-multimodal-sarcasm-detection"

# How many values stand in a line: validation and test carry a label by hashtag and one by hand.
_FILES = {"train": ("train.txt", 3), "valid": ("valid2.txt", 4), "test": ("test2.txt", 4)}

# The words that gave a training tweet its label, or give it away.
_MARKERS = frozenset(
    [
        "exgag",
        "sarcasm",
        "sarcastic",
        "reposting",
        "<url>",
        "joke",
        "humour",
        "humor",
        "jokes",
        "irony",
        "ironic",
    ]
)


def read_hfm(folder: Path) -> list[RawRow]:
    """Read HFM.

    Raises:
        UserError: the folder or a text file is missing, a line is malformed, a label is not known, an id
            repeats or points outside `images/`.
    """
    require_folder(folder, "text/train.txt, text/valid2.txt, text/test2.txt and images/<id>.jpg", SOURCE)
    rows, places = [], []
    for split, (name, values) in _FILES.items():
        path = folder / "text" / name
        for number, line in enumerate(read_lines(path), start=1):
            if line.strip():
                rows.append(_parse(line, split, values, f"{path}:{number}"))
                places.append((rows[-1].id, f"{path}:{number}"))
    check_unique(places)
    return rows


def _parse(line: str, split: str, values: int, where: str) -> RawRow:
    try:
        fields = ast.literal_eval(line.strip())
    except Exception:  # what is no literal makes it raise whatever it runs into
        fields = None
    if not (
        isinstance(fields, list)
        and len(fields) == values
        and all(isinstance(f, str) for f in fields[:2])
        # Python refuses to print an integer of thousands of digits, in a message as well.
        and all(type(f) is int and f.bit_length() < 64 for f in fields[2:])
    ):
        labels = "label" if values == 3 else "hashtag_label, human_label"
        raise UserError(f"{where}: expected ['<id>', '<tweet>', {labels}], found {line[:80]!r}")
    row_id, text, *labels = fields
    check_id(row_id, where)
    for label in labels:
        if label not in range(len(CLASSES)):
            raise UserError(f"{where}: unknown label {label}; allowed: 0 ({CLASSES[0]}), 1 ({CLASSES[1]})")
    gives_away = split == "train" and not _MARKERS.isdisjoint(text.split())
    return RawRow(
        row_id,
        text,
        f"images/{row_id}.jpg",
        CLASSES[labels[-1]],
        split,
        "sarcasm_marker" if gives_away else None,
    )
