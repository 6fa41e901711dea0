"""A trained model on validation and test data."""

from dataclasses import dataclass

import pandas as pd
import torch

from spp_scl.model.data import Data
from spp_scl.model.inference import predict
from spp_scl.model.metrics import classification_metrics, confusion_matrix, scores_per_class
from spp_scl.model.network import SppScl
from spp_scl.train.artifact import Artifact
from spp_scl.train.gate import describe_gate

EVALUATED = ("valid", "test")


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation finds.

    Args:
        metrics: nested by split, and `train` with the summary of the training.
        predictions: id, split, text, label, prediction, and a probability a class (`p_<class>`).
        per_class: split, class, precision, recall, f1, support.
        embeddings: id, split, label (categorical), prediction, and the vectors fused (64), text (32),
            image (32).
    """

    metrics: dict
    predictions: pd.DataFrame
    per_class: pd.DataFrame
    embeddings: pd.DataFrame


def evaluate(model: SppScl, artifact: Artifact, data: Data) -> Evaluation:
    """Evaluate a model, as `load_model` returns it, on validation and test data."""
    torch.set_num_threads(artifact.threads)
    model = model.to(data.features.device)
    metrics, predictions, per_class, embeddings = {}, [], [], []
    for name in EVALUATED:
        rows = data.rows[name]
        output = predict(model, data.features, rows, artifact.batch_size, artifact.seed, desc=name)
        metrics[name] = classification_metrics(output.logits, data.labels[rows], artifact.classes)
        chosen = [artifact.classes[code] for code in output.logits.argmax(dim=1).tolist()]
        known = data.table.iloc[rows.numpy()][["id", "text", "label"]].reset_index(drop=True)
        head = pd.DataFrame({"id": known["id"], "split": name, "text": known["text"]})
        head = head.assign(label=known["label"].astype("str"), prediction=chosen)
        probabilities = output.logits.softmax(dim=1).numpy()
        columns = [f"p_{c}" for c in artifact.classes]
        predictions.append(pd.concat([head, pd.DataFrame(probabilities, columns=columns)], axis=1))
        vectors = {n: list(getattr(output, n).numpy()) for n in ("fused", "text", "image")}
        embeddings.append(head.drop(columns="text").assign(label=known["label"], **vectors))
        codes = data.labels[rows].numpy(), output.logits.argmax(dim=1).numpy()
        each = scores_per_class(confusion_matrix(*codes, len(data.classes)))
        per_class.append(pd.DataFrame({"split": name, "class": data.classes, **each}))
    metrics["train"] = dict(artifact.training)
    return Evaluation(
        metrics,
        pd.concat(predictions, ignore_index=True),
        pd.concat(per_class, ignore_index=True),
        pd.concat(embeddings, ignore_index=True),
    )


def describe(evaluation: Evaluation) -> str:
    """A few lines for the terminal: the metrics, and whether alpha mattered."""
    lines = ["", f"{'':8}{'accuracy':>10}{'F1 weighted':>13}{'F1 macro':>10}{'loss':>8}"]
    for name in EVALUATED:
        m = evaluation.metrics[name]
        lines.append(
            f"{name:8}{m['accuracy']:>10.4f}{m['f1_weighted']:>13.4f}{m['f1_macro']:>10.4f}{m['loss']:>8.4f}"
        )
    lines += ["", describe_gate(evaluation.metrics["train"])]
    return "\n".join(lines)
