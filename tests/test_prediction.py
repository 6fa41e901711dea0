"""A trained model for use: its bundle stands alone, and says of posts what the pipeline says."""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spp_scl.batches.batch import Sizes
from spp_scl.clean.pictures import open_picture
from spp_scl.encoders.encode import run_batch
from spp_scl.encoders.image import load_image_encoder
from spp_scl.encoders.text import load_text_encoder
from spp_scl.errors import UserError
from spp_scl.evaluation.evaluate import evaluate
from spp_scl.features.store import ImageFeatures, TextFeatures
from spp_scl.files import write_json
from spp_scl.methods import list_methods, load_method
from spp_scl.prediction.bundle import describe_bundle, load_bundle
from spp_scl.prediction.encoding import store
from spp_scl.prediction.explain import occlude
from spp_scl.prediction.posts import Post, read_post
from spp_scl.prediction.predictor import Prediction, Predictor
from spp_scl.training.artifact import Artifact, save_model
from spp_scl.training.recipe import make_method
from tests.small_encoders import TEXT
from tests.test_methods import recipe

SOURCES = {
    "image": {"weights": "untrained", "seed": 1},
    "text": {"weights": "untrained", "seed": 1, "max_positions": 202, "padding": "masked"},
}


def make_bundle(folder, data, method="spp_scl", **changes):
    """A bundle of a network that has learned nothing, and is sure; returns its evaluation."""
    settings = recipe(method, **changes)
    model = make_method(settings, data, 1).eval()
    # An untrained ResNet's features are large.
    factor = 0.1 if method in ("concat", "resnet") else 10
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.shape[:1] == (len(data.classes),) and not name.startswith("encoders"):
                parameter.mul_(factor)
    artifact = Artifact(
        method=method,
        settings=settings.settings.model_dump(),
        sizes=model.sizes.numbers(),
        classes=data.classes,
        features=data.fingerprint,
        seed=7,
    )
    save_model(folder / "model.safetensors", model, artifact)
    description = json.loads((folder / "model.json").read_text())
    write_json(folder / "config.json", describe_bundle(data, description, SOURCES, {"dataset": "sample"}))
    (folder / "model.json").unlink()  # the configuration has it
    return evaluate(model, artifact, data)


def posts_of(sample, data):
    """Of the validation and the test set, in the order of `predictions.csv`."""
    rows = sample.table.iloc[torch.cat([data.rows["valid"], data.rows["test"]]).numpy()]
    return [
        {"text": text, "image": None if image != image else sample.raw / image}
        for text, image in zip(rows["text"], rows["image"], strict=True)
    ]


def as_array(predictions):
    return np.array([list(one.probabilities.values()) for one in predictions])


def expected(evaluation, data):
    found = evaluation.predictions
    return found[[f"p_{name}" for name in data.classes]].to_numpy(), found["prediction"].tolist()


@pytest.mark.parametrize("method", list_methods())
def test_predictions_of_the_test_set_are_the_pipeline_s(tmp_path, sample, data, method):
    probabilities, labels = expected(make_bundle(tmp_path, data, method), data)
    predictor = Predictor.load(tmp_path)
    found = predictor(posts_of(sample, data))
    assert [one.label for one in found] == labels
    assert list(found[0].probabilities) == data.classes
    np.testing.assert_allclose(as_array(found), probabilities, atol=1e-5)
    assert len(set(np.round(probabilities[:, 0], 3))) > 3  # else nothing was compared


def test_a_method_that_couples_its_batch_gives_the_pipeline_s_numbers_and_a_warning(
    tmp_path, sample, data, caplog
):
    probabilities, _ = expected(make_bundle(tmp_path, data, fusion="batch", batch_size=4), data)
    predictor = Predictor.load(tmp_path)
    assert "neighbors matter" in caplog.text
    posts, valid = posts_of(sample, data), len(data.rows["valid"])
    # Each split is an order of its own.
    found = [*predictor(posts[:valid], batch_size=1), *predictor(posts[valid:], batch_size=1)]
    np.testing.assert_allclose(as_array(found), probabilities, atol=2e-2)  # encoders in bfloat16
    alone = as_array([predictor(post["text"], image=post["image"]) for post in posts[:valid]])
    assert np.abs(alone - probabilities[:valid]).max() > 0.05


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("bundle")
    make_bundle(folder, data)
    return folder


