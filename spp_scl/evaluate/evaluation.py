"""A trained model on validation and test data."""

from dataclasses import dataclass

import pandas as pd
import torch

from spp_scl.model.data import Data
from spp_scl.model.inference import predict
from spp_scl.model.metrics import classification_metrics, confusion_matrix, scores_per_class
from spp_scl.model.network import SppScl
from spp_scl.train.artifact import Artifact

EVALUATED = ("valid", "test")


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation finds.

    Args:
        metrics: nested by split, and `train` with the summary of the training.
        predictions: id, split, text, label, prediction, and a probability a class (`p_<class>`).
        per_class: split, class, precision, recall, f1, support.
        embeddings: id, split, label, prediction, and the vectors fused (64), text (32), image (32).
        logits: (n, C), of the test set.
    """

    metrics: dict
    predictions: pd.DataFrame
    per_class: pd.DataFrame
    embeddings: pd.DataFrame
    logits: torch.Tensor


def evaluate(model: SppScl, artifact: Artifact, data: Data) -> Evaluation:
    """Evaluate a model, as `load_model` returns it, on validation and test data."""
    torch.set_num_threads(artifact.threads)
    model = model.to(data.features.device)
    metrics: dict[str, dict] = {}
    predictions, per_class, embeddings = [], [], []
    for name in EVALUATED:
        rows = data.rows[name]
        output = predict(model, data.features, rows, artifact.batch_size, artifact.seed, desc=name)
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
        vectors = {space: list(getattr(output, space).numpy()) for space in ("fused", "text", "image")}
        embeddings.append(found.drop(columns="text").assign(**vectors))
    return Evaluation(
        {**metrics, "train": dict(artifact.training)},
        pd.concat(predictions, ignore_index=True),
        pd.concat(per_class, ignore_index=True),
        pd.concat(embeddings, ignore_index=True),
        output.logits,
    )


def describe(evaluation: Evaluation) -> str:
    """The metrics, in a few lines for the terminal."""
    lines = ["", f"{'':8}{'accuracy':>10}{'weighted F1':>13}{'macro F1':>10}{'loss':>8}"]
    for name in EVALUATED:
        m = evaluation.metrics[name]
        lines.append(
            f"{name:8}{m['accuracy']:>10.4f}{m['f1_weighted']:>13.4f}{m['f1_macro']:>10.4f}{m['loss']:>8.4f}"
        )
    return "\n".join(lines)
