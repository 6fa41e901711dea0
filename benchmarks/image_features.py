"""Image features, JPEG to HDF5, against the bare forward pass, and against float32 batch after batch."""

import logging
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from benchmarks.measure import Row, alternate, report
from benchmarks.synthetic import write_pictures
from spp_scl.features.device import autocast, choose_device, choose_precision
from spp_scl.features.image import ImageEncoder, encode_images, prepare_picture
from spp_scl.features.workers import in_order

PICTURES = 384
BATCH = 32


def main() -> None:
    logging.disable()
    device = choose_device()
    precision = choose_precision(device, "auto")
    encoder = ImageEncoder("untrained", 1).to(device)
    pixels = torch.randint(0, 256, (BATCH, 3, 224, 224), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = write_pictures(folder, PICTURES)

        def encode(rows: int, precision: str = "auto") -> None:
            (folder / "image.h5").unlink(missing_ok=True)
            options = {"weights": "untrained", "seed": 1, "batch_size": BATCH, "precision": precision}
            encode_images(table.head(rows), folder, folder / "image.h5", **options)

        def forward(_: object = None) -> None:
            with torch.inference_mode(), autocast(device, precision):
                encoder(pixels.to(device)).cpu()

        def all_cores() -> None:
            for _ in range(PICTURES // BATCH):
                forward()

        def core_by_core() -> None:
            for _ in in_order(forward, range(PICTURES // BATCH), device):
                pass

        whole, setup, bare, bare_by_core = alternate(
            partial(encode, PICTURES), partial(encode, 1), all_cores, core_by_core
        )
        # The network is built and hashed once however many pictures follow; one batch is in both.
        ours = (PICTURES - BATCH) / (whole - setup)
        best = PICTURES / min(bare, bare_by_core)
        print(f"set-up and one batch: {setup:.1f} s", file=sys.stderr)

        plain = ImageEncoder("untrained", 1).to(memory_format=torch.contiguous_format)
        one_by_one = []
        for start in range(0, 5 * BATCH, BATCH):
            started = time.perf_counter()
            batch = torch.stack([prepare_picture(folder / f"{i}.jpg") for i in range(start, start + BATCH)])
            with torch.inference_mode():
                plain(batch)
            one_by_one.append(BATCH / (time.perf_counter() - started))
    slow = sorted(one_by_one)[2]
    report(
        Row(
            "image features, JPEG to HDF5",
            f"the bare ResNet-50 forward on tensors in memory, {precision}, batches of {BATCH}, the better "
            "of all cores on a batch and a batch a core",
            f"{ours:.1f} pictures/s against {best:.1f}: {ours / best:.2f} of its rate",
            "at least 0.90 of its rate",
            ours / best >= 0.90,
        ),
        Row(
            "image features, JPEG to HDF5",
            "float32, one after the other",
            f"{ours:.1f} pictures/s against {slow:.1f}: {ours / slow:.1f} times",
            "at least 4 times",
            ours / slow >= 4,
        ),
    )


if __name__ == "__main__":
    main()
