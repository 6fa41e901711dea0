"""Random input: the readers and the parameters keep their promises or give a message that names the file."""

import csv
import io
import json
import math
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from spp_scl.clean.cleaning import clean_rows
from spp_scl.clean.table import SPLITS
from spp_scl.clean.texts import clean_text, is_empty, normalize
from spp_scl.errors import UserError
from spp_scl.methods import check_settings
from spp_scl.params import Params, load_params
from spp_scl.raw.datasets import DATASETS
from spp_scl.raw.mvsa import CLASSES as SENTIMENTS
from spp_scl.raw.mvsa import decode
from spp_scl.raw.rows import RawRow
from spp_scl.recipe import choose_recipe
from spp_scl.split.splitting import split_table

# The same examples each time, however slow the machine; what they write lies in a folder of the module.
fuzz = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
fuzz_less = settings(fuzz, max_examples=100)

COMMITTED = Path(__file__).parent.parent.parent / "params.yaml"
pytestmark = pytest.mark.filterwarnings("ignore")

# Half an emoji too, which st.text() leaves out.
texts = st.text(st.characters(), max_size=40)


def mostly(good: st.SearchStrategy, odd: st.SearchStrategy) -> st.SearchStrategy:
    """Seldom odd, so that more than the first odd thing is met."""
    return st.integers(0, 15).flatmap(lambda n: odd if n == 15 else good)


