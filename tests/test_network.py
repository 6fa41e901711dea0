"""The network: its size, its shapes, its masks, and what a prediction may depend on."""

import dataclasses

import pytest
import torch
from torch import nn

from spp_scl.model.batches import Batch
from spp_scl.model.network import (
    BatchFusion,
    HierarchicalAttention,
    ImageBranch,
    ModelConfig,
    Modulated,
    SampleFusion,
    SppScl,
    TextBranch,
)
from spp_scl.train.training import count_parameters

WIDTH = 24


def make_batch(lengths, padding=0, width=WIDTH):
    """Random rows; `padding` more positions, filled with garbage as real padding is."""
    size = max([1, *lengths]) + padding
    mask = torch.arange(size) < torch.tensor(lengths)[:, None]
    n = len(lengths)
    maps = torch.randn(n, 49, 2048).relu()
    pictured = torch.ones(n, dtype=torch.bool)
    return Batch(torch.randn(n, size, 4, width), mask, torch.randn(n, 4, width), maps, pictured)


def make_model(fusion="sample", classes=3):
    model = SppScl(ModelConfig(classes, WIDTH, fusion, 0.2))
    # Running averages other than the initial ones, as after training.
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def take(batch, rows):
    return Batch(**{f.name: getattr(batch, f.name)[rows] for f in dataclasses.fields(batch)})


def test_the_published_number_of_parameters():
    assert count_parameters(SppScl(ModelConfig(3, 768, "batch", 0.2))) == 716_323


def test_per_sample_fusion_adds_only_its_two_token_projections():
    assert count_parameters(SppScl(ModelConfig(3, 768, "sample", 0.2))) == 716_323 + 2 * (128 * 32 + 32)


@pytest.mark.parametrize("fusion", ["sample", "batch"])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_output_shapes(fusion, classes):
    output = make_model(fusion, classes)(make_batch([3, 9, 1, 5]))
    shapes = {f.name: tuple(getattr(output, f.name).shape) for f in dataclasses.fields(output)}
    assert shapes == {"logits": (4, classes), "fused": (4, 64), "text": (4, 32), "image": (4, 32)}


def test_module_shapes():
    batch = make_batch([3, 9, 1])
    assert HierarchicalAttention()(batch.words, batch.cls).shape == (3, 9, WIDTH)
    text, words = TextBranch(WIDTH, 0.2)(batch.words, batch.word_mask, batch.cls)
    image, positions = ImageBranch(0.2)(batch.maps)
    assert (text.shape, words.shape) == ((3, 32), (3, 9, 128))
    assert (image.shape, positions.shape) == ((3, 32), (3, 49, 128))
    branches = make_model().branches(batch)
    for fusion in (SampleFusion(0.2), BatchFusion(0.2)):
        assert [stream.shape for stream in fusion(branches)] == [(3, 32), (3, 32)]


def test_hierarchical_attention_sums_the_layers_with_weights_from_their_cls_means():
    attention = HierarchicalAttention()
    words, cls = torch.randn(2, 5, 4, WIDTH), torch.randn(2, 4, WIDTH)
    first, second = attention.fc[0].weight, attention.fc[2].weight
    assert attention.fc[0].bias is None
    assert attention.fc[2].bias is None
    found = attention(words, cls)
    for b in range(2):
        means = torch.tensor([cls[b, layer].mean() for layer in range(4)])
        weights = torch.sigmoid(second @ torch.clamp(first @ means, min=0))
        for t in range(5):
            expected = sum(weights[layer] * words[b, t, layer] for layer in range(4))
            torch.testing.assert_close(found[b, t], expected)


@pytest.fixture(params=["like lengths", "one group"])
def grouping(request, monkeypatch):
    """Both ways in which the text branch may run: a CPU's, and a GPU's with all rows padded together."""
    if request.param == "one group":
        whole = lambda mask: [(slice(None), mask.shape[1])]  # noqa: E731
        monkeypatch.setattr("spp_scl.model.network.groups_by_length", whole)


LENGTHS = [7, 2, 4, 9, 1, 3, 8, 5, 6]


@pytest.mark.usefixtures("grouping")
def test_the_bilstm_reads_padded_texts_as_a_packed_one_would():
    branch = TextBranch(WIDTH, 0.0).eval()
    batch = make_batch(LENGTHS, padding=3)
    _, tokens = branch(batch.words, batch.word_mask, batch.cls)
    packed = nn.utils.rnn.pack_padded_sequence(
        branch.attention(batch.words, batch.cls),
        torch.tensor(LENGTHS),
        batch_first=True,
        enforce_sorted=False,
    )
    expected, _ = nn.utils.rnn.pad_packed_sequence(branch.lstm(packed)[0], batch_first=True, total_length=12)
    torch.testing.assert_close(tokens, expected)


