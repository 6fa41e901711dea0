"""200 texts as nobody should write them, as MVSA's files, as HFM's lines and as a user's own posts."""

import random
import sys
import time
import unicodedata
from contextlib import suppress
from types import SimpleNamespace

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from spp_scl.clean.cleaning import clean_rows
from spp_scl.clean.table import read_clean
from spp_scl.encoders.texts import encode_texts
from spp_scl.encoders.vocabulary import collect_vocabulary
from spp_scl.errors import UserError
from spp_scl.features.store import read_texts
from spp_scl.raw.datasets import DATASETS
from tests.conftest import ENCODING
from tests.faults.memory import GIB, peak_memory
from tests.small_bert import save_bert

MEGABYTE = 2**20
HALVES = ("\ud83d", "\ude00")

EMOJI = [
    "😀",
    "👍🏽",
    "🇩🇪",
    "❤\ufe0f",
    "👨\u200d👩\u200d👧",
    "\U0001fae8",
    "1\ufe0f\u20e3",
    "🏴\U000e0067\U000e007f",
]
INVISIBLE = [
    "\0",
    "\x07",
    "\x1b",
    "\x7f",
    "\x85",
    "\xad",
    "\u200b",
    "\u200d",
    "\u2028",
    "\u202e",
    "\u2060",
    "\ufeff",
]
SPACES = [" ", "\n", "\r\n", "\r", "\t", "\v", "\f", "\x1c", "\xa0", "\u2003", "\u2029", "\u3000"]
MARKS = [chr(c) for c in range(0x300, 0x34F)] + ["\u0489", "\u20dd", "\u064b"]
RIGHT_TO_LEFT = ["שלום", "עולם", "مرحبا", "بالعالم", "\u202bسلام\u202c", "\u200fہیلو"]


