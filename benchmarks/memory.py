"""The memory of training and evaluation: features mapped from the file, against features in memory."""

import dataclasses
import tempfile
from pathlib import Path

from benchmarks.measure import Row, alternate, peak_memory, report
from benchmarks.synthetic import load_features, write_features
from benchmarks.training import epoch, network
from spp_scl.batches.batch import FeatureStore
from spp_scl.evaluation.evaluate import evaluate
from spp_scl.features.store import read_images, read_texts
from spp_scl.training.artifact import Artifact


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_features(folder)
        size = sum((folder / f).stat().st_size for f in ("image.h5", "text.h5")) / 2**30
        with peak_memory() as training:
            data = load_features(folder)
            epoch(data)
        with peak_memory() as evaluation:
            model = network(data).eval()
            about = Artifact(
                method="spp_scl",
                settings=model.params.model_dump(),
                sizes=model.sizes.numbers(),
                classes=data.classes,
                features=data.fingerprint,
                training={"step2_share": 1.0},
            )
            evaluate(model, about, data)
        images, texts = read_images(folder / "image.h5"), read_texts(folder / "text.h5")
        images = dataclasses.replace(images, maps=images.maps.clone())
        texts = dataclasses.replace(texts, words=texts.words.clone(), cls=texts.cls.clone())
        resident = dataclasses.replace(
            data, source=FeatureStore(images, texts, data.labels, data.source.device)
        )
        mapped, in_memory = alternate(lambda: epoch(data), lambda: epoch(resident))
    ratio = mapped / in_memory
    report(
        Row(
            "peak memory beyond the page cache, features mapped from the file",
            f"the size of the features on disk, {size:.2f} GiB",
            f"training {training[0]:.2f} GiB, evaluation {evaluation[0]:.2f} GiB, libraries included",
            "under 2 GiB",
            max(training[0], evaluation[0]) < 2,
        ),
        Row(
            "one epoch, features mapped from the file (in the page cache)",
            "features in memory",
            f"{mapped:.2f} s against {in_memory:.2f} s: {ratio:.3f} times",
            "at most 1.5 times",
            ratio <= 1.5,
        ),
    )


if __name__ == "__main__":
    main()
