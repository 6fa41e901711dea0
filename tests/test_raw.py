import json
from itertools import product
from pathlib import Path
from statistics import multimode

import pandas as pd
import pytest

from spp_scl.clean.cleaning import clean_rows
from spp_scl.errors import UserError
from spp_scl.raw.datasets import DATASETS
from spp_scl.raw.reading import read_dataset
from spp_scl.split.splitting import split_table

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
HFM = SHARED / "hfm"
MVSA = SHARED / "mvsa_single" / "raw"
MVSA_SPLITS = SHARED / "mvsa_single" / "splits"

# Xu and Mao (2017), written out: (text, image) to label; None is dropped.
MVSA_RULES = {
    ("positive", "positive"): "positive",
    ("positive", "neutral"): "positive",
    ("positive", "negative"): None,
    ("neutral", "positive"): "positive",
    ("neutral", "neutral"): "neutral",
    ("neutral", "negative"): "negative",
    ("negative", "positive"): None,
    ("negative", "neutral"): "negative",
    ("negative", "negative"): "negative",
}
SINGLE_HEADER = "ID\ttext,image"
MULTIPLE_HEADER = "ID\ttext,image\ttext,image\ttext,image"
OUTSIDE = ["../x", "a/b", "..", ".", "", "a\\b", "/etc/passwd"]


def write_mvsa(folder: Path, lines: list[str], tweets: dict[str, bytes] | None = None) -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "labelResultAll.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for row_id, tweet in (tweets or {}).items():
        (folder / "data" / f"{row_id}.txt").write_bytes(tweet)
    return folder


def write_hfm(
    folder: Path,
    train: str = "['1', 'a', 0]",
    valid: str = "['2', 'b', 0, 0]",
    test: str = "['3', 'c', 1, 1]",
) -> Path:
    (folder / "text").mkdir(parents=True)
    for name, content in (("train", train), ("valid2", valid), ("test2", test)):
        (folder / "text" / f"{name}.txt").write_bytes(content.encode())
    return folder


