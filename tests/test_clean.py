import hashlib
import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, PngImagePlugin

from spp_scl.clean.cleaning import clean_rows
from spp_scl.clean.pictures import UnreadablePictureError, open_picture
from spp_scl.clean.table import read_clean, write_parquet
from spp_scl.errors import UserError
from spp_scl.raw.datasets import DATASETS
from spp_scl.raw.rows import RawRow

GREEN = (40, 180, 60)


def photo() -> Image.Image:
    pixels = np.random.default_rng(5).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def exif() -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = 6  # orientation: turn by 90 degrees
    tags[0x010E] = "a description"
    return tags


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG whose header claims this size, with next to no pixels after it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def clean(folder: Path, rows: list[RawRow], dataset="own", missing_image="drop", empty_text="drop"):
    return clean_rows(rows, folder, DATASETS[dataset], missing_image=missing_image, empty_text=empty_text)


def two_good_rows(folder: Path) -> list[RawRow]:
    photo().save(folder / "good.png")
    return [
        RawRow("good0", "fine", "good.png", "p", encoding="utf-8"),
        RawRow("good1", "well", "good.png", "n", encoding="gb18030"),
    ]


@pytest.fixture
def messy(tmp_path) -> list[RawRow]:
    """A good pair a class, then each thing that can be wrong with one."""
    (tmp_path / "broken.jpg").write_bytes(encoded(photo(), "JPEG")[:300])
    return [
        *two_good_rows(tmp_path),
        RawRow("absent", "a", "absent.jpg", "p"),
        RawRow("broken", "b", "broken.jpg", "n"),
        RawRow("none", "c", None, "p"),
        RawRow("silent", " \n", "good.png", "n", encoding="utf-8"),
        RawRow("unread", None, "good.png", "p"),
        RawRow("void", "", None, "p"),
        RawRow("ruled", "d", "good.png", None, dropped="conflicting_labels", encoding="cp1252"),
    ]


# --- the policies, and the account of what was dropped


def test_drop_leaves_out_what_is_missing_and_names_each_row_and_its_reason(tmp_path, messy):
    table, dropped, report = clean(tmp_path, messy)
    assert table["id"].tolist() == ["good0", "good1"]
    assert list(zip(dropped["id"], dropped["reason"], strict=True)) == [
        ("absent", "missing_image"),
        ("broken", "unreadable_image"),
        ("none", "missing_image"),
        ("silent", "empty_text"),
        ("unread", "empty_text"),
        ("void", "empty_text"),
        ("ruled", "conflicting_labels"),
    ]
    details = dict(zip(dropped["id"], dropped["detail"], strict=True))
    assert "absent.jpg" in details["absent"]
    assert "broken.jpg" in details["broken"]
    assert "truncated" in details["broken"].lower()
    assert details["none"]
    assert report == {
        "rows": 9,
        "kept": 2,
        "dropped": {"conflicting_labels": 1, "empty_text": 3, "missing_image": 2, "unreadable_image": 1},
        "blank_images": 0,
        "empty_texts": 0,
        "encodings": {"cp1252": 1, "gb18030": 1, "utf-8": 2},
        "classes": {"n": 1, "p": 1},
    }


def test_blank_keeps_all_but_what_the_dataset_s_own_rules_drop(tmp_path, messy):
    table, dropped, report = clean(tmp_path, messy, missing_image="blank", empty_text="blank")
    kept = table.set_index("id")
    assert list(kept.index) == ["good0", "good1", "absent", "broken", "none", "silent", "unread", "void"]
    assert dropped["id"].tolist() == ["ruled"]
    blank = ["absent", "broken", "none", "void"]
    assert kept.index[kept["image"].isna()].tolist() == blank
    assert kept.index[kept["picture"].isna()].tolist() == blank
    assert kept.index[kept["text"] == ""].tolist() == ["silent", "unread", "void"]
    assert (report["kept"], report["blank_images"], report["empty_texts"]) == (8, 4, 3)
    assert report["dropped"] == {"conflicting_labels": 1}


