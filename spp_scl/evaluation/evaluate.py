"""A trained model on validation and test data."""

from dataclasses import dataclass

import pandas as pd
import torch

from spp_scl.batches.data import Data
from spp_scl.methods.shared.method import Method
from spp_scl.methods.shared.prediction import predict
from spp_scl.metrics import classification_metrics, confusion_matrix, scores_per_class
from spp_scl.training.artifact import Artifact

EVALUATED = ("valid", "test")


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation finds.

    Args:
        metrics: nested by split, and `train` with the summary of the training.
        predictions: id, split, text, label, prediction, and a probability a class (`p_<class>`).
        per_class: split, class, precision, recall, f1, support.
        embeddings: id, split, label, prediction, and a column of vectors for each of the method's spaces.
        logits: (n, C), of the test set.
    """

    metrics: dict
    predictions: pd.DataFrame
    per_class: pd.DataFrame
    embeddings: pd.DataFrame
    logits: torch.Tensor


def evaluate(model: Method, artifact: Artifact, data: Data) -> Evaluation:
    """Evaluate a model, as `place_model` returns it, on validation and test data."""
    torch.set_num_threads(artifact.threads)
    metrics: dict[str, dict] = {}
    predictions, per_class, embeddings = [], [], []
    for name in EVALUATED:
        rows = data.rows[name]
        output = predict(model, data.source, rows, artifact.batch_size, artifact.seed, desc=name)
        codes = output.logits.argmax(dim=1).numpy()
        metrics[name] = classification_metrics(output.logits, data.labels[rows], data.classes)
        each = scores_per_class(confusion_matrix(data.labels[rows].numpy(), codes, len(data.classes)))
        per_class.append(pd.DataFrame({"split": name, "class": data.classes, **each}))
        known = data.table.iloc[rows.numpy()].reset_index(drop=True)
        found = pd.DataFrame(
            {
                "id": known["id"],
                "split": name,
                "text": known["text"],
                "label": known["label"].astype("str"),
                "prediction": [data.classes[code] for code in codes],
            }
        )
        probabilities = output.logits.softmax(dim=1).numpy()
        predictions.append(found.join(pd.DataFrame(probabilities, columns=[f"p_{c}" for c in data.classes])))
        vectors = {space: list(each.numpy()) for space, each in output.vectors.items()}
        embeddings.append(found.drop(columns="text").assign(**vectors))
    return Evaluation(
        {**metrics, "train": dict(artifact.training)},
        pd.concat(predictions, ignore_index=True),
        pd.concat(per_class, ignore_index=True),
        pd.concat(embeddings, ignore_index=True),
        output.logits,
    )


_COLUMNS = {
    "accuracy": "accuracy",
    "f1_weighted": "weighted F1",
    "f1_macro": "macro F1",
    "f1_positive": "positive F1",
    "loss": "loss",
}


def describe(evaluation: Evaluation) -> str:
    """The metrics, in a few lines for the terminal; the positive class's F1 where there are two classes."""
    columns = {k: name for k, name in _COLUMNS.items() if k in evaluation.metrics[EVALUATED[0]]}
    widths = {k: max(len(name), 6) + 2 for k, name in columns.items()}
    lines = ["", " " * 8 + "".join(f"{columns[k]:>{width}}" for k, width in widths.items())]
    for split in EVALUATED:
        values = evaluation.metrics[split]
        lines.append(f"{split:8}" + "".join(f"{values[k]:>{width}.4f}" for k, width in widths.items()))
    return "\n".join(lines)
