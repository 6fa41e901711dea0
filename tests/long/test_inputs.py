"""Batches with the encoders in the loop: the cached features, and gradients where they are asked for."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from spp_scl.batches.batch import FeatureStore
from spp_scl.batches.inputs import InputStore
from spp_scl.encoders.image import load_image_encoder
from spp_scl.encoders.pictures import encode_images
from spp_scl.encoders.text import load_text_encoder
from spp_scl.encoders.texts import encode_texts
from spp_scl.errors import UserError
from spp_scl.features.encoder import EncoderInfo
from spp_scl.features.store import ImageInputs, TextInputs, read_images, read_texts
from spp_scl.methods.shared.prediction import predict
from spp_scl.training.training import train_batch
from tests.conftest import ENCODING
from tests.recipes import make_network, start

ROWS, POSITIONS, CPU = 10, 24, torch.device("cpu")


def load_both(texts):
    return nn.ModuleDict(
        {
            "text": load_text_encoder("untrained", ENCODING["seed"], texts, POSITIONS),
            "image": load_image_encoder("untrained", ENCODING["seed"]),
        }
    )


@pytest.fixture(scope="module", params=["masked", "kept"])
def stores(request, sample, tmp_path_factory):
    """The same few posts as features and as inputs; one has no text, one no picture, one neither.

    And one has a text that the tokenizer finds nothing in.
    """
    folder, padding = tmp_path_factory.mktemp("inputs"), request.param
    table = sample.table.head(ROWS).copy()
    table.loc[table.index[[2, 5]], "text"] = ""
    table.loc[table.index[3], "text"] = "\ue000"
    table.loc[table.index[[4, 5]], ["image", "picture"]] = None
    options = {**ENCODING, "precision": "fp32"}
    for content in ("features", "inputs"):
        encode_images(table, sample.raw, folder / f"{content}-image.h5", **options, content=content)
        encode_texts(
            table,
            folder / f"{content}-text.h5",
            **options,
            max_positions=POSITIONS,
            padding=padding,
            content=content,
        )
    labels = torch.arange(ROWS) % 3

    def make(kind, content):
        files = (folder / f"{content}-{name}.h5" for name in ("image", "text"))
        return kind(
            *(read(path) for read, path in zip((read_images, read_texts), files, strict=True)), labels, CPU
        )

    return SimpleNamespace(
        cached=make(FeatureStore, "features"),
        live=make(InputStore, "inputs"),
        texts=table["text"].tolist(),
    )


@pytest.fixture(scope="module")
def loaded(stores):
    return load_both(stores.texts)


@pytest.fixture
def encoders(stores, loaded):
    """In evaluation mode and not trained, in use by `stores.live`; tests may change them."""
    kept = copy.deepcopy(loaded.state_dict())
    stores.live.use(loaded.eval().requires_grad_(False), "fp32")
    yield loaded
    loaded.zero_grad()
    loaded.load_state_dict(kept)


@pytest.mark.parametrize("rows", [list(range(ROWS)), [7, 5, 0, 2], [5], [2, 5], [4], [2, 3], [3]])
def test_encoders_in_evaluation_mode_give_the_cached_features(stores, encoders, rows):
    rows = torch.tensor(rows)
    cached, live = stores.cached.batch(rows), stores.live.batch(rows)
    for name in ("order", "labels", "has_text", "has_image"):
        assert torch.equal(getattr(live, name), getattr(cached, name)), name
    assert live.packing.sizes == cached.packing.sizes
    # As the cache stores them, in float16.
    for found, expected in (
        (live.text().words, cached.text().words),
        (live.text().cls, cached.text().cls),
        (live.image(), cached.image()),
    ):
        assert found.dtype == torch.float32
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)
    blank = torch.isin(rows[live.order], torch.tensor([2, 5]))
    assert not live.text().cls[blank].any()
    assert len(live.image()) == int(live.has_image.sum())


def test_sizes_are_those_of_the_cached_features_but_for_the_vocabulary(stores, encoders):
    cached, live = (store.sizes(3).numbers() for store in (stores.cached, stores.live))
    assert {**cached, "vocabulary": [0, 0]} == live
    stores.live.use(nn.ModuleDict({"text": encoders["text"]}), "fp32")
    assert (stores.live.sizes(3).positions, stores.live.sizes(3).channels) == (0, 0)


def test_a_method_predicts_the_same_with_and_without_the_cache(stores, encoders):
    model = make_network(stores.cached.sizes(3)).eval()
    rows = torch.arange(ROWS)
    cached, live = (predict(model, store, rows, 4, 42) for store in (stores.cached, stores.live))
    torch.testing.assert_close(live.logits, cached.logits, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("trained", [False, True])
def test_gradients_reach_the_encoders_exactly_where_they_are_trained(stores, encoders, trained):
    encoders.train().requires_grad_(trained)
    batch = stores.live.batch(torch.arange(ROWS))
    for name, features in (("text", batch.text().words), ("image", batch.image())):
        assert features.requires_grad == trained
        if trained:
            features.square().sum().backward()
        reached = [p.grad is not None and p.grad.abs().sum() > 0 for p in encoders[name].parameters()]
        assert sum(reached) > len(reached) / 2 if trained else not any(reached)


def test_without_gradients_a_trained_encoder_keeps_none(stores, encoders):
    encoders.requires_grad_(True)
    batch = stores.live.batch(torch.arange(ROWS))
    with torch.inference_mode():
        assert not batch.text().words.requires_grad
        assert not batch.image().requires_grad


@pytest.mark.parametrize("trained", [False, True])
def test_a_step_moves_the_encoders_exactly_where_they_are_trained(stores, encoders, trained):
    model = make_network(stores.live.sizes(3), alpha=0.0)
    model.encoders = encoders.requires_grad_(trained)
    before = {name: p.clone() for name, p in encoders.named_parameters()}
    state = start(model)
    if trained:
        state.updates.optimizer.add_param_group({"params": list(encoders.parameters())})
    train_batch(state, stores.live.batch(torch.arange(ROWS)), last=True)
    moved = {
        name.split(".")[0] for name, p in encoders.named_parameters() if not torch.equal(p, before[name])
    }
    assert moved == ({"text", "image"} if trained else set())


def test_each_call_runs_the_encoder_anew_in_training_mode(stores, encoders):
    """As the released code, whose frozen encoders have dropout and move their running averages."""
    batch = stores.live.batch(torch.arange(ROWS))
    assert torch.equal(batch.text().words, batch.text().words)
    norm = next(m for m in encoders["image"].modules() if isinstance(m, nn.BatchNorm2d))
    still = norm.running_mean.clone()
    batch.image()
    assert torch.equal(norm.running_mean, still)
    encoders.train()
    assert not torch.equal(batch.text().words, batch.text().words)
    batch.image()
    assert not torch.equal(norm.running_mean, still)


class Ids(nn.Module):
    """Gives each position its token's id; its summary is the last one."""

    layers = width = 1

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, ids, mask):
        return ids[:, :, None, None].float()

    def summary(self, mask):
        return torch.full((len(mask),), -1)


