"""Tweets that one row of a study gets wrong and another right, and one sentence with different pictures."""

import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from spp_scl.clean.pictures import UnreadablePictureError, open_picture
from spp_scl.clean.texts import normalize
from spp_scl.errors import UserError
from spp_scl.report.style import save_figure
from studies.results import Run, common_seeds

# Pictures of a figure.
_SHOWN = 8
_ORDER = {"test": 0, "valid": 1, "train": 2}


@dataclass(frozen=True)
class Cases:
    """What two rows say of the same tweets.

    Args:
        before: the row that is wrong.
        after: the row that is right.
        found: test tweets that `before` gets wrong and `after` right with every seed: id, text, label, the
            first seed's `prediction: <row>` of each, and `gain`, the label's mean probability in `after` less
            that in `before`; the largest first.
        opposite: how many it is the other way round.
        tests: how many test tweets there are.
        seeds: that both have been run with.
    """

    before: str
    after: str
    found: pd.DataFrame
    opposite: int
    tests: int
    seeds: int


def find_cases(runs: Mapping[str, Sequence[Run]], before: str, after: str) -> Cases:
    """Compare two rows, tweet by tweet, over the seeds that both have, at least one."""
    seeds = common_seeds(runs, (before, after))
    own = [run.test_predictions for run in runs[before] if run.seed in seeds]
    others = [run.test_predictions for run in runs[after] if run.seed in seeds]
    first, hits, other_hits = own[0], _hits(own), _hits(others)
    better, worse = other_hits.all() & ~hits.any(), hits.all() & ~other_hits.any()
    found = first.loc[better, ["id", "text", "label"]].assign(
        **{_said(before): own[0]["prediction"], _said(after): others[0]["prediction"]},
        gain=sum(map(_truth, others)) / len(others) - sum(map(_truth, own)) / len(own),
    )
    found = found.sort_values("gain", ascending=False, kind="stable").reset_index(drop=True)
    return Cases(before, after, found, int(worse.sum()), len(first), len(seeds))


def find_sentence(run: Run) -> pd.DataFrame:
    """The tweets of one sentence whose pictures and labels differ: id, text, label, side, image.

    Links, user names and case do not count. Of several such sentences that with the most labels, then with
    the most tweets outside train, then with the most tweets; empty where there is none.
    """
    tweets = _tweets(run).assign(
        key=lambda t: t["text"].map(normalize), order=lambda t: t["side"].map(_ORDER)
    )
    tweets = tweets[tweets["key"].ne("") & tweets["picture"].notna()].sort_values("order", kind="stable")
    tweets = tweets.drop_duplicates(["key", "picture"])
    groups = tweets.groupby("key").agg(
        labels=("label", "nunique"),
        outside=("side", lambda side: int(side.ne("train").sum())),
        tweets=("id", "size"),
    )
    groups = groups[groups["labels"] > 1]
    if groups.empty:
        return tweets.iloc[:0]
    chosen = groups.sort_values(["labels", "outside", "tweets"], kind="stable").index[-1]
    found = tweets[tweets["key"] == chosen]
    # One of each label first, so that a part of many shows the difference.
    again = found.duplicated("label")
    return pd.concat([found[~again], found[again]])


def draw_cases(path: Path, cases: Cases, run: Run) -> None:
    """Draw the first of `cases.found` with their pictures.

    Args:
        path: see `save_figure`.
        cases: with at least one tweet.
        run: whose data they are of.
    """
    shown = cases.found.head(_SHOWN).merge(_tweets(run)[["id", "image"]], on="id")
    title = f"wrong: {cases.before}; right: {cases.after} (test set, every one of {cases.seeds} seed(s))"
    captions = [
        f"{_wrap(row['text'])}\n{row['label']}; {cases.before}: {row[_said(cases.before)]}"
        for _, row in shown.iterrows()
    ]
    _draw(path, shown["image"], captions, run, title)


def draw_sentence(path: Path, tweets: pd.DataFrame, rows: Mapping[str, Run], title: str) -> None:
    """Draw one sentence's pictures, with the label and what each row says where it was not trained.

    Args:
        path: see `save_figure`.
        tweets: see `find_sentence`.
        rows: a run of each row.
        title: of the picture.
    """
    shown = tweets.head(_SHOWN)
    said = {name: run.read_csv("reports/predictions.csv").set_index("id") for name, run in rows.items()}
    captions = []
    for _, tweet in shown.iterrows():
        lines = [f"{tweet['side']}: {tweet['label']}"]
        lines += [
            f"{name}: {found.at[tweet['id'], 'prediction']}"
            for name, found in said.items()
            if tweet["id"] in found.index
        ]
        captions.append("\n".join(lines))
    _draw(
        path,
        shown["image"],
        captions,
        next(iter(rows.values())),
        f"{title}\n{_wrap(shown['text'].iloc[0], 90)}",
    )


def _said(row: str) -> str:
    return f"prediction: {row}"


def _hits(runs: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.DataFrame([run["label"] == run["prediction"] for run in runs]).reset_index(drop=True)


def _truth(run: pd.DataFrame) -> pd.Series:
    """The probability of each tweet's label."""
    return pd.Series([row[f"p_{row['label']}"] for row in run.to_dict("records")])


def _tweets(run: Run) -> pd.DataFrame:
    """The clean table with each tweet's side of the split."""
    dataset = run.params["dataset"]
    table = run.read_parquet(f"data/clean/{dataset}.parquet").drop(columns="split")
    return table.merge(run.read_parquet(f"data/split/{dataset}.parquet").rename(columns={"split": "side"}))


def _draw(path: Path, images: Sequence[str], captions: Sequence[str], run: Run, title: str) -> None:
    columns = min(4, len(captions))
    rows = -(-len(captions) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4 * columns, 4.6 * rows), layout="constrained", squeeze=False
    )
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, caption in zip(axes.flat, images, captions, strict=False):
        _show(ax, run, image)
        # A tweet's dollar signs are no mathematics.
        ax.set_title(caption, fontsize="small", loc="left", parse_math=False)
    figure.suptitle(title, parse_math=False)
    save_figure(figure, path)


def _show(ax: Axes, run: Run, image: str) -> None:
    why = "no picture"
    if not pd.isna(image):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "picture")
            try:
                run.fetch(f"data/raw/{run.params['dataset']}/{image}", path)
                ax.imshow(open_picture(path))
                return
            except (UserError, UnreadablePictureError):
                why = "the picture is not at hand"
    ax.text(0.5, 0.5, why, ha="center", transform=ax.transAxes)


def _wrap(text: str, width: int = 44) -> str:
    return "\n".join(textwrap.wrap(text, width, max_lines=4, placeholder=" ..."))