@pytest.mark.parametrize("masked", [False, True])
def test_modulated_attention_is_the_equation(masked):
    attention = Modulated(0.0)
    tokens, other = torch.randn(1, 5, 32), torch.randn(1, 1, 32)
    mask = torch.tensor([[True, True, True, False, False]])
    found = attention(tokens, other, mask if masked else None)
    n = 3 if masked else 5
    for i in range(5):
        query = other[0, 0] * attention.query(tokens[0, i])
        scores = torch.stack(
            [query @ (other[0, 0] * attention.key(tokens[0, j])) / 32**0.5 for j in range(n)]
        )
        weights = scores.exp() / scores.exp().sum()
        expected = sum(weights[j] * attention.value(tokens[0, j]) for j in range(n))
        torch.testing.assert_close(found[0, i], expected)


def attend(queries, keys, values):
    """softmax(Q K^T / sqrt(32)) V, by its definition."""
    scores = (queries @ keys.T / 32**0.5).exp()
    return scores / scores.sum(dim=1, keepdim=True) @ values


def test_fusion_across_the_batch_is_the_two_formulas():
    model = make_model("batch")
    b, fusion = model.branches(make_batch(LENGTHS)), model.fusion
    image = attend(
        b.text * fusion.image.query(b.image), b.text * fusion.image.key(b.image), fusion.image.value(b.image)
    )
    text = attend(
        b.image * fusion.text.query(b.text), b.image * fusion.text.key(b.text), fusion.text.value(b.text)
    )
    for found, expected in zip(fusion(b), (text, image), strict=True):
        torch.testing.assert_close(found, expected)


def test_fusion_within_a_tweet_is_the_two_formulas_over_its_tokens():
    model = make_model("sample")
    b, fusion = model.branches(make_batch(LENGTHS)), model.fusion
    text_stream, image_stream = fusion(b)
    for i, length in enumerate(LENGTHS):
        words, regions = fusion.text_in(b.text_tokens[i, :length]), fusion.image_in(b.image_tokens[i])
        t, r, f = b.text[i], b.image[i], fusion
        text = attend(r * f.text.query(words), r * f.text.key(words), f.text.value(words))
        image = attend(t * f.image.query(regions), t * f.image.key(regions), f.image.value(regions))
        torch.testing.assert_close(text_stream[i], text.mean(dim=0))
        torch.testing.assert_close(image_stream[i], image.mean(dim=0))


@pytest.mark.parametrize("fusion", ["sample", "batch"])
def test_the_head_reads_both_streams_and_both_branches_in_order(fusion):
    model, batch = make_model(fusion), make_batch(LENGTHS)
    b = model.branches(batch)
    text_stream, image_stream = model.fusion(b)
    fused = model.classifier(torch.cat([text_stream, image_stream, b.image, b.text], dim=1))
    output = model(batch)
    torch.testing.assert_close(output.fused, fused)
    torch.testing.assert_close(output.logits, model.fc(fused))


@pytest.mark.usefixtures("grouping")
@pytest.mark.parametrize("fusion", ["sample", "batch"])
def test_padding_a_batch_changes_no_output(fusion):
    model, batch = make_model(fusion), make_batch(LENGTHS)
    padded = dataclasses.replace(
        batch,
        words=torch.cat([batch.words, 100 * torch.randn(9, 8, 4, WIDTH)], dim=1),
        word_mask=torch.cat([batch.word_mask, torch.zeros(9, 8, dtype=torch.bool)], dim=1),
    )
    for name in ("logits", "fused", "text", "image"):
        torch.testing.assert_close(getattr(model(padded), name), getattr(model(batch), name))


@pytest.mark.usefixtures("grouping")
def test_padding_changes_nothing_in_training_either():
    batch = make_batch(LENGTHS)
    padded = dataclasses.replace(
        batch,
        words=torch.cat([batch.words, torch.randn(9, 5, 4, WIDTH)], dim=1),
        word_mask=torch.cat([batch.word_mask, torch.zeros(9, 5, dtype=torch.bool)], dim=1),
    )
    model = SppScl(ModelConfig(3, WIDTH, "sample", 0.0)).train()
    torch.testing.assert_close(model(padded).logits, model(batch).logits)


def test_per_sample_fusion_makes_no_prediction_depend_on_its_batch():
    model, batch = make_model("sample"), make_batch([3, 9, 1, 5, 7, 2])
    whole = model(batch).logits
    alone = torch.cat([model(take(batch, [i])).logits for i in range(6)])
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    torch.testing.assert_close(alone, whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model(take(batch, order)).logits, whole[order], rtol=1e-5, atol=1e-6)


def test_batch_fusion_does_couple_a_prediction_to_its_batch():
    model, batch = make_model("batch"), make_batch([3, 9, 1, 5, 7, 2])
    assert not torch.allclose(model(take(batch, [0])).logits, model(batch).logits[:1], atol=1e-4)


@pytest.mark.parametrize("fusion", ["sample", "batch"])
def test_a_blank_text_and_a_blank_picture_give_finite_outputs_and_gradients(fusion):
    model = make_model(fusion).train()
    batch = make_batch([0, 0, 4])
    batch.maps[1:] = 0
    batch.pictured[1:] = False
    output = model(batch)
    branches = model.branches(batch)
    assert (branches.text_tokens[:2] == 0).all()
    assert (output.text[:2] == 0).all()
    assert (branches.image_tokens[1:] == 0).all()
    assert (output.image[1:] == 0).all()
    output.logits.sum().backward()
    assert output.logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
