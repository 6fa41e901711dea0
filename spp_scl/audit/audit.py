"""The audit of a trained model, as figures."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from spp_scl.audit.coupling import audit_coupling
from spp_scl.audit.modalities import score_modalities
from spp_scl.audit.uncertainty import bootstrap, calibration_error, wilson
from spp_scl.batches.data import Data
from spp_scl.checks.repeats import KINDS
from spp_scl.methods.shared.method import Method
from spp_scl.metrics import MAIN, confusion_matrix, main_scores
from spp_scl.training.artifact import Artifact


def audit(
    model: Method,
    artifact: Artifact,
    data: Data,
    logits: torch.Tensor,
    repeats: pd.DataFrame,
    floors: Mapping[str, Mapping],
    shortcuts: Mapping[str, Mapping],
    seed: int,
) -> dict[str, dict]:
    """Audit a model that was evaluated.

    Args:
        model: as it was evaluated.
        artifact: beside it.
        data: what it was evaluated on.
        logits: (n, C), of the test set.
        repeats: see `find_repeats`.
        floors: see `compute_floors`.
        shortcuts: see `find_shortcuts`.
        seed: draws the bootstrap's resamples.

    Returns:
        Numbers in the sections coupling, repeats, training, floors, shortcuts and uncertainty; modalities
        where the dataset labels text and picture; the stage adds translations where the method has second
        views.
    """
    labels = data.labels[data.rows["test"]].numpy()
    predictions = logits.argmax(dim=1).numpy()
    known = data.table.iloc[data.rows["test"].numpy()]
    modalities = score_modalities(known, labels, predictions, len(data.classes))
    return {
        "coupling": audit_coupling(model, artifact, data, logits),
        "repeats": _score_repeats(repeats, predictions, data),
        "training": dict(artifact.training),
        "floors": {name: {score: f["test"][score] for score in MAIN} for name, f in floors.items()},
        "shortcuts": dict(shortcuts),
        **({"modalities": modalities} if modalities else {}),
        "uncertainty": {
            "accuracy": wilson(int((predictions == labels).sum()), len(labels)),
            **bootstrap(labels, predictions, len(data.classes), seed),
            "calibration_error": calibration_error(logits.softmax(dim=1).numpy(), labels),
        },
    }


def _score_repeats(repeats: pd.DataFrame, predictions: np.ndarray, data: Data) -> dict[str, dict]:
    labels_of = pd.Series(data.table["label"].astype("str").to_numpy(), index=data.table["id"])
    own = labels_of[repeats["id"]].to_numpy()
    result: dict[str, dict] = {}
    repeated = np.zeros(len(repeats), dtype=bool)
    for kind in KINDS:
        found = repeats[kind].notna().to_numpy()
        repeated |= found
        same = labels_of[repeats.loc[found, kind]].to_numpy() == own[found]
        result[kind] = {"tweets": int(found.sum()), "same_label": int(same.sum())}
    result["any"] = {"tweets": int(repeated.sum())}
    labels = data.labels[data.rows["test"]].numpy()
    for name, rows in (("with", np.ones_like(repeated)), ("without", ~repeated)):
        if rows.any():
            result[name] = main_scores(confusion_matrix(labels[rows], predictions[rows], len(data.classes)))
    return result
