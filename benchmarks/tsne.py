"""The t-SNE of a test set of HFM's size, all three spaces."""

import numpy as np
import pandas as pd

from benchmarks.measure import Row, alternate, report
from spp_scl.report.tsne import project

TWEETS = 2409


def main() -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 2, TWEETS)
    table = pd.DataFrame({"id": range(TWEETS), "label": pd.Categorical(classes), "prediction": classes})
    for space, width in (("fused", 64), ("text", 32), ("image", 32)):
        # Two clusters of non-negative values, as after ReLU.
        vectors = (rng.normal(size=(TWEETS, width)) + classes[:, None]).clip(0)
        table[space] = list(vectors.astype(np.float32))
    (seconds,) = alternate(lambda: project(table, ("fused", "text", "image"), perplexity=30.0, seed=42))
    report(
        Row(
            "t-SNE of HFM's test set, three spaces", "nothing", f"{seconds:.1f} s", "under 20 s", seconds < 20
        )
    )


if __name__ == "__main__":
    main()
