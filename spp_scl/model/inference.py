"""Predictions of a trained network."""

import torch

from spp_scl.model.batches import FeatureStore
from spp_scl.model.network import Output, SppScl
from spp_scl.progress import progress


@torch.inference_mode()
def predict(
    model: SppScl,
    features: FeatureStore,
    rows: torch.Tensor,
    batch_size: int,
    seed: int,
    desc: str | None = None,
    order: torch.Tensor | None = None,
) -> Output:
    """Run the network, in evaluation mode, over rows; the output is in their order, on the CPU.

    Unless `fusion: batch`, the batches are of texts of like length, since the order cannot matter. With
    `fusion: batch` it does, and the order is drawn from the seed: a file's own order is often sorted by
    label, and single-class batches would tell the network the answer.

    Args:
        model: the network; its mode is left as it was.
        features: of all rows.
        rows: (n,) int64.
        batch_size: rows a batch.
        seed: draws the order for `fusion: batch`.
        desc: what a progress bar says; None: no bar.
        order: (n,) int64, of another order to take the rows in; the output is in theirs all the same.
    """
    if order is None and model.config.couples_batch:
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    elif order is None:
        order = features.lengths[rows].argsort(descending=True, stable=True)
    was_training = model.training
    model.eval()
    batches = order.split(batch_size)
    if desc:
        batches = progress(batches, desc=desc, unit="batches")
    outputs, places = [], []
    for part in batches:
        batch = features.batch(rows[part])
        outputs.append(model(batch))
        places.append(part[batch.order])
    model.train(was_training)
    back = torch.cat(places).argsort()
    return Output(
        *(
            torch.cat([getattr(output, name) for output in outputs]).cpu()[back]
            for name in ("logits", "fused", "text", "image")
        )
    )
