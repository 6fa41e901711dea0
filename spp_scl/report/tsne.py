"""t-SNE (van der Maaten and Hinton 2008) of the test set, in the fused space and in the two branches'."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from spp_scl.errors import UserError
from spp_scl.progress import progress

# What each space is, for the picture.
SPACES = {
    "fused": "SPP-SCL: the 64-vector before the classifier",
    "text": "text branch: $T_p$",
    "image": "image branch: $I_p$",
}

# Okabe and Ito's colors, told apart by everybody, and a shape a class.
COLORS = ("#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
MARKERS = "osD^vPX*"


def project(embeddings: pd.DataFrame, perplexity: float, seed: int) -> pd.DataFrame:
    """Two coordinates for each row in each space: id, label, prediction, `<space>_x`, `<space>_y`.

    Args:
        embeddings: id, label, prediction and a column of vectors for each of `SPACES`.
        perplexity: about the number of neighbors of a point; lowered where there are too few points.
        seed: draws the initial state.

    Raises:
        UserError: there are fewer than four rows.
    """
    if len(embeddings) < 4:
        raise UserError(f"t-SNE needs at least four test tweets, and there are {len(embeddings)}")
    perplexity = min(perplexity, (len(embeddings) - 1) / 3)
    coordinates = embeddings[["id", "label", "prediction"]].reset_index(drop=True)
    vectors = [np.stack(embeddings[space].to_list()).astype(np.float64) for space in SPACES]
    embed = partial(_embed, perplexity=perplexity, seed=seed)
    # A process a space; for few points, starting one would take longer than the t-SNE. Not forked: a copy of
    # a process whose threads are at work may hang.
    with ProcessPoolExecutor(len(SPACES), multiprocessing.get_context("spawn")) as pool:
        jobs = pool.map(embed, vectors) if len(embeddings) > 500 else map(embed, vectors)
        spaces = progress(SPACES, desc="t-SNE", unit="pictures")
        for space, embedded in zip(spaces, jobs, strict=True):
            coordinates[f"{space}_x"], coordinates[f"{space}_y"] = embedded.T
    return coordinates


def _embed(vectors: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    if not np.ptp(vectors, axis=0).any():
        # Every picture blank, say: PCA has no direction to begin with, and one point is the answer.
        return np.zeros((len(vectors), 2))
    # One thread: sums over several are added in any order, and t-SNE makes the last bit visible.
    with threadpool_limits(limits=1):
        # An angle of 0.7: against the default of 0.5, 28 % less time and 0.7 % more divergence.
        options = {"init": "pca", "angle": 0.7, "random_state": seed}
        return TSNE(perplexity=perplexity, **options).fit_transform(vectors)


def scatter(ax: plt.Axes, coordinates: pd.DataFrame, space: str, classes: Sequence[str]) -> None:
    """Scatter one space, a color and a shape a class, on axes without ticks."""
    size = float(np.clip(9000 / len(coordinates), 6, 40))
    for i, name in enumerate(classes):
        rows = coordinates[coordinates["label"] == name]
        ax.scatter(
            rows[f"{space}_x"],
            rows[f"{space}_y"],
            s=size,
            c=COLORS[i % len(COLORS)],
            marker=MARKERS[(i + i // len(COLORS)) % len(MARKERS)],
            alpha=0.75,
            linewidths=0,
            label=f"{name} ({len(rows)})",
        )
    # The axes of t-SNE have no meaning of their own.
    ax.set_xticks([])
    ax.set_yticks([])


def draw(path: Path, coordinates: pd.DataFrame, title: str) -> None:
    """Draw the three spaces side by side, colored by `label` (categorical), as PNG."""
    figure, axes = plt.subplots(1, len(SPACES), figsize=(15, 5.6), layout="constrained")
    classes = list(coordinates["label"].cat.categories)
    for space, ax in zip(SPACES, axes, strict=True):
        scatter(ax, coordinates, space, classes)
        ax.set_title(SPACES[space])
        if not np.ptp(coordinates[f"{space}_x"]):
            ax.text(0.5, 0.55, "one point: every vector is equal", ha="center", transform=ax.transAxes)
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=min(len(classes), 8),
        title="true label",
        markerscale=1.5,
    )
    figure.suptitle(title, fontsize="x-large")
    figure.savefig(path, dpi=110, format="png", metadata={"Software": None})
    plt.close(figure)