@pytest.mark.parametrize("padding", ["masked", "kept"])
def test_words_of_texts_padded_on_the_left_are_where_the_cache_has_them(padding):
    texts = [[5, 6, 9, 2], [], [5, 6, 7, 8, 9, 2]]
    offsets = torch.tensor([0, *map(len, texts)]).cumsum(0)
    about = EncoderInfo(*[""] * 7, batch_size=0, code="")
    tokens = torch.tensor([token for text in texts for token in text], dtype=torch.int32)
    read = TextInputs(["a", "b", "c"], offsets, tokens, 0, 2, 1, 8, padding, "left", about, "")
    images = ImageInputs(
        read.ids, torch.full((3,), -1), torch.zeros(0, 3, 2, 2, dtype=torch.uint8), about, ""
    )
    store = InputStore(images, read, torch.zeros(3, dtype=torch.int64), CPU)
    store.use(nn.ModuleDict({"text": Ids()}), "fp32")
    batch = store.batch(torch.tensor([0, 1, 2]))
    text = batch.text()
    found = [text.words[batch.packing.text == i, 0, 0].tolist() for i in batch.order.argsort()]
    wanted = [[5, 6], [], [5, 6, 7, 8]]
    if padding == "kept":  # every position but the last two, which are special, is a word
        wanted = [[1, 1, 1, 1, 5, 6], [], [1, 1, 5, 6, 7, 8]]
    assert found == wanted
    assert text.cls[batch.order.argsort(), 0, 0].tolist() == [2, 0, 2]


def test_an_encoder_that_was_replaced_since_is_refused(stores, encoders):
    stores.live.require(encoders)
    with torch.no_grad():
        next(encoders["text"].parameters()).add_(1)
    with pytest.raises(UserError, match=r"text_features\.weights: not the encoder that prepared the inputs"):
        stores.live.require(encoders)