@pytest.fixture(scope="module")
def predictor(bundle):
    return Predictor.load(bundle, precision="fp32")


def test_one_post_is_predicted_as_among_others_and_in_any_form(predictor, sample, data):
    posts = posts_of(sample, data)
    among = predictor(posts)
    text, path = posts[0]["text"], Path(posts[0]["image"])
    with Image.open(path) as picture:
        picture.load()
    rgb = picture.convert("RGB")
    for image in (path, str(path), path.read_bytes(), picture, rgb, np.asarray(rgb)):
        one = predictor(text, image=image)
        np.testing.assert_allclose(as_array([one]), as_array(among[:1]), atol=1e-4)
    assert isinstance(one, Prediction)
    assert sum(one.probabilities.values()) == pytest.approx(1)
    assert one.label == max(one.probabilities, key=one.probabilities.get)
    as_pairs = predictor([(post["text"], post["image"]) for post in posts])
    np.testing.assert_allclose(as_array(as_pairs), as_array(among), atol=1e-5)
    assert picture.getpixel((0, 0)) is not None  # it is still open: it is the caller's


def test_text_or_picture_may_be_missing_and_posts_may_be_none(predictor, sample, data):
    post = posts_of(sample, data)[0]
    found = predictor(
        [{"text": post["text"]}, {"image": post["image"]}, {}, {"text": "\u200b", "image": None}]
    )
    assert np.isfinite(as_array(found)).all()
    np.testing.assert_array_equal(as_array(found)[2], as_array(found)[3])
    assert predictor([]) == []
    assert predictor(None).probabilities == found[2].probabilities


def broken(kind):
    if kind == "text":
        return b"no picture at all"
    if kind == "svg":
        return b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, "PNG")
    return file.getvalue()[:-60] if kind == "truncated" else b""


@pytest.mark.parametrize(
    ("image", "why"),
    [
        ("absent.jpg", "absent.jpg: no such picture"),
        (broken("text"), "the picture: cannot be read"),
        (broken("svg"), "the picture: cannot be read"),
        (broken("truncated"), "the picture: cannot be read"),
        (broken("empty"), "the picture: cannot be read"),
        (Image.new("1", (10_000, 9_000)), "more than 89000000 pixels"),
        (Image.new("RGB", (1, 900)), "narrower than 1 to 100"),
        (np.zeros((4, 4, 3)), "of uint8; this is of float64"),
        (np.zeros((4, 4, 2), np.uint8), r"of uint8; this is of uint8, \(4, 4, 2\)"),
        (7, "neither a path nor bytes"),
    ],
)
def test_a_picture_that_cannot_be_read_is_named(predictor, image, why):
    with pytest.raises(UserError, match=why):
        predictor("a text", image=image)
    with pytest.raises(UserError, match=f"post 1: .*{why}"):
        predictor([{"text": "fine"}, {"text": "a text", "image": image}])


def test_what_is_no_post_is_refused():
    for post, why in (({"txt": "a"}, "no 'txt'"), ({"text": 3}, "not a string but int")):
        with pytest.raises(UserError, match=why):
            read_post(post)


