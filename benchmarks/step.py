"""The training step, against the first straightforward version of it, and where its time goes."""

import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import straightforward
from benchmarks.measure import Row, alternate, report
from benchmarks.synthetic import load_features, write_features
from benchmarks.training import ALPHA, network, settings
from spp_scl.features.store import read_images, read_texts
from spp_scl.model.network import SppScl
from spp_scl.train.steps import train_batch

ROWS = 1500


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_features(folder, ROWS)
        data = load_features(folder)
        images, texts = read_images(folder / "image.h5"), read_texts(folder / "text.h5")
        params = settings()
        torch.set_num_threads(params.threads)
        torch.manual_seed(42)
        batches = data.rows["train"][torch.randperm(len(data.rows["train"]))].split(params.batch_size)[:10]
        models = [SppScl(network(data)).train(), SppScl(network(data)).train()]
        optimizers = [torch.optim.AdamW(m.parameters(), lr=params.learning_rate, fused=True) for m in models]

        def ours() -> None:
            for rows in batches:
                batch = data.features.batch(rows)
                train_batch(models[0], optimizers[0], batch, data.labels[rows[batch.order]], ALPHA, params)

        def first() -> None:
            for rows in batches:
                batch = straightforward.pad(images, texts, rows)
                forward = partial(straightforward.forward, models[1], *batch)
                straightforward.step(forward, optimizers[1], data.labels[rows], ALPHA, params)

        fast, slow = (seconds / len(batches) * 1000 for seconds in alternate(ours, first))
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            ours()
    table = profiled.key_averages().table(
        sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=40
    )
    print(table, file=sys.stderr)
    total = sum(e.self_cpu_time_total for e in profiled.key_averages())
    top = sorted(profiled.key_averages(), key=lambda e: -e.self_cpu_time_total)[:8]
    shares = ", ".join(f"{e.key.removeprefix('aten::')} {e.self_cpu_time_total / total:.0%}" for e in top)
    report(
        Row(
            "the training step, gathering the batch included",
            "its straightforward version: padded, torch's LSTM, second forward whole",
            f"{fast:.1f} ms against {slow:.1f} ms: {slow / fast:.2f} times faster. "
            f"Its time goes to: {shares}",
            "at least 2 times",
            slow / fast >= 2,
        )
    )


if __name__ == "__main__":
    main()