def write_table(folder: Path, kind: str, columns: dict[str, list]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(columns)
    if kind == "csv":
        table.to_csv(folder / "table.csv", index=False)
    else:
        table.to_parquet(folder / "table.parquet")
    return folder


def refusal(name: str, folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_dataset(name, folder)
    return str(caught.value)


def place(folder: Path, kind: str, row: int) -> str:
    """How an error names a table's row: a CSV's by the file's line, which the header is the first of."""
    return f"{folder}/table.csv:{row + 1}" if kind == "csv" else f"{folder}/table.parquet, row {row}"


# --- MVSA: the rules


@pytest.mark.parametrize(("text", "image"), MVSA_RULES)
@pytest.mark.parametrize("dataset", ["mvsa_single", "sample"])
def test_mvsa_single_combines_the_two_labels_by_the_published_rule(tmp_path, dataset, text, image):
    folder = write_mvsa(tmp_path / "raw", [SINGLE_HEADER, f"7\t{text},{image}"], {"7": b"hello\n"})
    (row,) = read_dataset(dataset, folder)
    expected = MVSA_RULES[text, image]
    assert row.label == expected
    assert row.dropped == (None if expected else "conflicting_labels")
    assert (row.id, row.text.strip(), row.image, row.split) == ("7", "hello", "data/7.jpg", None)


@pytest.mark.parametrize(
    ("annotations", "label", "dropped"),
    [
        ("positive,positive\tpositive,positive\tpositive,positive", "positive", None),
        ("positive,neutral\tpositive,negative\tnegative,neutral", "positive", None),
        ("neutral,negative\tpositive,negative\tneutral,positive", "negative", None),
        ("neutral,neutral\tneutral,neutral\tnegative,positive", "neutral", None),
        ("positive,negative\tpositive,negative\tneutral,neutral", None, "conflicting_labels"),
        ("positive,neutral\tneutral,neutral\tnegative,neutral", None, "no_majority"),
        ("neutral,positive\tneutral,neutral\tneutral,negative", None, "no_majority"),
        ("positive,negative\tneutral,positive\tnegative,neutral", None, "no_majority"),
    ],
)
def test_mvsa_multiple_takes_each_modality_s_majority_first(tmp_path, annotations, label, dropped):
    folder = write_mvsa(tmp_path / "raw", [MULTIPLE_HEADER, f"1\t{annotations}"])
    (row,) = read_dataset("mvsa_multiple", folder)
    assert (row.label, row.dropped) == (label, dropped)


def test_mvsa_multiple_follows_the_rules_for_each_of_the_729_annotations(tmp_path):
    annotations = list(product(MVSA_RULES, repeat=3))
    lines = ["\t".join([str(n), *map(",".join, columns)]) for n, columns in enumerate(annotations)]
    rows = read_dataset("mvsa_multiple", write_mvsa(tmp_path / "raw", [MULTIPLE_HEADER, *lines]))
    assert len(rows) == len(annotations) == 729
    for row, columns in zip(rows, annotations, strict=True):
        # Of three votes, a single most frequent one is a majority.
        text, image = (multimode(labels) for labels in zip(*columns, strict=True))
        decided = len(text) == len(image) == 1
        assert row.label == (MVSA_RULES[text[0], image[0]] if decided else None), columns
        assert (row.dropped == "no_majority") == (not decided), columns


# --- MVSA: the mess


def test_mvsa_tweets_are_utf8_or_gb18030_or_else_windows_1252_and_the_encoding_is_named(tmp_path):
    tweets = {
        # The first as in MVSA-Single.
        "gb1": b"mordi\xa8\xa6ndos\xa1\xad",
        "gb2": b"\xa7\xb1\xa7\xe2\xa7\xda\xa7\xd3\xa7\xd6\xa7\xe4 \xa4\xb3\xa4\xf3\xa4\xcb\xa4\xc1\xa4\xcf",
        "gb3": b"na\x810\x8a7ve",
        "1": "café ☕".encode(),
        "2": b"\xef\xbb\xbfmarked",
        "3": b"caf\xe9 \x93quoted\x94",
        "4": b"undefined \x81 in both",
        "5": b"",
        "6": b"two\r\nlines\r\n",
    }
    lines = [f"{row_id}\tneutral,neutral" for row_id in tweets]
    rows = read_dataset("mvsa_single", write_mvsa(tmp_path / "raw", [SINGLE_HEADER, *lines], tweets))
    assert [row.text.split() for row in rows] == [
        ["mordiéndos…"],
        ["Привет", "こんにちは"],
        ["naïve"],
        ["café", "☕"],
        ["marked"],
        ["café", "“quoted”"],
        ["undefined", "\ufffd", "in", "both"],
        [],
        ["two", "lines"],
    ]
    assert [row.encoding for row in rows[:3]] == ["gb18030"] * 3
    assert [row.encoding for row in rows[3:]] == ["utf-8", "utf-8", "cp1252", "cp1252", "utf-8", "utf-8"]


def test_mvsa_a_missing_tweet_file_leaves_the_row_without_text(tmp_path):
    lines = [SINGLE_HEADER, "1\tneutral,neutral", "2\tneutral,neutral"]
    rows = read_dataset("mvsa_single", write_mvsa(tmp_path / "raw", lines, {"2": b"here"}))
    assert [row.text for row in rows] == [None, "here"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda raw: raw.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(lambda raw: b"\xef\xbb\xbf" + raw, id="BOM"),
        pytest.param(lambda raw: raw.replace(b"\n", b"\n\n") + b"  \n\n", id="blank lines"),
        pytest.param(lambda raw: raw.rstrip(b"\n"), id="no last line end"),
        pytest.param(lambda raw: raw.replace(b"\n", b"\t\n"), id="tabs at the end"),
        pytest.param(lambda raw: raw.replace(b"neutral", b"Neutral"), id="capitals"),
    ],
)
def test_mvsa_labels_read_the_same_whatever_the_line_ends_and_marks(tmp_path, change):
    lines = [SINGLE_HEADER, "1\tneutral,negative", "20\tpositive,neutral"]
    folder = write_mvsa(tmp_path / "raw", lines)
    path = folder / "labelResultAll.txt"
    path.write_bytes(change(path.read_bytes()))
    rows = read_dataset("mvsa_single", folder)
    assert [(row.id, row.label) for row in rows] == [("1", "negative"), ("20", "positive")]


@pytest.mark.parametrize("dataset", ["mvsa_single", "mvsa_multiple", "hfm", "table"])
def test_a_missing_folder_is_refused_with_what_belongs_there(tmp_path, dataset):
    message = refusal(dataset, tmp_path / "absent")
    assert str(tmp_path / "absent") in message
    what = {"hfm": "text/train.txt", "table": "table.csv"}.get(dataset, "labelResultAll.txt")
    assert what in message
    if dataset != "table":
        assert "https://" in message


def test_mvsa_a_missing_label_file_is_named(tmp_path):
    (tmp_path / "data").mkdir()
    assert str(tmp_path / "labelResultAll.txt") in refusal("mvsa_single", tmp_path)


@pytest.mark.parametrize("lines", [[""], ["1\tneutral,neutral"], ["id,text,image", "1\tneutral,neutral"]])
def test_mvsa_a_label_file_without_its_header_is_refused_at_line_1(tmp_path, lines):
    folder = write_mvsa(tmp_path / "raw", lines)
    assert f"{folder / 'labelResultAll.txt'}:1: " in refusal("mvsa_single", folder)


def test_mvsa_a_label_file_with_only_a_header_is_refused(tmp_path):
    folder = write_mvsa(tmp_path / "raw", [SINGLE_HEADER])
    assert str(folder / "labelResultAll.txt") in refusal("mvsa_single", folder)


@pytest.mark.parametrize(
    "line",
    [
        "2",
        "2\t",
        "2 neutral,neutral",
        "2,neutral,neutral",
        "2\tneutral",
        "2\tneutral,neutral,neutral",
        "2\tneutral\tneutral",
        "2\tneutral,neutral\tneutral,neutral",
        "2\t,",
    ],
)
def test_mvsa_single_a_malformed_line_is_refused_with_file_and_line(tmp_path, line):
    folder = write_mvsa(tmp_path / "raw", [SINGLE_HEADER, "1\tneutral,neutral", "", line])
    assert f"{folder / 'labelResultAll.txt'}:4: " in refusal("mvsa_single", folder)


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_mvsa_multiple_refuses_any_number_of_annotators_but_three(tmp_path, columns):
    line = "\t".join(["1", *["neutral,neutral"] * columns])
    folder = write_mvsa(tmp_path / "raw", [MULTIPLE_HEADER, line])
    message = refusal("mvsa_multiple", folder)
    assert f"{folder / 'labelResultAll.txt'}:2: " in message
    assert "3" in message.split(":2: ")[1]


@pytest.mark.parametrize("pair", ["happy,neutral", "neutral,happy"])
def test_mvsa_an_unknown_label_is_refused_with_its_line_and_the_allowed_ones(tmp_path, pair):
    folder = write_mvsa(tmp_path / "raw", [SINGLE_HEADER, "1\tneutral,neutral", f"2\t{pair}"])
    message = refusal("mvsa_single", folder)
    assert f"{folder / 'labelResultAll.txt'}:3: " in message
    assert all(word in message for word in ("'happy'", "positive", "neutral", "negative"))


def test_mvsa_a_repeated_id_is_refused_with_both_places(tmp_path):
    lines = [SINGLE_HEADER, "1\tneutral,neutral", "2\tneutral,neutral", "1\tpositive,neutral"]
    folder = write_mvsa(tmp_path / "raw", lines)
    message = refusal("mvsa_single", folder)
    labels = folder / "labelResultAll.txt"
    assert f"{labels}:2" in message
    assert f"{labels}:4" in message
    assert "'1'" in message


@pytest.mark.parametrize("row_id", OUTSIDE)
def test_mvsa_an_id_that_points_outside_its_folder_is_refused_with_its_line(tmp_path, row_id):
    folder = write_mvsa(tmp_path / "raw", [SINGLE_HEADER, "1\tneutral,neutral", f"{row_id}\tneutral,neutral"])
    (tmp_path / "x.txt").write_text("not the dataset's")
    assert f"{folder / 'labelResultAll.txt'}:3: " in refusal("mvsa_single", folder)


def test_mvsa_an_id_too_long_for_a_file_name_is_refused_with_its_line(tmp_path):
    folder = write_mvsa(tmp_path / "raw", [SINGLE_HEADER, f"{'9' * 300}\tneutral,neutral"])
    assert f"{folder / 'labelResultAll.txt'}:2: " in refusal("mvsa_single", folder)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
def test_mvsa_a_label_file_that_is_not_utf8_is_refused_at_the_line(tmp_path, mark):
    folder = write_mvsa(tmp_path / "raw", [SINGLE_HEADER])
    path = folder / "labelResultAll.txt"
    path.write_bytes(mark + SINGLE_HEADER.encode() + b"\n1\tneutral,neutral\n\xe9\tneutral,neutral\n")
    assert f"{path}:3: " in refusal("mvsa_single", folder)


# --- HFM: the rules


@pytest.mark.parametrize(
    "marker",
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
    ],
)
def test_hfm_a_marker_token_drops_a_tweet_in_train_only(tmp_path, marker):
    text = f"what a # {marker} day"
    folder = write_hfm(
        tmp_path / "raw",
        train=f"['1', '{text}', 1]\n['4', '{marker}', 0]",
        valid=f"['2', '{text}', 1, 1]",
        test=f"['3', '{text}', 1, 1]",
    )
    dropped = {row.id: row.dropped for row in read_dataset("hfm", folder)}
    assert dropped == {"1": "sarcasm_marker", "4": "sarcasm_marker", "2": None, "3": None}