@pytest.mark.parametrize(
    ("missing_image", "empty_text", "kept"),
    [
        ("drop", "blank", ["good0", "good1", "silent", "unread"]),
        ("blank", "drop", ["good0", "good1", "absent", "broken", "none"]),
    ],
)
def test_each_policy_decides_on_its_own_modality(tmp_path, messy, missing_image, empty_text, kept):
    table, dropped, report = clean(tmp_path, messy, missing_image=missing_image, empty_text=empty_text)
    assert table["id"].tolist() == kept
    assert sorted([*table["id"], *dropped["id"]]) == sorted(row.id for row in messy)
    assert report["rows"] == report["kept"] + sum(report["dropped"].values())


def test_error_refuses_missing_and_unreadable_pictures_with_ids_reasons_and_the_parameter(tmp_path, messy):
    with pytest.raises(UserError) as caught:
        clean(tmp_path, messy, missing_image="error", empty_text="blank")
    message = str(caught.value)
    assert all(word in message for word in ("absent.jpg", "broken.jpg", "none", "void", "4 row"))
    assert "-S clean.missing_image=drop" in message


def test_error_refuses_empty_texts_with_ids_and_the_parameter(tmp_path, messy):
    with pytest.raises(UserError) as caught:
        clean(tmp_path, messy, missing_image="blank", empty_text="error")
    message = str(caught.value)
    assert all(word in message for word in ("silent", "unread", "void", "3 row"))
    assert "-S clean.empty_text=drop" in message


def test_error_lets_whole_data_pass_and_ignores_what_the_dataset_s_rules_drop(tmp_path):
    rows = [*two_good_rows(tmp_path), RawRow("ruled", None, "absent.jpg", None, dropped="no_majority")]
    table, dropped, _ = clean(tmp_path, rows, missing_image="error", empty_text="error")
    assert len(table) == 2
    assert dropped["reason"].tolist() == ["no_majority"]


def test_many_rows_in_error_are_counted_and_not_all_listed(tmp_path):
    rows = two_good_rows(tmp_path) + [RawRow(f"row{n}", "a", None, "p") for n in range(1000)]
    with pytest.raises(UserError) as caught:
        clean(tmp_path, rows, missing_image="error")
    assert "1000 row" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_nothing_left_is_refused_with_the_reasons_and_a_way_on(tmp_path):
    rows = [RawRow("1", "a", "1.jpg", "p"), RawRow("2", "b", "2.jpg", "n"), RawRow("3", "", None, "n")]
    with pytest.raises(UserError) as caught:
        clean(tmp_path, rows)
    message = str(caught.value)
    assert all(word in message for word in (str(tmp_path), "missing_image 2", "empty_text 1"))
    assert "-S clean.missing_image=blank" in message


def test_one_class_only_is_refused_by_its_name(tmp_path):
    rows = [RawRow(str(n), "a", None, "lonely") for n in range(5)]
    with pytest.raises(UserError, match="lonely"):
        clean(tmp_path, rows, missing_image="blank")


@pytest.mark.parametrize(
    ("dataset", "classes"),
    [
        ("sample", ["positive", "neutral", "negative"]),
        ("mvsa_single", ["positive", "neutral", "negative"]),
        ("mvsa_multiple", ["positive", "neutral", "negative"]),
        ("hfm", ["not sarcastic", "sarcastic"]),
    ],
)
def test_the_labels_codes_are_those_of_the_papers_whatever_order_they_come_in(tmp_path, dataset, classes):
    rows = [RawRow(name, "a", None, name) for name in reversed(classes)]
    table, _, report = clean(tmp_path, rows, dataset, missing_image="blank")
    assert list(table["label"].cat.categories) == classes
    assert table["label"].cat.codes.tolist() == list(range(len(classes)))[::-1]
    assert report["classes"] == dict.fromkeys(classes, 1)