spaces = st.text(" \t\n\r\v\f\x1c\x85\xa0\u2028", max_size=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def rows_or_refusal(dataset: str, folder: Path) -> list[RawRow] | None:
    """The rows, with what every reader promises of them; None where the dataset was refused."""
    try:
        rows = DATASETS[dataset].read(folder)
    except UserError as error:
        file = {"hfm": "text/", "own": "posts."}.get(dataset, "labelResultAll.txt")
        if f"{folder}/{file}" not in str(error):
            raise
        return None
    assert rows
    assert len({row.id for row in rows}) == len(rows)
    classes = DATASETS[dataset].classes
    for row in rows:
        assert (row.label is None) <= (row.dropped is not None)
        assert row.label is None or classes is None or row.label in classes
        assert row.label is None or row.label.strip()
        assert row.split in (None, *SPLITS)
        assert row.id.encode() not in (b"", b".", b"..")
        assert not set(row.id) & set("/\\\0")
        assert row.image is None or ".." not in Path(row.image).parts
        assert row.image is None or not Path(row.image).is_absolute()
        assert row.text is None or isinstance(row.text, str)
    return rows


def clean_or_refusal(dataset: str, rows: list[RawRow], folder: Path) -> pd.DataFrame | None:
    """The clean table as it reads back from a file; None where cleaning refused the rows."""
    try:
        table, dropped, _ = clean_rows(rows, folder, DATASETS[dataset], "blank", "blank")
    except UserError as error:
        if str(folder) not in str(error):
            raise
        return None
    assert sorted([*table["id"], *dropped["id"]]) == sorted(row.id for row in rows)
    table.to_parquet(folder / "clean.parquet", index=False)
    return table


# --- MVSA

mvsa_ids = mostly(
    st.integers(1, 999).map(str),
    st.one_of(st.sampled_from(["", " ", "..", "a/b", "é", "\0", "9" * 201]), texts),
)
mvsa_labels = mostly(
    st.sampled_from(SENTIMENTS), st.sampled_from(["Neutral", " negative ", "happy", "", "positive,neutral"])
)


def mvsa_lines(annotators: int) -> st.SearchStrategy[str]:
    column = st.tuples(mvsa_labels, mvsa_labels).map(",".join)
    counts = mostly(st.just(annotators), st.integers(0, 4))
    fields = counts.flatmap(lambda n: st.tuples(mvsa_ids, *[column] * n))
    return st.tuples(fields.map("\t".join), st.sampled_from(["", "\t", "\r", " "])).map("".join)


good_mvsa_lines = st.lists(st.tuples(*[st.sampled_from(SENTIMENTS)] * 6), min_size=1, max_size=8)


def write_mvsa(folder: Path, content: bytes) -> Path:
    (folder / "data").mkdir(exist_ok=True)
    (folder / "labelResultAll.txt").write_bytes(content)
    return folder


@fuzz
@given(
    content=st.binary(max_size=200),
    headed=st.booleans(),
    dataset=st.sampled_from(["mvsa_single", "mvsa_multiple"]),
)
def test_any_bytes_as_mvsa_s_labels(folder, content, headed, dataset):
    rows_or_refusal(dataset, write_mvsa(folder, b"ID\ttext,image\n" * headed + content))


@fuzz
@given(data=st.data(), dataset=st.sampled_from(["mvsa_single", "mvsa_multiple"]))
def test_almost_valid_lines_as_mvsa_s_labels(folder, data, dataset):
    lines = data.draw(st.lists(mvsa_lines(1 if dataset == "mvsa_single" else 3), min_size=1, max_size=4))
    content = "\n".join(["ID\ttext,image", *lines]).encode("utf-8", "surrogatepass")
    rows_or_refusal(dataset, write_mvsa(folder, content))


@fuzz
@given(annotations=good_mvsa_lines, data=st.data())
def test_valid_lines_as_mvsa_s_labels_are_all_read_and_one_spoiled_one_is_named(folder, annotations, data):
    lines = ["ID\ttext,image"]
    lines += [f"{n}\t{a},{b}\t{c},{d}\t{e},{f}" for n, (a, b, c, d, e, f) in enumerate(annotations)]
    rows = rows_or_refusal("mvsa_multiple", write_mvsa(folder, "\n".join(lines).encode()))
    assert [row.id for row in rows] == [str(n) for n in range(len(annotations))]
    place = data.draw(st.integers(1, len(annotations)))
    lines[place] = lines[place].replace(",", data.draw(st.sampled_from(["", ";", ",,", "\t"])), 1)
    write_mvsa(folder, "\n".join(lines).encode())
    with pytest.raises(UserError, match=rf"labelResultAll\.txt:{place + 1}: "):
        DATASETS["mvsa_multiple"].read(folder)


@fuzz
@given(
    contents=st.lists(
        st.one_of(st.binary(max_size=60), texts.map(lambda t: t.encode("utf-16", "replace"))), min_size=2
    )
)
def test_any_bytes_as_mvsa_s_tweets(folder, contents):
    lines = [f"{n}\t{SENTIMENTS[n % 3]},neutral" for n in range(len(contents))]
    write_mvsa(folder, "\n".join(["ID\ttext,image", *lines]).encode())
    for n, content in enumerate(contents):
        (folder / "data" / f"{n}.txt").write_bytes(content)
    rows = rows_or_refusal("mvsa_single", folder)
    assert [(row.text, row.encoding) for row in rows] == [decode(content) for content in contents]
    clean_or_refusal("mvsa_single", rows, folder)


@fuzz
@given(content=st.binary(max_size=60))
@example(content="naïve café …".encode("gb18030"))
def test_any_bytes_decode_as_utf8_or_gb18030_without_loss_and_else_to_a_character_a_byte(content):
    text, encoding = decode(content)
    assert text.encode().decode() == text
    if encoding == "utf-8":
        assert text.encode() == content.removeprefix(b"\xef\xbb\xbf")
    elif encoding == "gb18030":
        assert text.encode("gb18030") == content
        assert "\ufffd" not in text
    else:
        assert len(text) == len(content)


# --- HFM

literals = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.complex_numbers(),
        st.binary(max_size=5),
        texts,
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.integers(), texts), inner, max_size=2),
    ),
    max_leaves=6,
).map(repr)
hfm_lines = st.one_of(
    literals,
    st.builds(lambda *fields: repr(list(fields)), mvsa_ids, texts, st.integers(-1, 2)),
    st.builds(lambda *fields: repr(list(fields)), mvsa_ids, texts, st.integers(-1, 2), st.integers(-1, 2)),
    st.text("[]{}(),'\"\\:+-*j0x19eE_. abfNu\n", max_size=30),
    texts,
)


def write_hfm(folder: Path, train: bytes) -> Path:
    (folder / "text").mkdir(exist_ok=True)
    (folder / "text" / "train.txt").write_bytes(train)
    (folder / "text" / "valid2.txt").write_bytes(b"['v', 'b', 0, 0]")
    (folder / "text" / "test2.txt").write_bytes(b"['t', 'c', 1, 1]")
    return folder