@pytest.mark.parametrize("text", ["jokers", "a sarcasm.", "#irony", "humorous", "ex gag", "<user>", "url"])
def test_hfm_a_word_that_only_contains_a_marker_is_kept(tmp_path, text):
    rows = read_dataset("hfm", write_hfm(tmp_path / "raw", train=f"['1', '{text}', 1]"))
    assert {row.id: row.dropped for row in rows} == {"1": None, "2": None, "3": None}


@pytest.mark.parametrize("hashtag", [0, 1])
@pytest.mark.parametrize("human", [0, 1])
def test_hfm_validation_and_test_carry_the_human_label_and_train_its_only_one(tmp_path, hashtag, human):
    folder = write_hfm(
        tmp_path / "raw",
        train=f"['1', 'a', {hashtag}]",
        valid=f"['2', 'b', {hashtag}, {human}]",
        test=f"['3', 'c', {hashtag}, {human}]",
    )
    names = ["not sarcastic", "sarcastic"]
    assert [(row.id, row.split, row.label) for row in read_dataset("hfm", folder)] == [
        ("1", "train", names[hashtag]),
        ("2", "valid", names[human]),
        ("3", "test", names[human]),
    ]


def test_hfm_lines_are_python_literals_with_either_quote_and_escapes(tmp_path):
    train = r"""["1", "it 's", 0]
['2', 'both \' and "', 0]
['3', 'caf\xe9 \u2615', 0]
['4', 'ünïcode ☕', 0]
['5', '', 0]
"""
    folder = write_hfm(tmp_path / "raw", train, valid="['6', 'b', 0, 0]", test="['7', 'c', 1, 1]")
    rows = read_dataset("hfm", folder)
    assert [row.text for row in rows] == ["it 's", "both ' and \"", "café ☕", "ünïcode ☕", "", "b", "c"]
    assert [row.image for row in rows] == [f"images/{n}.jpg" for n in range(1, 8)]


