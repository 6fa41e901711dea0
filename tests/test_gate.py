"""The gate, against its definition in exact decimal arithmetic."""

import math
from decimal import Decimal, localcontext

import pytest
import torch

from spp_scl.methods.shared.gate import describe_gate, gate, summarize_gates


def exact_gate(products, labels):
    """count and P by their definition, with 400 digits: no sigmoid is 1 there."""
    with localcontext() as context:
        context.prec = 400
        s = [[1 / (1 + (-Decimal(x)).exp()) for x in row] for row in products.tolist()]
        m = sum(s[i][i] for i in range(len(s))) / len(s)
        count = sum(value < m for row in s for value in row)
    positives = sum(a == b for a in labels for b in labels)
    return count, positives


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("labels", [[0, 1, 2, 0, 1, 2, 0, 0], [1] * 6, [0, 1, 2], [1]])
def test_count_and_p_are_those_of_the_definition(labels, scale):
    text, image = (scale * torch.rand(len(labels), 32) for _ in range(2))
    count, positives = exact_gate(text @ image.T, labels)
    found = gate(text, image, torch.tensor(labels), alpha=0.5)
    assert (found.count, found.positives) == (count, positives)


def test_no_ties_appear_where_a_float32_sigmoid_is_exactly_one():
    text, image = (3 * torch.rand(16, 32) for _ in range(2))
    products = text @ image.T
    assert (products.sigmoid() == 1).all()
    found = gate(text, image, torch.zeros(16, dtype=torch.long), alpha=0.5)
    assert found.saturated == 1
    assert found.count == exact_gate(products, [0] * 16)[0] > 0
    # The released comparison finds no pair below m there, and step 2 runs whatever alpha is.
    assert found.step2_float32
    assert not gate(text, image, torch.zeros(16, dtype=torch.long), alpha=found.count / 256 / 2).step2


@pytest.mark.parametrize("alpha", [0.0, 0.3, 2 / 3, 1.0, 5.0])
def test_step_2_runs_exactly_when_count_is_below_floor_of_alpha_p(alpha):
    for seed in range(20):
        torch.manual_seed(seed)
        text, image, labels = torch.rand(12, 32), torch.rand(12, 32), torch.randint(0, 3, (12,))
        count, positives = exact_gate(text @ image.T, labels.tolist())
        found = gate(text, image, labels, alpha)
        assert found.step2 == (not count >= math.floor(alpha * positives))
        assert found.alpha_from == pytest.approx((count + 1) / positives)
        for comparison in ("exact", "float32"):
            start = gate(text, image, labels, alpha, comparison).alpha_from
            alphas = (math.nextafter(start, 0), start)
            assert [gate(text, image, labels, a, comparison).step2 for a in alphas] == [False, True]


def test_equal_pairs_are_not_below_their_mean():
    text, image = torch.full((7, 32), 0.3), torch.full((7, 32), 0.9)
    assert gate(text, image, torch.zeros(7, dtype=torch.long), alpha=1).count == 0


def test_a_gate_that_never_or_always_opens_says_that_alpha_made_no_difference():
    summary = {
        "count_over_p": 0.5,
        "saturated_share": 0.9,
        "step2_share_float32": 0.0001,
        "alpha_mattered": False,
        "alpha_bound": 0.43214,
    }
    always, never = (describe_gate({**summary, "step2_share": share})[0] for share in (1.0, 0.0))
    # 0.43214 lies between the two.
    assert "in every batch of the whole run: every alpha from 0.4322 on gives this same model" in always
    assert "in no batch of the whole run: every alpha below 0.4321 gives this same model" in never
    mattered = {**summary, "alpha_mattered": True, "alpha_bound": None, "step2_share": 0.25}
    assert describe_gate(mattered) == [
        "Step 2 ran in 25.0% of the batches.",
        "90.0% of all pairs have a float32 sigmoid of exactly 1; compared there, step 2 would have run in "
        "less than 0.1% of the batches.",
    ]
    assert "whatever alpha is" in describe_gate({**summary, "alpha_bound": None, "step2_share": 1.0})[0]


def row(step2, count_over_p, alpha_from):
    return {
        "loss": 1.0,
        "step2": step2,
        "step2_float32": 1,
        "count_over_p": count_over_p,
        "saturated_share": 0.5,
        "alpha_from": alpha_from,
    }


def test_a_summary_is_the_mean_over_the_batches_that_had_a_gate():
    rows = [row(1, 0.2, 0.3), {"loss": 1.0}, row(0, 0.6, 0.7)]
    assert summarize_gates(rows) == {
        "step2_share": 0.5,
        "step2_share_float32": 1.0,
        "count_over_p": pytest.approx(0.4),
        "saturated_share": 0.5,
        "alpha_mattered": True,
        "alpha_bound": None,
    }
    assert summarize_gates([row(1, 0.2, 0.3), row(1, 0.6, 0.7)])["alpha_bound"] == 0.7
    assert summarize_gates([row(0, 0.2, 0.3), row(0, 0.6, 0.7)])["alpha_bound"] == 0.3


def test_where_alpha_does_not_decide_there_is_no_bound():
    """A log keeps no value that is None."""
    rows = [{name: value for name, value in row(1, 0.2, None).items() if value is not None}] * 2
    for each in (rows, [row(1, 0.2, None)]):
        summary = summarize_gates(each)
        assert (summary["step2_share"], summary["alpha_mattered"], summary["alpha_bound"]) == (1, False, None)


def test_without_a_gate_step_2_ran_in_no_batch():
    summary = summarize_gates([{"loss": 1.0}])
    assert summary["step2_share"] == 0.0
    assert {summary[name] for name in ("step2_share_float32", "count_over_p", "alpha_bound")} == {None}
    assert describe_gate(summary) == ["There was no gate: step 2 was not to run, whatever alpha is."]
