"""The audit of a trained model: its figures, and one plain sentence a finding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from spp_scl.audit.coupling import BATCH_SIZES, audit_coupling
from spp_scl.audit.repeats import KINDS, NEAR
from spp_scl.audit.uncertainty import RESAMPLES, bootstrap, calibration_error
from spp_scl.model.data import Data
from spp_scl.model.metrics import classification_metrics
from spp_scl.model.network import BatchFusion, SppScl
from spp_scl.train.artifact import Artifact
from spp_scl.train.gate import describe_gate

SCORES = ("accuracy", "f1_weighted", "f1_macro")


@dataclass(frozen=True)
class Audit:
    """What an audit finds.

    Args:
        figures: numbers, nested by section.
        findings: a sentence or two for each section, by its name.
    """

    figures: dict[str, Mapping]
    findings: dict[str, str]


def audit(
    model: SppScl,
    artifact: Artifact,
    data: Data,
    repeats: pd.DataFrame,
    floors: Mapping[str, Mapping],
    seed: int,
) -> Audit:
    """Audit a model.

    Args:
        model: as `load_model` returns it.
        artifact: beside it.
        data: what it was trained and evaluated on.
        repeats: see `find_repeats`.
        floors: see `compute_floors`.
        seed: draws the bootstrap's resamples.
    """
    model = model.to(data.features.device)
    labels = data.labels[data.rows["test"]].numpy()
    logits, coupling = audit_coupling(model, artifact, data)
    figures = {
        "coupling": coupling,
        "repeats": _score_repeats(repeats, logits, data),
        "gate": dict(artifact.training),
        "floors": {name: {score: f["test"][score] for score in SCORES} for name, f in floors.items()},
        "uncertainty": {
            **bootstrap(labels, logits.argmax(dim=1).numpy(), len(data.classes), seed),
            "calibration_error": calibration_error(logits.softmax(dim=1).numpy(), labels),
        },
    }
    own = _score(logits, data.labels[data.rows["test"]], data.classes)
    findings = {
        "coupling": _tell_coupling(figures["coupling"], model, len(labels)),
        "repeats": _tell_repeats(figures["repeats"], len(labels)),
        "gate": _tell_gate(figures["gate"]),
        "floors": _tell_floors(figures["floors"], own),
        "uncertainty": _tell_uncertainty(figures["uncertainty"], own, len(labels)),
    }
    return Audit(figures, findings)


def _score(logits: torch.Tensor, labels: torch.Tensor, classes: Sequence[str]) -> dict[str, float]:
    metrics = classification_metrics(logits, labels, classes)
    return {score: metrics[score] for score in SCORES}


def _score_repeats(repeats: pd.DataFrame, logits: torch.Tensor, data: Data) -> dict[str, Mapping]:
    labels_of = pd.Series(data.table["label"].astype("str").to_numpy(), index=data.table["id"])
    own = labels_of[repeats["id"]].to_numpy()
    result, any_kind = {}, np.zeros(len(repeats), dtype=bool)
    for kind in KINDS:
        there = repeats[kind].notna().to_numpy()
        any_kind |= there
        same = labels_of[repeats.loc[there, kind]].to_numpy() == own[there]
        result[kind] = {"tweets": int(there.sum()), "same_label": int(same.sum())}
    result["any"] = {"tweets": int(any_kind.sum())}
    labels = data.labels[data.rows["test"]]
    for name, rows in (("with", np.ones_like(any_kind)), ("without", ~any_kind)):
        if rows.any():
            result[name] = _score(logits[rows], labels[rows], data.classes)
    return result


def _tell_coupling(c: Mapping[str, Mapping], model: SppScl, tweets: int) -> str:
    others = {name: part for name, part in c.items() if name not in ("own", "shuffled")}
    most = max(c["shuffled"]["changed_max"], *(part["changed"] for part in others.values()))
    if not most:
        return (
            f"No prediction depends on its batch: with other orders and batch sizes, and one at a time, all "
            f"{tweets} test predictions stay the same."
        )
    shuffled = c["shuffled"]
    coupled = isinstance(model.fusion, BatchFusion)
    why = "Predictions depend on their batch mates" if coupled else "Rounding changes predictions"
    drawn = f" The metrics are of an order drawn from the seed (accuracy {c['own']['accuracy']:.4f})."
    ways = {"in the file's order": "file_order", "sorted by label": "sorted_by_label"}
    ways |= {f"in batches of {size}": f"batches_of_{size}" for size in BATCH_SIZES}
    ways |= {"one at a time": "one_at_a_time"}
    told = [f"{way} {c[key]['changed']:.1%} (accuracy {c[key]['accuracy']:.4f})" for way, key in ways.items()]
    return (
        f"{why}: in another random order {shuffled['changed_mean']:.1%} of the test predictions change on "
        f"average (accuracy {shuffled['accuracy_min']:.4f} to {shuffled['accuracy_max']:.4f}), "
        f"{', '.join(told)}.{drawn if coupled else ''}"
    )


def _tell_repeats(r: Mapping[str, Mapping], tweets: int) -> str:
    if not r["any"]["tweets"]:
        return f"None of the {tweets} test tweets stands in train, neither by its text nor by its picture."
    text, picture, near = (r[kind] for kind in KINDS)
    told = (
        f"{r['any']['tweets']} of {tweets} test tweets stand in train too: {text['tweets']} by their text "
        f"({text['same_label']} with the same label), {picture['tweets']} by their very picture, "
        f"{near['tweets']} by a picture that differs in at most {NEAR} of pHash's 64 bits."
    )
    if "without" not in r:
        return told + " Without them nothing would be left to test on."
    return told + (
        f" Accuracy is {r['with']['accuracy']:.4f} with them and {r['without']['accuracy']:.4f} without, "
        f"weighted F1 {r['with']['f1_weighted']:.4f} and {r['without']['f1_weighted']:.4f}. "
        "`-S split.protocol=grouped` keeps equal texts and pictures on one side."
    )


def _tell_gate(training: Mapping) -> str:
    told = describe_gate(training)
    saturated = training.get("saturated_share")
    if saturated is None:
        return told
    return told + (
        f" {saturated:.1%} of all pairs have a float32 sigmoid of exactly 1; compared there, step 2 would "
        f"have run in {training['step2_share_float32']:.1%} of the batches."
    )


def _tell_floors(floors: Mapping[str, Mapping], own: Mapping[str, float]) -> str:
    best = max(floors, key=lambda name: floors[name]["accuracy"])
    majority = floors["majority"]["accuracy"]
    gap = own["accuracy"] - floors[best]["accuracy"]
    return (
        f"The majority class alone has an accuracy of {majority:.4f}; the best floor, "
        f"{best.replace('_', ' regression on ')}, has {floors[best]['accuracy']:.4f}, and the model is "
        f"{abs(gap) * 100:.1f} points {'above' if gap > 0 else 'below'} it."
    )


def _tell_uncertainty(u: Mapping, own: Mapping[str, float], tweets: int) -> str:
    parts = [
        f"{name} {own[score]:.4f} [{u[score]['low']:.4f}, {u[score]['high']:.4f}]"
        for score, name in zip(SCORES, ("accuracy", "weighted F1", "macro F1"), strict=True)
    ]
    return (
        f"With {tweets} test tweets the 95 % intervals ({RESAMPLES:,} bootstrap resamples; the seeds' "
        f"spread comes on top) are: {', '.join(parts)}. Confidence is off from accuracy by "
        f"{u['calibration_error']:.3f} (expected calibration error)."
    )
