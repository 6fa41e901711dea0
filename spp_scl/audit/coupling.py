"""Whether a prediction depends on the tweets that share its batch."""

from statistics import fmean

import torch

from spp_scl.batches.data import Data
from spp_scl.methods.shared.method import Method
from spp_scl.methods.shared.prediction import predict
from spp_scl.progress import progress
from spp_scl.training.artifact import Artifact

# Each takes a pass over the test set. True: the network couples a batch, and these give a range; False: they
# show that it does not.
ORDERS = {True: 20, False: 5}
BATCH_SIZES = (16, 256)


def audit_coupling(
    model: Method, artifact: Artifact, data: Data, logits: torch.Tensor
) -> dict[str, dict[str, float]]:
    """Predict the test set in other orders and batches than the metrics' own.

    Args:
        model: on the device of the features.
        artifact: beside it.
        data: its test set is predicted.
        logits: (n, C), the metrics' own.

    Returns:
        For each way its accuracy, and `changed`, the share of the predictions that are not the metrics' own;
        for the shuffled orders their number, and mean and range.
    """
    rows = data.rows["test"]
    labels = data.labels[rows]
    own = logits.argmax(dim=1)
    number = ORDERS[model.couples_batch]
    bar = progress(desc="coupling", unit="passes", total=number + len(BATCH_SIZES) + 3)

    def compare(size: int = artifact.batch_size, order: torch.Tensor | None = None) -> dict[str, float]:
        output = predict(model, data.source, rows, size, artifact.seed, order=order)
        bar.update()
        prediction = output.logits.argmax(dim=1)
        return {
            "accuracy": (prediction == labels).double().mean().item(),
            "changed": (prediction != own).double().mean().item(),
        }

    torch.set_num_threads(artifact.threads)
    # The first permutation of this generator is the one that `predict` draws for the metrics.
    generator = torch.Generator().manual_seed(artifact.seed)
    orders = [torch.randperm(len(rows), generator=generator) for _ in range(number + 1)][1:]
    shuffled = [compare(order=order) for order in orders]
    result = {
        "own": {"accuracy": (own == labels).double().mean().item()},
        "file_order": compare(order=torch.arange(len(rows))),
        # What a file sorted by label would do, as the published ones are: batches of one class.
        "sorted_by_label": compare(order=labels.argsort(stable=True)),
        "shuffled": {
            "orders": number,
            **{
                f"{name}_{how}": function(one[name] for one in shuffled)
                for name in ("accuracy", "changed")
                for how, function in (("mean", fmean), ("min", min), ("max", max))
            },
        },
        # In the metrics' own order, so that only the size differs.
        **{f"batches_of_{size}": compare(size) for size in BATCH_SIZES},
    }
    # One tweet is too little work to share: two threads take twice as long, on a busy machine ten times.
    torch.set_num_threads(1)
    result["one_at_a_time"] = compare(1)
    torch.set_num_threads(artifact.threads)
    bar.close()
    return result