# --- HFM: the mess


@pytest.mark.parametrize(
    "line",
    [
        "['4', 'x']",
        "['4', 'x', 1, 1]",
        "('4', 'x', 1)",
        "{'4': 'x'}",
        "[4, 'x', 1]",
        "['4', None, 1]",
        "['4', 'x', '1']",
        "['4', 'x', True]",
        "['4', 'x', 1.0]",
        "['4', 'x', 1",
        "4\tx\t1",
        "['4', 'x\0', 1]",
        "__import__('os').getcwd()",
        "{[]: 1}",
        pytest.param("[" * 5000, id="deeply nested"),
        pytest.param(f"['4', 'x', 0x{'f' * 5000}]", id="a number of thousands of digits"),
        pytest.param(f"0x{'f' * 5000} + 1j", id="a number beyond every float"),
    ],
)
def test_hfm_a_malformed_line_is_refused_with_file_and_line(tmp_path, line):
    folder = write_hfm(tmp_path / "raw", train=f"['1', 'a', 0]\n\n{line}\n")
    assert f"{folder / 'text' / 'train.txt'}:3: " in refusal("hfm", folder)


def test_hfm_a_line_with_one_label_is_refused_in_validation_and_test(tmp_path):
    for split, name in (("valid", "valid2.txt"), ("test", "test2.txt")):
        folder = write_hfm(tmp_path / split, **{split: "['9', 'x', 1]"})
        assert f"{folder / 'text' / name}:1: " in refusal("hfm", folder)


