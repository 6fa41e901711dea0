"""What costs nothing: the majority class, and logistic regression on mean-pooled features."""

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from spp_scl.model.data import Data
from spp_scl.model.metrics import classification_metrics
from spp_scl.progress import progress

# Of the penalty; the one with the best F1 on validation data is taken.
_STRENGTHS = (0.0001, 0.001, 0.01, 0.1)

_POOLED = 256  # rows at a time


def compute_floors(data: Data, selection: str) -> tuple[dict[str, dict], pd.DataFrame]:
    """Train and evaluate the floors.

    Args:
        data: of a dataset.
        selection: the metric on validation data that chooses the penalty.

    Returns:
        For each floor its metrics on validation and test data; and the test predictions, id and a column a
        floor.
    """
    labels = data.labels.numpy()
    text, image = pool(data)
    inputs = {"text": text, "image": image, "both": np.concatenate([text, image], axis=1)}
    rows = {name: part.numpy() for name, part in data.rows.items()}
    majority = np.bincount(labels[rows["train"]], minlength=len(data.classes))
    scores = {"majority": np.tile(np.log(majority / majority.sum() + 1e-12), (len(labels), 1))}
    # One thread: sums over several are added in any order.
    with threadpool_limits(limits=1):
        for name, x in progress(inputs.items(), desc="floors", unit="inputs", total=len(inputs)):
            scores[f"logistic_{name}"] = _regress(x, labels, rows, selection, data.classes)
    floors, predictions = {}, {"id": data.table["id"].to_numpy()[rows["test"]]}
    for name, logits in scores.items():
        floors[name] = {
            part: classification_metrics(
                torch.tensor(logits[rows[part]], dtype=torch.float32), data.labels[rows[part]], data.classes
            )
            for part in ("valid", "test")
        }
        predictions[name] = [data.classes[code] for code in logits[rows["test"]].argmax(axis=1)]
    return floors, pd.DataFrame(predictions)


def pool(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """The mean of each text over its words and layers, (N, D), and of each picture over its positions,
    (N, 2048); zero for a blank one."""
    texts, images = [], []
    rows = torch.arange(len(data.labels))
    for part in progress(rows.split(_POOLED), desc="pool", unit="batches"):
        batch = data.features.batch(part)
        back = batch.order.argsort()
        texts.append(batch.packing.mean(batch.words.mean(dim=1)).cpu()[back])
        image = batch.maps.new_zeros(len(part), batch.maps.shape[2])
        image[batch.has_image] = batch.maps.mean(dim=1)
        images.append(image.cpu()[back])
    return torch.cat(texts).numpy(), torch.cat(images).numpy()


def _regress(
    x: np.ndarray, labels: np.ndarray, rows: dict[str, np.ndarray], selection: str, classes: list[str]
) -> np.ndarray:
    """Log probabilities, (N, C)."""
    best, best_value = None, -1.0
    for strength in _STRENGTHS:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, tol=1e-3, max_iter=1000))
        model.fit(x[rows["train"]], labels[rows["train"]])
        scores = model.predict_log_proba(x)
        valid = torch.tensor(scores[rows["valid"]], dtype=torch.float32)
        value = classification_metrics(valid, torch.tensor(labels[rows["valid"]]), classes)[selection]
        if value > best_value:
            best, best_value = scores, value
    return best
