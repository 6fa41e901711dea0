"""Every method keeps the contract's promises."""

import re
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from spp_scl.batches.batch import FeatureStore, Sizes
from spp_scl.errors import UserError
from spp_scl.features.store import read_images, read_texts
from spp_scl.methods import check_settings, list_methods, load_method, require_reads
from spp_scl.methods.shared.method import count_parameters
from spp_scl.methods.shared.prediction import predict
from spp_scl.params import load_params
from spp_scl.recipe import choose_recipe
from spp_scl.training.recipe import TrainingRecipe, make_method
from spp_scl.training.state import TrainingState
from spp_scl.training.training import train_batch
from tests.pipeline import ROOT

METHODS = list_methods()
COMMITTED = load_params(ROOT / "params.yaml")
# Networks of millions of values, in a size that a test can train.
SMALL = {"clmlf": {"width": 32, "heads": 4, "fusion_layers": 2, "image_layers": 1}}

# What a Transformer needs to learn a batch by heart: small steps, and no contrasts that pull elsewhere.
HEART = {"clmlf": {"learning_rate": 0.001, "lbcl_weight": 0.0, "dbcl_weight": 0.0}}


def recipe(method, **changes):
    section = {**COMMITTED.methods[method], **SMALL.get(method, {}), **changes}
    params = COMMITTED.model_copy(update={"method": method, "methods": {method: section}})
    settings = check_settings(method, choose_recipe(params)["settings"])
    return TrainingRecipe(method, settings, "frozen", {}, None)


def without_dropout(method):
    return {key: 0.0 for key in COMMITTED.methods[method] if key.endswith("dropout")}


def variants():
    """Every method, and each of its choices that a parameter names."""
    found = [pytest.param(name, {}, id=name) for name in METHODS]
    others = {
        "bilstm": [{"pool": "mean"}, {"embedding": "static"}],
        "clmlf": [
            {"first_view": "drawn", "lbcl_mean": "pairs"},
            {"tokens": "view", "outputs": "three"},
        ],
        "cnn": [{"embedding": "static"}],
        "concat": [{"text": "cls"}],
    }
    for name, each in others.items():
        found += [pytest.param(name, c, id=f"{name}-{'-'.join(c.values())}") for c in each]
    return found


@pytest.fixture(scope="module")
def blanks(sample, data):
    """The sample's rows; the first three training ones lack the text, the picture, and both."""
    images, texts = read_images(sample.images), read_texts(sample.texts)
    first, second, third = data.rows["train"][:3].tolist()
    index = images.index.clone()
    index[[second, third]] = -1
    textless = torch.tensor([first, third])
    cut = texts.offsets[textless], texts.offsets[textless + 1]
    kept = torch.ones(len(texts.pieces), dtype=torch.bool)
    for begin, end in zip(*cut, strict=True):
        kept[begin:end] = False
    lengths = texts.offsets.diff()
    lengths[textless] = 0
    cls = texts.cls.clone()
    cls[textless] = 0
    texts = replace(
        texts,
        words=texts.words[kept],
        pieces=texts.pieces[kept],
        cls=cls,
        offsets=torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
    )
    store = FeatureStore(replace(images, index=index), texts, data.labels, torch.device("cpu"))
    store.views = data.source.views
    return store


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_what_it_is_and_its_committed_parameters_are_taken(name):
    method = load_method(name)
    assert method.network.title
    assert method.network.paper
    assert method.network.reads.text or method.network.reads.image
    assert (ROOT / f"spp_scl/methods/{name}.py").read_text().startswith('"""')
    assert recipe(name).settings.model_dump().keys() == COMMITTED.methods[name].keys() - {
        "views",
        "published",
    }
    assert method.network.reads.views == ("views" in COMMITTED.methods[name])
    with pytest.raises(UserError, match=rf"{name}\.batch_siz: unknown key"):
        recipe(name, batch_siz=3)


@pytest.mark.parametrize("name", METHODS)
def test_no_method_imports_another(name):
    source = (ROOT / f"spp_scl/methods/{name}.py").read_text()
    assert set(re.findall(r"spp_scl\.methods\.(\w+)", source)) == {"shared"}


@pytest.mark.parametrize(("name", "changes"), variants())
def test_padding_and_what_shares_a_batch_change_no_prediction(data, name, changes):
    model = make_method(recipe(name, **changes), data, seed=1)
    assert not model.couples_batch
    rows = torch.arange(len(data.labels))
    whole = predict(model, data.source, rows, len(rows), seed=1)
    for size in (1, 7):
        parts = predict(model, data.source, rows, size, seed=1, order=torch.randperm(len(rows)))
        for name, expected in {"logits": whole.logits, **whole.vectors}.items():
            found = parts.logits if name == "logits" else parts.vectors[name]
            # Against the largest value: a sum of thousands rounds as they do, however small it is.
            assert (found - expected).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1), name
    assert whole.vectors.keys() == model.spaces.keys()


