import json
import time
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spp_scl.clean.table import SPLITS
from spp_scl.clean.texts import normalize
from spp_scl.errors import UserError
from spp_scl.raw.datasets import DATASETS
from spp_scl.split.splitting import repeats, split_table

HFM = Path(__file__).parent.parent.parent / "shared" / "data" / "hfm"
NOWHERE = Path("/nonexistent/published")


def make_table(labels, texts=None, pictures=None, splits=None, classes=None) -> pd.DataFrame:
    """A clean table; by default no text and no picture repeats and the source assigns no split."""
    n = len(labels)
    table = pd.DataFrame(
        {
            "id": [f"id{i}" for i in range(n)],
            "text": [f"tweet number {i}" for i in range(n)] if texts is None else texts,
            "image": [f"{i}.jpg" for i in range(n)],
            "picture": [f"{i:064x}" for i in range(n)] if pictures is None else pictures,
            "label": pd.Categorical(labels, categories=classes or sorted(set(labels))),
            "split": [None] * n if splits is None else splits,
        }
    )
    return table.astype({name: "str" for name in table.columns if name != "label"})


def shuffled_labels(**counts: int) -> list[str]:
    labels = [name for name, count in counts.items() for _ in range(count)]
    return np.random.default_rng(0).permutation(labels).tolist()


def split_of(table, protocol, seed=0, dataset="own", published=NOWHERE) -> dict[str, str]:
    split, _ = split_table(table, dataset, published, protocol, seed)
    return dict(zip(split["id"], split["split"], strict=True))


def write_published(folder: Path, train, valid, test) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, ids in (("train", train), ("dev", valid), ("test", test)):
        entries = [{"id": row_id, "text": "as CLMLF has it", "emotion_label": 0} for row_id in ids]
        (folder / f"{name}.json").write_text(json.dumps(entries))
    return folder


def six_ids() -> pd.DataFrame:
    return make_table(["n", "p"] * 3)


def refusal(table, dataset, published, protocol) -> str:
    with pytest.raises(UserError) as caught:
        split_table(table, dataset, published, protocol, seed=0)
    return str(caught.value)


# --- stratified


def test_stratified_is_exactly_8_1_1_within_each_class(tmp_path):
    table = make_table(shuffled_labels(many=1000, some=210, few=30))
    split, report = split_table(table, "own", tmp_path, "stratified", seed=1)
    joined = table.drop(columns="split").merge(split, on="id")
    counts = joined.groupby(["label", "split"], observed=True).size().to_dict()
    assert counts == {
        (name, part): count * share // 10
        for name, count in (("many", 1000), ("some", 210), ("few", 30))
        for part, share in (("train", 8), ("valid", 1), ("test", 1))
    }
    assert split["id"].tolist() == table["id"].tolist()
    assert report["protocol"] == "stratified"
    assert report["unassigned"] == 0


@pytest.mark.parametrize("size", [3, 4, 9, 11, 14, 15, 16, 25, 99])
def test_stratified_rounds_a_class_that_ten_does_not_divide_and_leaves_no_split_without_it(tmp_path, size):
    table = make_table(shuffled_labels(odd=size, even=100))
    odd = table.loc[table["label"] == "odd", "id"]
    parts = pd.Series(split_of(table, "stratified"))[odd].value_counts()
    for name in ("valid", "test"):
        assert parts[name] >= 1
        assert abs(parts[name] - size / 10) <= 0.5 or parts[name] == 1
    assert parts["train"] == size - parts["valid"] - parts["test"] >= 1


@pytest.mark.parametrize("protocol", ["stratified", "grouped"])
def test_a_random_split_is_the_same_for_the_same_seed_and_another_for_another(protocol):
    table = make_table(shuffled_labels(a=120, b=80))
    first, again, other = (split_of(table, protocol, seed) for seed in (1, 1, 2))
    assert first == again
    moved = sum(first[row_id] != other[row_id] for row_id in first)
    assert moved > 20