@fuzz
@given(content=st.binary(max_size=100))
def test_any_bytes_as_hfm_s_lines(folder, content):
    rows_or_refusal("hfm", write_hfm(folder, content))


@settings(fuzz, max_examples=1000)
@given(lines=st.lists(hfm_lines, max_size=3))
@example(lines=["{[]: 1}"])
@example(lines=[f"['1', 'a', 0x{'f' * 5000}]"])
@example(lines=["['1', 'a', " + "-" * 5000 + "1]"])
def test_almost_valid_lines_as_hfm_s(folder, lines):
    rows = rows_or_refusal("hfm", write_hfm(folder, "\n".join(lines).encode("utf-8", "replace")))
    if rows:
        clean_or_refusal("hfm", rows, folder)


@fuzz
@given(tweets=st.lists(st.tuples(texts, st.integers(0, 1)), max_size=5), damage=st.data())
def test_valid_lines_as_hfm_s_are_read_as_they_are_and_a_cut_one_is_named(folder, tweets, damage):
    lines = [f"['{n}', {text!a}, {label}]" for n, (text, label) in enumerate(tweets)]
    rows = rows_or_refusal("hfm", write_hfm(folder, "\n".join(lines).encode()))
    assert [row.text for row in rows] == [*(text for text, _ in tweets), "b", "c"]
    if lines:
        place = damage.draw(st.integers(0, len(lines) - 1))
        lines[place] = lines[place][: damage.draw(st.integers(1, len(lines[place]) - 1))]
        write_hfm(folder, "\n".join(lines).encode())
        with pytest.raises(UserError, match=rf"train\.txt:{place + 1}: "):
            DATASETS["hfm"].read(folder)


# --- a user's own posts

names = st.sampled_from(["id", "text", "image", "label", "split", "notes", "", "ID", " id"])
cells = {
    "id": mostly(
        st.integers(1, 999).map(str), st.one_of(st.sampled_from(["", " ", "..", "\0", "a,b"]), texts)
    ),
    "text": texts,
    "image": mostly(
        st.sampled_from(["", "a.jpg", "b\\c.jpg"]), st.one_of(st.sampled_from(["../x", "/etc/passwd"]), texts)
    ),
    "label": mostly(st.sampled_from(["1", "2", " a "]), texts),
    "split": mostly(st.sampled_from(["", "train", " Dev", "test"]), texts),
}
headers = mostly(
    st.permutations(["id", "text", "image", "label", "split", "notes"]), st.lists(names, max_size=6)
)


def write_posts(folder: Path, kind: str, content: bytes) -> Path:
    for other in ("csv", "parquet"):
        (folder / f"posts.{other}").unlink(missing_ok=True)
    (folder / f"posts.{kind}").write_bytes(content)
    return folder


@st.composite
def csv_posts(draw) -> bytes:
    header = draw(headers)
    record = st.tuples(*(cells.get(name, texts) for name in header))
    records = draw(st.lists(mostly(record, st.lists(texts, max_size=7)), min_size=1, max_size=4))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator=draw(st.sampled_from(["\n", "\r\n"])))
    writer.writerows([header, *records])
    encoding = draw(mostly(st.sampled_from(["utf-8", "utf-8-sig"]), st.just("utf-16")))
    return buffer.getvalue().encode(encoding, "replace")


@fuzz
@given(content=st.binary(max_size=200), headed=st.booleans(), kind=st.sampled_from(["csv", "parquet"]))
def test_any_bytes_as_posts(folder, content, headed, kind):
    head = {"csv": b"id,text,image,label\n", "parquet": b"PAR1"}[kind] * headed
    rows_or_refusal("own", write_posts(folder, kind, head + content))


