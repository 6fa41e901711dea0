"""The audit finds what is there, says it, and finds nothing where nothing is."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter

from spp_scl.audit import coupling
from spp_scl.audit.audit import audit
from spp_scl.audit.coupling import audit_coupling
from spp_scl.audit.floors import compute_floors, pool
from spp_scl.audit.page import write_page
from spp_scl.audit.repeats import NEAR, find_repeats, perceptual_hash, read_repeats
from spp_scl.audit.uncertainty import bootstrap, calibration_error
from spp_scl.clean.pictures import hash_picture
from spp_scl.errors import UserError
from spp_scl.evaluate.evaluation import evaluate
from spp_scl.model.batches import FeatureStore
from spp_scl.model.network import ModelConfig, SppScl
from spp_scl.train.artifact import Artifact

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


def untrained(data, fusion):
    torch.manual_seed(3)
    config = ModelConfig(len(data.classes), data.text_width, fusion, 0.2)
    model = SppScl(config).eval()
    with torch.no_grad():
        model.fc.weight.mul_(20)
    return model, Artifact(config, data.classes, data.fingerprint, None, 4, 42, 2, TRAINING)


def test_nothing_couples_a_tweet_to_its_batch_where_fusion_is_within_a_tweet(data):
    _, found = audit_coupling(*untrained(data, "sample"), data)
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
    _, found = audit_coupling(model, artifact, data)
    assert len(labels) == 6
    own = labels[[1, 1, 5, 5, 5, 5]]  # batches of four, from the end
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
    artifact = dataclasses.replace(artifact, seed=seed, batch_size=len(rows))
    audit_coupling(model, artifact, dataclasses.replace(data, rows={"test": rows}))
    own, *shuffled = taken[: 1 + coupling.ORDERS]
    assert all(sorted(order) == sorted(own) for order in shuffled)
    assert own not in shuffled
    by_label = taken[2 + coupling.ORDERS]
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
    with pytest.raises(UserError, match=r"repeats\.csv: .*`dvc repro"):
        read_repeats(path, ["1", "2", "3"] if damage == "of others" else ids)


def test_perceptual_hashes_of_the_same_thing_are_near_and_of_others_far(sample):
    paths = [sample.raw / name for name in sample.table["image"].dropna().head(20)]
    codes = np.array([perceptual_hash(path) for path in paths])
    assert codes.dtype == np.uint64
    assert perceptual_hash(paths[0]) == codes[0]
    distances = np.bitwise_count(codes[:, None] ^ codes[None, :])[np.triu_indices(20, 1)]
    assert np.median(distances) > 4 * NEAR


def test_floors_are_the_majority_class_and_regressions_chosen_on_validation_data(data):
    floors, predictions = compute_floors(data, "f1_weighted")
    assert list(floors) == ["majority", "logistic_text", "logistic_image", "logistic_both"]
    labels = data.labels[data.rows["test"]].numpy()
    most = np.bincount(data.labels[data.rows["train"]].numpy()).argmax()
    assert floors["majority"]["test"]["accuracy"] == pytest.approx((labels == most).mean())
    assert set(predictions["majority"]) == {data.classes[most]}
    for name, metrics in floors.items():
        right = predictions[name].to_numpy() == np.array(data.classes)[labels]
        assert metrics["test"]["accuracy"] == pytest.approx(right.mean())
        assert math.isfinite(metrics["test"]["loss"])
    assert compute_floors(data, "f1_weighted")[0] == floors


def test_pooled_features_are_means_over_words_layers_and_positions(data):
    text, image = pool(data)
    row = 5
    batch = data.features.batch(torch.tensor([row]))
    np.testing.assert_allclose(text[row], batch.words.mean(dim=(0, 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(image[row], batch.maps[0].mean(dim=0), rtol=1e-5, atol=1e-6)


def test_the_bootstrap_s_interval_is_the_binomial_one_for_accuracy():
    labels = np.zeros(400, dtype=np.int64)
    chosen = (np.arange(400) >= 300).astype(np.int64)
    found = bootstrap(labels, chosen, 2, seed=0)["accuracy"]
    half = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert found["low"] == pytest.approx(0.75 - half, abs=0.004)
    assert found["high"] == pytest.approx(0.75 + half, abs=0.004)


def test_calibration_error_is_the_gap_of_confidence_and_accuracy():
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    labels = np.array([0] * 9 + [1] + [0] * 2 + [1] * 8)
    assert calibration_error(probabilities, labels) == pytest.approx(0.5 * 0.0 + 0.5 * 0.4)


@pytest.mark.parametrize("fusion", ["sample", "batch"])
def test_the_whole_audit_has_a_finding_a_section_and_a_page(data, sample, fusion):
    model, artifact = untrained(data, fusion)
    predictions = evaluate(model, artifact, data).predictions
    splits = pd.read_parquet(sample.split)
    repeats = find_repeats(sample.table, splits, sample.raw)
    floors, _ = compute_floors(data, "f1_weighted")
    found = audit(model, artifact, data, repeats, floors, seed=1)
    assert list(found.findings) == list(found.figures)
    own = found.figures["coupling"]["own"]["accuracy"]
    test = predictions[predictions["split"] == "test"]
    assert own == pytest.approx((test["prediction"] == test["label"]).mean())
    assert f"{own:.4f}" in found.findings["uncertainty"]
    if fusion == "sample":
        assert "No prediction depends on its batch" in found.findings["coupling"]
    assert "90.0% of all pairs" in found.findings["gate"]
    page = write_page(found, "sample")
    assert all(finding in page for finding in found.findings.values())
    imported = dataclasses.replace(artifact, training={})
    assert "not trained here" in audit(model, imported, data, repeats, floors, 1).findings["gate"]


def test_repeats_are_scored_with_and_without(data, sample):
    model, artifact = untrained(data, "sample")
    predictions = evaluate(model, artifact, data).predictions
    test = predictions[predictions["split"] == "test"].reset_index(drop=True)
    train = sample.table.iloc[data.rows["train"].numpy()]
    repeats = pd.DataFrame({"id": test["id"], "text": None, "picture": None, "near_picture": None})
    repeats.loc[:1, "text"] = train["id"].iloc[0]
    floors, _ = compute_floors(data, "f1_weighted")
    r = audit(model, artifact, data, repeats, floors, seed=1).figures["repeats"]
    right = (test["prediction"] == test["label"]).to_numpy()
    assert r["text"]["tweets"] == r["any"]["tweets"] == 2
    assert r["text"]["same_label"] == (test["label"][:2] == str(train["label"].iloc[0])).sum()
    assert r["with"]["accuracy"] == pytest.approx(right.mean())
    assert r["without"]["accuracy"] == pytest.approx(right[2:].mean())