def test_stratified_is_not_the_order_of_the_source():
    # In CLMLF's files the rows are sorted by label; a split that follows the order would show it.
    table = make_table(["a"] * 100 + ["b"] * 100)
    parts = list(split_of(table, "stratified").values())
    assert len(set(parts[:15])) > 1
    assert len(set(parts[-15:])) > 1


# --- grouped


def test_grouped_leaves_no_repeated_text_or_picture_in_two_splits_not_even_through_others():
    # Tweets in families of three: the first two share their words, the last two their picture, so that
    # first and last belong together only through the second.
    families = 120
    texts, pictures, labels, family = [], [], [], []
    for f in range(families):
        words = f"story {f} of the day"
        texts += [words, f"RT @someone: {words.upper()}!! http://t.co/{f}", f"something else {f}"]
        pictures += [f"a{f}", f"b{f}", f"b{f}"]
        labels += [("x", "y", "y")[f % 3]] * 3
        family += [f] * 3
    # And one longer chain, by turns through words and pictures.
    for i in range(12):
        texts.append(f"chain {i // 2}")
        pictures.append(f"chain {(i + 1) // 2}")
        labels.append("xy"[i % 2])
        family.append(families)
    order = np.random.default_rng(3).permutation(len(texts))
    columns = (texts, pictures, labels, family)
    texts, pictures, labels, family = ([column[i] for i in order] for column in columns)
    table = make_table(labels, texts, pictures)
    split, report = split_table(table, "own", NOWHERE, "grouped", seed=5)
    parts = defaultdict(set)
    for f, part in zip(family, split["split"], strict=True):
        parts[f].add(part)
    assert {len(found) for found in parts.values()} == {1}
    # The shares stay about 8:1:1, of all rows and of each class.
    n = len(table)
    for name, share in zip(SPLITS, (0.8, 0.1, 0.1), strict=True):
        assert report[name]["rows"] == pytest.approx(share * n, abs=0.05 * n)
        for label in ("x", "y"):
            of_class = labels.count(label)
            assert report[name]["classes"][label] == pytest.approx(share * of_class, abs=0.06 * of_class)


def test_rows_are_one_group_exactly_when_a_chain_of_equal_texts_or_pictures_joins_them():
    rng = np.random.default_rng(11)
    n = 150
    texts = [f"text {k}" if k < 120 else "" for k in rng.integers(0, 150, n)]
    pictures = [f"{k:064x}" if k < 120 else None for k in rng.integers(0, 150, n)]
    table = make_table(["a"] * n, texts, pictures)
    # Independently: spread the smallest row number along every tie until nothing changes.
    ties = [
        (i, j)
        for i, j in combinations(range(n), 2)
        if (texts[i] and texts[i] == texts[j]) or (pictures[i] and pictures[i] == pictures[j])
    ]
    expected, changed = list(range(n)), True
    while changed:
        changed = False
        for i, j in ties:
            smaller = min(expected[i], expected[j])
            changed |= not expected[i] == expected[j] == smaller
            expected[i] = expected[j] = smaller
    groups = repeats(table)
    assert len(groups) == n
    assert len(set(zip(groups.tolist(), expected, strict=True))) == len(set(expected)) == len(set(groups))
    assert 1 < len(set(expected)) < n


@pytest.mark.parametrize("text", ["", "RT @a: http://t.co/x", "@a @b", "!!!"])
def test_an_empty_text_and_a_missing_picture_group_nothing(text):
    n = 200
    table = make_table(["a", "b"] * 100, texts=[text] * n, pictures=[None] * n)
    assert len(set(repeats(table))) == n
    parts = pd.Series(split_of(table, "grouped")).value_counts()
    assert parts.to_dict() == {"train": 160, "valid": 20, "test": 20}


def test_an_empty_text_still_groups_by_its_picture_and_a_missing_picture_by_its_text():
    table = make_table(
        ["a"] * 5, texts=["", "", "same", "Same!", "other"], pictures=["p", "p", None, "q", None]
    )
    groups = repeats(table).tolist()
    assert groups[0] == groups[1]
    assert groups[2] == groups[3]
    assert len(set(groups)) == 3