def test_a_bundle_without_files_or_with_damaged_ones_is_refused(bundle, tmp_path, data):
    with pytest.raises(UserError, match=r"config\.json: no such file; train a model"):
        load_bundle(tmp_path)
    config, weights = (bundle / name for name in ("config.json", "model.safetensors"))
    mine = tmp_path / "config.json"
    mine.write_bytes(config.read_bytes())
    with pytest.raises(UserError, match=r"model\.safetensors: no such file; the bundle is not whole"):
        load_bundle(tmp_path)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        load_bundle(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(weights.read_bytes())
    mine.write_text("{}")
    with pytest.raises(UserError, match=r"damaged, or not a bundle's \('format'\)"):
        load_bundle(tmp_path)
    values = json.loads(config.read_text())
    write_json(mine, {**values, "format": 99})
    with pytest.raises(UserError, match="of another format"):
        load_bundle(tmp_path)


class Harm:
    """What runs when it is read."""

    def __reduce__(self):
        return (Path.touch, (Path("harmed"),))


@pytest.mark.parametrize("name", ["extra.pkl", "encoders/text.bin", "model.safetensors"])
def test_a_pickled_file_in_a_bundle_is_refused_and_never_read(bundle, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "theirs"
    (folder / "encoders").mkdir(parents=True)
    for file in ("config.json", "model.safetensors"):
        (folder / file).write_bytes((bundle / file).read_bytes())
    (folder / name).write_bytes(pickle.dumps(Harm()))
    with pytest.raises(UserError, match=r"a pickled file may run code|damaged"):
        Predictor.load(folder)
    assert not Path("harmed").exists()


def test_another_encoder_is_never_taken_silently(bundle, tmp_path, data):
    config = json.loads((bundle / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes((bundle / "model.safetensors").read_bytes())
    config["encoders"]["text"]["seed"] = 2
    write_json(tmp_path / "config.json", config)
    with pytest.raises(
        UserError, match=r"not the text encoder that the model was trained with \(untrained, "
    ):
        Predictor.load(tmp_path)
    config["encoders"]["text"]["seed"] = 1
    config["encoders"]["image"]["weights"] = "/gone/encoder"
    write_json(tmp_path / "config.json", config)
    with pytest.raises(
        UserError, match=r"needs its image encoder, untrained, seed 1, and `/gone/encoder` does not"
    ):
        Predictor.load(tmp_path)
    assert Predictor.load(tmp_path, image="untrained")("a text").probabilities


def test_occlusion_finds_the_word_and_the_region_that_decide():
    """A model of one word, of one more against it, and of the red in the upper left corner."""
    picture = Image.new("RGB", (140, 70), "white")
    picture.paste("red", (0, 0, 20, 10))

    def score(posts):
        return np.array(
            [
                0.3
                + 0.4 * ("happy" in post.text.split())
                - 0.1 * ("not" in post.text.split())
                + 0.2 * (post.picture.getpixel((5, 5)) == (255, 0, 0))
                for post in posts
            ]
        )

    found = occlude(Post("a happy day not so", picture), score, reads_text=True, reads_image=True)
    gains = dict(found.words)
    assert [word for word, _ in found.words] == ["a", "happy", "day", "not", "so"]
    assert gains == pytest.approx({"a": 0, "happy": 0.4, "day": 0, "not": -0.1, "so": 0})
    expected = np.zeros((7, 7))
    expected[0, 0] = 0.2
    np.testing.assert_allclose(found.regions, expected, atol=1e-12)
    assert picture.getpixel((5, 5)) == (255, 0, 0)  # the caller's picture is as it was
    blind = occlude(Post("a happy day", picture), score, reads_text=True, reads_image=False)
    assert blind.regions is None
    assert occlude(Post("a happy day", picture), score, reads_text=False, reads_image=True).words == []


def test_a_prediction_is_explained_on_demand(predictor, sample, data):
    post = posts_of(sample, data)[0]
    plain, found = (predictor(post["text"], image=post["image"], explain=e) for e in (False, True))
    assert plain.explanation is None
    assert found.label == plain.label
    parts = found.explanation
    assert [word for word, _ in parts.words] == post["text"].split()
    assert parts.regions.shape == (7, 7)
    assert np.ptp(parts.regions) > 0
    assert parts.attention is None  # SPP-SCL has none of words over regions
    # Removing a word by hand gives its gain.
    word, gain = parts.words[1]
    without = predictor(
        " ".join(w for i, w in enumerate(post["text"].split()) if i != 1), image=post["image"]
    )
    by_hand = plain.probabilities[plain.label] - without.probabilities[plain.label]
    assert gain == pytest.approx(by_hand, abs=1e-4), word


def test_a_method_s_own_attention_is_part_of_its_explanation(tmp_path, sample, data):
    make_bundle(tmp_path, data, "clmlf")
    predictor, post = Predictor.load(tmp_path), posts_of(sample, data)[0]
    found = predictor({"text": "happy days", "image": post["image"]}, explain=True).explanation
    assert found.attention.shape == (2, 7, 7)
    assert (found.attention >= 0).all()
    assert 0 < found.attention.sum(axis=(1, 2)).max() <= 1
    assert predictor("happy days", explain=True).explanation.attention is None


def test_encoders_in_the_loop_give_float32_whatever_they_compute_in():
    class Half:
        name, device = "texts", torch.device("cpu")

        def prepare(self, batch):
            return (torch.zeros(len(batch)),)

        def forward(self, *prepared):
            return prepared[0].to(torch.bfloat16) + 0.1

    assert run_batch(Half(), [1, 2], "nowhere", half=False).dtype == np.float32
    assert run_batch(Half(), [1, 2], "nowhere").dtype == np.float16


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_model_with_encoders_of_its_own_needs_no_source(tmp_path, sample, data, precision):
    """Small encoders trained with the model: their weights and tokenizer are in its files."""
    text = load_text_encoder(str(TEXT["bert"](tmp_path / "bert")), 0, [], 64)
    image = load_image_encoder("untrained", 1)
    settings = recipe("concat")
    sizes = Sizes(
        len(data.classes), text.layers, text.width, image.positions, image.channels, torch.zeros(0, 0)
    )
    model = load_method("concat").network(settings.settings, sizes)
    model.encoders = torch.nn.ModuleDict({"text": text, "image": image})
    model.eval()
    artifact = Artifact(
        method="concat",
        settings=settings.settings.model_dump(),
        sizes=sizes.numbers(),
        classes=data.classes,
        encoders={"text": text.describe(), "image": image.describe()},
        precision=precision,
    )
    save_model(tmp_path / "model.safetensors", model, artifact)
    description = json.loads((tmp_path / "model.json").read_text())
    assert str(tmp_path) not in (tmp_path / "model.json").read_text()
    gone = {kind: {**source, "weights": "/gone"} for kind, source in SOURCES.items()}
    write_json(tmp_path / "config.json", describe_bundle(data, description, gone, {"dataset": "sample"}))
    posts = posts_of(sample, data)[:3]
    with torch.inference_mode():
        ids = text.tokenize([post["text"] for post in posts])
        expected = []
        for own, post in zip(ids, posts, strict=True):
            states = text(torch.tensor([own]), torch.ones(1, len(own), dtype=torch.long))
            words = states[0, text.prefix : len(own) - text.suffix]
            maps = image(image.prepare(open_picture(post["image"]))[None])
            images = ImageFeatures([], torch.tensor([0]), maps, data.encoders["image"], "")
            texts = TextFeatures(
                [], torch.tensor([0, len(words)]), words, states[:, 0], torch.zeros(len(words)), words[:0, 0],
                data.encoders["text"], "",
            )  # fmt: skip
            batch = store(images, texts, torch.device("cpu")).batch(torch.zeros(1, dtype=torch.int64))
            expected.append(model(batch).logits.softmax(dim=1)[0].tolist())
    found = as_array(Predictor.load(tmp_path)(posts))
    np.testing.assert_allclose(found, expected, atol=1e-5 if precision == "fp32" else 2e-2)


def test_where_the_method_s_settings_leave_no_attention_none_is_explained(tmp_path, sample, data):
    make_bundle(tmp_path, data, "clmlf", tokens="view")
    post = posts_of(sample, data)[0]
    found = Predictor.load(tmp_path)({"text": "happy", "image": post["image"]}, explain=True)
    assert found.explanation.attention is None
