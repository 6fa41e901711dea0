"""Whether a prediction depends on the tweets that share its batch."""

from collections.abc import Mapping
from statistics import fmean

import torch

from spp_scl.model.data import Data
from spp_scl.model.inference import predict
from spp_scl.model.network import SppScl
from spp_scl.progress import progress
from spp_scl.train.artifact import Artifact

ORDERS = 20
BATCH_SIZES = (16, 256)


def audit_coupling(model: SppScl, artifact: Artifact, data: Data) -> tuple[torch.Tensor, dict[str, Mapping]]:
    """Evaluate the test set in other orders and batches than the metrics' own.

    Returns:
        The metrics' own logits, (n, C); and for each way its accuracy, and `changed`, the share of the
        predictions that are not the metrics' own; for the shuffled orders their mean and range.
    """
    torch.set_num_threads(artifact.threads)
    rows = data.rows["test"]
    labels = data.labels[rows]
    bar = progress(desc="coupling", unit="passes", total=ORDERS + len(BATCH_SIZES) + 4)

    def run(size: int = artifact.batch_size, order: torch.Tensor | None = None) -> torch.Tensor:
        output = predict(model, data.features, rows, size, artifact.seed, order=order)
        bar.update()
        return output.logits

    logits = run()
    own = logits.argmax(dim=1)
    # The first permutation of this generator is the one that `predict` draws for the metrics.
    generator = torch.Generator().manual_seed(artifact.seed)
    shuffled = [torch.randperm(len(rows), generator=generator) for _ in range(ORDERS + 1)][1:]

    def compare(logits: torch.Tensor) -> dict[str, float]:
        prediction = logits.argmax(dim=1)
        return {
            "accuracy": (prediction == labels).double().mean().item(),
            "changed": (prediction != own).double().mean().item(),
        }

    several = [compare(run(order=order)) for order in shuffled]
    result = {
        "own": {"accuracy": compare(logits)["accuracy"]},
        "file_order": compare(run(order=torch.arange(len(rows)))),
        # What a file sorted by label would do, as the published ones are: batches of one class.
        "sorted_by_label": compare(run(order=labels.argsort(stable=True))),
        "shuffled": {
            f"{name}_{how}": function(one[name] for one in several)
            for name in ("accuracy", "changed")
            for how, function in (("mean", fmean), ("min", min), ("max", max))
        },
        "one_at_a_time": compare(run(size=1)),
        # In the metrics' own order, so that only the size differs.
        **{f"batches_of_{size}": compare(run(size)) for size in BATCH_SIZES},
    }
    bar.close()
    return logits, result
