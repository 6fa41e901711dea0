"""A study's figures."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine

from spp_scl.report.style import COLORS, MARKERS, SCORE_NAMES, as_math, save_figure
from spp_scl.report.tsne import scatter
from studies.results import Run
from studies.statistics import summarize

# How people call the parameters that a study has on its axis.
_AXIS_NAMES = {
    "alpha": r"$\alpha$, the gate's threshold",
    "clmlf.fusion_layers": "layers of the fusion Transformer",
    "clmlf.image_layers": "layers of the image Transformer",
}


def draw_rows(path: Path, runs: Mapping[str, Sequence[Run]], reference: str, f1: str, title: str) -> None:
    """Draw each row's runs with their mean and interval, accuracy and F1.

    Args:
        path: the PNG; the SVG is written beside it.
        runs: of each row.
        reference: the row whose accuracy is a line.
        f1: which one.
        title: the figure's.
    """
    # Without this room the longest name is cut off at the left.
    layout = ConstrainedLayoutEngine(w_pad=0.2)
    figure, ax = plt.subplots(figsize=(9, 2 + 0.5 * len(runs)), layout=layout)
    places = np.arange(len(runs))[::-1]
    for i, score in enumerate(("accuracy", f1)):
        shifted = places + 0.15 - 0.3 * i
        for place, found in zip(shifted, runs.values(), strict=True):
            values = [run.metrics["test"][score] for run in found]
            ax.scatter(values, [place] * len(values), s=14, color=COLORS[i], alpha=0.4, linewidths=0)
        means, halves = _means(runs.values(), score)
        ax.errorbar(means, shifted, xerr=halves, fmt=MARKERS[i], **_line(i, SCORE_NAMES[score]))
    if reference in runs:
        (mean, *_), _ = _means([runs[reference]], "accuracy")
        ax.axvline(mean, color="0.8", zorder=0)
    ax.set_yticks(places, [as_math("\n".join(textwrap.wrap(name, 36))) for name in runs])
    ax.set_ylim(-0.6, len(runs) - 0.4)
    ax.set_xlabel("test set: mean and 95 % interval over seeds; small: each seed")
    ax.set_title(title)
    figure.legend(loc="outside lower center", ncols=2)
    save_figure(figure, path)


def draw_curve(path: Path, x: str, runs: Mapping[str, Sequence[Run]], f1: str, title: str) -> None:
    """Draw the scores over the parameter `x` that the rows vary, and how often a gate let step 2 run."""
    rows = sorted(runs.values(), key=lambda found: _value(found[0], x))
    values = [_value(found[0], x) for found in rows]
    gated = any("step2_share" in run.metrics["train"] for found in rows for run in found)
    size, heights = ((8, 6.5), (3, 2)) if gated else ((8, 4.5), (1,))
    figure, drawn = plt.subplots(
        len(heights), 1, figsize=size, sharex=True, height_ratios=heights, layout="constrained", squeeze=False
    )
    axes = drawn[:, 0]
    for i, score in enumerate(("accuracy", f1)):
        means, halves = _means(rows, score)
        style = {**_line(i, SCORE_NAMES[score]), "linestyle": ":" if i else "-"}
        axes[0].errorbar(values, means, yerr=halves, marker=MARKERS[i], **style)
    axes[0].set_ylabel("test set: mean and 95 % interval")
    axes[0].legend()
    axes[0].set_title(title)
    if gated:
        _draw_gate(axes[1], values, rows)
    elif all(value.is_integer() for value in values):
        axes[0].set_xticks(values)
    axes[-1].set_xlabel(_AXIS_NAMES.get(x, x))
    save_figure(figure, path)


def _draw_gate(ax: Axes, values: Sequence[float], rows: Sequence[Sequence[Run]]) -> None:
    shares = {"step2_share": "step 2 ran", "step2_share_float32": "it would have, compared in float32"}
    for i, (key, label) in enumerate(shares.items()):
        # NaN where there was no gate: nothing is drawn.
        means = [np.mean([run.metrics["train"].get(key, np.nan) for run in found]) for found in rows]
        # The second is often on the first, which has to be seen through it.
        style: dict = {"linestyle": "--", "markerfacecolor": "none", "markersize": 10} if i else {}
        ax.plot(values, means, marker=MARKERS[i + 2], color=COLORS[i + 2], label=label, **style)
    ax.set_ylim(-0.05, 1.05)
    ax.set_ylabel("share of batches")
    ax.legend()


def draw_tsne(path: Path, panel: Mapping[str, Run], data: str) -> None:
    """Draw the vectors that one run of each row classifies, side by side.

    Args:
        path: the PNG; the SVG is written beside it.
        panel: a run of each row.
        data: the name of the data, for the title.
    """
    figure, axes = plt.subplots(
        1, len(panel), figsize=(5 * len(panel), 5.4), layout="constrained", squeeze=False
    )
    for (name, run), ax in zip(panel.items(), axes[0], strict=True):
        coordinates = run.read_csv("reports/tsne.csv")
        # The first of a method's spaces is the one that it classifies.
        space = next(name for name in coordinates if name.endswith("_x")).removesuffix("_x")
        scatter(ax, coordinates, space, run.classes)
        ax.set_title(f"{as_math(name)}\naccuracy {run.metrics['test']['accuracy']:.4f}")
    figure.legend(
        *axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=8, markerscale=1.5
    )
    seeds = sorted({run.seed for run in panel.values()})
    figure.suptitle(
        f"t-SNE of the vectors before the classifier, test set: {data}, seed {', '.join(map(str, seeds))}"
    )
    save_figure(figure, path)


def _value(run: Run, x: str) -> float:
    return float(str(run.params[x]))


def _means(rows, score: str) -> tuple[list[float], list[float]]:
    """Each row's mean of a score and half of its interval, 0 with one seed."""
    summaries = [summarize([run.metrics["test"][score] for run in found]) for found in rows]
    halves = [0 if math.isnan(s.deviation) else s.high - s.mean for s in summaries]
    return [s.mean for s in summaries], halves


def _line(i: int, label: str) -> dict:
    return {"color": COLORS[i], "capsize": 3, "label": label}