@pytest.mark.parametrize("labels", ["2, 1", "1, 2", "-1, 0", "0, -1"])
def test_hfm_an_unknown_label_is_refused_with_its_line_and_the_allowed_ones(tmp_path, labels):
    folder = write_hfm(tmp_path / "raw", valid=f"['2', 'b', 0, 0]\n['4', 'x', {labels}]")
    message = refusal("hfm", folder)
    assert f"{folder / 'text' / 'valid2.txt'}:2: " in message
    assert "0 (not sarcastic), 1 (sarcastic)" in message


def test_hfm_an_id_repeated_across_its_files_is_refused_with_both_places(tmp_path):
    folder = write_hfm(tmp_path / "raw", test="['3', 'c', 1, 1]\n['1', 'x', 1, 1]")
    message = refusal("hfm", folder)
    assert f"{folder / 'text' / 'train.txt'}:1" in message
    assert f"{folder / 'text' / 'test2.txt'}:2" in message


@pytest.mark.parametrize("row_id", [*OUTSIDE, "x\0"])
def test_hfm_an_id_that_points_outside_its_folder_is_refused_with_its_line(tmp_path, row_id):
    folder = write_hfm(tmp_path / "raw", train=f"[{row_id!r}, 'a', 0]")
    assert f"{folder / 'text' / 'train.txt'}:1: " in refusal("hfm", folder)


@pytest.mark.parametrize("name", ["train.txt", "valid2.txt", "test2.txt"])
def test_hfm_a_missing_text_file_is_named(tmp_path, name):
    folder = write_hfm(tmp_path / "raw")
    (folder / "text" / name).unlink()
    assert str(folder / "text" / name) in refusal("hfm", folder)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
def test_hfm_a_text_file_that_is_not_utf8_is_refused_at_the_line(tmp_path, mark):
    folder = write_hfm(tmp_path / "raw")
    path = folder / "text" / "train.txt"
    path.write_bytes(mark + b"['1', 'a', 0]\n\xff['4', 'x', 0]\n")
    assert f"{path}:2: " in refusal("hfm", folder)


def test_hfm_line_ends_a_mark_and_blank_lines_change_nothing_and_a_line_separator_ends_no_line(tmp_path):
    folder = write_hfm(tmp_path / "raw", train="\ufeff['1', 'a\u2028b\x85c', 0]\r\n\r\n['4', 'x', 1]\r\n\r\n")
    rows = read_dataset("hfm", folder)
    assert [(row.id, row.text) for row in rows] == [
        ("1", "a\u2028b\x85c"),
        ("4", "x"),
        ("2", "b"),
        ("3", "c"),
    ]


