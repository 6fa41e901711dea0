"""MVSA-Single and MVSA-Multiple: `labelResultAll.txt`, `data/<id>.txt`, `data/<id>.jpg`.

The rules are those of Xu and Mao (2017), "MultiSentiNet", which every paper since has followed.
"""

from collections import Counter
from pathlib import Path

from spp_scl.errors import UserError, first_line
from spp_scl.progress import progress
from spp_scl.raw.datasets import SENTIMENTS
from spp_scl.raw.rows import RawRow, check_id, check_unique, read_lines, require_folder

SOURCE = "from https://mcrlab.net/research/mvsa-sentiment-analysis-on-multi-view-social-data/"


def read_mvsa(folder: Path, annotators: int) -> list[RawRow]:
    """Read MVSA-Single (1 annotator) or MVSA-Multiple (3).

    Raises:
        UserError: the folder or the label file is missing, a line is malformed, a label is not known, an
            id repeats or points outside `data/`.
    """
    require_folder(folder, "the raw archive: labelResultAll.txt and data/<id>.jpg, .txt", SOURCE)
    labels = folder / "labelResultAll.txt"
    lines = read_lines(labels)
    if not lines[0].lower().startswith("id\t"):
        raise UserError(f"{labels}:1: expected the header `ID<TAB>text,image`, found {lines[0]!r}")
    parsed = [
        (f"{labels}:{number}", *_parse(line, annotators, f"{labels}:{number}"))
        for number, line in enumerate(lines[1:], start=2)
        if line.strip()
    ]
    if not parsed:
        raise UserError(f"{labels}: no pairs in it")
    check_unique((row_id, where) for where, row_id, _, _ in parsed)
    return [
        _row(folder, row_id, text_labels, image_labels)
        for _, row_id, text_labels, image_labels in progress(parsed, desc="read", unit="tweets")
    ]


def decode(raw: bytes) -> tuple[str, str]:
    """Decode a tweet's bytes; returns the text and the name of the encoding.

    In MVSA-Single 3,738 tweets are UTF-8 and the other 1,131 GB18030. Windows-1252 is for what is neither.
    """
    for codec, name in (("utf-8-sig", "utf-8"), ("gb18030", "gb18030")):
        try:
            return raw.decode(codec), name
        except UnicodeDecodeError:
            continue
    # Five byte values have no character in Windows-1252; they become U+FFFD.
    return raw.decode("cp1252", errors="replace"), "cp1252"


def majority(labels: list[str]) -> str | None:
    """The label that more than half of the annotators gave, or None."""
    label, votes = Counter(labels).most_common(1)[0]
    return label if 2 * votes > len(labels) else None


def combine(text: str, image: str) -> str | None:
    """One label from the two modalities': equal, or the one that is not neutral; None for a conflict."""
    if text == image or image == "neutral":
        return text
    return image if text == "neutral" else None


def _parse(line: str, annotators: int, where: str) -> tuple[str, list[str], list[str]]:
    row_id, *columns = (field.strip() for field in line.rstrip("\t").split("\t"))
    check_id(row_id, where)
    if len(columns) != annotators:
        raise UserError(
            f"{where}: expected an id and {annotators} tab-separated `text,image` column(s), found {line!r}"
        )
    pairs = [column.lower().split(",") for column in columns]
    for pair in pairs:
        if len(pair) != 2:
            raise UserError(f"{where}: expected `text,image` labels, found {','.join(pair)!r}")
        for label in pair:
            if label not in SENTIMENTS:
                raise UserError(f"{where}: unknown label {label!r}; allowed: {', '.join(SENTIMENTS)}")
    return row_id, [text for text, _ in pairs], [image for _, image in pairs]


def _row(folder: Path, row_id: str, text_labels: list[str], image_labels: list[str]) -> RawRow:
    text, image = majority(text_labels), majority(image_labels)
    if text is None or image is None:
        label, dropped = None, "no_majority"
    else:
        label = combine(text, image)
        dropped = None if label else "conflicting_labels"
    try:
        tweet, encoding = decode((folder / "data" / f"{row_id}.txt").read_bytes())
    except FileNotFoundError:
        tweet, encoding = None, "utf-8"
    except OSError as error:
        raise UserError(f"{folder / 'data' / row_id}.txt: cannot be read: {first_line(error)}") from None
    return RawRow(row_id, tweet, f"data/{row_id}.jpg", label, None, dropped, encoding)
