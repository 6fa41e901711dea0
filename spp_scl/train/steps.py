"""The two steps of SPP-SCL on one batch.

Step 1 minimizes `ce_weight * L_ce + L_clt + L_cli`. Step 2 computes T_p and I_p again, with the updated
weights, and minimizes L_clm unless the gate finds that the pairs already stand apart.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F

from spp_scl.model.batches import Batch
from spp_scl.model.network import Branches, Output, SppScl
from spp_scl.params import TrainParams
from spp_scl.train.gate import Gate, gate
from spp_scl.train.losses import inter_modal_loss, intra_modal_loss

Losses = dict[str, torch.Tensor]


def train_batch(
    model: SppScl,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    labels: torch.Tensor,
    alpha: float,
    params: TrainParams,
) -> tuple[Losses, Gate | None]:
    """Both steps.

    Args:
        model: in training mode.
        optimizer: of its parameters.
        batch: B rows.
        labels: (B,), in the batch's order.
        alpha: of the gate.
        params: the section `train` of the parameters.

    Returns:
        The losses that were computed, by the names of `spp_scl.train.log`, not yet fetched from the device;
        and the gate, None where step 2 has none.
    """
    losses = _step1_losses(model(batch), labels, model.config.modalities, params)
    _update(optimizer, losses["loss"], params)
    if params.step2 in ("never", "merged") or model.config.modalities != "both":
        return _detached(losses), None
    # Step 2 needs T_p and I_p alone. The head has no part in L_clm, so its parameters get no gradient.
    again = model(batch) if params.step2_forward == "whole" else model.branches(batch)
    decision = gate(again.text, again.image, labels, alpha, params.gate)
    if params.step2 == "always":
        decision = replace(decision, step2=True, alpha_from=None)
    if decision.step2:
        losses["L_clm"] = _inter_modal(again, labels, params)
        _update(optimizer, losses["L_clm"], params)
    return _detached(losses), decision


def _step1_losses(output: Output, labels: torch.Tensor, modalities: str, params: TrainParams) -> Losses:
    losses = {"L_ce": F.cross_entropy(output.logits, labels)}
    if params.intra_modal:
        for name, modality, embeddings in (("L_clt", "text", output.text), ("L_cli", "image", output.image)):
            if modalities in ("both", modality):
                losses[name] = intra_modal_loss(
                    embeddings, labels, params.temperature, params.anchor_in_denominator
                )
    if params.step2 == "merged" and modalities == "both":
        losses["L_clm"] = _inter_modal(output, labels, params)
    weighted = {**losses, "L_ce": params.ce_weight * losses["L_ce"]}
    losses["loss"] = torch.stack(list(weighted.values())).sum()
    return losses


def _inter_modal(features: Branches | Output, labels: torch.Tensor, params: TrainParams) -> torch.Tensor:
    anchors, others = features.image, features.text
    if params.anchors == "text":
        anchors, others = others, anchors
    return inter_modal_loss(anchors, others, labels, params.temperature)


def _update(optimizer: torch.optim.Optimizer, loss: torch.Tensor, params: TrainParams) -> None:
    # With zeros AdamW also moves what has no part in this loss, by its momentum and by weight decay.
    optimizer.zero_grad(set_to_none=params.zero_grad == "none")
    loss.backward()
    optimizer.step()


def _detached(losses: Losses) -> Losses:
    return {name: loss.detach() for name, loss in losses.items()}