def test_grouped_refuses_data_that_is_too_small_for_it():
    assert "give the data more rows" in refusal(make_table(["a", "b"] * 4), "own", NOWHERE, "grouped")


@pytest.mark.parametrize("groups", [1, 2, 9])
def test_grouped_refuses_data_of_fewer_groups_than_it_needs(groups):
    table = make_table(["a", "b"] * 50, texts=[f"words {i % groups}" for i in range(100)])
    assert "group" in refusal(table, "own", NOWHERE, "grouped")


# --- published


@pytest.mark.parametrize("dataset", ["mvsa_single", "mvsa_multiple"])
@pytest.mark.parametrize("protocol", ["published", "auto"])
def test_published_follows_the_three_files_and_auto_chooses_it(tmp_path, dataset, protocol):
    folder = write_published(tmp_path, ["id0", "id3"], ["id2", "id1"], ["id5", "id4"])
    split, report = split_table(six_ids(), dataset, folder, protocol, seed=0)
    assert split.values.tolist() == [
        ["id0", "train"],
        ["id1", "valid"],
        ["id2", "valid"],
        ["id3", "train"],
        ["id4", "test"],
        ["id5", "test"],
    ]
    assert report["protocol"] == "published"


def test_published_ids_may_be_numbers(tmp_path):
    table = six_ids()
    table["id"] = [str(n) for n in range(6)]
    folder = write_published(tmp_path, [0, 1], [2, 3], [4, 5])
    assert split_of(table, "published", dataset="mvsa_single", published=folder) == {
        "0": "train",
        "1": "train",
        "2": "valid",
        "3": "valid",
        "4": "test",
        "5": "test",
    }


def test_rows_without_a_published_split_are_left_out_and_counted(tmp_path):
    table = make_table(["n", "p"] * 5)
    folder = write_published(tmp_path, ["id0", "id1", "gone"], ["id4", "id5"], ["id8", "id9"])
    split, report = split_table(table, "mvsa_single", folder, "published", seed=0)
    assert split["id"].tolist() == ["id0", "id1", "id4", "id5", "id8", "id9"]
    assert report["unassigned"] == 4
    assert [report[name]["rows"] for name in SPLITS] == [2, 2, 2]


@pytest.mark.parametrize("dataset", ["mvsa_single", "mvsa_multiple"])
def test_published_without_its_files_says_where_to_get_them_and_where_to_put_them(tmp_path, dataset):
    folder = tmp_path / "published" / dataset
    message = refusal(six_ids(), dataset, folder, "published")
    assert str(folder) in message
    assert "https://github.com/Link-Li/CLMLF" in message
    assert all(name in message for name in ("train.json", "dev.json", "test.json"))
    assert "-S split.protocol=stratified" in message


@pytest.mark.parametrize("protocol", ["published", "auto"])
@pytest.mark.parametrize("gone", [["dev.json"], ["train.json", "test.json"]])
def test_a_part_of_the_published_files_is_refused_naming_those_that_are_missing(tmp_path, protocol, gone):
    folder = write_published(tmp_path, ["id0", "id1"], ["id2", "id3"], ["id4", "id5"])
    for name in gone:
        (folder / name).unlink()
    message = refusal(six_ids(), "mvsa_single", folder, protocol)
    assert f"needs {', '.join(gone)}." in message


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b'[\n{"id": "id2"},\n{"id": "id3"\n]', "dev.json:4"),
        (b"", "dev.json:1"),
        (b'{"id": "id2"}', "dev.json"),
        (b'"id2"', "dev.json"),
        (b'[{"id": "id2"}, "id3"]', "dev.json, entry 2"),
        (b'[{"id": "id2"}, {"text": "x"}]', "dev.json, entry 2"),
        (b'[{"id": "id2\xff"}]', "dev.json"),
        pytest.param(b"[" * 100_000, "dev.json", id="deeply nested"),
        pytest.param(b'[{"id": %s}]' % (b"1" * 5000), "dev.json", id="a number of thousands of digits"),
    ],
)
def test_a_malformed_published_file_is_refused_at_its_place(tmp_path, content, place):
    folder = write_published(tmp_path, ["id0", "id1"], [], ["id4", "id5"])
    (folder / "dev.json").write_bytes(content)
    assert f"{folder}/{place}: " in refusal(six_ids(), "mvsa_single", folder, "published")


