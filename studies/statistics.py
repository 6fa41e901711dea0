"""Seeds, and differences on the same test tweets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t

RESAMPLES = 10_000


@dataclass(frozen=True)
class Summary:
    """Mean, standard deviation (n - 1) and 95 % interval (Student's t) over seeds; NaN with one seed."""

    mean: float
    deviation: float
    low: float
    high: float
    seeds: int


def summarize(values: Sequence[float]) -> Summary:
    """Summarize one figure's values, one a seed."""
    x = np.asarray(values, dtype=float)
    if len(x) < 2:
        return Summary(float(x.mean()), np.nan, np.nan, np.nan, len(x))
    deviation = x.std(ddof=1)
    half = t.ppf(0.975, len(x) - 1) * deviation / np.sqrt(len(x))
    return Summary(float(x.mean()), float(deviation), float(x.mean() - half), float(x.mean() + half), len(x))


@dataclass(frozen=True)
class Difference:
    """A row's accuracy minus the reference's, its 95 % interval and the two-sided p."""

    mean: float
    low: float
    high: float
    p: float


def compare(row: Sequence[pd.DataFrame], reference: Sequence[pd.DataFrame], seed: int = 0) -> Difference:
    """Paired bootstrap over test tweets: a tweet is drawn with all its predictions, of every seed.

    Args:
        row: for each seed the test predictions (id, label, prediction).
        reference: of the same seeds.
        seed: draws the resamples.

    Raises:
        ValueError: the two are not of the same test tweets.
    """
    gains = []
    for one, other in zip(row, reference, strict=True):
        if not one["id"].equals(other["id"]) or not one["label"].equals(other["label"]):
            raise ValueError("predictions of different test tweets cannot be paired")
        right, right_before = (frame["prediction"] == frame["label"] for frame in (one, other))
        gains.append(pd.Series(right.astype(int) - right_before.astype(int)).set_axis(one["id"]))
    # Of a tweet that several seeds have tested: the sum of its gains, and how often it was tested.
    tweets = pd.concat(gains).groupby(level=0, sort=True).agg(["sum", "count"])
    gain, times = tweets["sum"].to_numpy(float), tweets["count"].to_numpy(float)
    rng = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        drawn = rng.integers(0, len(gain), len(gain))
        means[i] = gain[drawn].sum() / times[drawn].sum()
    low, high = np.quantile(means, [0.025, 0.975])
    p = min(1.0, 2 * min((means <= 0).mean(), (means >= 0).mean()))
    return Difference(float(gain.sum() / times.sum()), float(low), float(high), float(p))
