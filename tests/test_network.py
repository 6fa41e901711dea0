"""The network: its size, its shapes, its masks, and what a prediction may depend on."""

import dataclasses

import pytest
import torch
from torch import nn

from benchmarks import straightforward
from spp_scl.batches.batch import Batch, Text
from spp_scl.batches.packing import pack
from spp_scl.features.store import read_images, read_texts
from spp_scl.methods.shared.bilstm import bilstm
from spp_scl.methods.shared.fusion import BatchFusion, Modulated, SampleFusion
from spp_scl.methods.shared.method import count_parameters
from spp_scl.methods.spp_scl import HierarchicalAttention, ImageBranch, TextBranch
from tests.recipes import make_network, make_settings, make_sizes, sizes_of, widen

WIDTH = 24


def batch_of(lengths, words, cls, maps, has_image=None):
    """A batch of the given features, the longest text first."""
    n, lengths = len(lengths), torch.as_tensor(lengths)
    text = Text(words, cls)
    return Batch(
        order=torch.arange(n),
        labels=torch.zeros(n, dtype=torch.int64),
        packing=pack(lengths, torch.device("cpu")),
        has_text=lengths > 0,
        has_image=torch.ones(n, dtype=torch.bool) if has_image is None else has_image,
        text=lambda: text,
        image=lambda: maps,
        pieces=lambda: pytest.fail("SPP-SCL reads no word pieces"),
        view=lambda name: pytest.fail("SPP-SCL reads no second views"),
    )


def make_batch(lengths, width=WIDTH):
    """Random rows, the longest text first."""
    n = len(lengths)
    maps = torch.randn(n, 49, 2048).relu()
    return batch_of(lengths, torch.randn(sum(lengths), 4, width), torch.randn(n, 4, width), maps)


def make_model(fusion="sample", classes=3):
    model = make_network(make_sizes(classes, WIDTH), fusion=fusion)
    # Running averages other than the initial ones, as after training.
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def take(batch, rows):
    """A batch of some rows, which must be in the order of their lengths and have pictures."""
    read = batch.text()
    own = [read.words[batch.packing.text == row] for row in rows]
    packing = pack(batch.packing.lengths[rows], torch.device("cpu"))
    words = torch.stack([own[i][t] for i, t in zip(packing.text, packing.time, strict=True)])
    return batch_of(packing.lengths, words, read.cls[rows], batch.image()[rows])


def test_the_published_number_of_parameters():
    assert count_parameters(make_network(make_sizes(), fusion="batch")) == 716_323


def test_per_sample_fusion_adds_only_its_two_token_projections():
    assert count_parameters(make_network(make_sizes(), fusion="sample")) == 716_323 + 2 * (128 * 32 + 32)


@pytest.mark.parametrize("fusion", ["sample", "batch"])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_output_shapes(fusion, classes):
    output = make_model(fusion, classes)(make_batch([9, 5, 3, 1]))
    shapes = {name: tuple(t.shape) for name, t in {"logits": output.logits, **output.vectors}.items()}
    assert shapes == {"logits": (4, classes), "fused": (4, 64), "text": (4, 32), "image": (4, 32)}


def test_module_shapes():
    batch = make_batch([9, 3, 1])
    read = batch.text()
    assert HierarchicalAttention(4)(read.words, read.cls, batch.packing).shape == (13, WIDTH)
    branch = TextBranch(make_settings(), make_sizes(width=WIDTH))
    text, words = branch(read.words, read.cls, batch.packing)
    image, positions = ImageBranch(0.2, 2048)(batch.image(), batch.has_image)
    assert (text.shape, words.shape) == ((3, 32), (13, 128))
    assert (image.shape, positions.shape) == ((3, 32), (3, 49, 128))
    branches = make_model().branches(batch)
    for fusion in (SampleFusion(0.2), BatchFusion(0.2)):
        assert [stream.shape for stream in fusion(branches)] == [(3, 32), (3, 32)]


def test_hierarchical_attention_sums_the_layers_with_weights_from_their_cls_means():
    attention = HierarchicalAttention(4)
    batch = make_batch([5, 3])
    read = batch.text()
    first, second = attention.fc[0].weight, attention.fc[2].weight
    assert attention.fc[0].bias is None
    assert attention.fc[2].bias is None
    found = attention(read.words, read.cls, batch.packing)
    for w, b in enumerate(batch.packing.text):
        means = torch.tensor([read.cls[b, layer].mean() for layer in range(4)])
        weights = torch.sigmoid(second @ torch.clamp(first @ means, min=0))
        expected = sum(weights[layer] * read.words[w, layer] for layer in range(4))
        torch.testing.assert_close(found[w], expected)