@pytest.mark.parametrize(
    ("valid", "test", "place"),
    [
        (["id2", "id3", "id2"], ["id4", "id5"], "dev.json, entry 3"),
        (["id2", "id3"], ["id4", "id0"], "test.json, entry 2"),
    ],
)
def test_an_id_that_stands_in_the_published_files_twice_is_refused(tmp_path, valid, test, place):
    folder = write_published(tmp_path, ["id0", "id1"], valid, test)
    message = refusal(six_ids(), "mvsa_single", folder, "published")
    assert f"{folder}/{place}: " in message
    assert "twice" in message


# --- which protocol


def test_auto_is_stratified_where_there_is_no_published_split(tmp_path):
    table = make_table(shuffled_labels(a=50, b=50))
    for dataset in ("sample", "mvsa_single", "mvsa_multiple", "own"):
        split, report = split_table(table, dataset, tmp_path, "auto", seed=3)
        assert report["protocol"] == "stratified"
        assert split.equals(split_table(table, dataset, tmp_path, "stratified", seed=3)[0])


@pytest.mark.parametrize("dataset", ["own", "hfm"])
@pytest.mark.parametrize("protocol", ["auto", "published"])
def test_a_split_inside_the_data_is_the_published_one_and_auto_chooses_it(dataset, protocol):
    splits = ["train", "train", None, "valid", "valid", "test", "test", "train"]
    table = make_table(["n", "p"] * 4, splits=splits)
    split, report = split_table(table, dataset, NOWHERE, protocol, seed=0)
    assert split["split"].tolist() == [part for part in splits if part]
    assert split["id"].tolist() == ["id0", "id1", "id3", "id4", "id5", "id6", "id7"]
    assert (report["protocol"], report["unassigned"]) == ("published", 1)


def test_one_s_own_split_column_gives_way_where_another_protocol_is_asked_for():
    splits = ["train"] * 80 + ["valid", "test"] * 10
    table = make_table(["n", "p"] * 50, splits=splits)
    assert split_table(table, "own", NOWHERE, "stratified", seed=0)[1]["protocol"] == "stratified"


@pytest.mark.parametrize("protocol", ["stratified", "grouped"])
def test_hfm_refuses_any_split_but_its_own(protocol):
    splits = ["train"] * 160 + ["valid", "valid", "test", "test"] * 10
    message = refusal(make_table(["n", "p"] * 100, splits=splits), "hfm", NOWHERE, protocol)
    assert all(word in message for word in (f"`{protocol}`", "hfm", "-S split.protocol=published"))


@pytest.mark.parametrize("dataset", ["sample", "own"])
def test_published_is_refused_for_data_that_has_no_published_split(tmp_path, dataset):
    message = refusal(six_ids(), dataset, tmp_path, "published")
    assert f"{dataset} has no published split" in message
    assert "-S split.protocol=stratified" in message


# --- every class in every split, and the counts


@pytest.mark.parametrize("part", SPLITS)
def test_a_class_that_a_split_lacks_is_refused_by_the_names_of_both(part):
    splits = [name for name in SPLITS for _ in range(4)]
    labels = ["common", "common", "rare", "rare"] * 3
    lacking = [
        "common" if split == part and label == "rare" else label
        for split, label in zip(splits, labels, strict=True)
    ]
    message = refusal(make_table(lacking, splits=splits), "own", NOWHERE, "published")
    assert f"the {part} split has no row of class rare;" in message
    # With the class in place, the same data passes.
    assert len(split_of(make_table(labels, splits=splits), "published")) == 12


