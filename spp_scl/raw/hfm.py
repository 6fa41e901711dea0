"""HFM, also known as MMSD: `text/{train,valid2,test2}.txt`, `images/<id>.jpg`.

Cai, Cai and Wan (2019), "Multi-Modal Sarcasm Detection in Twitter with Hierarchical Fusion Model". The
tweets are already tokenized and in lower case; the dataset has a split of its own.
"""

import ast
from pathlib import Path

from spp_scl.errors import UserError
from spp_scl.raw.rows import RawRow, check_id, parse_rows, read_lines, require_folder

CLASSES = ("not sarcastic", "sarcastic")
MISSING = (
    "Put text/train.txt, text/valid2.txt, text/test2.txt and images/<id>.jpg there (from "
    "https://github.com/headacheboy/data-of-multimodal-sarcasm-detection)"
)

# The number of values in a line: validation and test carry a label by hashtag and one by hand.
_FILES = {"train": ("train.txt", 3), "valid": ("valid2.txt", 4), "test": ("test2.txt", 4)}

# The words by which training tweets were collected, or that reveal the label.
_MARKERS = {
    *("exgag", "sarcasm", "sarcastic", "reposting", "<url>"),
    *("joke", "humour", "humor", "jokes", "irony", "ironic"),
}


def read_hfm(folder: Path) -> list[RawRow]:
    """Read HFM.

    Raises:
        UserError: the folder or a text file is missing, a line is malformed, a label is not known, an id
            repeats or points outside `images/`.
    """
    require_folder(folder, MISSING)
    records = [
        (f"{folder / 'text' / name}:{number}", (split, line))
        for split, (name, _) in _FILES.items()
        for number, line in enumerate(read_lines(folder / "text" / name), start=1)
        if line.strip()
    ]
    return parse_rows(records, _parse)


def _parse(record: tuple[str, str], where: str) -> RawRow:
    split, line = record
    values = _FILES[split][1]
    try:
        fields = ast.literal_eval(line.strip())
    except Exception:  # on what is no literal it raises many kinds of errors
        fields = None
    if not (
        isinstance(fields, list)
        and len(fields) == values
        and all(isinstance(f, str) for f in fields[:2])
        # Python refuses to print an integer of thousands of digits, in a message as well.
        and all(type(f) is int and f.bit_length() < 64 for f in fields[2:])
    ):
        expected = "label" if values == 3 else "hashtag_label, human_label"
        raise UserError(f"{where}: expected ['<id>', '<tweet>', {expected}], found {line[:80]!r}")
    row_id, text, *labels = fields
    check_id(row_id, where)
    for label in labels:
        if label not in range(len(CLASSES)):
            raise UserError(f"{where}: unknown label {label}; allowed: 0 ({CLASSES[0]}), 1 ({CLASSES[1]})")
    marked = split == "train" and not _MARKERS.isdisjoint(text.split())
    return RawRow(
        row_id,
        text,
        f"images/{row_id}.jpg",
        CLASSES[labels[-1]],
        split,
        "sarcasm_marker" if marked else None,
    )
