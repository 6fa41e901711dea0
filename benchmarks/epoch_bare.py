"""One epoch of training from the cache, against the bare loop over tensors in memory."""

import dataclasses
import tempfile
from pathlib import Path

import torch

from benchmarks.measure import Row, alternate, report
from benchmarks.synthetic import load_features, write_features
from benchmarks.training import ALPHA, epoch, network, settings
from spp_scl.features.store import read_images, read_texts
from spp_scl.model.batches import FeatureStore
from spp_scl.model.network import SppScl
from spp_scl.train.steps import train_batch
from spp_scl.train.training import epoch_batches


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_features(folder)
        data = load_features(folder)
        params = settings()
        images, texts = read_images(folder / "image.h5"), read_texts(folder / "text.h5")
        images = dataclasses.replace(images, maps=images.maps.clone())
        texts = dataclasses.replace(texts, words=texts.words.clone(), cls=texts.cls.clone())
        resident = FeatureStore(images, texts, data.features.device)

        def bare() -> None:
            torch.manual_seed(42)
            model = SppScl(network(data)).to(data.features.device).train()
            optimizer = torch.optim.AdamW(model.parameters(), lr=params.learning_rate, fused=True)
            shuffle = torch.Generator().manual_seed(42)
            for rows in epoch_batches(data.rows["train"], params.batch_size, shuffle):
                batch = resident.batch(rows)
                train_batch(model, optimizer, batch, data.labels[rows[batch.order]], ALPHA, params)

        ours, theirs = alternate(lambda: epoch(data), bare)
    report(
        Row(
            "one epoch of training from the cache, MVSA-Single's size",
            "bare loop: same network and batches, tensors in memory, no log, no validation, no checkpoint",
            f"{ours:.2f} s against {theirs:.2f} s: {ours / theirs:.3f} times",
            "at most 1.10 times",
            ours / theirs <= 1.10,
        )
    )


if __name__ == "__main__":
    main()
