"""How sure the metrics are, and how sure the predictions are."""

import numpy as np
from scipy.stats import binomtest

from spp_scl.metrics import confusion_matrix, scores

RESAMPLES = 10_000
_BINS = 15

Interval = dict[str, float | None]


def wilson(right: int, rows: int) -> Interval:
    """The 95 % interval of an accuracy (Wilson 1927): `low` and `high`.

    It holds for few rows too: of twelve predictions, all right, it is 0.76 to 1.
    """
    interval = binomtest(right, rows).proportion_ci(0.95, method="wilson")
    return {"low": float(interval.low), "high": float(interval.high)}


def bootstrap(labels: np.ndarray, predictions: np.ndarray, classes: int, seed: int) -> dict[str, Interval]:
    """95 % percentile intervals of F1 over resampled test tweets (Efron 1979).

    Args:
        labels: (n,) codes.
        predictions: (n,) codes.
        classes: C.
        seed: draws the resamples.

    Returns:
        For f1_weighted and f1_macro: `low` and `high`; None where all resamples give one value, as when
        every prediction is right. That is no interval: other tweets could be predicted wrong.
    """
    # Drawing tweets with replacement is drawing the cells of the confusion matrix.
    shares = confusion_matrix(labels, predictions, classes).flatten() / len(labels)
    drawn = np.random.default_rng(seed).multinomial(len(labels), shares, RESAMPLES)
    found = scores(drawn.reshape(RESAMPLES, classes, classes))
    intervals: dict[str, Interval] = {}
    for name in ("f1_weighted", "f1_macro"):
        low, high = np.quantile(found[name], [0.025, 0.975]).tolist()
        varies = np.ptp(found[name]) > 1e-9
        intervals[name] = {"low": low if varies else None, "high": high if varies else None}
    return intervals


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error (Guo et al. 2017): confidence minus accuracy, over 15 equal bins.

    Args:
        probabilities: (n, C).
        labels: (n,) codes.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [abs((confidence - right)[bins == b].sum()) for b in range(_BINS)]
    return float(sum(gaps) / len(labels))