@fuzz
@given(
    rows=st.lists(
        st.tuples(texts, st.sampled_from(["", "a.jpg", "b/c.png"]), st.sampled_from("xy")), min_size=1
    )
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_valid_posts_are_read_as_they_are(folder, rows, kind):
    text, image, label = zip(*rows, strict=True)
    text = [t.encode("utf-8", "replace").decode() for t in text]
    posts = pd.DataFrame({"id": range(len(rows)), "text": text, "image": image, "label": label})
    buffer = io.BytesIO()
    if kind == "csv":
        buffer.write(posts.to_csv(index=False, lineterminator="\r\n").encode())
    else:
        posts.to_parquet(buffer)
    found = rows_or_refusal("own", write_posts(folder, kind, buffer.getvalue()))
    assert [row.id for row in found] == [str(n) for n in range(len(rows))]
    assert [row.text for row in found] == text
    assert [row.image or "" for row in found] == list(image)
    assert [row.label for row in found] == list(label)


def arrays(size: int) -> st.SearchStrategy[pa.Array]:
    def of(values: st.SearchStrategy, kind: pa.DataType) -> st.SearchStrategy[pa.Array]:
        lists = st.lists(st.one_of(st.none(), values), min_size=size, max_size=size)
        return lists.map(lambda found: pa.array(found, kind))

    words = st.text(max_size=8)
    return st.one_of(
        of(words, pa.string()),
        of(words, pa.large_string()),
        of(st.sampled_from("ab"), pa.dictionary(pa.int8(), pa.string())),
        # Bytes that claim to be text.
        st.lists(st.binary(max_size=8), min_size=size, max_size=size).map(
            lambda found: pa.array(found, pa.binary()).view(pa.string())
        ),
        of(st.binary(max_size=8), pa.binary()),
        of(st.integers(-(2**63), 2**63 - 1), pa.int64()),
        of(st.floats(), pa.float64()),
        of(st.booleans(), pa.bool_()),
        of(st.integers(-(2**31), 2**31 - 1), pa.date32()),
        of(st.integers(-(2**63), 2**63 - 1), pa.timestamp("us")),
        of(st.integers(-(2**63), 2**63 - 1), pa.duration("ns")),
        of(st.lists(st.integers(0, 9), max_size=2), pa.list_(pa.int64())),
        of(st.fixed_dictionaries({"a": words}), pa.struct([("a", pa.string())])),
        st.just(pa.nulls(size)),
    )


@st.composite
def parquet_posts(draw) -> bytes:
    size = draw(st.integers(0, 4))
    header = draw(headers)
    simple = {
        "id": pa.array([str(n) for n in range(size)]),
        "label": pa.array(["xy"[n % 2] for n in range(size)]),
    }
    odd = draw(st.sets(st.sampled_from(["id", "label"]), max_size=1))
    parts = [simple[name] if name in simple and name not in odd else draw(arrays(size)) for name in header]
    buffer = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_arrays(parts, names=header), buffer)
    return buffer.getvalue()


@fuzz
@given(data=st.data())
@pytest.mark.parametrize(("kind", "posts"), [("csv", csv_posts()), ("parquet", parquet_posts())])
def test_almost_valid_posts(folder, data, kind, posts):
    rows = rows_or_refusal("own", write_posts(folder, kind, data.draw(posts)))
    if rows:
        clean_or_refusal("own", rows, folder)


@fuzz
@given(
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    cut=st.floats(0, 1),
)
def test_damaged_parquet_posts(folder, damage, cut):
    buffer = io.BytesIO()
    text = [f"tweet {n}" for n in range(20)]
    pd.DataFrame({"id": range(20), "text": text, "image": "", "label": ["x", "y"] * 10}).to_parquet(buffer)
    content = bytearray(buffer.getvalue())
    for place, byte in damage:
        content[int(place * len(content))] = byte
    rows_or_refusal(
        "own", write_posts(folder, "parquet", content if damage else content[: int(cut * len(content))])
    )


# --- the parameters


def params_or_refusal(path: Path, content: bytes) -> Params | None:
    path.write_bytes(content)
    try:
        params = load_params(path)
    except UserError as error:
        if str(path) not in str(error):
            raise
        return None
    assert Params.model_validate(params.model_dump()) == params
    assert 0 <= params.seed < 2**32
    assert math.isfinite(params.alpha)
    assert params.dataset in DATASETS
    assert 0 <= params.finetuned.warmup <= 1
    assert 3 <= params.text_features.max_positions <= 512
    return params


