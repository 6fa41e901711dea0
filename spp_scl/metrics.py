"""How well predictions match labels, all from their confusion matrix.

As scikit-learn defines them, whose import takes most of a second of every stage. Shapes: C classes; any
number of matrices at once.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

# What audits, studies and pages show of the scores.
MAIN = ("accuracy", "f1_weighted", "f1_macro")


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Counts (C, C), a row a true class, of codes (n,) and (n,)."""
    return np.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def scores_per_class(matrices: np.ndarray) -> dict[str, np.ndarray]:
    """From (..., C, C) to precision, recall, f1 and support, (..., C) each.

    A class that is never predicted has a precision of 0, as in the literature.
    """
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)
    support, predicted = matrices.sum(axis=-1), matrices.sum(axis=-2)
    return {
        "precision": hits / np.maximum(predicted, 1),
        "recall": hits / np.maximum(support, 1),
        "f1": 2 * hits / np.maximum(support + predicted, 1),
        "support": support,
    }


def scores(matrices: np.ndarray) -> dict[str, np.ndarray]:
    """From (..., C, C) to accuracy, and F1, precision and recall over classes, (...) each.

    Macro F1 is the mean over the classes that occur, as labels or as predictions.
    """
    each = scores_per_class(matrices)
    occurs = (matrices.sum(axis=-1) + matrices.sum(axis=-2)) > 0
    share = each["support"] / each["support"].sum(axis=-1, keepdims=True)
    return {
        "accuracy": np.diagonal(matrices, axis1=-2, axis2=-1).sum(axis=-1) / each["support"].sum(axis=-1),
        "f1_weighted": (each["f1"] * share).sum(axis=-1),
        "f1_macro": each["f1"].sum(axis=-1) / occurs.sum(axis=-1),
        "precision_weighted": (each["precision"] * share).sum(axis=-1),
        "recall_weighted": (each["recall"] * share).sum(axis=-1),
    }


def main_scores(matrix: np.ndarray) -> dict[str, float]:
    """Those of `MAIN`, from one (C, C)."""
    values = scores(matrix)
    return {name: float(values[name]) for name in MAIN}


def classification_metrics(
    logits: torch.Tensor, labels: torch.Tensor, classes: Sequence[str]
) -> dict[str, Any]:
    """Accuracy, F1, precision and recall over classes, cross entropy (`loss`), and `f1`, a dict by class.

    For two classes also `f1_positive`, the F1 of the last one, which several papers on sarcasm call F1.

    Args:
        logits: (n, C) float32.
        labels: (n,) int64.
        classes: C names.
    """
    matrix = confusion_matrix(labels.numpy(), logits.argmax(dim=1).numpy(), len(classes))
    each = scores_per_class(matrix)["f1"]
    values = scores(matrix)
    if len(classes) == 2:
        values["f1_positive"] = each[-1]
    return {
        **{name: float(value) for name, value in values.items()},
        "loss": float(F.cross_entropy(logits, labels)),
        "f1": {name: float(each[code]) for code, name in enumerate(classes)},
    }


def percent(share: float) -> str:
    """A share for a sentence, one digit behind the point; what is not 0 does not read as 0."""
    return "less than 0.1%" if 0 < share < 0.0005 else f"{share:.1%}"
