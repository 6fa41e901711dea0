"""Seeds, and differences on the same test tweets."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t

from spp_scl.errors import UserError


@dataclass(frozen=True)
class Summary:
    """Mean, standard deviation (n - 1) and 95 % interval (Student's t) over seeds; NaN with one seed."""

    mean: float
    deviation: float
    low: float
    high: float


def summarize(values: Sequence[float]) -> Summary:
    """Summarize one figure's values, one a seed."""
    x = np.asarray(values, dtype=float)
    if len(x) < 2:
        return Summary(float(x.mean()), np.nan, np.nan, np.nan)
    deviation = x.std(ddof=1)
    half = t.ppf(0.975, len(x) - 1) * deviation / np.sqrt(len(x))
    return Summary(float(x.mean()), float(deviation), float(x.mean() - half), float(x.mean() + half))


@dataclass(frozen=True)
class Difference:
    """A row's accuracy minus the reference's, its 95 % interval and the two-sided p."""

    mean: float
    low: float
    high: float
    p: float


def compare(row: Sequence[pd.DataFrame], reference: Sequence[pd.DataFrame]) -> Difference:
    """Paired test of the difference in accuracy, over seeds and over test tweets.

    Neither other seeds nor other tweets should have said something else, so both are random effects, whose
    variances are estimated from the mean squares of a two-way layout without replication (Searle, Casella
    and McCulloch 1992, chapter 4), with Satterthwaite's (1946) degrees of freedom. With one seed it is the
    paired t test over tweets. (McNemar's test has no place for seeds, and a bootstrap over seeds and tweets
    counts the noise of a single run's single answer three times: Owen 2007.)

    Args:
        row: for each seed the test predictions (id, label, prediction).
        reference: of the same seeds.

    Raises:
        UserError: they are not all of the same test tweets.
    """
    first, answers = row[0], []
    for one, other in zip(row, reference, strict=True):
        for frame in (one, other):
            if not frame[["id", "label"]].equals(first[["id", "label"]]):
                raise UserError("runs of different test tweets cannot be compared; was the split changed?")
        right, right_before = ((f["prediction"] == f["label"]).to_numpy(int) for f in (one, other))
        answers.append(right - right_before)
    gains = np.stack(answers)  # (seeds, tweets)
    mean = float(gains.mean())
    variance, freedom = _variance_of_mean(gains)
    if variance == 0:  # no tweet's answer differs, or every one's
        return Difference(mean, mean, mean, float(mean == 0))
    error = math.sqrt(variance)
    half = t.ppf(0.975, freedom) * error
    return Difference(mean, mean - half, mean + half, float(2 * t.sf(abs(mean) / error, freedom)))


def _variance_of_mean(gains: np.ndarray) -> tuple[float, float]:
    """Of a (seeds, tweets) array, both random, the variance of the mean and its degrees of freedom."""
    seeds, tweets = gains.shape
    if seeds == 1:
        return float(gains.var(ddof=1) / tweets), tweets - 1
    mean, by_seed, by_tweet = gains.mean(), gains.mean(axis=1), gains.mean(axis=0)
    rest = gains - by_seed[:, None] - by_tweet + mean
    noise = (rest**2).sum() / ((seeds - 1) * (tweets - 1))
    total, of_noise, uncertainty = noise, 1, 0.0
    for square, freedom in (
        (tweets * by_seed.var(ddof=1), seeds - 1),
        (seeds * by_tweet.var(ddof=1), tweets - 1),
    ):
        if square > noise:  # else there is no sign of a variance between them
            total += square - noise
            of_noise -= 1
            uncertainty += square**2 / freedom
    uncertainty += (of_noise * noise) ** 2 / ((seeds - 1) * (tweets - 1))
    return float(total / gains.size), float(total**2 / uncertainty) if total else 1.0
