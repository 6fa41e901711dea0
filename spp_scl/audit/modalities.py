"""How well tweets are predicted whose text and picture say the same, and those where one says nothing."""

import numpy as np
import pandas as pd

from spp_scl.audit.uncertainty import wilson
from spp_scl.metrics import confusion_matrix, main_scores

NEUTRAL = "neutral"


def score_modalities(
    known: pd.DataFrame, labels: np.ndarray, predictions: np.ndarray, classes: int
) -> dict[str, dict]:
    """Score groups of the test set by the labels that the text and the picture have alone.

    Args:
        known: the test tweets' text_label and image_label, null where the dataset gives none.
        labels: (n,) codes.
        predictions: (n,) codes.
        classes: C.

    Returns:
        For each group that has tweets, their number, accuracy with its 95 % interval (`low`, `high`), and
        weighted and macro F1. `agree`: both labels are the same; `image_neutral`: the text alone decides;
        `text_neutral`: the picture alone does.
    """
    text, image = known["text_label"], known["image_label"]
    groups = {
        "agree": text.notna() & (text == image),
        "image_neutral": (image == NEUTRAL) & text.notna() & (text != image),
        "text_neutral": (text == NEUTRAL) & image.notna() & (text != image),
    }
    found: dict[str, dict] = {}
    for name, group in groups.items():
        rows = group.to_numpy(bool)
        if not rows.any():
            continue
        matrix = confusion_matrix(labels[rows], predictions[rows], classes)
        right = int(np.diagonal(matrix).sum())
        found[name] = {
            "tweets": int(rows.sum()),
            **main_scores(matrix),
            **wilson(right, int(rows.sum())),
        }
    return found