def settings_or_refusal(params: Params) -> None:
    """The method's own parameters, which are checked apart."""
    try:
        settings = check_settings(params.method, choose_recipe(params)["settings"])
    except UserError as error:
        if "spp_scl" not in str(error):
            raise
        return
    assert type(settings).model_validate(settings.model_dump()) == settings
    assert 0 <= settings.dropout < 1
    assert settings.epochs >= 1
    assert math.isfinite(settings.alpha)


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
words = [*DATASETS, "drop", "blank", "auto", "grouped", "fp32", "batch", "spp_scl", "live"]
keys = st.one_of(
    st.sampled_from([*Params.model_fields, *Params.model_fields["train"].annotation.model_fields]), texts
)
pieces = st.one_of(
    st.sampled_from(
        ["[", "]", "{", "}", ": ", "- ", "? ", "&a ", "*a", "!!int ", "!!bool ", "!!float ", "<<: ", "|", ">"]
    ),
    st.sampled_from(
        ["%YAML 1.1\n---\n", "---\n", "...\n", "'", '"', "\t", "#", "\n", "0x", "1e999", ".nan", "~", r'"\U']
    ),
    st.text(max_size=3),
)


@fuzz_less
@given(content=st.binary(max_size=100))
def test_any_bytes_as_parameters(folder, content):
    params_or_refusal(folder / "params.yaml", content)


@fuzz
@given(content=st.lists(pieces, max_size=12).map("".join))
@example(content='a: !!int ""')
@example(content="[" * 3000)
@example(content='"\\Uffffffff"')
def test_any_yaml_as_parameters(folder, content):
    params_or_refusal(folder / "params.yaml", content.encode())


@fuzz_less
@given(tree=st.dictionaries(keys, values, max_size=5))
def test_any_tree_as_parameters(folder, tree):
    buffer = io.BytesIO()
    YAML(typ="safe").dump(tree, buffer)
    assert params_or_refusal(folder / "params.yaml", buffer.getvalue()) is None


@fuzz_less
@given(data=st.data())
def test_parameters_of_which_one_is_replaced(folder, data):
    tree = YAML(typ="safe").load(COMMITTED)
    group = data.draw(st.sampled_from([tree, *(value for value in tree.values() if isinstance(value, dict))]))
    key = data.draw(st.sampled_from(list(group)))
    value = data.draw(st.one_of(values, st.integers(1, 600), st.floats(0, 1), st.sampled_from(words)))
    group[key] = value
    buffer = io.BytesIO()
    YAML(typ="safe").dump(tree, buffer)
    params = params_or_refusal(folder / "params.yaml", buffer.getvalue())
    if params:
        # What is accepted is what was written, and of its type; of the method's own nothing is refused yet.
        accepted = params.model_dump()
        sections = accepted.pop("methods")
        assert accepted == {key: value for key, value in tree.items() if key not in sections}
        assert as_text(sections) == as_text({key: tree[key] for key in sections})
        settings_or_refusal(params)


def as_text(tree):
    """A section of the method's may hold NaN, which is not equal to itself."""
    return json.dumps(tree, sort_keys=True, default=str)


@fuzz_less
@given(place=st.floats(0, 1), length=st.sampled_from([0, 1, 5]), piece=pieces)
def test_parameters_with_a_typing_mistake_in_the_file(folder, place, length, piece):
    text = COMMITTED.read_text()
    start = int(place * len(text))
    params_or_refusal(folder / "params.yaml", (text[:start] + piece + text[start + length :]).encode())


# --- the published split


@fuzz
@given(content=st.one_of(st.binary(max_size=60), values.map(lambda v: json.dumps(v, default=str).encode())))
@example(content=b"[" * 100_000)
@example(content=b"1" * 5000)
def test_any_bytes_and_any_json_as_a_published_split(folder, content):
    (folder / "published").mkdir(exist_ok=True)
    for name in ("train", "dev", "test"):
        (folder / "published" / f"{name}.json").write_bytes(b'[{"id": "%s"}]' % name.encode())
    (folder / "published" / "dev.json").write_bytes(content)
    with pytest.raises(UserError, match=r"dev\.json|split\.protocol"):
        split_table(table_of("xyxyxy"), "mvsa_single", folder / "published", "published", seed=0)


# --- texts


@fuzz
@given(text=texts)
def test_a_cleaned_text_is_one_line_without_control_characters_and_cleaning_it_again_changes_nothing(text):
    cleaned = clean_text(text)
    assert clean_text(cleaned) == cleaned
    assert len(cleaned.splitlines()) <= 1
    assert cleaned == cleaned.strip()
    assert cleaned.encode().decode() == cleaned
    assert not any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in cleaned)


