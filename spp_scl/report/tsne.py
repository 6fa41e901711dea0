"""t-SNE (van der Maaten and Hinton 2008) of the test set, in the spaces that the method names."""

import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from spp_scl.progress import progress
from spp_scl.report.style import as_math, class_styles, save_figure


def project(embeddings: pd.DataFrame, spaces: Sequence[str], perplexity: float, seed: int) -> pd.DataFrame:
    """Two coordinates for each row in each space: id, label, prediction, `<space>_x`, `<space>_y`.

    Args:
        embeddings: id, label, prediction and a column of vectors for each space.
        spaces: the columns.
        perplexity: about the number of neighbors of a point; lowered where there are too few points.
        seed: draws the initial state.
    """
    perplexity = min(perplexity, (len(embeddings) - 1) / 3)
    coordinates = embeddings[["id", "label", "prediction"]].reset_index(drop=True)
    vectors = [np.stack(embeddings[space].to_list()).astype(np.float64) for space in spaces]
    embed = partial(_embed, perplexity=perplexity, seed=seed)
    # A process a space; for few points, starting one would take longer than the t-SNE. Not forked: a copy of
    # a process whose threads are at work may hang.
    with ProcessPoolExecutor(max(1, len(spaces)), multiprocessing.get_context("spawn")) as pool:
        jobs = pool.map(embed, vectors) if len(embeddings) > 500 else map(embed, vectors)
        bar = progress(spaces, desc="t-SNE", unit="pictures")
        for space, embedded in zip(bar, jobs, strict=True):
            coordinates[f"{space}_x"], coordinates[f"{space}_y"] = embedded.T
    return coordinates


def _embed(vectors: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    if not np.ptp(vectors, axis=0).any():
        # One row, or every picture blank: PCA has no direction to begin with, and one point is the answer.
        return np.zeros((len(vectors), 2))
    # One thread: sums over several are added in any order, and t-SNE makes the last bit visible.
    with threadpool_limits(limits=1):
        # An angle of 0.7: against the default of 0.5, 28 % less time and 0.7 % more divergence.
        tsne = TSNE(perplexity=perplexity, init="pca", angle=0.7, random_state=seed)
        return tsne.fit_transform(vectors)


def scatter(ax: Axes, coordinates: pd.DataFrame, space: str, classes: Sequence[str]) -> None:
    """Scatter one space on axes without ticks.

    Args:
        ax: to draw on.
        coordinates: see `project`.
        space: one of them.
        classes: in the data set's order, which gives each its color and marker.
    """
    size = float(np.clip(9000 / len(coordinates), 6, 40))
    for name, (color, marker) in class_styles(classes).items():
        rows = coordinates[coordinates["label"] == name]
        x, y, label = rows[f"{space}_x"], rows[f"{space}_y"], f"{name} ({len(rows)})"
        ax.scatter(x, y, s=size, c=color, marker=marker, alpha=0.75, linewidths=0, label=label)
    # The axes of t-SNE have no meaning of their own.
    ax.set_xticks([])
    ax.set_yticks([])


def draw_tsne(
    path: Path | str,
    coordinates: pd.DataFrame,
    spaces: Mapping[str, str],
    classes: Sequence[str],
    title: str,
) -> None:
    """Draw the spaces side by side.

    Args:
        path: see `save_figure`.
        coordinates: see `project`.
        spaces: their names, and what they are.
        classes: see `scatter`.
        title: of the picture.
    """
    figure, drawn = plt.subplots(
        1, len(spaces), figsize=(max(7, 5 * len(spaces)), 5.6), layout="constrained", squeeze=False
    )
    axes = drawn[0]
    for (space, name), ax in zip(spaces.items(), axes, strict=True):
        scatter(ax, coordinates, space, classes)
        ax.set_title(as_math(name))
        if not np.ptp(coordinates[f"{space}_x"]):
            ax.text(0.5, 0.55, "one point: every vector is equal", ha="center", transform=ax.transAxes)
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=min(len(classes), 8),
        title="true class",
        markerscale=1.5,
    )
    figure.suptitle(title, fontsize="x-large")
    save_figure(figure, path)
