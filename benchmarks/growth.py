"""2, 4 and 8 times the rows: time, file size and memory of features and of training."""

import logging
import multiprocessing
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.measure import Row, alternate, peak_memory, report
from benchmarks.synthetic import load_features, texts, write_features, write_pictures
from benchmarks.training import epoch
from spp_scl.encoders.pictures import encode_images
from spp_scl.encoders.texts import encode_texts

TIMES = (1, 2, 4, 8)
# Two batches and more, so that no core waits; and nothing but whole batches, of texts in each length.
PICTURES, TEXTS, ROWS = 64, 256, 640
OPTIONS: dict[str, Any] = {"weights": "untrained", "seed": 1, "batch_size": 32, "precision": "auto"}


def main() -> None:
    logging.disable()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = write_pictures(folder / "pictures", PICTURES * TIMES[-1])
        # The same few texts again and again: another vocabulary would be another network.
        words = pd.DataFrame({"text": texts(TEXTS // 32) * (32 * TIMES[-1])})
        words["id"] = [str(i) for i in range(len(words))]

        def images(times: int) -> Path:
            path = folder / f"image{times}.h5"
            path.unlink(missing_ok=True)
            encode_images(table.head(PICTURES * times), folder / "pictures", path, **OPTIONS)
            return path

        def tweets(times: int) -> Path:
            path = folder / f"text{times}.h5"
            path.unlink(missing_ok=True)
            encode_texts(words.head(TEXTS * times), path, max_positions=202, **OPTIONS)
            return path

        sizes, peaks = [], []
        for times in TIMES:
            write_features(folder / str(times), ROWS * times)
            sizes.append(sum((folder / str(times) / f).stat().st_size for f in ("image.h5", "text.h5")))
            # A process each: one that has trained before keeps some of that memory.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                peaks.append(pool.submit(train_once, folder / str(times)).result())
        data = [load_features(folder / str(times)) for times in TIMES]
        rows = [_row("an epoch of training", alternate(*(partial(epoch, d) for d in data)), sizes, peaks)]
        for what, encode in (("image features", images), ("text features", tweets)):
            seconds = alternate(*(partial(encode, times) for times in TIMES))
            rows.append(_row(what, seconds, [encode(times).stat().st_size for times in TIMES], None))
    report(*rows)


def train_once(folder: Path) -> float:
    """The peak memory of an epoch, in GiB."""
    logging.disable()
    with peak_memory() as peak:
        epoch(load_features(folder))
    return peak[0]


def _row(what: str, seconds: list[float], sizes: list[int], peaks: list[float] | None) -> Row:
    slopes_off, sizes_off = _off(seconds), _off(sizes)
    measured = ", ".join(f"{s:.2f}" for s in seconds) + f" s: slopes off by at most {slopes_off:.1%}; "
    measured += f"files {sizes[0] / 2**20:.0f} to {sizes[-1] / 2**20:.0f} MiB, off by at most {sizes_off:.1%}"
    met = max(slopes_off, sizes_off) <= 0.10
    if peaks:
        measured += "; memory " + ", ".join(f"{p:.2f}" for p in peaks) + " GiB"
        met = met and peaks[-1] <= 1.1 * peaks[0]
    times = ", ".join(map(str, TIMES))
    return Row(f"growth: {what}", f"{times} times the rows", measured, "linear within 10 %", met)


def _off(values: Sequence[float]) -> float:
    """How far what the second half of the rows costs is from what the first half costs, set-up apart.

    The set-up (a network to build, a log to open) is the same for any number of rows, so it is differences
    that grow in line: from 1 to 4 times the rows, and from 4 to 8 times.
    """
    one, _, four, eight = values
    return abs((eight - four) / 4 / ((four - one) / 3) - 1)


if __name__ == "__main__":
    main()