def test_a_class_of_the_registry_without_rows_is_counted_as_none(tmp_path):
    rows = [RawRow("1", "a", None, "negative"), RawRow("2", "b", None, "positive")]
    _, _, report = clean(tmp_path, rows, "sample", missing_image="blank")
    assert report["classes"] == {"positive": 1, "neutral": 0, "negative": 1}


def test_the_classes_of_own_posts_are_those_kept_in_sorted_order(tmp_path):
    rows = [RawRow(str(n), "a", None, label) for n, label in enumerate(["b", "a", "c", "10", "2"])]
    rows.append(RawRow("dropped", "", None, "never kept"))
    table, _, _ = clean(tmp_path, rows, missing_image="blank")
    assert list(table["label"].cat.categories) == ["10", "2", "a", "b", "c"]


def test_splits_ids_and_order_of_the_source_are_kept(tmp_path):
    rows = [
        RawRow("9", "a", None, "p", split="test"),
        RawRow("1", "b", None, "n", split=None),
        RawRow("5", "c", None, "p", split="train"),
    ]
    table, _, _ = clean(tmp_path, rows, missing_image="blank")
    assert table["id"].tolist() == ["9", "1", "5"]
    assert table["split"].fillna("-").tolist() == ["test", "-", "train"]


# --- pictures


