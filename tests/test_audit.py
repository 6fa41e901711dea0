"""The audit finds what is there, says it, and finds nothing where nothing is."""

import dataclasses
import math
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from sklearn.metrics import f1_score

from spp_scl.audit import coupling
from spp_scl.audit.audit import audit
from spp_scl.audit.coupling import audit_coupling
from spp_scl.audit.findings import _describe_shortcuts, describe_difference, describe_findings
from spp_scl.audit.modalities import score_modalities
from spp_scl.audit.page import write_page
from spp_scl.audit.uncertainty import bootstrap, calibration_error, wilson
from spp_scl.batches.batch import FeatureStore
from spp_scl.checks.floors import compute_floors, pool
from spp_scl.checks.repeats import KINDS, NEAR, find_repeats, perceptual_hash, read_repeats
from spp_scl.checks.shortcuts import TOGETHER, describe_outside, find_shortcuts
from spp_scl.clean.pictures import hash_picture
from spp_scl.errors import UserError
from spp_scl.evaluation.evaluate import evaluate
from spp_scl.methods.shared.prediction import predict
from tests.recipes import make_artifact, make_network, sizes_of

TRAINING = {
    "best_epoch": 1,
    "epochs": 1,
    "step2_share": 1.0,
    "step2_share_float32": 1.0,
    "count_over_p": 0.4,
    "saturated_share": 0.9,
    "alpha_mattered": False,
    "alpha_bound": None,
}

NOTHING_TOLD = {"accuracy": 0.5, "f1_weighted": 0.4, "f1_macro": 0.3, "above_majority": 0.0, "p": 1.0}
SHORTCUTS = {"links": NOTHING_TOLD, "together": NOTHING_TOLD}


def untrained(data, fusion):
    torch.manual_seed(3)
    model = make_network(sizes_of(data), fusion=fusion, batch_size=4).eval()
    with torch.no_grad():
        model.fc.weight.mul_(20)
    return model, make_artifact(data, model, training=TRAINING)


def test_nothing_couples_a_tweet_to_its_batch_where_fusion_is_within_a_tweet(data):
    model, artifact = untrained(data, "sample")
    found = audit_coupling(model, artifact, data, evaluate(model, artifact, data).logits)
    assert set(found) == {
        "own", "file_order", "sorted_by_label", "shuffled", "one_at_a_time",
        "batches_of_16", "batches_of_256",
    }  # fmt: skip
    for name, part in found.items():
        if name == "shuffled":
            assert part["changed_max"] == 0
            assert part["accuracy_min"] == part["accuracy_max"] == found["own"]["accuracy"]
        elif name != "own":
            assert part == {"accuracy": found["own"]["accuracy"], "changed": 0.0}


def test_coupling_to_the_batch_is_measured_and_said(data, monkeypatch):
    """A model that gives a whole batch the label of its first tweet."""
    labels = data.labels[data.rows["test"]]

    def follow_the_first(model, table, rows, size, seed, order=None):
        chosen = torch.empty_like(labels)
        order = torch.arange(len(rows)).flip(0) if order is None else order
        for part in order.split(size):
            chosen[part] = labels[part[0]]
        return SimpleNamespace(logits=F.one_hot(chosen, len(data.classes)).float())

    monkeypatch.setattr(coupling, "predict", follow_the_first)
    model, artifact = untrained(data, "batch")
    assert len(labels) == 6
    own = labels[[1, 1, 5, 5, 5, 5]]  # batches of four, from the end
    found = audit_coupling(model, artifact, data, F.one_hot(own, len(data.classes)).float())
    assert found["one_at_a_time"]["accuracy"] == 1
    assert found["own"]["accuracy"] == (own == labels).double().mean()
    in_order = labels[[0, 0, 0, 0, 4, 4]]
    assert found["file_order"]["accuracy"] == (in_order == labels).double().mean()
    assert found["file_order"]["changed"] == (in_order != own).double().mean()
    assert found["shuffled"]["changed_min"] < found["shuffled"]["changed_mean"]
    assert found["shuffled"]["changed_mean"] < found["shuffled"]["changed_max"]
    # The whole test set, from the end.
    assert found["batches_of_16"]["accuracy"] == (labels[5] == labels).double().mean()