# --- a table of one's own


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_s_values_stay_as_they_are(tmp_path, kind):
    columns = {
        "id": ["007", "NA", "1e5", "x.y"],
        "text": ["NA", "null", "", 'a, "b"\nc'],
        "image": ["pics/1.jpg", "NA.jpg", "", "x y.png"],
        "label": ["NA", "1", "01", "true"],
        "extra": ["", "1", "2", "3"],
    }
    rows = read_dataset("table", write_table(tmp_path, kind, columns))
    assert [row.id for row in rows] == columns["id"]
    assert [row.text for row in rows] == columns["text"]
    assert [row.label for row in rows] == columns["label"]
    assert [row.image for row in rows] == ["pics/1.jpg", "NA.jpg", None, "x y.png"]
    assert {(row.split, row.dropped) for row in rows} == {(None, None)}


def test_a_parquet_table_may_have_numbers_for_ids_and_labels_and_nulls_for_nothing(tmp_path):
    columns = {
        "id": [1, 20],
        "text": ["a", None],
        "image": [None, "b.jpg"],
        "label": [0, 1],
        "split": [None, "test"],
    }
    rows = read_dataset("table", write_table(tmp_path, "parquet", columns))
    assert [(row.id, row.text or None, row.image, row.label, row.split) for row in rows] == [
        ("1", "a", None, "0", None),
        ("20", None, "b.jpg", "1", "test"),
    ]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("valid", "valid"),
        ("val", "valid"),
        ("validation", "valid"),
        ("dev", "valid"),
        ("test", "test"),
        (" Train ", "train"),
        ("DEV", "valid"),
        ("", None),
        (None, None),
    ],
)
def test_a_table_s_split_may_have_the_usual_names(tmp_path, kind, name, split):
    columns = {"id": ["1", "2"], "text": ["a", "b"], "image": ["", ""], "label": ["x", "y"]}
    rows = read_dataset("table", write_table(tmp_path, kind, columns | {"split": [name, "test"]}))
    assert [row.split for row in rows] == [split, "test"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_s_unknown_split_is_refused_with_its_row_and_the_allowed_ones(tmp_path, kind):
    columns = {"id": ["1", "2"], "text": ["a", "b"], "image": ["", ""], "label": ["x", "y"]}
    message = refusal("table", write_table(tmp_path, kind, columns | {"split": ["train", "holdout"]}))
    assert f"{place(tmp_path, kind, 2)}: " in message
    assert all(word in message for word in ("'holdout'", "train", "valid", "test"))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("missing", [["id"], ["text"], ["image"], ["label"], ["text", "label"]])
def test_a_table_without_a_column_is_refused_with_the_missing_and_the_present_ones(tmp_path, kind, missing):
    columns = {"id": ["1"], "text": ["a"], "image": ["b.jpg"], "label": ["x"], "notes": ["n"]}
    folder = write_table(tmp_path, kind, {k: v for k, v in columns.items() if k not in missing})
    message = refusal("table", folder)
    assert f"no column named {', '.join(missing)}; it has " in message
    assert "notes" in message.split("it has ")[1]


@pytest.mark.parametrize("image", ["../a.jpg", "a/../../b.jpg", "/etc/a.jpg", "..\\a.jpg", "\\\\host\\a.jpg"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_s_image_outside_its_folder_is_refused_with_its_row(tmp_path, kind, image):
    columns = {"id": ["1", "2"], "text": ["a", "b"], "image": ["a.jpg", image], "label": ["x", "y"]}
    message = refusal("table", write_table(tmp_path, kind, columns))
    assert f"{place(tmp_path, kind, 2)}: " in message
    assert repr(image) in message


@pytest.mark.parametrize("row_id", [*OUTSIDE, None])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_s_id_that_is_empty_or_a_path_is_refused_with_its_row(tmp_path, kind, row_id):
    columns = {"id": ["1", row_id], "text": ["a", "b"], "image": ["", ""], "label": ["x", "y"]}
    message = refusal("table", write_table(tmp_path, kind, columns))
    assert f"{place(tmp_path, kind, 2)}: " in message


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_s_repeated_id_is_refused_with_both_rows(tmp_path, kind):
    columns = {"id": ["1", "2", "1"], "text": ["a", "b", "c"], "image": [""] * 3, "label": ["x", "y", "x"]}
    message = refusal("table", write_table(tmp_path, kind, columns))
    assert all(word in message for word in ("'1'", place(tmp_path, kind, 1), place(tmp_path, kind, 3)))


@pytest.mark.parametrize("label", ["", None, "  "])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_s_row_without_a_label_is_refused_by_its_id(tmp_path, kind, label):
    columns = {"id": ["1", "seven"], "text": ["a", "b"], "image": ["", ""], "label": ["x", label]}
    message = refusal("table", write_table(tmp_path, kind, columns))
    assert all(word in message for word in (place(tmp_path, kind, 2), "'seven'", "label"))


def test_no_table_or_two_tables_are_refused(tmp_path):
    assert str(tmp_path) in refusal("table", tmp_path)
    columns = {"id": ["1"], "text": ["a"], "image": [""], "label": ["x"]}
    write_table(tmp_path, "csv", columns)
    write_table(tmp_path, "parquet", columns)
    message = refusal("table", tmp_path)
    assert all(word in message for word in (str(tmp_path), "table.csv", "table.parquet"))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_without_rows_is_refused(tmp_path, kind):
    folder = write_table(tmp_path, kind, {"id": [], "text": [], "image": [], "label": []})
    assert str(tmp_path / f"table.{kind}") in refusal("table", folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("table.csv", b""),
        ("table.csv", b"id,text,image,label\n1,caf\xe9,,x\n"),
        ("table.csv", "id,text,image,label\n1,a,,x\n".encode("utf-16")),
        ("table.csv", b"id,text,image,label\n1,a,,x\n2,b,c,d,,x\n"),
        ("table.csv", b'id,text,image,label\n1,"a,,x\n'),
        ("table.parquet", b""),
        ("table.parquet", b"id,text,image,label\n1,a,,x\n"),
        ("table.parquet", b"PAR1 and no more than that PAR1"),
    ],
)
def test_a_table_that_cannot_be_parsed_is_refused_by_its_path(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert str(tmp_path / name) in refusal("table", tmp_path)


def test_a_parquet_table_whose_text_is_not_utf8_is_refused_by_its_path(tmp_path):
    columns = {"id": ["1", "2"], "text": ["a", "over here"], "image": ["", ""], "label": ["x", "y"]}
    path = write_table(tmp_path, "parquet", columns) / "table.parquet"
    damaged = path.read_bytes().replace(b"over here", b"over \xff\xfe\xfd\xfc")
    path.write_bytes(damaged)
    assert str(path) in refusal("table", tmp_path)


@pytest.mark.parametrize("names", [range(4), pd.MultiIndex.from_product([["id", "text"], ["a", "b"]])])
def test_a_parquet_table_whose_columns_have_no_names_of_text_is_refused_with_them(tmp_path, names):
    pd.DataFrame([["1", "a", "", "x"]], columns=names).to_parquet(tmp_path / "table.parquet")
    message = refusal("table", tmp_path)
    assert f"{tmp_path / 'table.parquet'}: no column named id, text, image, label; it has " in message


def test_a_csv_table_that_the_machine_does_not_let_be_read_is_refused_by_its_path(tmp_path, monkeypatch):
    folder = write_table(tmp_path, "csv", {"id": ["1"], "text": ["a"], "image": [""], "label": ["x"]})

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    message = refusal("table", folder)
    assert str(folder / "table.csv") in message
    assert "Permission denied" in message


def test_a_csv_table_with_an_unquoted_comma_in_each_text_is_refused_rather_than_shifted(tmp_path):
    (tmp_path / "table.csv").write_text("id,text,image,label\n1,hi, you,a.jpg,x\n2,so, what,b.jpg,y\n")
    assert str(tmp_path / "table.csv") in refusal("table", tmp_path)


def test_a_csv_table_s_mark_line_ends_and_blank_lines_change_nothing(tmp_path):
    text = '\ufeffid,text,image,label\r\n\r\n1,a,,x\r\n\r\n2,"b\nc",,y\r\n\r\n'
    (tmp_path / "table.csv").write_bytes(text.encode())
    rows = read_dataset("table", tmp_path)
    assert [(row.id, row.text, row.label) for row in rows] == [("1", "a", "x"), ("2", "b\nc", "y")]


# --- the published counts


@pytest.fixture(scope="module")
def mvsa_rows():
    if not MVSA.is_dir():
        pytest.skip(f"MVSA-Single's raw data is not in {MVSA}")
    return read_dataset("mvsa_single", MVSA)


def test_mvsa_single_s_texts_are_utf8_or_gb18030_and_none_loses_a_character(mvsa_rows):
    counts = pd.Series([row.encoding for row in mvsa_rows]).value_counts()
    assert counts.to_dict() == {"utf-8": 4_869 - 1_131, "gb18030": 1_131}
    assert not any("\ufffd" in row.text for row in mvsa_rows)
    words = {word for row in mvsa_rows for word in row.text.split()}
    assert {"mordiéndose", "mirándola", "#これ聴いてるんだからねっ！"} <= words


def test_mvsa_single_has_the_published_number_of_raw_and_of_clean_pairs(mvsa_rows):
    table, dropped, report = clean_rows(mvsa_rows, MVSA, DATASETS["mvsa_single"].classes, "drop", "drop")
    assert report["rows"] == len(mvsa_rows) == 4_869
    assert report["kept"] == len(table) == 4_511
    assert report["dropped"] == {"conflicting_labels": 358}
    assert report["encodings"] == {"gb18030": 1_131, "utf-8": 3_738}
    assert set(dropped["reason"]) == {"conflicting_labels"}


@pytest.fixture(scope="module")
def hfm_rows():
    if not HFM.is_dir():
        pytest.skip(f"HFM's public text files are not in {HFM}")
    return read_dataset("hfm", HFM)


def test_hfm_has_the_published_number_of_raw_tweets(hfm_rows):
    splits = pd.Series([row.split for row in hfm_rows]).value_counts()
    assert splits.to_dict() == {"train": 29_040, "valid": 2_410, "test": 2_409}


def test_hfm_has_the_published_number_of_clean_and_of_sarcastic_tweets(hfm_rows):
    classes = DATASETS["hfm"].classes
    table, dropped, report = clean_rows(hfm_rows, HFM, classes, missing_image="blank", empty_text="blank")
    assert table["split"].value_counts().to_dict() == {"train": 19_816, "valid": 2_410, "test": 2_409}
    sarcastic = table[table["label"] == "sarcastic"]
    assert sarcastic["split"].value_counts().to_dict() == {"train": 8_642, "valid": 959, "test": 959}
    assert len(dropped) == 29_040 - 19_816
    assert report["kept"] == 19_816 + 2_410 + 2_409


def test_mvsa_single_has_the_published_number_of_clean_pairs_and_of_each_class_in_each_split(tmp_path):
    if not MVSA_SPLITS.is_dir():
        pytest.skip(f"CLMLF's split of MVSA-Single is not in {MVSA_SPLITS}")
    names = ["positive", "neutral", "negative"]
    lines, tweets = [SINGLE_HEADER], {}
    for part in ("train", "dev", "test"):
        for entry in json.loads((MVSA_SPLITS / f"{part}.json").read_text(encoding="utf-8")):
            label = names[entry["emotion_label"]]
            lines.append(f"{entry['id']}\t{label},{label}")
            tweets[entry["id"]] = entry["text"].encode()
    folder = write_mvsa(tmp_path / "raw", lines, tweets)
    table, dropped, _ = clean_rows(
        read_dataset("mvsa_single", folder),
        folder,
        DATASETS["mvsa_single"].classes,
        missing_image="blank",
        empty_text="blank",
    )
    assert (len(table), len(dropped)) == (4_511, 0)
    split, report = split_table(table, "mvsa_single", MVSA_SPLITS, "published", seed=0)
    assert split["split"].value_counts().to_dict() == {"train": 3_611, "valid": 450, "test": 450}
    assert report["train"]["classes"] == {"positive": 2_147, "neutral": 376, "negative": 1_088}
    joined = table.merge(split, on="id", suffixes=("_source", ""))
    train = joined[joined["split"] == "train"]
    assert train["label"].value_counts().to_dict() == {"positive": 2_147, "neutral": 376, "negative": 1_088}
