"""Floors for the metrics: the majority class, and logistic regression on mean-pooled features."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from spp_scl.batches.data import Data
from spp_scl.metrics import classification_metrics, confusion_matrix, scores
from spp_scl.progress import progress

# Inverse strengths of the penalty.
_STRENGTHS = (0.0001, 0.001, 0.01, 0.1)

# Rows at a time: where the encoders are in the loop, their activations of 256 pictures are gigabytes.
_POOLED = 64


def compute_floors(data: Data) -> tuple[dict[str, dict], pd.DataFrame]:
    """Train and evaluate the floors.

    Args:
        data: of a dataset; its selection metric on validation data chooses the penalty.

    Returns:
        For each floor its metrics on validation and test data; and the test predictions, id and a column a
        floor.
    """
    labels = data.labels.numpy()
    text, image = pool(data)
    inputs = {"text": text, "image": image, "both": np.concatenate([text, image], axis=1)}
    rows = {name: part.numpy() for name, part in data.rows.items()}
    majority = np.bincount(labels[rows["train"]], minlength=len(data.classes))
    logits_of = {"majority": np.tile(np.log(majority / majority.sum() + 1e-12), (len(labels), 1))}
    # One thread: sums over several are added in any order.
    with threadpool_limits(limits=1):
        for name, x in progress(inputs.items(), desc="floors", unit="inputs", total=len(inputs)):
            logits_of[f"logistic_{name}"] = _regress(x, labels, rows, data)
    floors, predictions = {}, pd.DataFrame({"id": data.ids("test")})
    for name, logits in logits_of.items():
        floors[name] = {
            part: classification_metrics(
                torch.tensor(logits[rows[part]], dtype=torch.float32), data.labels[rows[part]], data.classes
            )
            for part in ("valid", "test")
        }
        predictions[name] = [data.classes[code] for code in logits[rows["test"]].argmax(axis=1)]
    return floors, predictions


@torch.inference_mode()
def pool(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """The mean of each text over its words and layers, (N, D), and of each picture over its positions,
    (N, C); zero for a blank one."""
    texts, images = [], []
    rows = torch.arange(len(data.labels))
    for part in progress(rows.split(_POOLED), desc="pool", unit="batches"):
        batch = data.source.batch(part)
        back = batch.order.argsort()
        texts.append(batch.packing.mean(batch.text().words.mean(dim=1)).cpu()[back])
        maps = batch.image()
        image = maps.new_zeros(len(part), maps.shape[2])
        image[batch.has_image] = maps.mean(dim=1)
        images.append(image.cpu()[back])
    return torch.cat(texts).numpy(), torch.cat(images).numpy()


def _regress(x: np.ndarray, labels: np.ndarray, rows: Mapping[str, np.ndarray], data: Data) -> np.ndarray:
    """Log probabilities, (N, C), with the penalty that is best on validation data."""
    best, best_value = np.empty(0), -1.0
    for strength in _STRENGTHS:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, tol=1e-3, max_iter=1000))
        model.fit(x[rows["train"]], labels[rows["train"]])
        logits = model.predict_log_proba(x)
        valid = logits[rows["valid"]].argmax(axis=1)
        matrix = confusion_matrix(labels[rows["valid"]], valid, len(data.classes))
        value = float(scores(matrix)[data.selection])
        if value > best_value:
            best, best_value = logits, value
    return best
