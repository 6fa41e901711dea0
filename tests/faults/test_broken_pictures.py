"""200 pictures as people upload them, most of them broken, as the images of a user's own posts."""

import base64
import gzip
import io
import random
import struct
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from spp_scl.clean.cleaning import clean_rows
from spp_scl.clean.pictures import open_picture
from spp_scl.encoders.pictures import encode_images
from spp_scl.errors import UserError
from spp_scl.features.store import read_images
from spp_scl.raw.datasets import DATASETS
from tests.conftest import ENCODING
from tests.faults.memory import GIB, peak_memory

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::RuntimeWarning:PIL")

# What is not known beforehand: whether a damaged file still decodes.
UNKNOWN = None

PIXELS = np.random.default_rng(7).integers(0, 256, (36, 48, 3), dtype=np.uint8)
PHOTO = Image.fromarray(PIXELS)
FRAMES = {"save_all": True, "append_images": [PHOTO.rotate(90 * n) for n in (1, 2)]}


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, color: int, data: bytes, interlaced: bool = False) -> bytes:
    """A PNG out of its parts, for what Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data, 1)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def scanlines(pixels: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def plain_png(width: int, height: int) -> bytes:
    """One bit a pixel, all black."""
    return png(width, height, 1, 0, bytes(height * (1 + (width + 7) // 8)))


def interlaced_png() -> bytes:
    # PNG's specification, "Interlacing and pass extraction": first column and row, and their steps.
    passes = [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ]
    data = b"".join(scanlines(PIXELS[y::dy, x::dx]) for x, y, dx, dy in passes)
    return png(48, 36, 8, 2, data, interlaced=True)


def webp_with_canvas(width: int, height: int) -> bytes:
    """An animated WebP of one small frame on a canvas of this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)

    def three_bytes(*values: int) -> bytes:
        return b"".join(value.to_bytes(3, "little") for value in values)

    frame = encoded(PHOTO, "WEBP", lossless=True)[12:]
    parts = chunk(b"VP8X", b"\x02\0\0\0" + three_bytes(width - 1, height - 1))
    parts += chunk(b"ANIM", bytes(6)) + chunk(b"ANMF", three_bytes(0, 0, 47, 35, 100) + b"\0" + frame)
    return b"RIFF" + struct.pack("<I", 4 + len(parts)) + b"WEBP" + parts


def exif(orientation: int, description: str = "") -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    tags[0x010E] = description
    return tags


