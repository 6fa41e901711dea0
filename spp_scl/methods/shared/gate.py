"""The gate: whether a batch needs step 2.

S = sigmoid(T' I'^T), m = the mean of S's diagonal, count = the number of pairs with S_ij < m, P = the
number of pairs with equal labels. Step 2 is skipped once count >= floor(alpha * P).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

import torch
import torch.nn.functional as F

from spp_scl.metrics import percent

# What a batch's log has, and the mean over the batches in the summary.
_SUMMARY = {
    "step2": "step2_share",
    "step2_float32": "step2_share_float32",
    "count_over_p": "count_over_p",
    "saturated_share": "saturated_share",
}


@dataclass(frozen=True)
class Gate:
    """One batch's gate.

    Args:
        count: pairs (i, j) with S_ij < m.
        positives: P, pairs with equal labels, i = j included.
        saturated: the share of pairs whose S_ij is exactly 1 in float32. Compared there, all of these tie
            and none is below m, whatever alpha is.
        step2: whether step 2 runs.
        step2_float32: whether it would, were the sigmoids compared in float32 as the released code does.
        alpha_from: from which alpha on it would, all else being equal; None where alpha does not decide.
    """

    count: int
    positives: int
    saturated: float
    step2: bool
    step2_float32: bool
    alpha_from: float | None

    @property
    def count_over_p(self) -> float:
        """What alpha is compared with."""
        return self.count / self.positives

    def log(self) -> dict[str, float | None]:
        """For the log of the training, and for `summarize_gates`."""
        return {
            "step2": int(self.step2),
            "step2_float32": int(self.step2_float32),
            "count_over_p": self.count_over_p,
            "saturated_share": self.saturated,
            "alpha_from": self.alpha_from,
        }


@torch.no_grad()
def gate(
    text: torch.Tensor,
    image: torch.Tensor,
    labels: torch.Tensor,
    alpha: float,
    comparison: Literal["exact", "float32"] = "exact",
) -> Gate:
    """Decide on a batch.

    The dot products of T_p and I_p, non-negative and not normalized, soon exceed 17, from where a float32
    sigmoid is exactly 1. The comparison is therefore made on log(1 - S), which has no such ties:
    S_ij < m exactly when log(1 - S_ij) > log(mean_i(1 - S_ii)).

    Args:
        text: (B, 32), T_p after step 1.
        image: (B, 32), I_p after step 1.
        labels: (B,).
        alpha: the share of the positive pairs' number that `count` must reach.
        comparison: which one decides, this one (`exact`) or the released code's.
    """
    products = text @ image.T
    log_rest = F.logsigmoid(-products.double())  # log(1 - S)
    diagonal = log_rest.diagonal()
    # The mean around its largest term: equal terms give exactly their value, so that they stay ties.
    largest = diagonal.max()
    log_rest_of_mean = largest + (diagonal - largest).exp().mean().log()
    rounded = products.float().sigmoid()
    counts = torch.stack(
        [
            (log_rest > log_rest_of_mean).sum(),
            (labels[:, None] == labels[None, :]).sum(),
            (rounded == 1).sum(),
            (rounded < rounded.diagonal().mean()).sum(),
        ]
    )
    count, positives, saturated, rounded_count = counts.tolist()  # one wait for the device, not four
    needed = math.floor(alpha * positives)
    deciding = rounded_count if comparison == "float32" else count
    return Gate(
        count=count,
        positives=positives,
        saturated=saturated / products.numel(),
        step2=deciding < needed,
        step2_float32=rounded_count < needed,
        alpha_from=_smallest_alpha(deciding, positives),
    )


def _smallest_alpha(count: int, positives: int) -> float:
    """The smallest float for which count < floor(alpha * P), that is, count + 1 <= alpha * P as rounded."""
    alpha = (count + 1) / positives
    while alpha * positives < count + 1:
        alpha = math.nextafter(alpha, math.inf)
    while (below := math.nextafter(alpha, 0)) * positives >= count + 1:
        alpha = below
    return alpha


def summarize_gates(rows: Sequence[Mapping[str, float]]) -> dict[str, float | int | bool | None]:
    """What the metrics say of all gates of a training; without any, that step 2 ran in no batch.

    When step 2 ran in every batch, `alpha_bound` is the alpha from which on every other one gives this same
    model; when in none, the one below which; None where alpha mattered or did not decide.

    Args:
        rows: `Gate.log` of each batch that had a gate, and rows of others.
    """
    gates = [row for row in rows if "step2" in row]
    if not gates:
        nothing = dict.fromkeys(_SUMMARY.values())
        return {**nothing, "step2_share": 0.0, "alpha_mattered": False, "alpha_bound": None}
    means = {name: fmean(row[key] for row in gates) for key, name in _SUMMARY.items()}
    mattered = 0 < means["step2_share"] < 1
    bounds = [row["alpha_from"] for row in gates if row.get("alpha_from") is not None]
    bound = None
    if bounds and not mattered:
        bound = max(bounds) if means["step2_share"] else min(bounds)
    return {**means, "alpha_mattered": mattered, "alpha_bound": bound}


def describe_gate(summary: Mapping[str, Any]) -> list[str]:
    """What the gates of a training did, in sentences.

    Args:
        summary: see `summarize_gates`.
    """
    share, mattered = summary["step2_share"], summary["alpha_mattered"]
    if summary["count_over_p"] is None:
        return ["There was no gate: step 2 was not to run, whatever alpha is."]
    return [
        f"Step 2 ran in {share:.1%} of the batches." if mattered else _describe_bound(summary),
        f"{percent(summary['saturated_share'])} of all pairs have a float32 sigmoid of exactly 1; compared "
        f"there, step 2 would have run in {percent(summary['step2_share_float32'])} of the batches.",
    ]


def _describe_bound(summary: Mapping[str, Any]) -> str:
    share, bound = summary["step2_share"], summary["alpha_bound"]
    ran = f"Step 2 ran in {'every batch' if share == 1 else 'no batch'} of the whole run"
    if bound is None:
        return f"{ran}, whatever alpha is."
    # Rounded to where the sentence stays true.
    if share == 1:
        return f"{ran}: every alpha from {math.ceil(bound * 1e4) / 1e4} on gives this same model."
    return f"{ran}: every alpha below {math.floor(bound * 1e4) / 1e4} gives this same model."