@pytest.mark.parametrize("seed", [0, 3, 19, 42])
def test_the_metrics_own_order_is_not_among_the_shuffled_ones(data, monkeypatch, seed):
    taken, batch = [], FeatureStore.batch
    monkeypatch.setattr(
        FeatureStore, "batch", lambda self, part: taken.append(part.tolist()) or batch(self, part)
    )
    rows = data.rows["train"]  # enough of them that two random orders are never equal
    model, artifact = untrained(data, "batch")
    settings = {**artifact.settings, "batch_size": len(rows)}
    artifact = dataclasses.replace(artifact, seed=seed, settings=settings)
    logits = predict(model, data.source, rows, len(rows), seed).logits
    audit_coupling(model, artifact, dataclasses.replace(data, rows={"test": rows}), logits)
    own, *shuffled = taken[: 1 + coupling.ORDERS[True]]
    assert all(sorted(order) == sorted(own) for order in shuffled)
    assert own not in shuffled
    by_label = taken[2 + coupling.ORDERS[True]]
    assert data.labels[by_label].tolist() == sorted(data.labels[rows].tolist())


def table_of(texts, pictures, images, sides):
    table = pd.DataFrame(
        {
            "id": [f"t{i}" for i in range(len(texts))],
            "text": texts,
            "image": images,
            "picture": pictures,
            "label": pd.Categorical(["a", "b"] * (len(texts) // 2)),
            "split": None,
            "text_label": None,
            "image_label": None,
        }
    )
    return table, pd.DataFrame({"id": table["id"], "split": sides})


def test_test_tweets_that_stand_in_train_are_found_by_text_by_picture_and_by_a_like_picture(tmp_path):
    rng = np.random.default_rng(0)

    def draw(name):
        noise = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        noise.resize((320, 240), Image.Resampling.BICUBIC).save(tmp_path / name)

    for name in ("0.png", "1.png", "3.png"):
        draw(name)
    one = Image.open(tmp_path / "1.png")
    one.resize((200, 150)).filter(ImageFilter.SMOOTH).save(tmp_path / "2.jpg", quality=60)
    images = ["0.png", "1.png", "2.jpg", "3.png", None, "0.png"]
    hashes = [hash_picture(Image.open(tmp_path / n).convert("RGB")) if n else None for n in images]
    texts = ["Good morning!", "so it goes", "RT @b: good MORNING http://t.co/x", "another", "", "quite new"]
    sides = ["train", "train", "test", "test", "test", "test"]
    table, split = table_of(texts, hashes, images, sides)
    found = find_repeats(table, split, tmp_path).set_index("id")
    assert found["text"].replace("", None).dropna().to_dict() == {"t2": "t0"}
    assert found["picture"].dropna().to_dict() == {"t5": "t0"}
    assert found["near_picture"].dropna().to_dict() == {"t2": "t1", "t5": "t0"}


def test_of_several_twins_the_first_of_the_same_label_is_named(tmp_path):
    Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 20).convert("RGB").save(tmp_path / "p.png")
    texts = ["so it goes"] * 6
    sides = ["train", "train", "train", "train", "test", "test"]
    table, split = table_of(texts, ["p"] * 6, ["p.png"] * 6, sides)  # labels a, b, a, b, a, b
    found = find_repeats(table, split, tmp_path).set_index("id")
    assert found.to_numpy().tolist() == [["t0"] * 3, ["t1"] * 3]
    table["label"] = pd.Categorical(["a", "a", "a", "a", "a", "b"])
    found = find_repeats(table, split, tmp_path).set_index("id")
    assert found.to_numpy().tolist() == [["t0"] * 3, ["t0"] * 3]


@pytest.mark.parametrize("damage", ["missing", "of others", "cut", "not a table"])
def test_repeats_that_cannot_be_read_are_named_with_what_makes_them(damage, tmp_path):
    path, ids = tmp_path / "repeats.csv", ["007", "nan", "NA"]
    table = pd.DataFrame({"id": ids, "text": ["1", None, None], "picture": None, "near_picture": None})
    table.to_csv(path, index=False)
    found = read_repeats(path, ids[::-1])
    assert found["id"].tolist() == ids[::-1]
    assert found["text"].isna().tolist() == [True, True, False]
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-8])
    elif damage == "not a table":
        path.write_bytes(b"\x80\n")
    way_out = "`dvc repro repeats`" if damage == "missing" else "; make it again"
    with pytest.raises(UserError, match=rf"repeats\.csv: .*{way_out}"):
        read_repeats(path, ["1", "2", "3"] if damage == "of others" else ids)


