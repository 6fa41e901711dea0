"""What the page says, as HTML in which nobody's text is markup."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from PIL import Image

from spp_scl.metrics import MAIN
from spp_scl.prediction.card import LIMITS
from spp_scl.prediction.explain import Explanation
from spp_scl.prediction.posts import Post
from spp_scl.prediction.predictor import Prediction, Predictor
from spp_scl.report.explanation import MAP
from spp_scl.report.html import encode_jpeg, records, render
from spp_scl.report.style import SCORE_NAMES

_SIDE = 480
_ROWS = 50


def write_prediction(
    post: Post, prediction: Prediction, notices: Sequence[str], explanation: Explanation | None = None
) -> str:
    """A prediction: the classes as bars; explained, also the words in color and the picture's heat map.

    Args:
        post: that it is of.
        prediction: what the model says.
        notices: sentences to read beside it.
        explanation: what the post's parts add; None: not known, or not yet.
    """
    words: list[Mapping[str, Any]] = []
    heat_map, where = "", ""
    if explanation is not None:
        most = max((abs(gain) for _, gain in explanation.words), default=0.0) or 1.0
        words = [
            {"word": word, "gain": gain, "color": _color(gain / most)} for word, gain in explanation.words
        ]
        if explanation.regions is not None and post.picture is not None:
            heat_map = encode_jpeg(draw_heat_map(post.picture, explanation.regions))
            where = describe_regions(explanation.regions)
    return render(
        "page/prediction.html.jinja",
        prediction=prediction,
        notices=[notice for notice in notices if notice],
        explained=explanation is not None,
        words=words,
        heat_map=heat_map,
        where=where,
    )


def write_error(message: str) -> str:
    """Why there is no answer."""
    return render("page/error.html.jinja", message=message)


def write_scores(scores: pd.DataFrame, notice: str) -> str:
    """The first rows of a file's scores.

    Args:
        scores: as `score_file` writes them.
        notice: a sentence to read beside them; empty: none.
    """
    errors = int(scores["error"].notna().sum())
    names = [name for name in scores.columns if name != "error" or errors]
    return render(
        "page/scores.html.jinja",
        notice=notice,
        names=names,
        rows=records(scores.head(_ROWS)[names]),
        posts=len(scores),
        errors=errors,
        shown=min(len(scores), _ROWS),
    )


def write_about(predictor: Predictor) -> str:
    """Which model it is, and what the audit says of it."""
    return render(
        "page/about.html.jinja",
        config=predictor.bundle.config,
        model=predictor.model,
        encoders={kind: predictor.bundle.info(kind) for kind in predictor.model.reads.kinds},
        scores=[(key, SCORE_NAMES[key]) for key in MAIN],
        limits=LIMITS,
    )


def draw_heat_map(picture: Image.Image, regions: np.ndarray) -> Image.Image:
    """The picture in gray under its regions' gains in color, at most 480 pixels wide and high.

    Args:
        picture: RGB.
        regions: (G, G) gains.
    """
    small = picture.copy()
    small.thumbnail((_SIDE, _SIDE))
    most = max(1e-6, float(np.abs(regions).max()))
    colors = colormaps[MAP](0.5 + 0.5 * regions / most)[..., :3]
    overlay = Image.fromarray((255 * colors).round().astype(np.uint8)).resize(
        small.size, Image.Resampling.NEAREST
    )
    return Image.blend(small.convert("L").convert("RGB"), overlay, 0.6)


def describe_regions(regions: np.ndarray) -> str:
    """The heat map for those who do not see it."""
    row, column = np.unravel_index(regions.argmax(), regions.shape)
    low_row, low_column = np.unravel_index(regions.argmin(), regions.shape)
    return (
        f"Of {regions.shape[0]} by {regions.shape[1]} regions, row {row + 1}, column {column + 1} speaks "
        f"most for the label ({regions.max():+.3f}), and row {low_row + 1}, column {low_column + 1} least "
        f"({regions.min():+.3f})."
    )


def _color(share: float) -> str:
    """A background, pale enough for black letters, of a gain between -1 and 1."""
    red, green, blue, _ = colormaps[MAP](0.5 + 0.3 * share, bytes=True)
    return f"rgb({red}, {green}, {blue})"