@pytest.mark.parametrize(("name", "changes"), variants())
def test_a_batch_is_learned_by_heart(data, name, changes):
    # Features of an untrained encoder differ little from post to post, so a linear layer takes large steps.
    settings = {"learning_rate": 0.01, "weight_decay": 0.0, **without_dropout(name), **HEART.get(name, {})}
    state = TrainingState.start(recipe(name, **settings, **changes), data, seed=1)
    state.model.train()
    batch = data.source.batch(data.rows["train"][:16])
    losses = []
    for _ in range(400):
        train_batch(state, batch, last=True)
        state.model.eval()
        with torch.inference_mode():
            losses.append(torch.nn.functional.cross_entropy(state.model(batch).logits, batch.labels).item())
        state.model.train()
        if losses[-1] < 0.1 * losses[0]:
            break
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize(("name", "changes"), variants())
def test_equal_seeds_train_to_equal_bytes(data, name, changes):
    def train_shortly(seed):
        state = TrainingState.start(recipe(name, **changes), data, seed)
        state.model.train()
        for rows in data.rows["train"].split(16)[:2]:
            train_batch(state, data.source.batch(rows), last=False)
        return safetensors.torch.save(state.model.state_dict())

    assert train_shortly(1) == train_shortly(1) != train_shortly(2)


@pytest.mark.parametrize(("name", "changes"), variants())
def test_blank_texts_and_pictures_train_and_predict_finite_numbers(data, blanks, name, changes):
    blank = replace(data, source=blanks)
    state = TrainingState.start(recipe(name, **changes), blank, seed=1)
    # Mixed with whole posts, and alone: no word and no picture in the whole batch.
    train = data.rows["train"][:16]
    for rows in (train, train[[2, 2]]):
        state.model.train()
        logged = train_batch(state, blanks.batch(rows), last=True)
        assert logged["loss"].isfinite()
    assert all(p.isfinite().all() for p in state.model.parameters())
    output = predict(state.model, blanks, train, 16, seed=1)
    assert output.logits.isfinite().all()
    for space, vectors in output.vectors.items():
        assert vectors.isfinite().all()
        if space in ("text", "image"):
            lacking = [0, 2] if space == "text" else [1, 2]
            assert (vectors[lacking] == 0).all(), space


BERT_AND_RESNET = Sizes(3, 4, 768, 49, 2048, torch.zeros(50, 768))
TABLE = 50 * 768


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("bert", {}, 768 * 3 + 3),
        ("resnet", {}, 2048 * 3 + 3),
        ("concat", {}, (768 + 2048) * 512 + 512 + 512 * 3 + 3),
        # 0.92 M beside the vectors of the word pieces.
        ("cnn", {"embedding": "static"}, 922_803),
        ("cnn", {}, 922_803 + TABLE),
        # The projection; two directions of four gates, each with two biases; w; the classifier.
        ("bilstm", {"embedding": "static"}, 768 * 100 + 100 + 2 * 400 * (100 + 100 + 2) + 100 + 303),
        ("bilstm", {"embedding": "static", "pool": "mean"}, 153_800 + 937_984 + 512 * 256 + 256 + 771),
        ("spp_scl", {"fusion": "batch"}, 716_323),
        # A layer; both projections; the score; the classifier.
        (
            "clmlf",
            {"width": 768, "heads": 12, "fusion_layers": 3, "image_layers": 2, "text_layer": True},
            5 * 7_087_872 + 769 * 768 + 2049 * 768 + (769 * 384 + 385) + (769 * 384 + 385 * 3),
        ),
    ],
)
def test_a_network_has_as_many_parameters_as_its_paper_makes_of_these_sizes(name, changes, expected):
    model = load_method(name).network(recipe(name, **changes).settings, BERT_AND_RESNET)
    assert count_parameters(model) == expected


def test_a_method_of_word_pieces_takes_no_encoder_in_the_loop():
    for name in METHODS:
        if load_method(name).network.reads.encoders:
            require_reads(name, "finetuned")
        else:
            with pytest.raises(UserError, match=f"the method {name} reads (word pieces|no encoder)"):
                require_reads(name, "finetuned")


def test_static_vectors_of_word_pieces_stay_and_trained_ones_move(data):
    for name in ("bilstm", "cnn"):
        for embedding in ("static", "trained"):
            state = TrainingState.start(recipe(name, embedding=embedding), data, seed=1)
            before = state.model.words.weight.clone()
            state.model.train()
            train_batch(state, data.source.batch(data.rows["train"][:16]), last=True)
            assert torch.equal(before, state.model.words.weight) == (embedding == "static")


@torch.inference_mode()
def test_the_cnn_is_the_papers_text_by_text(data):
    model = make_method(recipe("cnn"), data, seed=1).eval()
    for row in torch.arange(8):
        batch = data.source.batch(row[None])
        words = torch.nn.functional.pad(
            model.words(batch.pieces()), (0, 0, 0, max(0, 5 - len(batch.pieces())))
        )
        maxima = []
        for c in model.convolutions:
            windows = words.unfold(0, c.kernel_size[0], 1)  # (windows, E, width)
            answers = torch.einsum("wek,mek->wm", windows, c.weight) + c.bias
            maxima.append(answers.clamp(min=0).amax(dim=0))
        torch.testing.assert_close(model(batch).vectors["text"][0], torch.cat(maxima))


@torch.inference_mode()
@pytest.mark.parametrize("pool", ["attention", "mean"])
def test_the_bilstm_is_the_papers_text_by_text(data, pool):
    model = make_method(recipe("bilstm", pool=pool), data, seed=1).eval()
    for row in torch.arange(8):
        batch = data.source.batch(row[None])
        states, _ = model.lstm(model.project(model.words(batch.pieces())))  # one text, unpacked
        if pool == "mean":
            expected = states.mean(dim=0)
        else:
            summed = states[:, :100] + states[:, 100:]
            weights = (summed.tanh() @ model.score.weight[0]).softmax(dim=0)
            assert weights.sum() == pytest.approx(1)
            expected = (weights @ summed).tanh()
        torch.testing.assert_close(model(batch).vectors["text"][0], expected, atol=1e-5, rtol=1e-5)