LENGTHS = [9, 8, 7, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize("lengths", [LENGTHS, [4, 4, 4], [7], [3, 1, 0, 0], [1, 1]])
def test_the_bilstm_is_torchs_and_so_are_its_gradients(lengths):
    """Each text by itself through torch's own LSTM, in float64."""
    lstm = nn.LSTM(WIDTH, 16, bias=False, bidirectional=True).double()
    packing = pack(torch.tensor(lengths), torch.device("cpu"))
    words = torch.randn(sum(lengths), WIDTH, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(sum(lengths), 32, dtype=torch.float64)
    found = bilstm(lstm, words, packing)
    expected = torch.zeros_like(found)
    for text in range(len(lengths)):
        if lengths[text]:
            own = packing.text == text
            assert packing.time[own].tolist() == list(range(lengths[text]))
            expected[own] = lstm(words[own])[0]
    torch.testing.assert_close(found, expected)
    gradients = [
        torch.autograd.grad((out * weights).sum(), [words, *lstm.parameters()]) for out in (found, expected)
    ]
    torch.testing.assert_close(*gradients)


def test_a_batch_of_blank_texts_only_has_no_words():
    branch = TextBranch(make_settings(), make_sizes(width=WIDTH)).eval()
    batch = make_batch([0, 0])
    read = batch.text()
    text, words = branch(read.words, read.cls, batch.packing)
    assert (text.shape, words.shape) == ((2, 32), (0, 128))


def test_packed_words_are_padded_and_averaged_text_by_text():
    packing = pack(torch.tensor([3, 1, 0]), torch.device("cpu"))
    words = torch.tensor([[1.0], [10.0], [2.0], [6.0]])  # first words, then the second, then the third
    assert packing.padded(words)[:, :, 0].tolist() == [[1, 2, 6], [10, 0, 0], [0, 0, 0]]
    assert packing.mask().tolist() == [[True, True, True], [True, False, False], [False, False, False]]
    assert packing.mean(words)[:, 0].tolist() == [3, 10, 0]


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
    for i in range(len(LENGTHS)):
        words, regions = (
            fusion.text_in(b.text_tokens[b.packing.text == i]),
            fusion.image_in(b.image_tokens[i]),
        )
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
    torch.testing.assert_close(output.vectors["fused"], fused)
    torch.testing.assert_close(output.logits, model.fc(fused))


def test_per_sample_fusion_makes_no_prediction_depend_on_its_batch():
    model, batch = make_model("sample"), make_batch([9, 7, 5, 3, 2, 1])
    whole = model(batch).logits
    alone = torch.cat([model(take(batch, [i])).logits for i in range(6)])
    some = [1, 2, 5]
    torch.testing.assert_close(alone, whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model(take(batch, some)).logits, whole[some], rtol=1e-5, atol=1e-6)


def test_batch_fusion_does_couple_a_prediction_to_its_batch():
    model, batch = make_model("batch"), make_batch([9, 7, 5, 3, 2, 1])
    assert not torch.allclose(model(take(batch, [0])).logits, model(batch).logits[:1], atol=1e-4)


@pytest.mark.parametrize("fusion", ["sample", "batch"])
def test_a_blank_text_and_a_blank_picture_give_finite_outputs_and_gradients(fusion):
    model = make_model(fusion).train()
    batch = make_batch([4, 0, 0])
    batch.has_image[:2] = False
    maps = batch.image()[2:]
    batch = dataclasses.replace(batch, image=lambda: maps)
    output = model(batch)
    branches = model.branches(batch)
    assert len(branches.text_tokens) == 4
    assert (output.vectors["text"][1:] == 0).all()
    assert (branches.image_tokens[:2] == 0).all()
    assert (output.vectors["image"][:2] == 0).all()
    output.logits.sum().backward()
    assert output.logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("blank", [[0], [1, 3], [0, 1, 2, 3, 4]])
def test_a_blank_picture_is_a_map_of_zeros(blank):
    branch = ImageBranch(0.0, 2048).train()
    maps, has_image = torch.randn(5, 49, 2048).relu(), torch.ones(5, dtype=torch.bool)
    maps[blank] = 0
    full = branch(maps, has_image)
    has_image[blank] = False
    for one, other in zip(branch(maps[has_image], has_image), full, strict=True):
        torch.testing.assert_close(one, other)


def test_the_network_computes_what_its_straightforward_version_computes(sample, data):
    """Padded, with torch's LSTM: outputs and gradients, on the sample's real shapes, in float64."""
    model = make_network(sizes_of(data), dropout=0.0).double().train()
    rows = data.rows["train"][:12]
    batch = data.source.batch(rows)
    words, mask, cls, maps = straightforward.pad(
        read_images(sample.images), read_texts(sample.texts), rows[batch.order]
    )
    theirs = straightforward.forward(model, words.double(), mask, cls.double(), maps.double())
    ours = model(widen(batch))
    torch.testing.assert_close(ours.logits, theirs.logits)
    torch.testing.assert_close(ours.vectors, theirs.vectors)
    gradients = [torch.autograd.grad(o.logits.square().sum(), model.parameters()) for o in (ours, theirs)]
    torch.testing.assert_close(*gradients)
