"""Text features, string to HDF5, against the bare forward pass, and against float32 padded to 202."""

import logging
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.measure import Row, alternate, report
from benchmarks.synthetic import sorted_batches, texts
from spp_scl.encoders.text import load_text_encoder
from spp_scl.encoders.texts import encode_texts
from spp_scl.encoders.workers import in_order
from spp_scl.features.device import autocast, choose_device, choose_precision

TEXTS = 3072
BATCH = 32
POSITIONS = 202


def main() -> None:
    logging.disable()
    device = choose_device()
    precision = choose_precision(device, "auto")
    strings = texts(TEXTS)
    table = pd.DataFrame({"id": [str(i) for i in range(TEXTS)], "text": strings})
    encoder = load_text_encoder("untrained", 1, strings, POSITIONS)
    encoder.optimize(device, precision)
    batches = sorted_batches(encoder, strings, BATCH, device)
    with tempfile.TemporaryDirectory() as name:

        def encode(rows: int) -> None:
            path = Path(name, "text.h5")
            path.unlink(missing_ok=True)
            options: dict[str, Any] = {
                "weights": "untrained",
                "seed": 1,
                "batch_size": BATCH,
                "precision": "auto",
            }
            encode_texts(table.iloc[-rows:], path, max_positions=POSITIONS, **options)

        def forward(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
            with torch.inference_mode(), autocast(device, precision):
                encoder(*batch).cpu()

        def all_cores() -> None:
            for batch in batches:
                forward(batch)

        def core_by_core() -> None:
            for _ in in_order(forward, batches, device):
                pass

        ids = torch.randint(5, 20, (BATCH, POSITIONS), device=device)
        slow_encoder = load_text_encoder("untrained", 1, strings, POSITIONS).to(device)

        def float32() -> None:
            with torch.inference_mode():
                slow_encoder(ids, torch.ones_like(ids)).cpu()

        whole, setup, bare, bare_by_core, padded = alternate(
            partial(encode, TEXTS), partial(encode, 1), all_cores, core_by_core, float32
        )
    # The network is built and hashed once however many texts follow; one (short) batch is in both.
    ours = (TEXTS - BATCH) / (whole - setup)
    best = TEXTS / min(bare, bare_by_core)
    slow = BATCH / padded
    print(f"set-up and one batch: {setup:.1f} s", file=sys.stderr)
    report(
        Row(
            "text features, string to HDF5",
            f"the bare BERT-base forward on the same length-sorted batches, {precision}, batches of {BATCH}, "
            "the better of all cores on a batch and a batch a core",
            f"{ours:.1f} texts/s against {best:.1f}: {ours / best:.2f} of its rate",
            "at least 0.95 of its rate",
            ours / best >= 0.95,
        ),
        Row(
            "text features, string to HDF5",
            "float32, everything padded to 202",
            f"{ours:.1f} texts/s against {slow:.1f}: {ours / slow:.1f} times",
            "at least 15 times",
            ours / slow >= 15,
        ),
    )


if __name__ == "__main__":
    main()
