"""How well predictions match labels."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score


def classification_metrics(
    logits: torch.Tensor, labels: torch.Tensor, classes: Sequence[str]
) -> dict[str, float | dict[str, float]]:
    """Accuracy, F1, precision and recall over classes, cross entropy, and each class's F1.

    Args:
        logits: (n, C) float32.
        labels: (n,) int64.
        classes: C names.
    """
    truth, predicted = labels.numpy(), logits.argmax(dim=1).numpy()
    codes = range(len(classes))
    # A class that is never predicted has no precision; counted as 0, as in the literature.
    options = {"labels": list(codes), "zero_division": 0}
    each = f1_score(truth, predicted, average=None, **options)
    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "f1_weighted": float(f1_score(truth, predicted, average="weighted", **options)),
        "f1_macro": float(f1_score(truth, predicted, average="macro", **options)),
        "precision_weighted": float(precision_score(truth, predicted, average="weighted", **options)),
        "recall_weighted": float(recall_score(truth, predicted, average="weighted", **options)),
        "loss": float(F.cross_entropy(logits, labels)),
        "f1": {name: float(each[code]) for code, name in enumerate(classes)},
    }
