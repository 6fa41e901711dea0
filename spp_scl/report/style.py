"""The look of every picture: a class's color and marker, names for people, and how a picture is saved."""

import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from spp_scl.files import replacing

# Okabe and Ito's colors, told apart by everybody, and a marker beside each for prints without color.
COLORS = ("#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
MARKERS = "osD^vPX*"

# How people call the scores of `metrics.json`.
SCORE_NAMES = {
    "accuracy": "accuracy",
    "f1_weighted": "weighted F1",
    "f1_macro": "macro F1",
    "f1_positive": "F1 of the positive class",
    "precision_weighted": "weighted precision",
    "recall_weighted": "weighted recall",
    "loss": "cross entropy",
}

# The floors of `floors.json`.
FLOOR_NAMES = {
    "majority": "majority class",
    "logistic_text": "logistic regression on text",
    "logistic_image": "logistic regression on image",
    "logistic_both": "logistic regression on text and image",
}

_SYMBOLS = re.compile(r"\b([LTI])_(clm|clt|cli|ce|p)\b")


def class_styles(classes: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A color and a marker for each class, by its place: the same for a data set's classes in every picture.

    Args:
        classes: names, in the data set's order.
    """
    # Past the eighth class the colors begin again, with other markers.
    return {
        name: (COLORS[i % len(COLORS)], MARKERS[(i + i // len(COLORS)) % len(MARKERS)])
        for i, name in enumerate(classes)
    }


def as_math(label: str) -> str:
    """A label with the method's symbols as mathematics: `without L_clm` becomes `without $L_{clm}$`."""
    return _SYMBOLS.sub(r"$\1_{\2}$", label)


def save_figure(figure: Figure, path: Path | str) -> None:
    """Save a figure as `path` (.png) and, for papers, as .svg beside it, and close it.

    Equal figures are equal files: neither holds a date, a version or random ids.
    """
    path = Path(path)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the places are found once, and not again for each file
    with replacing(path) as png, replacing(path.with_suffix(".svg")) as svg:
        figure.savefig(png, format="png", dpi=110, metadata={"Software": None})
        with plt.rc_context({"svg.hashsalt": "spp-scl"}):
            figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