def test_perceptual_hashes_of_the_same_thing_are_near_and_of_others_far(sample):
    paths = [sample.raw / name for name in sample.table["image"].dropna().head(20)]
    codes = np.array([perceptual_hash(path) for path in paths])
    assert codes.dtype == np.uint64
    assert perceptual_hash(paths[0]) == codes[0]
    distances = np.bitwise_count(codes[:, None] ^ codes[None, :])[np.triu_indices(20, 1)]
    assert np.median(distances) > 4 * NEAR


def test_floors_are_the_majority_class_and_regressions_chosen_on_validation_data(data):
    floors, predictions = compute_floors(data)
    assert list(floors) == ["majority", "logistic_text", "logistic_image", "logistic_both"]
    labels = data.labels[data.rows["test"]].numpy()
    most = np.bincount(data.labels[data.rows["train"]].numpy()).argmax()
    assert floors["majority"]["test"]["accuracy"] == pytest.approx((labels == most).mean())
    assert set(predictions["majority"]) == {data.classes[most]}
    for name, metrics in floors.items():
        right = predictions[name].to_numpy() == np.array(data.classes)[labels]
        assert metrics["test"]["accuracy"] == pytest.approx(right.mean())
        assert math.isfinite(metrics["test"]["loss"])
    assert compute_floors(data)[0] == floors


