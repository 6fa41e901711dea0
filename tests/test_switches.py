"""The released code's departures and the paper's ablations, each a parameter."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from spp_scl.encoders.text import load_text_encoder
from spp_scl.encoders.texts import encode_texts
from spp_scl.features.store import read_texts
from spp_scl.methods.shared.gate import gate
from spp_scl.methods.shared.losses import inter_modal_loss, intra_modal_loss
from spp_scl.training.training import train_batch
from tests.conftest import ENCODING
from tests.recipes import make_network, sizes_of, start, widen
from tests.small_bert import save_bert


def network(data, **changes):
    torch.manual_seed(0)
    return make_network(sizes_of(data), **{"dropout": 0.0, **changes})


def sixteen_rows(data):
    return data.source.batch(data.rows["train"][:16])


def one_batch(data, **changes):
    """The log of one batch, and how many optimizer steps it took."""
    state = start(network(data, **changes))
    taken = []
    state.updates.optimizer.register_step_post_hook(lambda *_: taken.append(1))
    return train_batch(state, sixteen_rows(data), last=True), len(taken)


def test_with_the_anchor_in_the_denominator_it_adds_exp_of_zero_to_the_others():
    torch.manual_seed(1)
    embeddings, labels = torch.randn(12, 32, dtype=torch.float64), torch.arange(12) % 3
    z = F.normalize(embeddings, dim=1)
    terms = []
    for i in range(12):
        exps = {a: torch.exp(z[i] @ z[a] / 0.07) for a in range(12) if a != i}
        positives = [p for p in exps if labels[p] == labels[i]]
        denominator = sum(exps.values()) + 1
        terms.append(-sum(torch.log(exps[p] / denominator) for p in positives) / len(positives))
    found = intra_modal_loss(embeddings, labels, 0.07, anchor_in_denominator=True)
    torch.testing.assert_close(found, torch.stack(terms).mean())
    assert found > intra_modal_loss(embeddings, labels, 0.07)


def test_the_float32_gate_decides_as_float32_sigmoids_do_and_the_exact_one_as_real_numbers_do():
    """Products around 20, whose sigmoids are all 1 in float32: there no pair is below the mean."""
    torch.manual_seed(2)
    text, image = torch.full((16, 32), 0.8), torch.rand(16, 32) * 0.1 + 0.8
    labels = torch.arange(16) % 2
    exact = gate(text, image, labels, 0.1)
    rounded = gate(text, image, labels, 0.1, "float32")
    assert exact.saturated == 1.0
    assert exact.count == rounded.count > 0
    assert not exact.step2
    assert rounded.step2
    assert exact.step2_float32
    assert rounded.step2_float32


def test_kept_padding_is_every_position_between_the_first_and_the_last(sample, tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "day"]
    folder = save_bert(tmp_path / "bert", words)
    table = sample.table.head(3).copy()
    table["text"] = ["a good day", "", "day " * 50]
    options = {**ENCODING, "weights": str(folder), "precision": "fp32", "max_positions": 20}
    encode_texts(table, tmp_path / "kept.h5", padding="kept", **options)
    encode_texts(table, tmp_path / "masked.h5", **options)
    kept, masked = read_texts(tmp_path / "kept.h5"), read_texts(tmp_path / "masked.h5")
    assert kept.offsets.diff().tolist() == [18, 0, 18]
    assert masked.offsets.diff().tolist() == [3, 0, 18]
    assert kept.encoder.fingerprint != masked.encoder.fingerprint
    encoder = load_text_encoder(str(folder), 0, [], 20)
    ids = torch.zeros(1, 20, dtype=torch.long)
    ids[0, :5] = torch.tensor(encoder.tokenize(["a good day"])[0])
    with torch.no_grad():
        states = encoder(ids, (torch.arange(20) < 5).long()[None])[0]  # (20, 4, D)
    torch.testing.assert_close(kept.words[:18].float(), states[1:19], rtol=2e-3, atol=2e-3)
    # [SEP] and padding have vectors of their own, and the words are what they are without them.
    assert kept.words[3:18].float().abs().sum(dim=(1, 2)).min() > 1
    torch.testing.assert_close(kept.words[:3], masked.words[:3], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("step2", "alpha", "steps", "ran"),
    [("gated", 0.0, 1, False), ("gated", 1e9, 2, True), ("always", 0.0, 2, True)],
)
def test_step_2_runs_as_the_gate_says_or_always(data, step2, alpha, steps, ran):
    found, taken = one_batch(data, alpha=alpha, step2=step2)
    assert taken == steps
    assert found["step2"] == ran == ("L_clm" in found)


def adamw(model, moments, loss, zeros):
    """AdamW written out (lr 1e-3, weight decay 0.1); `zeros`: for the parameters without a gradient too."""
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, parameters.values(), allow_unused=True)
    for (name, p), gradient in zip(parameters.items(), gradients, strict=True):
        if gradient is None and not zeros:
            continue
        gradient = torch.zeros_like(p) if gradient is None else gradient
        first, second, step = moments.get(name, (torch.zeros_like(p), torch.zeros_like(p), 0))
        first, second, step = first * 0.9 + gradient * 0.1, second * 0.999 + gradient**2 * 0.001, step + 1
        moments[name] = first, second, step
        corrected = (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        with torch.no_grad():
            p.copy_(p * (1 - 1e-3 * 0.1) - 1e-3 * corrected)


@pytest.mark.parametrize("forward", ["branches", "whole"])
@pytest.mark.parametrize("zero_grad", ["none", "zeros"])
def test_what_step_2_does_to_the_head_is_a_choice(data, forward, zero_grad):
    """By the whole forward pass its batch normalization moves; by gradients of zero its weights do."""
    changes = {"step2": "always", "step2_forward": forward, "zero_grad": zero_grad, "weight_decay": 0.1}
    ours, theirs = (network(data, **changes).double().train() for _ in range(2))
    batch = widen(sixteen_rows(data))
    state, labels = start(ours), batch.labels
    train_batch(state, batch, last=True)

    output, moments = theirs(batch), {}
    loss = 5 * F.cross_entropy(output.logits, labels)
    for name in ("text", "image"):
        loss = loss + intra_modal_loss(output.vectors[name], labels, 0.07)
    adamw(theirs, moments, loss, zeros=False)
    after_step_1 = theirs.fc.weight.clone()
    again = theirs(batch).vectors if forward == "whole" else vars(theirs.branches(batch))
    loss = inter_modal_loss(again["image"], again["text"], labels, 0.07)
    adamw(theirs, moments, loss, zero_grad == "zeros")

    for (name, found), wanted in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9, msg=name)
    head = {"fc.weight", "classifier.0.weight", "fusion.text.query.0.weight", "fusion.image.value.0.weight"}
    steps = {name: int(state.updates.optimizer.state[p]["step"]) for name, p in ours.named_parameters()}
    assert {steps[name] for name in head} == ({2} if zero_grad == "zeros" else {1})
    assert steps["text_branch.align.0.weight"] == 2
    assert (ours.fc.weight - after_step_1).abs().max() > 1e-4 or zero_grad == "none"


def test_the_running_variance_of_the_head_moves_twice_a_batch_with_the_whole_forward_pass(data):
    """Without learning both passes see the same: 1 - 0.9 ** 2 of the way instead of 0.1."""
    batch = widen(sixteen_rows(data))
    moved = {}
    for forward in ("branches", "whole"):
        model = network(data, alpha=0.0, step2_forward=forward).double().train()
        state = start(model)
        state.updates.optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        train_batch(state, batch, last=True)
        moved[forward] = model.classifier[1].running_var - 1
        assert model.image_branch.norm.num_batches_tracked == 2
    torch.testing.assert_close(moved["whole"], moved["branches"] * (1 - 0.9**2) / 0.1)
    assert moved["branches"].abs().max() > 0.01


def test_the_anchors_of_the_inter_modal_loss_are_the_images_or_as_released_the_texts(data):
    batch = sixteen_rows(data)
    output = network(data).train()(batch)
    text, image = output.vectors["text"].detach(), output.vectors["image"].detach()
    found = [one_batch(data, step2="merged", anchors=a)[0]["L_clm"] for a in ("image", "text")]
    torch.testing.assert_close(found[0], inter_modal_loss(image, text, batch.labels, 0.07))
    torch.testing.assert_close(found[1], inter_modal_loss(text, image, batch.labels, 0.07))
    assert found[0] != found[1]


def test_without_step_2_there_is_no_gate_and_no_inter_modal_loss(data):
    losses, taken = one_batch(data, alpha=1e9, step2="never")
    assert taken == 1
    # Of a gate there would be a log.
    assert losses.keys() == {"loss", "L_ce", "L_clt", "L_cli"}


def test_one_step_minimizes_all_losses_at_once(data):
    losses, taken = one_batch(data, step2="merged")
    assert taken == 1
    assert losses.keys() == {"loss", "L_ce", "L_clt", "L_cli", "L_clm"}
    total = 5 * losses["L_ce"] + losses["L_clt"] + losses["L_cli"] + losses["L_clm"]
    torch.testing.assert_close(losses["loss"], total)


def test_without_the_intra_modal_losses_step_1_is_the_cross_entropy(data):
    losses, _ = one_batch(data, step2="never", intra_modal=False)
    assert losses.keys() == {"loss", "L_ce"}
    torch.testing.assert_close(losses["loss"], 5 * losses["L_ce"])


def test_the_last_layer_alone_reads_no_other_and_no_cls(data):
    model = network(data, layers="last").eval()
    batch = data.source.batch(data.rows["test"])
    before = model(batch).logits
    read = batch.text()
    read.words[:, :-1] = 7
    read.cls[:] = 7
    assert torch.equal(model(batch).logits, before)
    read.words[:, -1] = 7
    assert not torch.equal(model(batch).logits, before)


def test_without_fusion_the_head_reads_both_branches_and_no_more(data):
    model = network(data, fusion="none").eval()
    batch = data.source.batch(data.rows["test"])
    branches = model.branches(batch)
    fused = model.classifier(torch.cat([branches.image, branches.text], dim=1))
    assert torch.equal(model(batch).logits, model.fc(fused))
    assert not list(model.fusion.parameters())


@pytest.mark.parametrize("modality", ["text", "image"])
def test_one_modality_alone_reads_nothing_of_the_other_and_learns_in_one_step(data, modality):
    losses, taken = one_batch(data, modalities=modality, alpha=1e9)
    assert taken == 1
    assert losses.keys() == {"loss", "L_ce", {"text": "L_clt", "image": "L_cli"}[modality]}
    model = network(data, modalities=modality).eval()
    batch = data.source.batch(data.rows["test"])
    output = model(batch)
    # Nor does it ask for the other.
    absent = {"text": "image", "image": "text"}[modality]
    alone = dataclasses.replace(batch, **{absent: lambda: pytest.fail(f"{absent} is read")})
    assert torch.equal(model(alone).logits, output.logits)
    assert output.vectors[absent].shape == (len(batch.order), 32)
    assert not output.vectors[absent].any()