def test_a_split_without_any_row_is_refused_by_its_name():
    table = make_table(["a", "b"] * 4, splits=["train"] * 4 + ["test"] * 4)
    message = refusal(table, "own", NOWHERE, "published")
    assert "the valid split has no row of class a, b" in message


def test_a_class_without_any_row_is_refused_by_its_name():
    table = make_table(shuffled_labels(positive=40, negative=40), classes=["positive", "neutral", "negative"])
    assert "class neutral" in refusal(table, "sample", NOWHERE, "stratified")


@pytest.mark.parametrize("size", [1, 2])
def test_a_class_too_small_for_three_splits_is_refused_by_its_name(size):
    table = make_table(shuffled_labels(common=60, rare=size))
    assert "class rare" in refusal(table, "own", NOWHERE, "stratified")


def test_the_counts_are_those_of_the_split():
    table = make_table(shuffled_labels(b=70, a=37, c=13), classes=["b", "c", "a"])
    split, report = split_table(table, "own", NOWHERE, "stratified", seed=9)
    label_of = dict(zip(table["id"], table["label"], strict=True))
    for name in SPLITS:
        ids = split.loc[split["split"] == name, "id"]
        found = [label_of[row_id] for row_id in ids]
        assert report[name] == {
            "rows": len(found),
            "classes": {label: found.count(label) for label in ("b", "c", "a")},
        }
        assert list(report[name]["classes"]) == ["b", "c", "a"]
    assert sum(report[name]["rows"] for name in SPLITS) == 120


# --- when two tweets say the same


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", "hello world"),
        ("RT @some_user: Hello, World!", "hello world"),
        ("rt @a hello world", "hello world"),
        ("  RT @a:hello world", "hello world"),
        ("Hello https://t.co/AbC9 world http://x.y/z?a=1#b", "hello world"),
        ("www.example.com hello world", "hello world"),
        ("hello world htt…", "hello world"),
        ("hello world http…", "hello world"),
        ("@you hello @me_2 world", "hello world"),
        ("#hello #World", "hello world"),
        ("hello\tworld\n", "hello world"),
        ("hello…world", "hello world"),
        ("hello <url> world", "hello world"),
        ("it's 5 o'clock", "it s 5 o clock"),
        ("start RT @a: hello", "start rt hello"),
        ("art @a: hello", "art hello"),
        ("ÜBER Straße", "über straße"),
        ("שלום, עולם!", "שלום עולם"),
        ("RT @a: http://t.co/x @b !!", ""),
        ("", ""),
    ],
)
def test_normalize_drops_case_a_leading_retweet_links_user_names_and_punctuation(text, expected):
    assert normalize(text) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("hello world", "world hello"),
        ("hello world", "helloworld"),
        ("no 1", "no 2"),
        pytest.param("की", "का", id="two Hindi words that differ in a vowel sign"),
        pytest.param("ที่", "ทั่", id="two Thai words that differ in a vowel sign"),
    ],
)
def test_normalize_keeps_tweets_apart_that_differ_in_their_words(one, other):
    assert normalize(one) != normalize(other)


def test_normalize_takes_a_megabyte_in_a_time_that_grows_with_its_length_alone():
    # From every `htt` to the end of the text it would take many minutes.
    started = time.perf_counter()
    assert normalize("htt/" * 250_000 + " end").endswith("htt end")
    assert time.perf_counter() - started < 20


def test_70_of_hfm_s_test_tweets_have_a_text_that_stands_in_train_too():
    if not HFM.is_dir():
        pytest.skip(f"HFM's public text files are not in {HFM}")
    rows = [row for row in DATASETS["hfm"].read(HFM) if row.dropped is None]
    keys = {name: [normalize(row.text) for row in rows if row.split == name] for name in ("train", "test")}
    assert len(keys["test"]) == 2_409
    train = set(keys["train"]) - {""}
    assert sum(key in train for key in keys["test"]) == 70
