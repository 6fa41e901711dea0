"""Vega-Lite charts of the report: curves of the training, and t-SNE whose dots show their tweets.

Written for vega-lite 5.2, whose scripts DVC's page of plots holds (`.dvc/plots.html`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from spp_scl.report.style import class_styles

_SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
# Vega's names of matplotlib's markers.
_SHAPES = {
    "o": "circle",
    "s": "square",
    "D": "diamond",
    "^": "triangle-up",
    "v": "triangle-down",
    "P": "cross",
    "X": "stroke",
    "*": "wedge",
}


def chart_training(epochs: pd.DataFrame, curves: pd.DataFrame, best: int | None) -> list[dict[str, Any]]:
    """Validation scores, then each plot of what the method logs, over the epochs.

    Args:
        epochs: `epochs.csv`.
        curves: `curves.csv`: epoch, plot, curve, value.
        best: the epoch whose weights are kept; None: nothing was trained.
    """
    scores = {"valid_accuracy": "accuracy", "valid_f1_weighted": "weighted F1", "valid_f1_macro": "macro F1"}
    valid = epochs.rename(columns=scores).melt("epoch", list(scores.values()), "curve")
    charts = [_lines(valid, "validation data", best)]
    for plot, part in curves.dropna(subset="value").groupby("plot", sort=False):
        charts.append(_lines(part, str(plot), best))
    return charts


def _lines(table: pd.DataFrame, title: str, best: int | None) -> dict[str, Any]:
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": table[["epoch", "curve", "value"]].to_dict("records")},
            "mark": {"type": "line", "point": {"size": 12}},
            "encoding": {
                "x": {"field": "epoch", "type": "quantitative"},
                "y": {"field": "value", "type": "quantitative", "title": None, "scale": {"zero": False}},
                "color": {"field": "curve", "type": "nominal", "title": None, "scale": {"scheme": "dark2"}},
                "tooltip": [{"field": name} for name in ("epoch", "curve", "value")],
            },
        }
    ]
    if best is not None:
        layers.append(
            {
                "data": {"values": [{"epoch": best}]},
                "mark": {"type": "rule", "strokeDash": [4, 4], "color": "gray"},
                "encoding": {"x": {"field": "epoch", "type": "quantitative"}},
            }
        )
    return {"$schema": _SCHEMA, "title": title, "width": 360, "height": 220, "layer": layers}


def chart_tsne(
    points: pd.DataFrame, spaces: Mapping[str, str], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """A scatter of each space; a dot shows its tweet, the picture included.

    The page puts into each dot, by its id, what it has of the tweet: image, text, label, prediction.

    Args:
        points: id, and `<space>_x`, `<space>_y`.
        spaces: what each space is, by its name.
        classes: in the dataset's order.
    """
    styles = class_styles(classes)
    shown = "id: datum.id, text: datum.text, label: datum.label, prediction: datum.prediction"
    charts = []
    for space, title in spaces.items():
        values = points.rename(columns={f"{space}_x": "x", f"{space}_y": "y"})[["id", "x", "y"]]
        charts.append(
            {
                "$schema": _SCHEMA,
                "title": title,
                "width": 420,
                "height": 420,
                "data": {"values": values.to_dict("records")},
                "mark": {
                    "type": "point",
                    "filled": True,
                    "size": 45,
                    "opacity": 0.8,
                    # A dot without a picture has none in its tooltip either, and no screen reader reads one.
                    "tooltip": {"expr": f"datum.image ? {{image: datum.image, {shown}}} : {{{shown}}}"},
                    "description": {"expr": "datum.id + ': ' + datum.text + ' (' + datum.label + ')'"},
                },
                "encoding": {
                    **{
                        axis: {"field": axis, "type": "quantitative", "axis": None, "scale": {"zero": False}}
                        for axis in ("x", "y")
                    },
                    "color": _scale([color for color, _ in styles.values()], classes),
                    "shape": _scale([_SHAPES[marker] for _, marker in styles.values()], classes),
                },
            }
        )
    return charts


def _scale(values: Sequence[str], classes: Sequence[str]) -> dict[str, Any]:
    scale = {"domain": list(classes), "range": list(values)}
    return {"field": "label", "type": "nominal", "title": None, "scale": scale}
