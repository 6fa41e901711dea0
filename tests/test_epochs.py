"""Each epoch of a training, scored in several orders of the tweets; what the length of a training decides."""

from types import SimpleNamespace

import pandas as pd
import pytest

from spp_scl.errors import UserError
from spp_scl.evaluation.evaluate import evaluate
from spp_scl.training.training import train
from studies import epochs
from studies.epoch_figures import _lengths, draw, tabulate_lengths
from studies.epochs import score_epochs
from tests.recipes import TRAIN, make_artifact, make_recipe

PARAMS = SimpleNamespace(train=TRAIN)


@pytest.mark.parametrize("fusion", ["sample", "batch"])
def test_the_network_of_each_epoch_is_the_training_stage_s(data, tmp_path, fusion):
    recipe = make_recipe(fusion=fusion)
    table = score_epochs(data, recipe, PARAMS, 5, 2, tmp_path / "checkpoint")
    trained = train(
        data, recipe, seed=5, params=TRAIN, log_folder=None, checkpoint=tmp_path / "other-checkpoint"
    )
    artifact = make_artifact(data, trained.model, seed=5)
    metrics = evaluate(trained.model, artifact, data).metrics
    own = table[(table["order"] == "own") & (table["epoch"] == trained.best_epoch)].set_index("split")
    for split in ("valid", "test"):
        assert own.loc[split, "accuracy"] == pytest.approx(metrics[split]["accuracy"])
        assert own.loc[split, "selection"] == pytest.approx(metrics[split]["f1_weighted"])
    counts = table.groupby(["epoch", "split", "order"]).size().unstack()
    assert counts.loc[1].notna().sum().sum() == 2
    assert counts.loc[2].to_dict("index")["test"] == {"alone": 1, "own": 1, "shuffled": 5, "sorted": 1}
    if fusion == "sample":
        assert (table.groupby(["epoch", "split"])["accuracy"].nunique() == 1).all()


def test_an_interrupted_scoring_goes_on_to_the_same_table(data, tmp_path, monkeypatch):
    recipe = make_recipe()
    whole = score_epochs(data, recipe, PARAMS, 5, 2, tmp_path / "whole")
    save, saved = epochs.save_checkpoint, []

    def save_and_stop(*arguments):
        save(*arguments)
        saved.append(1)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(epochs, "save_checkpoint", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        score_epochs(data, recipe, PARAMS, 5, 2, tmp_path / "cut")
    pd.testing.assert_frame_equal(score_epochs(data, recipe, PARAMS, 5, 2, tmp_path / "cut"), whole)
    assert len(saved) == 3


def scored(valid, orders=("own",)):
    """Validation as given, epoch by epoch; the test accuracy is a thousandth of the epoch."""
    rows = []
    for epoch, value in enumerate(valid, start=1):
        for i, order in enumerate(orders):
            rows.append({"epoch": epoch, "split": "valid", "order": order, "selection": value})
            rows.append({"epoch": epoch, "split": "test", "order": order})
            rows[-1]["accuracy"] = epoch / 1000 + i / 10
            rows[-2]["accuracy"] = value
            rows[-1]["recall_positive"] = rows[-2]["recall_positive"] = value + i / 10
    return pd.DataFrame(rows)


def test_early_stopping_keeps_the_best_epoch_before_twenty_without_a_better_one():
    # Best at 3; 24 is better, and comes too late; 60 is the best of all.
    valid = [0.1, 0.2, 0.5, *[0.4] * 20, 0.6, *[0.3] * 35, 0.7, *[0.2] * 90]
    assert len(valid) == 150
    found = _lengths(scored(valid))
    assert {name: epoch for name, (epoch, _) in found.items()} == {
        "early stopping": 3, "best of all": 60, "20 epochs": 20, "50 epochs": 50, "150 epochs": 150,
    }  # fmt: skip
    assert found["best of all"][1] == pytest.approx(0.06)
    table = tabulate_lengths({"one": [scored(valid), scored(valid)]}).set_index("kept")
    assert table.loc["50 epochs", "difference_mean"] == pytest.approx(0.047)
    # A better epoch just in time is taken.
    valid[22] = 0.55
    assert _lengths(scored(valid))["early stopping"][0] == 24


def test_orders_are_compared_seed_by_seed_and_drawn(tmp_path):
    orders = ("shuffled", "sorted", "alone", "own")
    for seed in (1, 2):
        run = scored([0.5, 0.6], orders)
        # In the second epoch sorted batches are worse, more so with another seed.
        worse = (run["epoch"] == 2) & (run["split"] == "test") & (run["order"] == "sorted")
        run.loc[worse, "accuracy"] -= seed / 10
        run.to_csv(tmp_path / f"batch-s{seed}.csv", index=False)
    for path in draw(tmp_path, ["batch"]):
        assert path.stat().st_size > 100
    table = pd.read_csv(tmp_path / "orders.csv").set_index(["split", "seed", "epoch"]).sort_index()
    for seed in (1, 2):
        assert table.loc[("test", seed), "sorted_gain"].tolist() == pytest.approx([0.1, 0.1 - seed / 10])
        assert table.loc[("test", seed), "alone_gain"].tolist() == pytest.approx([0.2, 0.2])
        assert table.loc[("valid", seed), "sorted_gain"].tolist() == pytest.approx([0, 0])
    gains = pd.read_csv(tmp_path / "gains.csv").set_index(["split", "seed"])
    assert gains.loc[("test", 2), "sorted_gain_mean"] == pytest.approx(0)
    assert gains.loc[("test", 2), "sorted_gain_min"] == pytest.approx(-0.1)
    assert gains.loc[("test", 2), "sorted_gain_max"] == pytest.approx(0.1)
    recalls = pd.read_csv(tmp_path / "recalls.csv").set_index(["seed", "split", "epoch", "order"])
    assert recalls.loc[(2, "test", 2, "sorted"), "recall_positive"] == pytest.approx(0.7)
    assert "own" not in recalls.index.get_level_values("order")
    # Another name that begins alike is another training.
    (tmp_path / "batch-small-s1.csv").write_text("nothing")
    draw(tmp_path, ["batch"])
    with pytest.raises(UserError, match=r"no such file; run `python -m studies\.epochs train other`"):
        draw(tmp_path, ["other"])
