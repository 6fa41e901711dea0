import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from statistics import multimode

import pandas as pd
import pytest
from PIL import Image

from spp_scl.clean.cleaning import clean_rows
from spp_scl.errors import UserError
from spp_scl.raw.datasets import DATASETS, Dataset
from spp_scl.raw.rows import RawRow
from spp_scl.split.splitting import split_table

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
HFM = SHARED / "hfm"
MVSA = SHARED / "mvsa_single" / "raw"
MVSA_SPLITS = SHARED / "mvsa_single" / "splits"
ROOT = Path(__file__).parent.parent

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


def write_posts(folder: Path, kind: str, columns: dict[str, list]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    posts = pd.DataFrame(columns)
    if kind == "csv":
        posts.to_csv(folder / "posts.csv", index=False)
    else:
        posts.to_parquet(folder / "posts.parquet")
    return folder


def refusal(name: str, folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        DATASETS[name].read(folder)
    return str(caught.value)


def place(folder: Path, kind: str, row: int) -> str:
    """How an error names a row of own posts: in a CSV by the line; the header is line 1."""
    return f"{folder}/posts.csv:{row + 1}" if kind == "csv" else f"{folder}/posts.parquet, row {row}"


# --- MVSA: the rules


@pytest.mark.parametrize(("text", "image"), MVSA_RULES)
@pytest.mark.parametrize("dataset", ["mvsa_single", "sample"])
def test_mvsa_single_combines_the_two_labels_by_the_published_rule(tmp_path, dataset, text, image):
    folder = write_mvsa(tmp_path / "raw", [SINGLE_HEADER, f"7\t{text},{image}"], {"7": b"hello\n"})
    (row,) = DATASETS[dataset].read(folder)
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
    (row,) = DATASETS["mvsa_multiple"].read(folder)
    assert (row.label, row.dropped) == (label, dropped)


def test_mvsa_multiple_follows_the_rules_for_each_of_the_729_annotations(tmp_path):
    annotations = list(product(MVSA_RULES, repeat=3))
    lines = ["\t".join([str(n), *map(",".join, columns)]) for n, columns in enumerate(annotations)]
    rows = DATASETS["mvsa_multiple"].read(write_mvsa(tmp_path / "raw", [MULTIPLE_HEADER, *lines]))
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
    rows = DATASETS["mvsa_single"].read(write_mvsa(tmp_path / "raw", [SINGLE_HEADER, *lines], tweets))
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
    rows = DATASETS["mvsa_single"].read(write_mvsa(tmp_path / "raw", lines, {"2": b"here"}))
    assert [row.text for row in rows] == [None, "here"]
    assert [row.encoding for row in rows] == [None, "utf-8"]


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
    rows = DATASETS["mvsa_single"].read(folder)
    assert [(row.id, row.label) for row in rows] == [("1", "negative"), ("20", "positive")]


@pytest.mark.parametrize("dataset", ["mvsa_single", "mvsa_multiple", "hfm", "own"])
def test_a_missing_folder_is_refused_with_what_belongs_there(tmp_path, dataset):
    message = refusal(dataset, tmp_path / "absent")
    assert str(tmp_path / "absent") in message
    what = {"hfm": "text/train.txt", "own": "posts.csv"}.get(dataset, "labelResultAll.txt")
    assert what in message
    if dataset != "own":
        assert "https://" in message


def test_a_missing_folder_of_the_sample_is_refused_with_the_command_that_generates_it(tmp_path):
    message = refusal("sample", tmp_path / "absent")
    assert message == f"{tmp_path / 'absent'}: no such folder. Generate it with `dvc repro sample`"


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


def test_mvsa_all_bad_lines_are_named_at_once_the_first_five_and_their_number(tmp_path):
    bad = ["1\thappy,neutral", "a/b\tneutral,neutral", "3", "4\tneutral", "0\tneutral,neutral", *"567"]
    folder = write_mvsa(tmp_path / "raw", [SINGLE_HEADER, "0\tneutral,neutral", *bad])
    path = folder / "labelResultAll.txt"
    first, *named, more = refusal("mvsa_single", folder).split("\n  ")
    assert (first, more) == ("8 bad rows:", "and 3 more")
    assert [line.split(": ")[0] for line in named] == [f"{path}:{n}" for n in range(3, 8)]
    assert "duplicate id '0', first at" in named[4]


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
    dropped = {row.id: row.dropped for row in DATASETS["hfm"].read(folder)}
    assert dropped == {"1": "sarcasm_marker", "4": "sarcasm_marker", "2": None, "3": None}


@pytest.mark.parametrize("text", ["jokers", "a sarcasm.", "#irony", "humorous", "ex gag", "<user>", "url"])
def test_hfm_a_word_that_only_contains_a_marker_is_kept(tmp_path, text):
    rows = DATASETS["hfm"].read(write_hfm(tmp_path / "raw", train=f"['1', '{text}', 1]"))
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
    assert [(row.id, row.split, row.label) for row in DATASETS["hfm"].read(folder)] == [
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
    rows = DATASETS["hfm"].read(folder)
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


def test_hfm_all_bad_lines_of_its_three_files_are_named_at_once(tmp_path):
    folder = write_hfm(tmp_path / "raw", train="['1', 'a', 2]\n['2', 'b', 0]\nx", test="['2', 'c', 1, 1]")
    message = refusal("hfm", folder)
    assert message.startswith("4 bad rows:\n")
    for name, line in (("train", 1), ("train", 3), ("valid2", 1), ("test2", 1)):
        assert f"\n  {folder / 'text' / name}.txt:{line}: " in message


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
    rows = DATASETS["hfm"].read(folder)
    assert [(row.id, row.text) for row in rows] == [
        ("1", "a\u2028b\x85c"),
        ("4", "x"),
        ("2", "b"),
        ("3", "c"),
    ]


# --- a user's own posts


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_own_values_stay_as_they_are(tmp_path, kind):
    columns = {
        "id": ["007", "NA", "1e5", "x.y"],
        "text": ["NA", "null", "", 'a, "b"\nc'],
        "image": ["pics/1.jpg", "NA.jpg", "", "x y.png"],
        "label": ["NA", "1", "01", "true"],
        "extra": ["", "1", "2", "3"],
    }
    rows = DATASETS["own"].read(write_posts(tmp_path, kind, columns))
    assert [row.id for row in rows] == columns["id"]
    assert [row.text for row in rows] == columns["text"]
    assert [row.label for row in rows] == columns["label"]
    assert [row.image for row in rows] == ["pics/1.jpg", "NA.jpg", None, "x y.png"]
    assert {(row.split, row.dropped) for row in rows} == {(None, None)}


def test_a_own_parquet_may_have_numbers_for_ids_and_labels_and_nulls_for_nothing(tmp_path):
    columns = {
        "id": [1, 20],
        "text": ["a", None],
        "image": [None, "b.jpg"],
        "label": [0, 1],
        "split": [None, "test"],
    }
    rows = DATASETS["own"].read(write_posts(tmp_path, "parquet", columns))
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
def test_own_split_may_have_the_usual_names(tmp_path, kind, name, split):
    columns = {"id": ["1", "2"], "text": ["a", "b"], "image": ["", ""], "label": ["x", "y"]}
    rows = DATASETS["own"].read(write_posts(tmp_path, kind, columns | {"split": [name, "test"]}))
    assert [row.split for row in rows] == [split, "test"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_own_unknown_split_is_refused_with_its_row_and_the_allowed_ones(tmp_path, kind):
    columns = {"id": ["1", "2"], "text": ["a", "b"], "image": ["", ""], "label": ["x", "y"]}
    message = refusal("own", write_posts(tmp_path, kind, columns | {"split": ["train", "holdout"]}))
    assert f"{place(tmp_path, kind, 2)}: " in message
    assert all(word in message for word in ("'holdout'", "train", "valid", "test"))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("missing", [["id"], ["text"], ["image"], ["label"], ["text", "label"]])
def test_own_posts_without_a_column_is_refused_with_the_missing_and_the_present_ones(tmp_path, kind, missing):
    columns = {"id": ["1"], "text": ["a"], "image": ["b.jpg"], "label": ["x"], "notes": ["n"]}
    folder = write_posts(tmp_path, kind, {k: v for k, v in columns.items() if k not in missing})
    message = refusal("own", folder)
    assert f"no column named {', '.join(missing)}; it has " in message
    assert "notes" in message.split("it has ")[1]


@pytest.mark.parametrize("image", ["../a.jpg", "a/../../b.jpg", "/etc/a.jpg", "..\\a.jpg", "\\\\host\\a.jpg"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_own_image_outside_its_folder_is_refused_with_its_row(tmp_path, kind, image):
    columns = {"id": ["1", "2"], "text": ["a", "b"], "image": ["a.jpg", image], "label": ["x", "y"]}
    message = refusal("own", write_posts(tmp_path, kind, columns))
    assert f"{place(tmp_path, kind, 2)}: " in message
    assert repr(image) in message


@pytest.mark.parametrize("row_id", [*OUTSIDE, None])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_own_id_that_is_empty_or_a_path_is_refused_with_its_row(tmp_path, kind, row_id):
    columns = {"id": ["1", row_id], "text": ["a", "b"], "image": ["", ""], "label": ["x", "y"]}
    message = refusal("own", write_posts(tmp_path, kind, columns))
    assert f"{place(tmp_path, kind, 2)}: " in message


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_own_repeated_id_is_refused_with_both_rows(tmp_path, kind):
    columns = {"id": ["1", "2", "1"], "text": ["a", "b", "c"], "image": [""] * 3, "label": ["x", "y", "x"]}
    message = refusal("own", write_posts(tmp_path, kind, columns))
    assert all(word in message for word in ("'1'", place(tmp_path, kind, 1), place(tmp_path, kind, 3)))


@pytest.mark.parametrize("label", ["", None, "  "])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_own_row_without_a_label_is_refused_by_its_id(tmp_path, kind, label):
    columns = {"id": ["1", "seven"], "text": ["a", "b"], "image": ["", ""], "label": ["x", label]}
    message = refusal("own", write_posts(tmp_path, kind, columns))
    assert all(word in message for word in (place(tmp_path, kind, 2), "'seven'", "label"))


def test_no_file_or_two_files_of_own_posts_are_refused(tmp_path):
    assert str(tmp_path) in refusal("own", tmp_path)
    columns = {"id": ["1"], "text": ["a"], "image": [""], "label": ["x"]}
    write_posts(tmp_path, "csv", columns)
    write_posts(tmp_path, "parquet", columns)
    message = refusal("own", tmp_path)
    assert all(word in message for word in (str(tmp_path), "posts.csv", "posts.parquet"))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_own_posts_without_rows_is_refused(tmp_path, kind):
    folder = write_posts(tmp_path, kind, {"id": [], "text": [], "image": [], "label": []})
    assert str(tmp_path / f"posts.{kind}") in refusal("own", folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("posts.csv", b""),
        ("posts.csv", b"id,text,image,label\n1,caf\xe9,,x\n"),
        ("posts.csv", b"id,text,image,label\n1,a,,x\n2,b,c,d,,x\n"),
        ("posts.csv", b'id,text,image,label\n1,"a,,x\n'),
        ("posts.parquet", b""),
        ("posts.parquet", b"id,text,image,label\n1,a,,x\n"),
        ("posts.parquet", b"PAR1 and no more than that PAR1"),
    ],
)
def test_own_posts_that_cannot_be_parsed_is_refused_by_its_path(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert str(tmp_path / name) in refusal("own", tmp_path)


def test_a_own_parquet_whose_text_is_not_utf8_is_refused_by_its_path(tmp_path):
    columns = {"id": ["1", "2"], "text": ["a", "over here"], "image": ["", ""], "label": ["x", "y"]}
    path = write_posts(tmp_path, "parquet", columns) / "posts.parquet"
    damaged = path.read_bytes().replace(b"over here", b"over \xff\xfe\xfd\xfc")
    path.write_bytes(damaged)
    assert str(path) in refusal("own", tmp_path)


@pytest.mark.parametrize("names", [range(4), pd.MultiIndex.from_product([["id", "text"], ["a", "b"]])])
def test_a_own_parquet_whose_columns_have_no_names_of_text_is_refused_with_them(tmp_path, names):
    pd.DataFrame([["1", "a", "", "x"]], columns=names).to_parquet(tmp_path / "posts.parquet")
    message = refusal("own", tmp_path)
    assert f"{tmp_path / 'posts.parquet'}: no column named id, text, image, label; it has " in message


def test_a_own_csv_that_the_machine_does_not_let_be_read_is_refused_by_its_path(tmp_path, monkeypatch):
    folder = write_posts(tmp_path, "csv", {"id": ["1"], "text": ["a"], "image": [""], "label": ["x"]})

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    message = refusal("own", folder)
    assert str(folder / "posts.csv") in message
    assert "Permission denied" in message


def test_a_own_csv_with_an_unquoted_comma_in_each_text_is_refused_rather_than_shifted(tmp_path):
    (tmp_path / "posts.csv").write_text("id,text,image,label\n1,hi, you,a.jpg,x\n2,so, what,b.jpg,y\n")
    assert str(tmp_path / "posts.csv") in refusal("own", tmp_path)


def test_a_own_csv_s_mark_line_ends_and_blank_lines_change_nothing(tmp_path):
    text = '\ufeffid,text,image,label\r\n\r\n1,a,,x\r\n\r\n2,"b\nc",,y\r\n\r\n'
    (tmp_path / "posts.csv").write_bytes(text.encode())
    rows = DATASETS["own"].read(tmp_path)
    assert [(row.id, row.text, row.label) for row in rows] == [("1", "a", "x"), ("2", "b\nc", "y")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_own_csv_may_have_commas_semicolons_or_tabs_and_be_utf16(tmp_path, delimiter, encoding):
    posts = pd.DataFrame(
        {
            "notes, and; more": ["", ""],
            "id": ["1", "2"],
            "text": ["one, two; three", 'a\t"b"\nc ☕'],
            "image": ["", "a b.jpg"],
            "label": ["x", "y"],
        }
    )
    posts.to_csv(tmp_path / "posts.csv", index=False, sep=delimiter, encoding=encoding)
    rows = DATASETS["own"].read(tmp_path)
    assert [row.text for row in rows] == posts["text"].tolist()
    assert [(row.id, row.image, row.label) for row in rows] == [("1", None, "x"), ("2", "a b.jpg", "y")]


@pytest.mark.parametrize(
    ("content", "place", "words"),
    [
        pytest.param("id,text,image,label\n1,a,,x\n2,café,,y\n".encode("cp1252"), ":3", "UTF-8", id="cp1252"),
        pytest.param("id,text,image,label\n1,a,,x\n".encode("utf-16-le"), ":1", "UTF-16", id="no mark"),
        pytest.param("id,text,image,label\n1,a,,x\n".encode("utf-16")[:-1], ":2", "UTF-16", id="cut"),
        pytest.param(b"id|text|image|label\n1|a||x\n", "", "it has id|text|image|label", id="bars"),
    ],
)
def test_a_own_csv_of_another_encoding_or_delimiter_is_refused_by_what_it_is(tmp_path, content, place, words):
    (tmp_path / "posts.csv").write_bytes(content)
    message = refusal("own", tmp_path)
    assert message.startswith(f"{tmp_path}/posts.csv{place}: ")
    assert words in message


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_own_all_bad_rows_are_named_at_once_the_first_five_and_their_number(tmp_path, kind):
    good = {"id": "0", "text": "a", "image": "", "label": "x", "split": "train"}
    bad = [
        {"split": "holdout"},
        {"id": "a/b"},
        {"label": " "},
        {"image": "../x.jpg"},
        {"id": "0"},
        {"label": ""},
        {"split": "2"},
    ]
    posts = pd.DataFrame([good, *({**good, "id": str(n), **change} for n, change in enumerate(bad, start=1))])
    folder = write_posts(tmp_path, kind, posts.to_dict("list"))
    first, *named, more = refusal("own", folder).split("\n  ")
    assert (first, more) == ("7 bad rows:", "and 2 more")
    assert [line.split(": ")[0] for line in named] == [place(tmp_path, kind, row) for row in range(2, 7)]
    for line, word in zip(named, ["'holdout'", "'a/b'", "no label", "'../x.jpg'", "'0'"], strict=True):
        assert word in line


def test_a_own_csv_s_rows_of_a_wrong_length_are_among_the_bad_ones(tmp_path):
    (tmp_path / "posts.csv").write_text("id;text;image;label\n1;a;;x\n2;b\n3;c; d;;y\n4;e;;\n")
    message = refusal("own", tmp_path)
    assert message.startswith("3 bad rows:\n")
    assert "posts.csv:3: expected 4 values (id, text, image, label), found 2" in message
    assert "posts.csv:4: expected 4 values (id, text, image, label), found 5" in message
    assert "posts.csv:5: id '4' has no label" in message


def test_own_an_empty_image_is_a_missing_one(tmp_path):
    columns = {"id": ["1", "2", "3"], "text": ["a"] * 3, "image": ["", "b.jpg", ""], "label": ["x", "y", "y"]}
    dataset = DATASETS["own"]
    rows = dataset.read(write_posts(tmp_path, "csv", columns))
    Image.new("RGB", (8, 8)).save(tmp_path / "b.jpg")
    table, _, _ = clean_rows(rows, tmp_path, dataset, missing_image="blank", empty_text="drop")
    assert table["image"].notna().tolist() == [False, True, False]
    with pytest.raises(UserError, match="only one class"):
        clean_rows([*rows[:1], rows[1]], tmp_path, dataset, missing_image="drop", empty_text="drop")
    rows.append(RawRow("4", "d", "b.jpg", "x"))
    table, dropped, report = clean_rows(rows, tmp_path, dataset, missing_image="drop", empty_text="drop")
    assert table["id"].tolist() == ["2", "4"]
    assert dropped.values.tolist() == [[n, "missing_image", "no image given"] for n in ("1", "3")]
    assert report["dropped"] == {"missing_image": 2}


# --- the registry


def test_a_new_dataset_is_its_reader_and_one_registry_entry(tmp_path, monkeypatch):
    def read(folder: Path) -> list[RawRow]:
        lines = (folder / "jokes.txt").read_text().splitlines()
        return [RawRow(str(n), line[1:], None, line[0], "train") for n, line in enumerate(lines)]

    monkeypatch.setitem(DATASETS, "jokes", Dataset(read, ("-", "+"), "f1_macro"))
    (tmp_path / "jokes.txt").write_text("".join(f"{'+-'[n % 2]} joke {n}\n" for n in range(40)))
    dataset = DATASETS["jokes"]
    table, _, report = clean_rows(dataset.read(tmp_path), tmp_path, dataset, "blank", "drop")
    assert report["classes"] == {"-": 20, "+": 20}
    assert table.attrs["selection"] == "f1_macro"
    split, report = split_table(table, "jokes", tmp_path, "auto", seed=1)
    assert (report["protocol"], len(split)) == ("stratified", 40)


def test_git_ignores_the_raw_folder_of_any_dataset_and_no_dvc_file_beside_it():
    names = ["mvsa_single/a.jpg", "jokes/data/1.txt", "jokes.dvc", "README.md", ".gitignore"]
    paths = [f"data/raw/{name}" for name in names]
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", *paths], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.split() == paths[:2], done.stderr


def test_the_registry_is_read_without_pandas():
    # By every process that checks its parameters.
    code = "import sys, spp_scl.raw.datasets; print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


# --- the published counts


@pytest.fixture(scope="module")
def mvsa_rows():
    if not MVSA.is_dir():
        pytest.skip(f"MVSA-Single's raw data is not in {MVSA}")
    return DATASETS["mvsa_single"].read(MVSA)


def test_mvsa_single_s_texts_are_utf8_or_gb18030_and_none_loses_a_character(mvsa_rows):
    counts = pd.Series([row.encoding for row in mvsa_rows]).value_counts()
    assert counts.to_dict() == {"utf-8": 4_869 - 1_131, "gb18030": 1_131}
    assert not any("\ufffd" in row.text for row in mvsa_rows)
    words = {word for row in mvsa_rows for word in row.text.split()}
    assert {"mordiéndose", "mirándola", "#これ聴いてるんだからねっ！"} <= words


def test_mvsa_single_has_the_published_number_of_raw_and_of_clean_pairs(mvsa_rows):
    table, dropped, report = clean_rows(mvsa_rows, MVSA, DATASETS["mvsa_single"], "drop", "drop")
    assert report["rows"] == len(mvsa_rows) == 4_869
    assert report["kept"] == len(table) == 4_511
    assert report["dropped"] == {"conflicting_labels": 358}
    assert report["encodings"] == {"gb18030": 1_131, "utf-8": 3_738}
    assert set(dropped["reason"]) == {"conflicting_labels"}


@pytest.fixture(scope="module")
def hfm_rows():
    if not HFM.is_dir():
        pytest.skip(f"HFM's public text files are not in {HFM}")
    return DATASETS["hfm"].read(HFM)


def test_hfm_has_the_published_number_of_raw_tweets(hfm_rows):
    splits = pd.Series([row.split for row in hfm_rows]).value_counts()
    assert splits.to_dict() == {"train": 29_040, "valid": 2_410, "test": 2_409}


def test_hfm_has_the_published_number_of_clean_and_of_sarcastic_tweets(hfm_rows):
    table, dropped, report = clean_rows(hfm_rows, HFM, DATASETS["hfm"], "blank", "blank")
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
    dataset = DATASETS["mvsa_single"]
    table, dropped, _ = clean_rows(dataset.read(folder), folder, dataset, "blank", "blank")
    assert (len(table), len(dropped)) == (4_511, 0)
    split, report = split_table(table, "mvsa_single", MVSA_SPLITS, "published", seed=0)
    assert split["split"].value_counts().to_dict() == {"train": 3_611, "valid": 450, "test": 450}
    assert report["train"]["classes"] == {"positive": 2_147, "neutral": 376, "negative": 1_088}
    joined = table.merge(split, on="id", suffixes=("_source", ""))
    train = joined[joined["split"] == "train"]
    assert train["label"].value_counts().to_dict() == {"positive": 2_147, "neutral": 376, "negative": 1_088}