def seen() -> list[bytes]:
    """What has something in it to see, however it is written."""
    rng = random.Random(1)

    def some(parts: list[str], most: int = 12) -> str:
        return "".join(rng.choices(parts, k=rng.randint(1, most)))

    tweet = "what a day ☕"
    texts = [some(EMOJI) for _ in range(15)]
    texts += [some([*RIGHT_TO_LEFT, " "]) + "!" for _ in range(10)]
    texts += [f"{some(INVISIBLE)}a{some(INVISIBLE)}b{some(INVISIBLE)}" for _ in range(12)]
    texts += [f"{some(SPACES)}a{some(SPACES)}" for _ in range(6)]
    texts += ["".join(c + some(MARKS, 60) for c in "day") for _ in range(8)]
    texts += [
        "\u0301",
        "\u0301" * 500,
        f" {some(MARKS)}",
        "\ufffd",
        "\ue000",
        "\U0010fffd",
        "\uffff",
        "0",
        ".",
        "%s%n",
    ]
    texts += [
        "\ufeffa",
        "\ufeff\ufeffa",
        "a\ufeff",
        "a\0b",
        "\0" * 300 + "a",
        "[PAD][CLS][SEP][MASK]",
        "##ly",
        "'" * 99,
    ]
    texts += [
        "NaN",
        "null",
        "None",
        "=1+1",
        '"',
        "a,b",
        "a\tb",
        "\\ud83d",
        "<br>",
        "&nbsp;",
        "x" * 5000,
        "http://",
    ]
    files = [text.encode() for text in texts]
    files += [tweet.encode(name) for name in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig")]
    files += ["day".encode(name) for name in ("utf-16", "utf-16-le", "utf-16-be", "utf-32-be", "utf-7")]
    files += [
        "Привет".encode("koi8-r"),
        "日本".encode("shift-jis"),
        "日本".encode("gb18030"),
        "é".encode("latin-1"),
    ]
    # Half an emoji, as programs write it that cut texts at 16 bits: no UTF-8.
    files += [half.encode("utf-8", "surrogatepass") + rest for half in HALVES for rest in (b"", b" day")]
    files += [b"\xff", b"\x81", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xe2\x98", b"ok\xff\xfe"]
    # The widest words, the most words, the most marks on one letter, the most links.
    long = ["😀", "good day ", "x", "!", "\u0301", "\u200bx", "htt/"]
    return files + [(part.encode() * MEGABYTE)[:MEGABYTE] for part in long]


def unseen() -> list[bytes]:
    """What is as good as empty."""
    rng = random.Random(2)
    files = [b"", b"\n", b"\n" * 5000, b"\xef\xbb\xbf", b"\xef\xbb\xbf\xef\xbb\xbf", b"\0" * 4096]
    files += ["".join(rng.choices(SPACES, k=rng.randint(1, 30))).encode() for _ in range(10)]
    files += ["".join(rng.choices(INVISIBLE + SPACES, k=rng.randint(1, 30))).encode() for _ in range(14)]
    return [*files, b" " * MEGABYTE, "\u200b".encode() * (MEGABYTE // 3)]


def anything(count: int) -> list[bytes]:
    """Random bytes, and random characters of the whole of Unicode."""
    rng = random.Random(3)
    files = [rng.randbytes(rng.choice([1, 2, 3, 30, 300])) for _ in range(count - count // 3)]
    for _ in range(count // 3):
        codes = rng.choices(
            [c for c in range(0x110000) if not 0xD800 <= c < 0xE000], k=rng.choice([1, 2, 40])
        )
        files.append("".join(map(chr, codes)).encode())
    return files


def decoded(raw: bytes) -> str:
    """The rule: UTF-8 with or without a mark, else GB18030, else Windows-1252, byte by byte."""
    with suppress(UnicodeDecodeError):
        return raw.decode("utf-8").removeprefix("\ufeff")
    with suppress(UnicodeDecodeError):
        return raw.decode("gb18030")
    return "".join(bytes([b]).decode("cp1252", "replace") for b in raw)


def is_seen(text: str) -> bool:
    """Python's own notion of what prints, and what is newer than its tables or private."""
    return any((c.isprintable() and c != " ") or unicodedata.category(c) in ("Cn", "Co") for c in text)


@pytest.fixture(scope="module")
def tweets(tmp_path_factory):
    """200 tweets in MVSA-Single's layout, and which of them have something in them to see."""
    folder = tmp_path_factory.mktemp("tweets")
    known = [(raw, True) for raw in seen()] + [(raw, False) for raw in unseen()]
    files = known + [(raw, is_seen(decoded(raw))) for raw in anything(200 - len(known))]
    (folder / "data").mkdir()
    lines = ["ID\ttext,image"]
    for number, (raw, _) in enumerate(files):
        (folder / "data" / f"{number}.txt").write_bytes(raw)
        lines.append(f"{number}\t" + ("positive,positive", "negative,negative")[number % 2])
    (folder / "labelResultAll.txt").write_text("\n".join(lines))
    return SimpleNamespace(
        folder=folder,
        rows=DATASETS["mvsa_single"].read(folder),
        texts=[decoded(raw) for raw, _ in files],
        seen=[kept for _, kept in files],
    )


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A small local BERT."""
    vocabulary = collect_vocabulary(["what a good day ! 😀 שלום"], 1000)
    return save_bert(tmp_path_factory.mktemp("bert"), vocabulary)


def clean(dataset, rows, folder, empty_text):
    table, dropped, _ = clean_rows(rows, folder, DATASETS[dataset], "blank", empty_text)
    return table, dropped


def test_there_are_200_of_them_and_the_random_ones_are_mostly_seen(tweets):
    assert len(tweets.seen) == 200
    assert 30 < tweets.seen.count(False) < 60


def test_drop_keeps_exactly_the_texts_in_which_something_can_be_seen(tweets):
    table, dropped = clean("mvsa_single", tweets.rows, tweets.folder, "drop")
    assert table["id"].tolist() == [str(n) for n, kept in enumerate(tweets.seen) if kept]
    assert dropped["id"].tolist() == [str(n) for n, kept in enumerate(tweets.seen) if not kept]
    assert set(dropped["reason"]) == {"empty_text"}


def test_blank_keeps_every_row_and_empties_those_in_which_nothing_can_be_seen(tweets):
    table, dropped = clean("mvsa_single", tweets.rows, tweets.folder, "blank")
    assert table["id"].tolist() == [str(n) for n in range(200)]
    assert (table["text"] != "").tolist() == tweets.seen
    assert dropped.empty


def test_error_refuses_them_by_number_and_parameter(tweets):
    with pytest.raises(UserError, match=rf"{tweets.seen.count(False)} row.*-S clean.empty_text=drop"):
        clean("mvsa_single", tweets.rows, tweets.folder, "error")


def test_every_clean_text_is_one_line_of_utf8_without_control_characters_and_reads_back(tweets, tmp_path):
    table, _ = clean("mvsa_single", tweets.rows, tweets.folder, "blank")
    for text in table["text"]:
        assert text.encode().decode() == text
        assert len(text.splitlines()) <= 1
        assert not any(unicodedata.category(c) == "Cc" for c in text)
    table.to_parquet(tmp_path / "clean.parquet", index=False)
    pd.testing.assert_frame_equal(read_clean(tmp_path / "clean.parquet"), table)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_own_posts_with_the_same_texts_are_cleaned_to_the_same(tweets, tmp_path, kind):
    ids = [str(n) for n in range(200)]
    posts = pd.DataFrame({"id": ids, "text": tweets.texts, "image": "", "label": ["p", "n"] * 100})
    if kind == "csv":
        # As a file of bytes: writing as text would change the line ends in the texts.
        (tmp_path / "posts.csv").write_bytes(posts.to_csv(index=False, lineterminator="\r\n").encode())
    else:
        posts.to_parquet(tmp_path / "posts.parquet")
    found, _ = clean("own", DATASETS["own"].read(tmp_path), tmp_path, "blank")
    expected, _ = clean("mvsa_single", tweets.rows, tweets.folder, "blank")
    assert found["text"].tolist() == expected["text"].tolist()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_own_posts_with_half_an_emoji_in_them_are_refused_by_their_path(tmp_path, kind):
    path = tmp_path / f"posts.{kind}"
    columns = {"id": ["1", "2"], "text": ["a", "12345"], "image": ["", ""], "label": ["x", "y"]}
    if kind == "csv":
        pd.DataFrame(columns).to_csv(path, index=False)
    else:
        pa.parquet.write_table(pa.table(columns), path)
    path.write_bytes(path.read_bytes().replace(b"12345", b"1\xed\xa0\xbd2"))
    with pytest.raises(UserError, match=r"posts\."):
        DATASETS["own"].read(tmp_path)


def test_half_an_emoji_in_hfm_s_escapes_is_cleaned_and_encoded(bert, tmp_path):
    (tmp_path / "text").mkdir()
    texts = [*HALVES, "".join(HALVES[::-1]), f"good {HALVES[0]} day", HALVES[1] * 500]
    train = [f"['{n}', {text!a}, {n % 2}]" for n, text in enumerate(texts)]
    (tmp_path / "text" / "train.txt").write_text("\n".join(train))
    (tmp_path / "text" / "valid2.txt").write_text(f"['v', {HALVES[0]!a}, 1, 1]")
    (tmp_path / "text" / "test2.txt").write_text(f"['t', {HALVES[1]!a}, 1, 1]")
    rows = DATASETS["hfm"].read(tmp_path)
    assert rows[3].text == texts[3]
    table, dropped = clean("hfm", rows, tmp_path, "drop")
    assert dropped.empty
    table.to_parquet(tmp_path / "clean.parquet", index=False)
    encode_texts(table, tmp_path / "text.h5", max_positions=202, **{**ENCODING, "weights": str(bert)})
    assert read_texts(tmp_path / "text.h5").cls.isfinite().all()


@pytest.mark.parametrize("empty_text", ["drop", "blank"])
def test_what_is_kept_has_finite_features_of_at_most_the_positions_there_are(
    tweets, bert, tmp_path, empty_text
):
    table, _ = clean("mvsa_single", tweets.rows, tweets.folder, empty_text)
    encode_texts(table, tmp_path / "text.h5", max_positions=202, **{**ENCODING, "weights": str(bert)})
    features = read_texts(tmp_path / "text.h5")
    assert features.ids == table["id"].tolist()
    assert features.words.isfinite().all()
    assert features.cls.isfinite().all()
    lengths = features.offsets.diff()
    assert lengths.max() == 200
    blank = torch.tensor((table["text"] == "").to_numpy())
    assert (lengths[blank] == 0).all()
    assert torch.equal((features.cls == 0).all(dim=(1, 2)), blank)


def test_an_untrained_encoder_takes_its_vocabulary_from_them_and_stays_finite(tweets, tmp_path):
    table, _ = clean("mvsa_single", tweets.rows, tweets.folder, "drop")
    encode_texts(table, tmp_path / "text.h5", max_positions=10, **ENCODING)
    features = read_texts(tmp_path / "text.h5")
    assert features.words.isfinite().all()
    assert features.cls.isfinite().all()


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_from_the_files_to_the_features_they_take_less_than_2_gib_and_2_minutes(tweets, bert, tmp_path):
    # torch and transformers take 0.5 GiB; a megabyte of punctuation marks, each a token, takes 0.2 GiB
    # while it is tokenized and cut, and nine of the texts are a megabyte long. Anything that grows with
    # the square of a text's length would take hours.
    code = """
import sys
from pathlib import Path
from spp_scl.clean.cleaning import clean_rows
from spp_scl.encoders.texts import encode_texts
from spp_scl.raw.datasets import DATASETS
from spp_scl.split.splitting import repeats
raw, bert, out = map(Path, sys.argv[1:])
dataset = DATASETS["mvsa_single"]
table, _, _ = clean_rows(dataset.read(raw), raw, dataset, "blank", "drop")
repeats(table)
encode_texts(table, out, weights=str(bert), seed=1, batch_size=8, precision="auto", max_positions=202)
"""
    started = time.perf_counter()
    assert peak_memory(code, tweets.folder, bert, tmp_path / "text.h5") < 2 * GIB
    assert time.perf_counter() - started < 120