@fuzz
@given(text=texts, before=spaces, after=spaces)
def test_space_around_a_text_changes_nothing_and_whatever_is_seen_stays(text, before, after):
    assert clean_text(before + text + after) == clean_text(text)
    whole = text.encode("utf-8", "replace").decode()
    assert [c for c in clean_text(text) if c.isprintable() and c != " "] == [
        c for c in whole if c.isprintable() and c != " "
    ]


@fuzz
@given(one=texts, other=texts)
def test_a_text_is_empty_exactly_when_each_of_its_parts_is(one, other):
    assert is_empty(one + other) == (is_empty(one) and is_empty(other))
    assert is_empty(clean_text(one)) or not is_empty(one.encode("utf-8", "replace").decode())


@fuzz
@given(
    text=texts,
    user=st.from_regex(r"\A[A-Za-z0-9_]{1,15}\Z"),
    link=st.from_regex(r"\Ahttps?://t\.co/[A-Za-z0-9]+\Z"),
)
def test_a_retweet_with_a_link_and_marks_added_says_the_same(text, user, link):
    text = clean_text(text)
    # A cut link is known by standing at the end, and these would no longer.
    assume("htt" not in text.lower() and "www" not in text.lower())
    key = normalize(text)
    assert normalize(f"RT @{user}: {text}") == key
    assert normalize(f"{text} {link}") == key
    assert normalize(f"{text} @{user} !?") == key
    assert all(c == " " or c.isalnum() or unicodedata.category(c)[0] == "M" for c in key)
    assert key == " ".join(key.split())


# --- the split


def table_of(labels, texts=None, pictures=None, splits=None) -> pd.DataFrame:
    n = len(labels)
    table = pd.DataFrame(
        {
            "id": [str(i) for i in range(n)],
            "text": [f"tweet {i}" for i in range(n)] if texts is None else texts,
            "image": None,
            "picture": None if pictures is None else pictures,
            "label": pd.Categorical(list(labels), categories=sorted(set(labels))),
            "split": None if splits is None else splits,
        }
    )
    return table.astype({name: "str" for name in table.columns if name != "label"})


@st.composite
def tables(draw) -> pd.DataFrame:
    size = draw(st.sampled_from([5, 40, 80, 150]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    classes = draw(st.integers(2, 3))
    labels = rng.choice(list("abc")[:classes], size, p=rng.dirichlet([20] * classes))
    assume(len(set(labels)) > 1)
    # From all alike to hardly any: how many different ones there are to choose from.
    kinds = draw(st.sampled_from([1, 3, size, 50 * size]))
    words = [
        f"{rng.choice(['RT @a: ', '', '#'])}Tweet {n} {rng.choice(['', '!', 'http://t.co/x'])}"
        for n in rng.integers(0, kinds, size)
    ]
    pictures = [None if n % 5 == 0 else f"{n:064x}" for n in rng.integers(0, kinds, size)]
    given = rng.choice(["train", "valid", "test", None], size) if draw(st.booleans()) else None
    return table_of(labels, words, pictures, given)


@fuzz
@given(
    table=tables(),
    protocol=st.sampled_from(["auto", "published", "stratified", "grouped"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_split_has_each_row_once_and_each_class_everywhere_or_says_why_not(table, protocol, seed):
    try:
        split, report = split_table(table, "own", Path("nowhere"), protocol, seed)
    except UserError as error:
        if "split.protocol" not in str(error):
            raise
        return
    again, _ = split_table(table, "own", Path("nowhere"), protocol, seed)
    pd.testing.assert_frame_equal(split, again)
    joined = table.drop(columns="split").merge(split, on="id", how="left", validate="one_to_one")
    assert joined["id"].tolist() == table["id"].tolist()
    assert joined["split"].isna().sum() == report["unassigned"]
    if report["protocol"] == "published":
        assert joined["split"].fillna("-").tolist() == table["split"].fillna("-").tolist()
    else:
        assert report["unassigned"] == 0
    for name in SPLITS:
        part = joined[joined["split"] == name]
        assert set(part["label"]) == set(table["label"])
        assert report[name]["rows"] == len(part)
        assert report[name]["classes"] == part["label"].value_counts().to_dict()
    if report["protocol"] == "grouped":
        for key in (joined["text"].map(normalize).replace("", None), joined["picture"]):
            assert joined.groupby(key)["split"].nunique().max() <= 1
