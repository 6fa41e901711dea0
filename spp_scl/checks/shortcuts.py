"""Shortcuts: what tells the label from a tweet's outside, without its content.

Annotators, crawlers and classes leave traces: one class's pictures may be larger, its texts longer, its
tweets more often without a picture. What a model of such traces alone reaches is a floor for every method.
"""

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from threadpoolctl import threadpool_limits

from spp_scl.clean.pictures import describe_picture
from spp_scl.clean.texts import count_links
from spp_scl.metrics import confusion_matrix, main_scores
from spp_scl.progress import progress

TOGETHER = "together"

# Trees of at most this many leaves, each with 20 tweets or more; how many trees, validation data says.
_LEAVES = 8
_TREES = 60

_RETWEET = re.compile(r"\brt\s+@\w+", re.IGNORECASE)
_HASHTAG = re.compile(r"#\w")
_USER = re.compile(r"@\w|<user>")


def describe_outside(table: pd.DataFrame, folder: Path) -> dict[str, np.ndarray]:
    """What is known of each tweet but its content.

    Args:
        table: a clean table of N rows.
        folder: the raw folder that its `image` column is relative to.

    Returns:
        By the shortcut's name (N, d) float64; NaN where there is no picture.

    Raises:
        UserError: a picture is gone.
    """
    texts = table["text"].tolist()
    width, height, size, kind = _describe_pictures(table["image"], folder).T
    return {
        "picture missing": _column(np.isnan(width)),
        "text missing": _column([not text for text in texts]),
        "text length": np.array([[len(text), len(text.split())] for text in texts], float),
        "links": _column([count_links(text) for text in texts]),
        "retweet": _column([bool(_RETWEET.search(text)) for text in texts]),
        "hashtags": _column([len(_HASHTAG.findall(text)) for text in texts]),
        "users named": _column([len(_USER.findall(text)) for text in texts]),
        "capitals": _column([sum(map(str.isupper, text)) / max(1, len(text)) for text in texts]),
        "picture size": np.stack([width, height], axis=1),
        "picture shape": _column(width / height),
        "picture format": _column(kind),
        "picture bytes": _column(size),
    }


def find_shortcuts(
    outside: Mapping[str, np.ndarray],
    labels: np.ndarray,
    rows: Mapping[str, np.ndarray],
    classes: Sequence[str],
) -> dict[str, dict[str, float]]:
    """Train a model on each shortcut by itself, and on all of them together.

    The model is gradient boosting of small trees (scikit-learn's): it finds thresholds and odd values, and
    takes what is missing as it is. Accuracy on validation data says how many trees, none at all being the
    majority class.

    Args:
        outside: see `describe_outside`.
        labels: (N,) codes.
        rows: for train, valid and test, (n,).
        classes: C names.

    Returns:
        For each shortcut and for `together`: accuracy, f1_weighted and f1_macro on test data;
        `above_majority`, the accuracy less the majority class's; and `p`, of the exact two-sided test on the
        test tweets that one of the two gets right and the other wrong (McNemar's).
    """
    columns = {**outside, TOGETHER: np.concatenate(list(outside.values()), axis=1)}
    common = np.bincount(labels[rows["train"]]).argmax()
    true = labels[rows["test"]]
    found = {}
    # One thread: sums over several are added in any order.
    with threadpool_limits(limits=1):
        for name, x in progress(columns.items(), desc="shortcuts", unit="models", total=len(columns)):
            codes = _predict(x, labels, rows, int(common))
            right, before = codes == true, true == common
            won, lost = int((right & ~before).sum()), int((before & ~right).sum())
            found[name] = {
                **main_scores(confusion_matrix(true, codes, len(classes))),
                "above_majority": (won - lost) / len(true),
                "p": float(binomtest(won, won + lost).pvalue) if won + lost else 1.0,
            }
    return found


def _predict(x: np.ndarray, labels: np.ndarray, rows: Mapping[str, np.ndarray], common: int) -> np.ndarray:
    """The test rows' codes."""
    # Here: it takes most of a second, and the audit only reads what was found.
    from sklearn.ensemble import HistGradientBoostingClassifier

    train, valid, test = (rows[name] for name in ("train", "valid", "test"))
    codes = np.full(len(test), common)
    # A column that is everywhere the same tells nothing, and the trees refuse one that is nowhere known.
    varies = [len(np.unique(column)) > 1 for column in x[train].T]  # NaNs count as one value
    if not any(varies):
        return codes
    x = x[:, varies]
    model = HistGradientBoostingClassifier(
        max_iter=_TREES, max_leaf_nodes=_LEAVES, early_stopping=False, random_state=0
    )
    model.fit(x[train], labels[train])
    best = float((labels[valid] == common).mean())
    stages = zip(model.staged_predict(x[valid]), model.staged_predict(x[test]), strict=True)
    for of_valid, of_test in stages:
        if (accuracy := float((of_valid == labels[valid]).mean())) > best:
            best, codes = accuracy, of_test
    return codes


def _column(values: Sequence[float] | np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=float)[:, None]


def _describe_pictures(images: pd.Series, folder: Path) -> np.ndarray:
    """Width, height, bytes and format of each picture, (N, 4); NaN where there is none."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        known = pool.map(lambda name: describe_picture(folder / name), images.dropna())
        found = dict(zip(images.dropna(), known, strict=True))
    formats = sorted({one[3] for one in found.values()})
    nothing = [np.nan] * 4
    return np.array(
        [nothing if pd.isna(name) else [*found[name][:3], formats.index(found[name][3])] for name in images],
        dtype=float,
    ).reshape(-1, 4)
