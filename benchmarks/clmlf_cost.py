"""The arithmetic of CLMLF's own training: BERT-base trained, ResNet-50 not, layers and epochs as published.

`python -m benchmarks.clmlf_cost` counts it by torch's counter, on tweets of MVSA-Single's lengths.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.clmlf import recipe
from benchmarks.synthetic import ROWS, WORDS, lengths, load_features, write_features, write_views
from spp_scl.encoders.image import load_image_encoder
from spp_scl.encoders.text import load_text_encoder
from spp_scl.training.state import TrainingState
from spp_scl.training.training import train_batch

TRAIN = 3611  # tweets, of MVSA-Single's published split
RATES = (30, 100)  # TFLOP/s that a GPU may keep up


def count(compute: Callable[[], object]) -> float:
    """GFLOP of what is computed, a multiplication and an addition being two operations."""
    # The counter knows the plain way alone, not the fused attention of a CPU.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        compute()
    return counter.get_total_flops() / 1e9


def main() -> None:
    chosen = recipe()
    settings = chosen.settings
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_features(folder, 2 * settings.batch_size)
        write_views(folder)
        data = load_features(folder, views=True)
        state = TrainingState.start(chosen, data, seed=42)
        batch = data.source.batch(data.rows["train"][: settings.batch_size])
        own = count(lambda: train_batch(state, batch, last=False)) / settings.batch_size
    text = load_text_encoder("untrained", 0, WORDS, 202).requires_grad_(True)
    image = load_image_encoder("untrained", 0)
    # A batch is padded to its longest text: the mean of its maximum.
    longest = torch.from_numpy(lengths(ROWS)[: ROWS // settings.batch_size * settings.batch_size])
    tokens = round(float(longest.view(-1, settings.batch_size).max(dim=1).values.double().mean())) + 2
    ids = torch.ones(1, tokens, dtype=torch.int64)
    words = 2 * count(lambda: text(ids, torch.ones_like(ids)).sum().backward())
    pixels = torch.zeros(1, 3, *image.side, dtype=torch.uint8)
    with torch.no_grad():
        pictures = 2 * count(lambda: image(pixels))
    total = own + words + pictures
    whole = total * TRAIN * settings.epochs / 1e6
    print(
        f"a tweet, both views: {total:.0f} GFLOP: text {words:.0f}, image {pictures:.0f}, the rest {own:.0f}"
    )
    print(f"{settings.epochs} epochs of MVSA-Single: {whole:.0f} PFLOP")
    for rate in RATES:
        print(f"    at {rate} TFLOP/s: {whole * 1e3 / rate / 60:.0f} min")


if __name__ == "__main__":
    main()