def whole() -> dict[str, bytes]:
    """What is unusual, and yet a picture."""
    jpeg = encoded(PHOTO, "JPEG")
    palette = PHOTO.quantize(16)
    pictures = {
        "plain.jpg": jpeg,
        "progressive.jpg": encoded(PHOTO, "JPEG", progressive=True),
        "gray.jpg": encoded(PHOTO.convert("L"), "JPEG"),
        "cmyk.jpg": encoded(PHOTO.convert("CMYK"), "JPEG"),
        "worst quality.jpg": encoded(PHOTO, "JPEG", quality=1, subsampling="4:2:0"),
        "restart markers.jpg": encoded(PHOTO, "JPEG", restart_marker_blocks=1),
        "broken EXIF.jpg": encoded(PHOTO, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
        "huge EXIF.jpg": encoded(PHOTO, "JPEG", exif=exif(1, "x" * 60_000)),
        "huge ICC profile.jpg": encoded(PHOTO, "JPEG", icc_profile=bytes(2_000_000)),
        "ICC profile that is none.png": encoded(PHOTO, "PNG", icc_profile=b"none"),
        "bytes after the end.jpg": jpeg + b"\0" * 1000,
        "html after the end.jpg": jpeg + b"<html></html>",
        "two pictures.jpg": encoded(PHOTO, "MPO", **FRAMES),
        "one in an MPO.mpo": encoded(PHOTO, "MPO"),
        "CAPITALS.JPG": jpeg,
        "no extension": jpeg,
        "été ☕ 日本.jpg": jpeg,
        "in/a folder/plain.jpg": jpeg,
        "jpeg named.png": jpeg,
        "png named.jpg": encoded(PHOTO, "PNG"),
        "gif named.jpg": encoded(PHOTO, "GIF"),
        "webp named.jpg": encoded(PHOTO, "WEBP"),
        "bmp named.jpg": encoded(PHOTO, "BMP"),
        "tiff named.jpg": encoded(PHOTO, "TIFF"),
        "packed tiff named.jpg": encoded(PHOTO, "TIFF", compression="tiff_lzw"),
        "ico named.jpg": encoded(PHOTO, "ICO"),
        "jpeg 2000 named.jpg": encoded(PHOTO, "JPEG2000"),
        "avif named.jpg": encoded(PHOTO, "AVIF"),
        "ppm named.jpg": encoded(PHOTO, "PPM"),
        "alpha.png": encoded(PHOTO.convert("RGBA"), "PNG"),
        "nothing but alpha.png": encoded(Image.new("RGBA", (30, 20)), "PNG"),
        "gray with alpha.png": encoded(PHOTO.convert("LA"), "PNG"),
        "palette.png": encoded(palette, "PNG"),
        "two bits.png": encoded(PHOTO.quantize(4), "PNG", bits=2),
        "palette with transparency.png": encoded(palette, "PNG", transparency=b"\0\x80\xff"),
        "transparent color.png": encoded(PHOTO, "PNG", transparency=(0, 0, 0)),
        "black and white.png": encoded(PHOTO.convert("1"), "PNG"),
        "16 bits gray.png": encoded(Image.fromarray(np.full((9, 8), 40_000, np.uint16)), "PNG"),
        "16 bits color.png": png(48, 36, 16, 2, scanlines(PIXELS.astype(">u2") * 257)),
        "interlaced.png": interlaced_png(),
        "animated.png": encoded(PHOTO, "PNG", **FRAMES),
        "animated.gif": encoded(PHOTO, "GIF", **FRAMES),
        "transparent.gif": encoded(palette, "GIF", transparency=3),
        "animated.webp": encoded(PHOTO, "WEBP", **FRAMES),
        "alpha.webp": encoded(PHOTO.convert("RGBA"), "WEBP", lossless=True),
        "1 to 100.png": encoded(Image.new("RGB", (10, 1000), "red"), "PNG"),
        "100 to 1.jpg": encoded(Image.new("RGB", (1000, 10), "red"), "JPEG"),
        "just small enough.png": plain_png(9_000, 9_000),
    }
    pictures |= {
        f"one pixel.{kind}": encoded(Image.new("RGB", (1, 1)), kind) for kind in ("PNG", "GIF", "WEBP")
    }
    pictures |= {f"turned {n}.jpg": encoded(PHOTO, "JPEG", exif=exif(n)) for n in range(1, 9)}
    return pictures


def hopeless() -> dict[str, bytes]:
    """What is no picture, or none of a size that anybody tweets."""
    jpeg = encoded(PHOTO, "JPEG")
    return {
        **{f"nothing.{kind}": b"" for kind in ("jpg", "png", "gif", "webp")},
        **{f"20 bytes.{kind}": encoded(PHOTO, kind)[:20] for kind in ("JPEG", "PNG", "GIF", "WEBP")},
        "text.jpg": b"404 not found\n",
        "page.jpg": b"<!DOCTYPE html><html><body>gone</body></html>",
        "answer.png": b'{"error": "rate limit exceeded"}',
        "drawing.jpg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "document.jpg": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        "movie.jpg": b"\0\0\0\x18ftypmp42" + bytes(100),
        "telephone.jpg": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
        "compressed.jpg": gzip.compress(jpeg, mtime=0),
        "base64.jpg": base64.b64encode(jpeg),
        "through a text file.png": encoded(PHOTO, "PNG").decode("latin-1").encode(),
        "line ends changed.png": encoded(PHOTO, "PNG").replace(b"\n", b"\r\n"),
        "null bytes.jpg": bytes(4096),
        "random bytes.jpg": random.Random(1).randbytes(4096),
        "random bytes after a start.jpg": b"\xff\xd8\xff\xe0" + random.Random(2).randbytes(4096),
        "no width.png": png(0, 10, 8, 2, b""),
        "20,000 x 20,000.png": plain_png(20_000, 20_000),
        "20,000 x 20,000.webp": webp_with_canvas(20_000, 20_000),
        "65,535 x 65,535.gif": b"GIF89a\xff\xff\xff\xff" + encoded(PHOTO, "GIF")[10:],
        "a little too large.png": plain_png(9_500, 9_400),
        "a line.png": plain_png(1, 20_000),
        "1 to 101.gif": encoded(Image.new("RGB", (2, 203)), "GIF"),
    }


def damaged(count: int) -> dict[str, bytes]:
    """Cut at a random place, or with some random bytes changed."""
    rng = random.Random(2024)
    kinds = {
        "jpg": encoded(PHOTO, "JPEG"),
        "png": encoded(PHOTO, "PNG"),
        "gif": encoded(PHOTO, "GIF", **FRAMES),
        "webp": encoded(PHOTO, "WEBP"),
    }
    pictures = {}
    for n in range(count):
        kind = list(kinds)[n % len(kinds)]
        content = bytearray(kinds[kind])
        if n % 8 < 4:
            pictures[f"cut {n}.{kind}"] = bytes(content[: rng.randrange(1, len(content))])
        else:
            for _ in range(rng.choice([1, 1, 4, 16])):
                content[rng.randrange(len(content))] ^= rng.randrange(1, 256)
            pictures[f"changed {n}.{kind}"] = bytes(content)
    return pictures


def decodes(path: Path) -> bool:
    """The rule, by Pillow alone: to the last pixel, at most 89 million of them, at most 1 to 100."""
    try:
        with Image.open(path) as picture:
            picture.load()
            width, height = picture.size
            return width * height <= 89_000_000 and max(width, height) <= 100 * min(width, height)
    except Exception:
        return False


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    """The 200 pictures, the rows that name them, and which of them are to be kept."""
    folder = tmp_path_factory.mktemp("uploads")
    known = {name: (content, True) for name, content in whole().items()}
    known |= {name: (content, False) for name, content in hopeless().items()}
    pictures = known | {name: (content, UNKNOWN) for name, content in damaged(200 - len(known)).items()}
    kept = {}
    for number, (name, (content, expected)) in enumerate(pictures.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        kept[str(number)] = decodes(folder / name) if expected is UNKNOWN else expected
    posts = {"id": list(kept), "text": "a tweet", "image": list(pictures), "label": ["p", "n"] * 100}
    pd.DataFrame(posts).to_csv(folder / "posts.csv", index=False)
    rows = DATASETS["own"].read(folder)
    return SimpleNamespace(folder=folder, rows=rows, kept=kept, names=dict(zip(kept, pictures, strict=True)))


@pytest.fixture(scope="module")
def cleaned(uploads):
    return clean_rows(uploads.rows, uploads.folder, DATASETS["own"], "drop", "drop")


def test_the_damage_leaves_some_pictures_whole_enough_and_others_not(uploads):
    fates = [kept for row_id, kept in uploads.kept.items() if uploads.names[row_id].startswith(("cut", "ch"))]
    assert len(uploads.kept) == 200
    assert len(fates) > 100
    assert min(sum(fates), len(fates) - sum(fates)) > 10


def test_drop_keeps_exactly_what_decodes_and_gives_the_name_and_a_reason_of_every_other(uploads, cleaned):
    table, dropped, report = cleaned
    found = dict.fromkeys(table["id"], True) | dict.fromkeys(dropped["id"], False)
    wrong = {uploads.names[row_id] for row_id in uploads.kept if found[row_id] != uploads.kept[row_id]}
    assert wrong == set()
    assert table["id"].tolist() == [row_id for row_id, kept in uploads.kept.items() if kept]
    assert len(table) + len(dropped) == report["rows"] == 200
    assert set(dropped["reason"]) == {"unreadable_image"}
    for row_id, detail in zip(dropped["id"], dropped["detail"], strict=True):
        name, _, why = detail.partition(": ")
        assert name == uploads.names[row_id]
        assert why.strip()
        assert "\n" not in why


def test_blank_keeps_every_row_and_leaves_exactly_the_unreadable_ones_without_a_picture(uploads, cleaned):
    table, dropped, report = clean_rows(uploads.rows, uploads.folder, DATASETS["own"], "blank", "drop")
    assert table["id"].tolist() == list(uploads.kept)
    assert table["image"].notna().tolist() == list(uploads.kept.values())
    assert dropped.empty
    assert report["blank_images"] == 200 - sum(uploads.kept.values())
    # Decoded again, a damaged picture has the same pixels.
    readable = table[table["image"].notna()]
    assert readable["picture"].tolist() == cleaned[0]["picture"].tolist()


def test_error_refuses_the_unreadable_ones_by_number_name_and_reason(uploads):
    with pytest.raises(UserError) as caught:
        clean_rows(uploads.rows, uploads.folder, DATASETS["own"], "error", "drop")
    first = next(name for row_id, name in uploads.names.items() if not uploads.kept[row_id])
    message = str(caught.value)
    assert f"{200 - sum(uploads.kept.values())} row(s)" in message
    assert first in message
    assert "-S clean.missing_image=drop" in message


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_cleaning_them_takes_less_than_1_gib(uploads):
    # The largest that is kept has 81 million pixels: 0.08 GB as it is decoded, 0.32 GB in RGB (4 bytes),
    # twice 0.24 GB while its bytes (3) are joined to be hashed; Python and pandas take 0.1 GB. Of those
    # that are too large each would take more than all this.
    code = """
import sys
from pathlib import Path
from spp_scl.clean.cleaning import clean_rows
from spp_scl.raw.datasets import DATASETS
folder, dataset = Path(sys.argv[1]), DATASETS["own"]
clean_rows(dataset.read(folder), folder, dataset, "drop", "drop")
"""
    assert peak_memory(code, uploads.folder) < GIB


def test_what_is_kept_has_finite_features_and_each_different_picture_its_own(uploads, cleaned, tmp_path):
    table = cleaned[0]
    names = table["id"].map(uploads.names)
    odd = table[~names.str.startswith(("cut", "changed", "turned"))].iloc[::2]
    hurt = table[names.str.startswith(("cut", "changed"))].head(12)
    chosen = pd.concat([odd, hurt], ignore_index=True)
    assert 30 < len(chosen) <= 40
    encode_images(chosen, uploads.folder, tmp_path / "image.h5", **ENCODING)
    features = read_images(tmp_path / "image.h5")
    assert features.maps.isfinite().all()
    assert features.maps.float().abs().amax(dim=(1, 2)).min() > 0
    assert len(features.maps) == chosen["picture"].nunique()
    assert (features.index >= 0).all()


@pytest.mark.parametrize(
    "name", ["interlaced.png", "16 bits color.png", "animated.png", "transparent color.png"]
)
def test_what_pillow_reads_in_a_way_of_its_own_still_has_its_pixels(uploads, name):
    assert np.array_equal(np.asarray(open_picture(uploads.folder / name)), PIXELS)


def test_the_orientation_in_exif_is_not_applied_as_in_the_published_code(uploads):
    # That is PIL's `Image.open(path).convert("RGB")`: what was taken upright may lie on its side.
    turned = [open_picture(uploads.folder / f"turned {n}.jpg") for n in range(1, 9)]
    plain = open_picture(uploads.folder / "plain.jpg")
    assert all(picture.size == (48, 36) for picture in turned)
    assert all(picture.tobytes() == plain.tobytes() for picture in turned)
