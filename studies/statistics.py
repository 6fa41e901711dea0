"""Seeds, and differences on the same test tweets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t

from spp_scl.errors import UserError

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
    """Paired bootstrap of the difference in accuracy, over seeds and over test tweets.

    A resample draws pairs of runs (of one seed, so far as there are several) and tweets: neither other
    seeds nor other tweets should have said something else.

    Args:
        row: for each seed the test predictions (id, label, prediction).
        reference: of the same seeds.
        seed: draws the resamples.

    Raises:
        UserError: they are not all of the same test tweets.
    """
    first, gains = row[0], []
    for one, other in zip(row, reference, strict=True):
        for frame in (one, other):
            if not frame[["id", "label"]].equals(first[["id", "label"]]):
                raise UserError("runs of different test tweets cannot be compared; was the split changed?")
        right, right_before = ((f["prediction"] == f["label"]).to_numpy(int) for f in (one, other))
        gains.append(right - right_before)
    gains = np.stack(gains)  # (seeds, tweets)
    rng = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        seeds, tweets = (rng.integers(0, n, n) for n in gains.shape)
        means[i] = gains[seeds].mean(axis=0)[tweets].mean()
    low, high = np.quantile(means, [0.025, 0.975])
    p = min(1.0, 2 * min((means <= 0).mean(), (means >= 0).mean()))
    return Difference(float(gains.mean()), float(low), float(high), float(p))