KEPT = {
    "jpeg.jpg": lambda: encoded(photo(), "JPEG"),
    "progressive.jpg": lambda: encoded(photo(), "JPEG", progressive=True),
    "png_named_jpg.jpg": lambda: encoded(photo(), "PNG"),
    "jpeg_named_png.png": lambda: encoded(photo(), "JPEG"),
    "no_extension": lambda: encoded(photo(), "JPEG"),
    "webp.jpg": lambda: encoded(photo(), "WEBP"),
    "bmp.jpg": lambda: encoded(photo(), "BMP"),
    "cmyk.jpg": lambda: encoded(photo().convert("CMYK"), "JPEG"),
    "grayscale.jpg": lambda: encoded(photo().convert("L"), "JPEG"),
    "black_and_white.png": lambda: encoded(photo().convert("1"), "PNG"),
    "gray_alpha.png": lambda: encoded(photo().convert("LA"), "PNG"),
    "palette.png": lambda: encoded(photo().convert("P"), "PNG"),
    "palette_transparent.png": lambda: encoded(photo().convert("P"), "PNG", transparency=b"\0\x80\xff"),
    "rgba.png": lambda: encoded(photo().convert("RGBA"), "PNG"),
    "16_bit.png": lambda: encoded(Image.fromarray(np.full((8, 9), 40_000, np.uint16)), "PNG"),
    "animated.gif": lambda: encoded(
        photo(), "GIF", save_all=True, append_images=[Image.new("RGB", (32, 24), GREEN)]
    ),
    "exif.jpg": lambda: encoded(photo(), "JPEG", exif=exif()),
    "broken_exif.jpg": lambda: encoded(photo(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "bytes_after_the_end.jpg": lambda: encoded(photo(), "JPEG") + b"\0" * 100,
    "one_pixel.png": lambda: encoded(Image.new("RGB", (1, 1)), "PNG"),
    "thin.png": lambda: encoded(Image.new("RGB", (10, 1000)), "PNG"),
}
DROPPED = {
    "a line.png": lambda: encoded(Image.new("RGB", (1, 5000)), "PNG"),
    "truncated.jpg": lambda: encoded(photo(), "JPEG")[:-200],
    "header_only.jpg": lambda: encoded(photo(), "JPEG")[:20],
    "truncated.png": lambda: encoded(photo(), "PNG")[:-200],
    "truncated.gif": lambda: encoded(photo(), "GIF")[:60],
    "flipped.png": lambda: encoded(photo(), "PNG").replace(b"IDAT", b"IDAX", 1),
    "text.jpg": lambda: b"404 not found\n",
    "page.jpg": lambda: b"<!DOCTYPE html><html><body>gone</body></html>",
    "zero_bytes.jpg": lambda: b"",
    "null_bytes.jpg": lambda: b"\0" * 4096,
    "movie.jpg": lambda: b"\0\0\0\x18ftypmp42" + b"\0" * 100,
    "zero_width.png": lambda: png_that_claims(0, 10),
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", KEPT)
def test_whatever_decodes_is_kept(tmp_path, name):
    (tmp_path / name).write_bytes(KEPT[name]())
    table, _, report = clean(tmp_path, [*two_good_rows(tmp_path), RawRow("this", "a", name, "p")])
    row = table.set_index("id").loc["this"]
    assert row["image"] == name
    assert len(row["picture"]) == 64
    assert int(row["picture"], 16) >= 0
    assert report["dropped"] == {}


@pytest.mark.parametrize("name", DROPPED)
def test_whatever_does_not_decode_to_its_end_is_dropped_as_unreadable_with_a_reason(tmp_path, name):
    (tmp_path / name).write_bytes(DROPPED[name]())
    _, dropped, _ = clean(tmp_path, [*two_good_rows(tmp_path), RawRow("this", "a", name, "p")])
    assert dropped[["id", "reason"]].values.tolist() == [["this", "unreadable_image"]]
    assert dropped["detail"][0].startswith(f"{name}: ")
    assert len(dropped["detail"][0]) > len(f"{name}: ")


def test_a_folder_or_an_impossible_path_in_place_of_a_picture_is_dropped(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    names = ["folder.jpg", "loop.jpg", "good.png/inside.jpg", "x" * 300 + ".jpg"]
    rows = [RawRow(str(n), "a", name, "p") for n, name in enumerate(names)]
    table, dropped, _ = clean(tmp_path, [*two_good_rows(tmp_path), *rows])
    assert table["id"].tolist() == ["good0", "good1"]
    assert dropped["id"].tolist() == ["0", "1", "2", "3"]
    assert set(dropped["reason"]) <= {"missing_image", "unreadable_image"}


@pytest.mark.parametrize(("width", "height"), [(10_000, 9_000), (100_000, 90_000), (1, 2**31 - 1)])
def test_a_picture_over_the_pixel_limit_is_dropped_without_being_decoded(tmp_path, width, height):
    # There are no pixels in the file: decoding it would find it truncated, as it does below the limit.
    (tmp_path / "large.png").write_bytes(png_that_claims(width, height))
    (tmp_path / "small.png").write_bytes(png_that_claims(1_000, 900))
    rows = [RawRow("large", "a", "large.png", "p"), RawRow("small", "a", "small.png", "p")]
    _, dropped, _ = clean(tmp_path, [*two_good_rows(tmp_path), *rows])
    assert dropped["reason"].tolist() == ["unreadable_image"] * 2
    large, small = dropped["detail"]
    assert "pixels" in large
    assert "truncated" not in large
    assert "truncated" in small


def test_every_mode_becomes_rgb_with_the_colors_that_it_has(tmp_path):
    plain = Image.new("RGB", (16, 16), GREEN)
    gray = plain.convert("L")
    clear = Image.new("RGBA", (16, 16), (*GREEN, 128))
    moving = {"save_all": True, "append_images": [Image.new("RGB", (16, 16), (255, 0, 0))]}
    pictures = {
        "rgb": (encoded(plain, "JPEG", quality=95), GREEN),
        "cmyk": (encoded(plain.convert("CMYK"), "JPEG", quality=95), GREEN),
        "palette": (encoded(plain.quantize(4), "PNG"), GREEN),
        "rgba": (encoded(clear, "PNG"), GREEN),
        "gif": (encoded(plain, "GIF", **moving), GREEN),
        # ITU-R 601: 0.299 R + 0.587 G + 0.114 B.
        "gray": (encoded(gray, "PNG"), (124, 124, 124)),
        "black": (encoded(Image.new("1", (16, 16), 0), "PNG"), (0, 0, 0)),
        "white": (encoded(Image.new("1", (16, 16), 1), "PNG"), (255, 255, 255)),
    }
    for name, (content, color) in pictures.items():
        (tmp_path / name).write_bytes(content)
        picture = open_picture(tmp_path / name)
        assert picture.mode == "RGB", name
        pixels = np.asarray(picture).reshape(-1, 3).astype(int)
        assert len(pixels) == 256, name
        assert np.abs(pixels - color).max() <= 4, name


def test_a_16_bit_picture_keeps_its_shades(tmp_path):
    shades = np.array([[0, 256, 16_448], [32_896, 49_344, 65_535]], dtype=np.uint16)
    Image.fromarray(shades).save(tmp_path / "16_bit.png")
    pixels = np.asarray(open_picture(tmp_path / "16_bit.png"))[..., 0].astype(int)
    assert np.abs(pixels - shades / 257).max() <= 1


def test_equal_pictures_have_equal_hashes_under_any_name_container_and_metadata(tmp_path):
    note = PngImagePlugin.PngInfo()
    note.add_text("Comment", "downloaded twice")
    jpeg = encoded(photo(), "JPEG")
    files = {
        "a.png": encoded(photo(), "PNG"),
        "b.jpg": encoded(photo(), "PNG", compress_level=1, pnginfo=note),
        "c.bmp": encoded(photo(), "BMP"),
        "d.jpg": jpeg,
        "e.jpg": encoded(photo(), "JPEG", exif=exif()),
        "f.jpg": jpeg + b"\0\0",
    }
    rows = []
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        rows.append(RawRow(name, "a", name, "p" if name < "d" else "n"))
    table, _, _ = clean(tmp_path, rows)
    hashes = table.set_index("id")["picture"]
    assert hashes[["a.png", "b.jpg", "c.bmp"]].nunique() == 1
    assert hashes[["d.jpg", "e.jpg", "f.jpg"]].nunique() == 1
    assert hashes.nunique() == 2


def test_the_hash_is_that_of_all_pixels_of_a_picture_of_any_height(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (700, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "tall.png")
    rows = [RawRow(label, "x", "tall.png", label) for label in "pn"]
    expected = hashlib.sha256(b"(9, 700)" + pixels.tobytes()).hexdigest()
    assert clean(tmp_path, rows)[0]["picture"].tolist() == [expected] * 2


def test_postscript_is_no_picture_though_pillow_would_run_it(tmp_path):
    photo().save(tmp_path / "program.jpg", "EPS")
    with pytest.raises(UnreadablePictureError, match="PostScript"):
        open_picture(tmp_path / "program.jpg")


def test_pictures_that_differ_in_one_pixel_or_in_their_shape_only_have_other_hashes(tmp_path):
    changed = photo()
    changed.putpixel((3, 4), tuple(255 - v for v in changed.getpixel((3, 4))))
    pictures = {
        "photo": photo(),
        "changed": changed,
        "wide": Image.new("RGB", (8, 2), GREEN),
        "square": Image.new("RGB", (4, 4), GREEN),
        "high": Image.new("RGB", (2, 8), GREEN),
    }
    rows = []
    for name, picture in pictures.items():
        picture.save(tmp_path / f"{name}.png")
        rows.append(RawRow(name, "a", f"{name}.png", "p" if name < "m" else "n"))
    table, _, _ = clean(tmp_path, rows)
    assert table["picture"].nunique() == len(pictures)


# --- texts


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("plain", "plain"),
        ("  RT @a: Keep, my #Case http://t.co/x  ", "RT @a: Keep, my #Case http://t.co/x"),
        ("a\x00b\x07c\x7f\x9b", "abc"),
        ("one\ntwo\r\nthree\tfour\u2028five\u00a0six", "one two three four five six"),
        ("many     spaces", "many spaces"),
        ("שלום עולם", "שלום עולם"),
        ("\u202bمرحبا\u202c!", "\u202bمرحبا\u202c!"),
        ("family 👨\u200d👩\u200d👧 stays", "family 👨\u200d👩\u200d👧 stays"),
        ("e\u0301 and é", "e\u0301 and é"),
        ("日本語。", "日本語。"),
        ("\ufffd", "\ufffd"),
    ],
)
def test_a_text_becomes_one_line_without_control_characters_and_is_else_unchanged(tmp_path, raw, expected):
    rows = [RawRow("1", raw, None, "p"), RawRow("2", "b", None, "n")]
    table, _, _ = clean(tmp_path, rows, missing_image="blank")
    assert table["text"].tolist() == [expected, "b"]


@pytest.mark.parametrize("code", [0xD83D, 0xDE00], ids=["first", "second"])
def test_half_an_emoji_is_no_obstacle_to_writing_the_table(tmp_path, code):
    half = chr(code)
    rows = [RawRow("1", f"before {half} after", None, "p"), RawRow("2", "b", None, "n")]
    table, _, _ = clean(tmp_path, rows, missing_image="blank")
    table.to_parquet(tmp_path / "clean.parquet", index=False)
    words = read_clean(tmp_path / "clean.parquet")["text"][0].split()
    assert (words[0], words[-1]) == ("before", "after")
    assert half not in words


@pytest.mark.parametrize(
    "raw",
    [
        "",
        " ",
        "\n\r\n\t",
        "\x00\x07",
        "\u200b",
        "\u200b\u200c\u200d\u2060\ufeff",
        "\u00ad \u202e\u2028",
        "\u3000",
    ],
)
def test_a_text_in_which_nothing_can_be_seen_is_empty(tmp_path, raw):
    rows = [RawRow("1", raw, None, "p"), RawRow("2", "b", None, "n"), RawRow("3", "c", None, "p")]
    _, dropped, _ = clean(tmp_path, rows, missing_image="blank", empty_text="drop")
    assert dropped[["id", "reason"]].values.tolist() == [["1", "empty_text"]]
    table, _, _ = clean(tmp_path, rows, missing_image="blank", empty_text="blank")
    assert table["text"].tolist() == ["", "b", "c"]


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param("😀", id="emoji"),
        pytest.param("👍🏽", id="emoji with a skin tone"),
        pytest.param("🇩🇪", id="flag"),
        pytest.param("❤\ufe0f", id="emoji with a variation selector"),
        pytest.param("\U0001fae8", id="emoji of Unicode 15, newer than Python 3.11's tables"),
        pytest.param("...", id="punctuation"),
        pytest.param("0", id="digit"),
        pytest.param("http://t.co/x", id="link"),
        pytest.param("ש", id="right-to-left letter"),
    ],
)
def test_a_text_in_which_anything_can_be_seen_is_kept(tmp_path, raw):
    rows = [RawRow("1", raw, None, "p"), RawRow("2", "b", None, "n")]
    table, _, _ = clean(tmp_path, rows, missing_image="blank", empty_text="drop")
    assert table["text"].tolist() == [raw, "b"]


# --- the table as a file


def varied_table(folder: Path) -> pd.DataFrame:
    (folder / "photo.png").write_bytes(encoded(photo(), "PNG"))
    rows = [
        RawRow(
            "z", "first ☕", "photo.png", "negative", "test", text_label="neutral", image_label="negative"
        ),
        RawRow("007", "", None, "positive"),
        RawRow("a", "שלום", "absent.png", "neutral", "train"),
    ]
    return clean(folder, rows, "sample", missing_image="blank", empty_text="blank")[0]


def test_the_table_reads_back_as_it_was_written(tmp_path):
    table = varied_table(tmp_path)
    write_parquet(table, tmp_path / "clean.parquet")
    back = read_clean(tmp_path / "clean.parquet")
    pd.testing.assert_frame_equal(back, table)
    assert list(back["label"].cat.categories) == ["positive", "neutral", "negative"]
    assert back["image"].isna().tolist() == [False, True, True]
    assert back["split"].isna().tolist() == [False, True, False]
    assert back.loc[0, ["text_label", "image_label"]].tolist() == ["neutral", "negative"]
    assert back.loc[1:, ["text_label", "image_label"]].isna().all(axis=None)


def test_a_column_of_nulls_reads_back_as_nulls(tmp_path):
    rows = [RawRow("1", "a", None, "p"), RawRow("2", "b", None, "n")]
    table, _, _ = clean(tmp_path, rows, missing_image="blank")
    table.to_parquet(tmp_path / "clean.parquet", index=False)
    back = read_clean(tmp_path / "clean.parquet")
    assert back[["image", "picture", "split"]].isna().all(axis=None)


@pytest.mark.parametrize(("dataset", "metric"), [("sample", "f1_weighted"), ("hfm", "f1_macro")])
def test_the_table_carries_its_dataset_s_selection_metric_into_its_file_and_back(tmp_path, dataset, metric):
    rows = [RawRow(name, "a", None, name) for name in DATASETS[dataset].classes]
    table, _, _ = clean(tmp_path, rows, dataset, missing_image="blank")
    write_parquet(table, tmp_path / "clean.parquet")
    assert table.attrs["selection"] == read_clean(tmp_path / "clean.parquet").attrs["selection"] == metric


def test_cleaning_and_writing_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_parquet(varied_table(tmp_path), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_missing_clean_table_is_refused_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(UserError) as caught:
        read_clean(tmp_path / "absent.parquet")
    assert str(tmp_path / "absent.parquet") in str(caught.value)
    assert "dvc repro" in str(caught.value)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda raw: b"", id="empty"),
        pytest.param(lambda raw: raw[: len(raw) // 2], id="first half"),
        pytest.param(lambda raw: raw[len(raw) // 2 :], id="second half"),
        pytest.param(lambda raw: raw[:-1], id="last byte gone"),
        pytest.param(lambda raw: b"id,text,image,label\n1,a,b,c\n", id="CSV"),
        pytest.param(lambda raw: bytes(len(raw)), id="null bytes"),
    ],
)
def test_a_damaged_clean_table_is_refused_by_its_path(tmp_path, damage):
    path = tmp_path / "clean.parquet"
    write_parquet(varied_table(tmp_path), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError) as caught:
        read_clean(path)
    assert f"{path}: damaged (" in str(caught.value)


def test_each_changed_byte_of_a_text_is_found_by_its_checksum(tmp_path):
    # Compression leaves a text without repetitions as it is: without a checksum any letter would be read.
    table = varied_table(tmp_path)
    table["text"] = text = "a text of which each letter counts"
    path = tmp_path / "clean.parquet"
    write_parquet(table, path)
    whole = path.read_bytes()
    start = whole.index(text.encode())
    for place in range(start, start + len(text)):
        path.write_bytes(whole[:place] + b"X" + whole[place + 1 :])
        with pytest.raises(UserError, match="damaged"):
            read_clean(path)


@pytest.mark.filterwarnings("ignore")
def test_no_single_flipped_bit_of_a_clean_table_ends_in_a_traceback(tmp_path):
    path = tmp_path / "clean.parquet"
    write_parquet(varied_table(tmp_path), path)
    whole = path.read_bytes()
    rng = random.Random(0)
    crashes, refused = [], 0
    for _ in range(400):
        damaged = bytearray(whole)
        place = rng.randrange(len(damaged))
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            read_clean(path)
        except UserError:
            refused += 1
        except Exception as error:
            crashes.append((place, repr(error)))
    assert refused > 0
    assert crashes == []


def test_another_table_is_refused_as_a_clean_table(tmp_path):
    table = varied_table(tmp_path)
    others = {
        "split": table[["id", "split"]],
        "no label": table.drop(columns="label"),
        "plain labels": table.astype({"label": "str"}),
        "reordered": table[table.columns[::-1]],
        "no selection metric": table.copy(),
    }
    others["no selection metric"].attrs.clear()
    for name, other in others.items():
        other.to_parquet(tmp_path / name, index=False)
        with pytest.raises(UserError, match="not a clean table"):
            read_clean(tmp_path / name)
