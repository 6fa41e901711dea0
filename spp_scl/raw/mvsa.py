"""MVSA-Single and MVSA-Multiple: `labelResultAll.txt`, `data/<id>.txt`, `data/<id>.jpg`.

The rules are those of Xu and Mao (2017), "MultiSentiNet", which every paper since has followed.
"""

from collections import Counter
from pathlib import Path

from spp_scl.errors import UserError, first_line
from spp_scl.progress import progress
from spp_scl.raw.rows import RawRow, check_id, parse_rows, read_lines, require_folder

CLASSES = ("positive", "neutral", "negative")
MISSING = (
    "Put the raw archive there: labelResultAll.txt and data/<id>.jpg, .txt (from "
    "https://mcrlab.net/research/mvsa-sentiment-analysis-on-multi-view-social-data/)"
)


def read_mvsa(folder: Path, annotators: int, missing: str = MISSING) -> list[RawRow]:
    """Read MVSA-Single (1 annotator) or MVSA-Multiple (3).

    Args:
        folder: the raw folder.
        annotators: columns of labels.
        missing: how to get the folder where there is none.

    Raises:
        UserError: the folder or the label file is missing, a line is malformed, a label is not known, an
            id repeats or points outside `data/`.
    """
    require_folder(folder, missing)
    path = folder / "labelResultAll.txt"
    lines = read_lines(path)
    if not lines[0].lower().startswith("id\t"):
        raise UserError(f"{path}:1: expected the header `ID<TAB>text,image`, found {lines[0]!r}")
    records = [(f"{path}:{number}", line) for number, line in enumerate(lines[1:], start=2) if line.strip()]
    if not records:
        raise UserError(f"{path}: no pairs in it")

    def parse(line: str, where: str) -> RawRow:
        row_id, *labels = _parse_labels(line, annotators, where)
        of_text, of_image = map(majority, labels)
        label, dropped = _combine(of_text, of_image)
        text, encoding = _read_tweet(folder / "data" / f"{row_id}.txt")
        image = f"data/{row_id}.jpg"
        return RawRow(row_id, text, image, label, None, dropped, encoding, of_text, of_image)

    return parse_rows(progress(records, desc="read", unit="tweets"), parse)


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


def _combine(text: str | None, image: str | None) -> tuple[str | None, str | None]:
    """The label, or None and the rule that drops the row."""
    if text is None or image is None:
        return None, "no_majority"
    label = combine(text, image)
    return label, None if label else "conflicting_labels"


def _parse_labels(line: str, annotators: int, where: str) -> tuple[str, list[str], list[str]]:
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
            if label not in CLASSES:
                raise UserError(f"{where}: unknown label {label!r}; allowed: {', '.join(CLASSES)}")
    return row_id, [text for text, _ in pairs], [image for _, image in pairs]


def _read_tweet(path: Path) -> tuple[str | None, str | None]:
    """The text and its encoding; None for both where there is no such file."""
    try:
        return decode(path.read_bytes())
    except FileNotFoundError:
        return None, None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from None
