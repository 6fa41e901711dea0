"""One epoch of training from the cache, against the bare loop over tensors in memory."""

import dataclasses
import tempfile
from pathlib import Path

from benchmarks.measure import Row, alternate, report
from benchmarks.synthetic import load_features, write_features
from benchmarks.training import epoch, start
from spp_scl.batches.batch import FeatureStore
from spp_scl.features.store import read_images, read_texts
from spp_scl.training.training import epoch_batches, train_batch


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_features(folder)
        data = load_features(folder)
        images, texts = read_images(folder / "image.h5"), read_texts(folder / "text.h5")
        images = dataclasses.replace(images, maps=images.maps.clone())
        texts = dataclasses.replace(texts, words=texts.words.clone(), cls=texts.cls.clone())
        resident = FeatureStore(images, texts, data.labels, data.source.device)

        def bare() -> None:
            state = start(data)
            state.model.train()
            size = state.model.params.batch_size
            for rows in epoch_batches(data.rows["train"], size, state.shuffle):
                train_batch(state, resident.batch(rows), last=False)

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
