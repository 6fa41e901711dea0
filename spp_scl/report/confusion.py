"""The confusion matrix as a picture."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from spp_scl.report.style import save_figure


def draw_confusion(path: Path | str, predictions: pd.DataFrame, classes: Sequence[str], title: str) -> None:
    """Draw counts, shaded by the share of the true class.

    Args:
        path: see `save_figure`.
        predictions: label and prediction, class names.
        classes: their order.
        title: of the picture.
    """
    counts = pd.crosstab(predictions["label"], predictions["prediction"])
    counts = counts.reindex(index=classes, columns=classes, fill_value=0)
    shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0).to_numpy()
    side = 2.2 + 1.1 * len(classes)
    figure, axes = plt.subplots(figsize=(side + 1, side), layout="constrained")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class")
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    for i, row in enumerate(counts.to_numpy()):
        for j, count in enumerate(row):
            shade = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, f"{count}\n{shares[i, j]:.0%}", ha="center", va="center", color=shade)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(title)
    save_figure(figure, path)
