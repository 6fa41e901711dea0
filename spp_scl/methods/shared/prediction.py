"""Predictions of a trained method."""

import torch

from spp_scl.batches.batch import Source
from spp_scl.methods.shared.method import Method, Output
from spp_scl.progress import progress


@torch.inference_mode()
def predict(
    model: Method,
    source: Source,
    rows: torch.Tensor,
    batch_size: int,
    seed: int,
    desc: str | None = None,
    order: torch.Tensor | None = None,
) -> Output:
    """Run a method's network, in evaluation mode, over rows; the output is in their order, on the CPU.

    The batches are of texts of like length, since the order cannot matter. Where the method couples a batch
    it does, and the order is drawn from the seed: a file's own order is often sorted by label, and
    single-class batches would tell the network the answer.

    Args:
        model: the network; its mode is left as it was.
        source: of the batches.
        rows: (n,) int64.
        batch_size: rows a batch.
        seed: draws the order for a method that couples a batch.
        desc: what a progress bar says; None: no bar.
        order: (n,) int64, of another order to take the rows in; the output is in theirs all the same.
    """
    if order is None and model.couples_batch:
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    elif order is None:
        order = source.lengths[rows].argsort(descending=True, stable=True)
    was_training = model.training
    model.eval()
    batches = order.split(batch_size)
    if desc:
        batches = progress(batches, desc=desc, unit="batches")
    outputs, places = [], []
    for part in batches:
        batch = source.batch(rows[part])
        outputs.append(model(batch))
        places.append(part[batch.order])
    model.train(was_training)
    back = torch.cat(places).argsort()

    def join(parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat(parts).cpu()[back]

    return Output(
        join([output.logits for output in outputs]),
        {name: join([output.vectors[name] for output in outputs]) for name in outputs[0].vectors},
    )
