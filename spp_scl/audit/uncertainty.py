"""How sure the metrics are, and how sure the predictions say they are."""

import numpy as np

from spp_scl.model.metrics import confusion_matrix, scores

RESAMPLES = 10_000
_BINS = 15


def bootstrap(labels: np.ndarray, predictions: np.ndarray, classes: int, seed: int) -> dict[str, dict]:
    """95 % percentile intervals over resampled test tweets (Efron 1979).

    Args:
        labels: (n,) codes.
        predictions: (n,) codes.
        classes: C.
        seed: draws the resamples.

    Returns:
        For accuracy, f1_weighted and f1_macro: `low` and `high`.
    """
    # Drawing tweets with replacement is drawing the cells of the confusion matrix.
    shares = confusion_matrix(labels, predictions, classes).flatten() / len(labels)
    drawn = np.random.default_rng(seed).multinomial(len(labels), shares, RESAMPLES)
    found = scores(drawn.reshape(RESAMPLES, classes, classes))
    return {
        name: dict(zip(("low", "high"), np.quantile(found[name], [0.025, 0.975]).tolist(), strict=True))
        for name in ("accuracy", "f1_weighted", "f1_macro")
    }


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
