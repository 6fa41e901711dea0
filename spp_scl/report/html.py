"""The report as one HTML file: it opens without a network, and tweets are text in it, whatever they hold."""

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup
from PIL import Image

from spp_scl.report.charts import chart_training, chart_tsne
from spp_scl.report.style import FLOOR_NAMES, SCORE_NAMES

# Tweets shown as cards, of each kind.
_CARDS = 12
# Pictures in a file: so many of 96 pixels are two megabytes.
_LARGE, _SMALL, _MOST = 96, 64, 1_500
_LARGE_UP_TO = 600

_COLUMNS = (
    ("id", "id"),
    ("text", "text"),
    ("label", "label"),
    ("prediction", "prediction"),
    ("sure", "probability"),
)


def write_report(
    config: Mapping[str, Any],
    tables: Mapping[str, pd.DataFrame],
    pictures: Mapping[str, Path],
    scripts: str,
) -> str:
    """The page.

    Args:
        config: `models/config.json`.
        tables: `predictions`, `tsne`, `epochs` and `curves`, as the stages write them.
        pictures: of test tweets, by id.
        scripts: vega, vega-lite and vega-embed, as HTML.
    """
    classes = list(config["model"]["classes"])
    test = _describe_test(tables["predictions"], classes)
    # Those that are shown as cards are among the wrong and the least certain ones.
    order = test.sort_values(["wrong", "sure"], ascending=[False, True])["id"].tolist()
    test["picture"] = test["id"].isin(list(pictures))
    test["image"] = test["id"].map(make_thumbnails(order, pictures))
    best = config["metrics"]["train"].get("best_epoch")
    labels, predictions = (pd.Categorical(test[name], classes) for name in ("label", "prediction"))
    confusion = pd.crosstab(labels, predictions, dropna=False).reindex(
        index=classes, columns=classes, fill_value=0
    )
    wrong = test[test["wrong"]].sort_values("sure", ascending=False, kind="stable")
    unsure = test.sort_values("sure", kind="stable")
    return render(
        "report/report.html.jinja",
        columns=_COLUMNS,
        predictions=["prediction"],
        title=f"{config['title']} on {config['dataset']}",
        config=config,
        classes=classes,
        settings=config["model"]["settings"],
        scores=[(key, SCORE_NAMES[key]) for key in ("accuracy", "f1_weighted", "f1_macro")],
        floors=[(FLOOR_NAMES[name], floor) for name, floor in config["floors"].items()],
        confusion=confusion.to_numpy().tolist(),
        # Of a model that was taken from a file the log is empty.
        training=chart_training(tables["epochs"], tables["curves"], best) if len(tables["epochs"]) else [],
        tsne=chart_tsne(tables["tsne"], config["spaces"], classes),
        mistakes=records(wrong.head(_CARDS)),
        unsure=records(unsure.head(_CARDS)),
        tweets=records(test),
        wrong=len(wrong),
        scripts=Markup(scripts),  # the repository's own
    )


def render(template: str, **values: object) -> str:
    """HTML of one of this package's templates; values are text in it, and data in its scripts.

    Args:
        template: as `report/report.html.jinja`.
        values: that it uses.
    """
    loader = jinja2.PackageLoader("spp_scl", ".")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    environment.filters["script"] = _as_script
    return environment.get_template(template).render(**values)


def read_scripts(page: Path) -> str:
    """The scripts that another page holds, vega's among them."""
    return "\n".join(re.findall(r"<script>.*?</script>", page.read_text(encoding="utf-8"), re.DOTALL))


def _describe_test(predictions: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """The test tweets: id, text, label, prediction, and `sure`, the prediction's probability."""
    test = predictions[predictions["split"] == "test"].reset_index(drop=True)
    sure = test[[f"p_{name}" for name in classes]].max(axis=1)
    return test[["id", "text", "label", "prediction"]].assign(
        sure=sure, wrong=test["label"] != test["prediction"]
    )


def make_thumbnails(ids: Sequence[str], pictures: Mapping[str, Path]) -> dict[str, str]:
    """Small pictures as data URIs, by id: as many, and as large, as fit into a page of 5 MB.

    Args:
        ids: of tweets, the most important first.
        pictures: of tweets, by id.
    """
    side = _LARGE if len(ids) <= _LARGE_UP_TO else _SMALL
    chosen = [own for own in ids if own in pictures][:_MOST]
    with ThreadPoolExecutor() as pool:
        made = pool.map(lambda own: make_thumbnail(pictures[own], side), chosen)
        return {own: uri for own, uri in zip(chosen, made, strict=True) if uri}


def make_thumbnail(path: Path, side: int) -> str:
    """A small JPEG as a data URI; empty where the picture cannot be read any more."""
    try:
        with Image.open(path) as picture:
            picture.draft("RGB", (2 * side, 2 * side))  # a JPEG is decoded at a fraction of its size
            small = picture.convert("RGB")
            small.thumbnail((side, side))
            return encode_jpeg(small)
    except Exception:  # a report is no place to fail for a picture: cleaning has looked at each
        return ""


def encode_jpeg(picture: Image.Image) -> str:
    """A picture as a JPEG in a data URI."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows, for a page; what is missing is None."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _as_script(value: object) -> Markup:
    """JSON inside a script element, which no value can end."""
    text = json.dumps(value, allow_nan=False, default=float)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)
