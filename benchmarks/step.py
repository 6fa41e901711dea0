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
from benchmarks.training import network, optimizer_of, settings, start
from spp_scl.features.store import read_images, read_texts
from spp_scl.training.training import train_batch

ROWS = 1500


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_features(folder, ROWS)
        data = load_features(folder)
        images, texts = read_images(folder / "image.h5"), read_texts(folder / "text.h5")
        torch.set_num_threads(settings().threads)
        torch.manual_seed(42)
        state, model = start(data), network(data).train()
        state.model.train()
        optimizer = optimizer_of(model)
        shuffled = data.rows["train"][torch.randperm(len(data.rows["train"]))]
        batches = shuffled.split(model.params.batch_size)[:10]

        def ours() -> None:
            for rows in batches:
                train_batch(state, data.source.batch(rows), last=False)

        def first() -> None:
            for rows in batches:
                batch = straightforward.pad(images, texts, rows)
                forward = partial(straightforward.forward, model, *batch)
                straightforward.step(model, forward, optimizer, data.labels[rows])

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
