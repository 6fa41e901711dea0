"""2, 4 and 8 times the rows: time, file size and memory of features and of training."""

import logging
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pandas as pd

from benchmarks.measure import Row, alternate, peak_memory, report
from benchmarks.synthetic import load_features, texts, write_features, write_pictures
from benchmarks.training import enter_repository, epoch
from spp_scl.features.image import encode_images
from spp_scl.features.text import encode_texts

TIMES = (1, 2, 4, 8)
# Multiples of the batch, so that no batch is filled up.
PICTURES, TEXTS, ROWS = 64, 128, 640
OPTIONS = {"weights": "untrained", "seed": 1, "batch_size": 32, "precision": "auto"}


def main() -> None:
    logging.disable()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        enter_repository(folder)
        table = write_pictures(folder / "pictures", PICTURES * TIMES[-1])
        # The same texts again and again: another vocabulary would be another network.
        words = pd.DataFrame({"text": texts(TEXTS) * TIMES[-1]})
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

        for what, encode in (("image features", images), ("text features", tweets)):
            setup = alternate(partial(encode, 0))[0]
            seconds = [s - setup for s in alternate(*(partial(encode, t) for t in TIMES))]
            sizes = [encode(t).stat().st_size for t in TIMES]
            rows.append(_row(f"{what}, set-up apart", seconds, sizes, None))

        data, sizes = [], []
        for times in TIMES:
            write_features(folder / str(times), ROWS * times)
            sizes.append(sum((folder / str(times) / f).stat().st_size for f in ("image.h5", "text.h5")))
        peaks, loading = [], []
        for times in TIMES:
            with peak_memory() as peak:
                started = time.perf_counter()
                data.append(load_features(folder / str(times)))
                loading.append(time.perf_counter() - started)
                epoch(data[-1])
            peaks.append(peak[0])
        print("loading and checking, s:", [round(s, 2) for s in loading], file=sys.stderr)
        rows.append(_row("an epoch of training", alternate(*(partial(epoch, d) for d in data)), sizes, peaks))
    report(*rows)


def _row(what: str, seconds: list[float], sizes: list[int], peaks: list[float] | None) -> Row:
    each = [s / times for s, times in zip(seconds, TIMES, strict=True)]
    size_each = [s / times for s, times in zip(sizes, TIMES, strict=True)]
    off = max(abs(x / each[0] - 1) for x in each)
    size_off = max(abs(x / size_each[0] - 1) for x in size_each)
    measured = ", ".join(f"{s:.2f}" for s in seconds) + f" s: off linear by at most {off:.1%}; "
    measured += f"files {sizes[0] / 2**20:.0f} to {sizes[-1] / 2**20:.0f} MiB, off by at most {size_off:.1%}"
    met = max(off, size_off) <= 0.10
    if peaks:
        measured += "; memory " + ", ".join(f"{p:.2f}" for p in peaks) + " GiB"
        met = met and peaks[-1] <= 1.1 * peaks[0]
    times = ", ".join(map(str, TIMES))
    return Row(
        f"growth: {what}", f"{times} times the rows", measured, "linear within 10 %, constant memory", met
    )


if __name__ == "__main__":
    main()
