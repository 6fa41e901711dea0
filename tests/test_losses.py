"""The contrastive losses, against plain loops over the equation and against pytorch-metric-learning."""

import math

import pytest
import torch
from pytorch_metric_learning.losses import SupConLoss
from pytorch_metric_learning.reducers import AvgNonZeroReducer

from spp_scl.methods.shared.losses import inter_modal_loss, intra_modal_loss

BATCHES = {
    "mixed": [0, 1, 2, 0, 1, 2, 0, 0],
    "one class": [1, 1, 1, 1, 1],
    "no positives": [0, 1, 2, 3],
    "some anchors without a positive": [0, 0, 1, 2],
    "two samples": [1, 1],
    "one sample": [2],
}


def unit(vector):
    norm = math.sqrt(sum(x * x for x in vector))
    return [x / norm for x in vector]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def plain_loss(anchors, others, labels, temperature, leave_self_out):
    """L_out of Khosla et al., eq. 2, term by term."""
    anchors, others = [unit(v) for v in anchors], [unit(v) for v in others]
    total = 0.0
    for i, anchor in enumerate(anchors):
        candidates = [a for a in range(len(others)) if not (leave_self_out and a == i)]
        positives = [p for p in candidates if labels[p] == labels[i]]
        if positives:
            denominator = sum(math.exp(dot(anchor, others[a]) / temperature) for a in candidates)
            terms = [
                math.log(math.exp(dot(anchor, others[p]) / temperature) / denominator) for p in positives
            ]
            total -= sum(terms) / len(positives)
    return total / len(anchors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("labels", BATCHES.values(), ids=BATCHES)
def test_intra_modal_loss_is_the_equation(labels, temperature, dtype):
    z = torch.randn(len(labels), 32, dtype=dtype)
    expected = plain_loss(z.tolist(), z.tolist(), labels, temperature, leave_self_out=True)
    loss = intra_modal_loss(z, torch.tensor(labels), temperature)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(expected, rel=1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("labels", BATCHES.values(), ids=BATCHES)
def test_inter_modal_loss_is_the_equation_over_all_texts(labels, temperature):
    image = torch.randn(len(labels), 32, dtype=torch.float64)
    text = torch.randn(len(labels), 32, dtype=torch.float64)
    expected = plain_loss(image.tolist(), text.tolist(), labels, temperature, leave_self_out=False)
    loss = inter_modal_loss(image, text, torch.tensor(labels), temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


# Theirs gives 0 for a batch of one class, and leaves anchors without a positive out of the mean; so these
# batches, which the equation decides, are compared with the plain loops above alone.
@pytest.mark.parametrize("labels", [BATCHES["mixed"], [3, 3, 0, 0, 0]])
def test_intra_modal_loss_agrees_with_pytorch_metric_learning(labels):
    z, labels = torch.randn(len(labels), 32), torch.tensor(labels)
    theirs = SupConLoss(temperature=0.07, reducer=AvgNonZeroReducer())
    assert intra_modal_loss(z, labels, 0.07).item() == pytest.approx(theirs(z, labels).item(), rel=1e-5)


@pytest.mark.parametrize("labels", [BATCHES["mixed"], BATCHES["no positives"]])
def test_inter_modal_loss_agrees_with_pytorch_metric_learning(labels):
    image, text, labels = torch.randn(len(labels), 32), torch.randn(len(labels), 32), torch.tensor(labels)
    theirs = SupConLoss(temperature=0.07, reducer=AvgNonZeroReducer())
    # A copy of the labels, or theirs takes the two sets for one and leaves each own text out.
    expected = theirs(image, labels, ref_emb=text, ref_labels=labels.clone()).item()
    assert inter_modal_loss(image, text, labels, 0.07).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("labels", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("scale", [1.0, 0.0, 1e4], ids=["usual", "all zero", "huge"])
def test_losses_and_their_gradients_are_finite(labels, scale):
    image = (scale * torch.randn(len(labels), 32)).requires_grad_()
    text = (scale * torch.randn(len(labels), 32)).requires_grad_()
    labels = torch.tensor(labels)
    loss = intra_modal_loss(image, labels, 0.07) + inter_modal_loss(image, text, labels, 0.07)
    loss.backward()
    assert loss.isfinite()
    assert image.grad.isfinite().all()
    assert text.grad.isfinite().all()


def test_an_anchor_without_a_positive_counts_zero_in_the_mean_over_all():
    z = torch.randn(3, 32)
    pair = plain_loss(z.tolist(), z.tolist(), [0, 0, 1], 0.07, leave_self_out=True)
    assert intra_modal_loss(z, torch.tensor([0, 0, 1]), 0.07).item() == pytest.approx(pair, rel=1e-5)
    assert intra_modal_loss(z, torch.tensor([0, 1, 2]), 0.07).item() == 0