def test_pooled_features_are_means_over_words_layers_and_positions(data):
    text, image = pool(data)
    row = 5
    batch = data.source.batch(torch.tensor([row]))
    np.testing.assert_allclose(text[row], batch.text().words.mean(dim=(0, 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(image[row], batch.image()[0].mean(dim=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("right", "rows"), [(12, 12), (0, 12), (9, 12), (300, 400)])
def test_accuracy_s_interval_holds_what_a_score_test_does_not_refuse(right, rows):
    """Wilson's interval: its ends are 1.96 of their own standard errors away from the accuracy."""
    found = wilson(right, rows)
    assert 0 <= found["low"] < found["high"] <= 1
    for end, limit in ((found["low"], 0), (found["high"], 1)):
        if right / rows != limit:
            error = math.sqrt(end * (1 - end) / rows)
            assert abs(right / rows - end) / error == pytest.approx(1.959964, rel=1e-5)


def test_the_bootstrap_s_intervals_are_those_of_tweets_drawn_again():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 80)
    chosen = np.where(rng.random(80) < 0.7, labels, rng.integers(0, 3, 80))
    found = bootstrap(labels, chosen, 3, seed=0)
    draws = [rng.integers(0, 80, 80) for _ in range(1000)]
    for name, average in (("f1_weighted", "weighted"), ("f1_macro", "macro")):
        drawn = [f1_score(labels[rows], chosen[rows], average=average) for rows in draws]
        low, high = np.quantile(drawn, [0.025, 0.975])
        assert found[name]["low"] == pytest.approx(low, abs=0.02)
        assert found[name]["high"] == pytest.approx(high, abs=0.02)


def test_calibration_error_is_the_gap_of_confidence_and_accuracy():
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    labels = np.array([0] * 9 + [1] + [0] * 2 + [1] * 8)
    assert calibration_error(probabilities, labels) == pytest.approx(0.5 * 0.0 + 0.5 * 0.4)


@pytest.mark.parametrize("fusion", ["sample", "batch"])
def test_the_whole_audit_has_a_finding_a_section_and_a_page(data, sample, fusion):
    model, artifact = untrained(data, fusion)
    evaluation = evaluate(model, artifact, data)
    repeats = find_repeats(sample.table, pd.read_parquet(sample.split), sample.raw)
    floors, _ = compute_floors(data)
    figures = audit(model, artifact, data, evaluation.logits, repeats, floors, SHORTCUTS, seed=1)
    findings = describe_findings(figures, len(repeats), model)
    assert findings.keys() == figures.keys()
    own = figures["coupling"]["own"]["accuracy"]
    test = evaluation.predictions[evaluation.predictions["split"] == "test"]
    assert own == pytest.approx((test["prediction"] == test["label"]).mean())
    assert f"{own:.4f}" in findings["uncertainty"]
    if fusion == "sample":
        assert "No prediction depends on its batch" in findings["coupling"]
    assert "90.0% of all pairs" in findings["training"]
    assert findings["training"].endswith("The weights are those of epoch 1 of 1.")
    page = write_page(figures, findings, "sample")
    assert page.startswith("# Audit: sample\n\n- ")
    assert all(f"\n- {finding}\n" in page for finding in findings.values())
    assert page.count("\n## ") == len(findings)
    assert re.search(r"\| alpha bound +\| none +\|", page)
    imported = describe_findings({**figures, "training": {}}, len(repeats), model)
    assert "not trained here" in imported["training"]
    assert "| not trained here " in write_page({**figures, "training": {}}, imported, "sample")


def test_repeats_are_scored_with_and_without(data, sample):
    model, artifact = untrained(data, "sample")
    evaluation = evaluate(model, artifact, data)
    test = evaluation.predictions[evaluation.predictions["split"] == "test"].reset_index(drop=True)
    train = sample.table.iloc[data.rows["train"].numpy()]
    repeats = pd.DataFrame({"id": test["id"], **dict.fromkeys(KINDS)})
    repeats.loc[:1, "text"] = train["id"].iloc[0]
    floors, _ = compute_floors(data)
    r = audit(model, artifact, data, evaluation.logits, repeats, floors, SHORTCUTS, seed=1)["repeats"]
    right = (test["prediction"] == test["label"]).to_numpy()
    assert r["text"]["tweets"] == r["any"]["tweets"] == 2
    assert r["text"]["same_label"] == (test["label"][:2] == str(train["label"].iloc[0])).sum()
    assert r["with"]["accuracy"] == pytest.approx(right.mean())
    assert r["without"]["accuracy"] == pytest.approx(right[2:].mean())


@pytest.fixture
def twelve(data):
    """Twelve test tweets; and what audits predictions of them, wrong ones at the given places."""
    rows = data.rows["train"][:12]
    few = dataclasses.replace(data, rows={**data.rows, "test": rows})
    repeats = pd.DataFrame({"id": few.ids("test"), **dict.fromkeys(KINDS)})
    model, artifact = untrained(data, "sample")

    def audit_twelve(wrong=()):
        chosen = few.labels[rows].clone()
        chosen[list(wrong)] = (chosen[list(wrong)] + 1) % len(data.classes)
        logits = F.one_hot(chosen, len(data.classes)).float() * 9
        floor = {"test": dict.fromkeys(("accuracy", "f1_weighted", "f1_macro"), 1.0)}
        floors = {"majority": {"test": {**floor["test"], "accuracy": 0.5}}, "logistic_both": floor}
        figures = audit(model, artifact, few, logits, repeats, floors, SHORTCUTS, seed=1)
        findings = describe_findings(figures, 12, model)
        return figures, findings, write_page(figures, findings, "twelve")

    return audit_twelve


def test_twelve_tweets_all_right_prove_no_accuracy_of_one(twelve):
    figures, findings, page = twelve()
    # n / (n + z^2), Wilson's lower end when all are right.
    assert figures["uncertainty"]["accuracy"] == {"low": pytest.approx(12 / (12 + 1.959964**2)), "high": 1.0}
    assert figures["uncertainty"]["f1_weighted"] == {"low": None, "high": None}
    assert "accuracy 1.0000 is 0.7575 to 1.0000" in findings["uncertainty"]
    assert "For weighted F1 and macro F1 no interval can be drawn" in findings["uncertainty"]
    assert "1.0000 to 1.0000" not in page.split("## How sure")[1]
    assert "none: all resamples are equal" in page


def test_intervals_of_f1_from_few_errors_are_said_to_be_too_narrow(twelve):
    figures, findings, _ = twelve(wrong=[3])
    assert figures["uncertainty"]["f1_weighted"]["low"] < 11 / 12
    assert "With only 1 wrong prediction(s), the intervals of F1 are too narrow" in findings["uncertainty"]
    _, findings, _ = twelve(wrong=range(6))
    assert "too narrow" not in findings["uncertainty"]


def test_an_accuracy_equal_to_the_floor_s_is_said_to_be_equal(twelve):
    assert twelve()[1]["floors"].endswith("The model's 1.0000 is equal to it.")


def test_a_model_of_one_class_is_said_to_have_learned_nothing(data):
    rows = data.rows["test"]
    repeats = pd.DataFrame({"id": data.ids("test"), **dict.fromkeys(KINDS)})
    model, artifact = untrained(data, "sample")
    floors, _ = compute_floors(data)
    most = data.labels[data.rows["train"]].mode().values
    for predicted, found in ((most.repeat(len(rows)), True), (data.labels[rows], False)):
        logits = F.one_hot(predicted, len(data.classes)).float()
        figures = audit(model, artifact, data, logits, repeats, floors, SHORTCUTS, seed=1)
        finding = describe_findings(figures, len(rows), model)["floors"]
        assert ("it takes every tweet for the majority class" in finding) == found


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (0.9, "equal to it"),
        (0.9004, "less than 0.1 points above it"),
        (0.8996, "less than 0.1 points below it"),
        (0.923, "2.3 points above it"),
        (0.8, "10.0 points below it"),
    ],
)
def test_a_difference_is_never_of_no_points(score, said):
    assert describe_difference(score, 0.9) == said


def posts_with_pictures(tmp_path, has_picture, labels):
    """Posts of one text, some with a picture, all in equal shares in train, valid and test."""
    Image.new("RGB", (40, 30)).save(tmp_path / "photo.png")
    table = pd.DataFrame(
        {"text": "the same words", "image": ["photo.png" if one else None for one in has_picture]}
    )
    n = len(table)
    rows = {"train": np.arange(0, n, 3), "valid": np.arange(1, n, 3), "test": np.arange(2, n, 3)}
    return find_shortcuts(describe_outside(table, tmp_path), labels, rows, ["a", "b"])


def test_a_picture_that_tells_the_label_by_being_there_is_found_and_said(tmp_path):
    rng = np.random.default_rng(0)
    labels = (rng.random(600) < 0.4).astype(int)
    # Nine of ten posts of the second class have a picture, one of ten of the first.
    has_picture = rng.random(600) < np.where(labels == 1, 0.9, 0.1)
    found = posts_with_pictures(tmp_path, has_picture, labels)
    test = slice(2, None, 3)
    right = (has_picture[test] == (labels[test] == 1)).mean()
    told = [name for name, one in found.items() if one["p"] < 1e-6]
    for name in told:
        assert found[name]["accuracy"] == pytest.approx(right)
        assert found[name]["above_majority"] == pytest.approx(right - (labels[test] == 0).mean())
    # With one picture for all, its size and bytes say nothing but that there is one.
    assert set(told) == {
        "picture missing", "picture size", "picture shape", "picture format", "picture bytes", TOGETHER,
    }  # fmt: skip
    for name in ("text missing", "text length", "links", "retweet", "hashtags", "users named", "capitals"):
        assert found[name]["above_majority"] == 0
        assert found[name]["p"] == 1
    finding = _describe_shortcuts(found)
    assert finding.startswith("A tweet's outside tells something of its label, without its content")
    assert "*picture missing* (+" in finding
    assert "*links*" not in finding


def test_an_outside_drawn_at_random_tells_nothing(tmp_path):
    rng = np.random.default_rng(1)
    found = posts_with_pictures(tmp_path, rng.random(600) < 0.5, (rng.random(600) < 0.4).astype(int))
    assert _describe_shortcuts(found).startswith("There is no sign that a tweet's outside")


def test_each_trace_is_read_from_text_and_picture(tmp_path):
    Image.new("RGB", (50, 20)).save(tmp_path / "wide.png")
    Image.new("RGB", (20, 20)).save(tmp_path / "square.jpg")
    texts = ["RT @Ann: LOOK http://t.co/x www.b.org #one #two", "", "hi <url> <user>"]
    table = pd.DataFrame({"text": texts, "image": ["wide.png", None, "square.jpg"]})
    outside = describe_outside(table, tmp_path)
    assert {name: values.shape[0] for name, values in outside.items()} == dict.fromkeys(outside, 3)
    one = {name: values[:, 0].tolist() for name, values in outside.items()}
    assert one["picture missing"] == [0, 1, 0]
    assert one["text missing"] == [0, 1, 0]
    assert one["links"] == [2, 0, 1]
    assert one["retweet"] == [1, 0, 0]
    assert one["hashtags"] == [2, 0, 0]
    assert one["users named"] == [1, 0, 1]
    assert one["capitals"] == [7 / len(texts[0]), 0, 0]
    np.testing.assert_equal(outside["picture size"], [[50, 20], [np.nan, np.nan], [20, 20]])
    np.testing.assert_equal(one["picture shape"], [2.5, np.nan, 1])
    np.testing.assert_equal(one["picture format"], [1, np.nan, 0])  # JPEG, PNG
    sizes = [(tmp_path / name).stat().st_size for name in ("wide.png", "square.jpg")]
    np.testing.assert_equal(one["picture bytes"], [sizes[0], np.nan, sizes[1]])
    (tmp_path / "wide.png").unlink()
    with pytest.raises(UserError, match=r"wide\.png: readable when the data was cleaned, and not now"):
        describe_outside(table, tmp_path)


def test_accuracy_is_told_apart_by_what_text_and_picture_are_labeled_alone():
    known = pd.DataFrame(
        {
            "text_label": ["positive", "neutral", "neutral", "negative", None],
            "image_label": ["positive", "neutral", "positive", "neutral", None],
        }
    )
    labels, predictions = np.array([0, 1, 0, 2, 0]), np.array([0, 0, 0, 1, 0])
    found = score_modalities(known, labels, predictions, 3)
    assert {name: (one["tweets"], one["accuracy"]) for name, one in found.items()} == {
        "agree": (2, 0.5), "text_neutral": (1, 1.0), "image_neutral": (1, 0.0),
    }  # fmt: skip
    assert found["agree"]["low"] == wilson(1, 2)["low"]
    assert score_modalities(known.iloc[4:], labels[4:], predictions[4:], 3) == {}
