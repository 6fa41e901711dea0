"""The two steps, the loop, and what training promises of its result."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from ruamel.yaml import YAML
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from spp_scl.batches.data import load_data, load_dataset
from spp_scl.errors import UserError
from spp_scl.methods.shared.losses import inter_modal_loss, intra_modal_loss
from spp_scl.methods.shared.method import Step
from spp_scl.methods.shared.prediction import predict
from spp_scl.methods.spp_scl import SppScl
from spp_scl.metrics import classification_metrics, confusion_matrix, scores, scores_per_class
from spp_scl.training import training
from spp_scl.training.artifact import hash_ids, load_model, require_features, require_usable, save_model
from spp_scl.training.checkpoint import load_checkpoint, save_checkpoint, training_key
from spp_scl.training.log import VALIDATION
from spp_scl.training.recipe import make_method
from spp_scl.training.training import epoch_batches, train, train_batch
from spp_scl.training.updates import Updates
from tests.pipeline import ROOT
from tests.recipes import FINETUNED, TRAIN, make_artifact, make_network, make_recipe, sizes_of, start, widen

LOGGED = ("L_ce", "L_clt", "L_cli", "L_clm", "step2", "step2_float32", "count_over_p", "saturated_share")
COLUMNS = {
    "batches": ("batch", "epoch", "loss", *LOGGED),
    "epochs": ("epoch", "learning_rate", "loss", *LOGGED, *(f"valid_{name}" for name in VALIDATION)),
}
CURVES = ("epoch", "plot", "curve", "value")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(data, fusion="sample", seed=42, folder="run", keep="best", patience=0, **changes):
    """A training from its beginning; its log lies in `folder`, and beside it its last checkpoint."""
    Path(folder, "checkpoint").unlink(missing_ok=True)
    return train(
        data,
        make_recipe(fusion=fusion, **changes),
        seed=seed,
        params=TRAIN.model_copy(update={"keep": keep, "patience": patience}),
        log_folder=folder,
        checkpoint=f"{folder}/checkpoint",
    )


def artifact(data, trained):
    return make_artifact(data, trained.model, training=trained.summary())


def read_log(name):
    return pd.read_csv(f"run/{name}.csv")


@pytest.mark.parametrize("fusion", ["sample", "batch"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(data, fusion, tmp_path):
    files = []
    for name, seed in (("a", 42), ("b", 42), ("c", 7)):
        trained = run(data, fusion, seed=seed)
        save_model(tmp_path / f"{name}.safetensors", trained.model, artifact(data, trained))
        files.append([(tmp_path / f"{name}{end}").read_bytes() for end in (".safetensors", ".json")])
    assert files[0] == files[1]
    assert files[0][0] != files[2][0]


def test_step_1_and_step_2_are_the_method(data):
    """One batch by hand in float64, with plain autograd and AdamW; without dropout both forwards agree."""
    batch = widen(data.source.batch(data.rows["train"][:16]))
    ours, theirs = (make_network(sizes_of(data), dropout=0.0, alpha=100.0).double() for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    found = train_batch(start(ours), batch, last=True)
    assert found["step2"]

    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-3, weight_decay=1e-6)
    output = theirs(batch)
    first = 5 * F.cross_entropy(output.logits, batch.labels)
    for name in ("text", "image"):
        first = first + intra_modal_loss(output.vectors[name], batch.labels, 0.07)
    first.backward()
    optimizer.step()
    optimizer.zero_grad()
    output = theirs(batch)
    second = inter_modal_loss(output.vectors["image"], output.vectors["text"], batch.labels, 0.07)
    second.backward()
    optimizer.step()
    assert found["loss"].item() == pytest.approx(first.item(), rel=1e-12)
    assert found["L_clm"].item() == pytest.approx(second.item(), rel=1e-9)
    expected = dict(theirs.named_parameters())
    for name, value in ours.named_parameters():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-9, msg=name)


def test_without_step_2_the_weights_are_those_of_step_1_alone(data):
    state = start(make_network(sizes_of(data), alpha=0.0))
    found = train_batch(state, data.source.batch(data.rows["train"][:16]), last=True)
    assert not found["step2"]
    assert "L_clm" not in found
    assert {s["step"].item() for s in state.updates.optimizer.state.values()} == {1}


def test_a_batch_has_the_labels_of_its_own_order(data):
    rows = data.rows["train"][:16]
    batch = data.source.batch(rows)
    assert batch.order.tolist() != list(range(16))
    assert batch.labels.tolist() == data.labels[rows[batch.order]].tolist()


def test_epochs_cover_every_row_once_and_leave_no_batch_of_one():
    for n, size in ((33, 16), (32, 16), (17, 16), (5, 16), (2, 2), (3, 2)):
        batches = epoch_batches(torch.arange(n), size, torch.Generator().manual_seed(0))
        assert sorted(torch.cat(batches).tolist()) == list(range(n))
        assert min(map(len, batches)) > 1
        assert max(map(len, batches)) <= size + 1


def test_training_with_a_last_batch_of_one_works(data):
    assert len(data.rows["train"]) % 47 == 1, "the fixture's size must leave one row over"
    assert run(data, epochs=1, batch_size=47).epochs == 1


def test_the_best_epoch_on_validation_data_is_kept(data):
    trained = run(data, epochs=6)
    scores = read_log("epochs")["valid_f1_weighted"]
    assert trained.best_epoch == 1 + scores.argmax()
    output = predict(trained.model, data.source, data.rows["valid"], 16, 42)
    found = classification_metrics(output.logits, data.labels[data.rows["valid"]], data.classes)
    assert found["f1_weighted"] == pytest.approx(scores.max(), abs=1e-6)


def test_patience_stops_early_and_zero_never_does(data):
    # At a rate of nearly zero the score never changes after the first epoch.
    assert run(data, epochs=6, patience=2, learning_rate=1e-12).epochs == 3
    assert run(data, epochs=6, patience=0, learning_rate=1e-12).epochs == 6


@pytest.mark.parametrize(("selection", "best"), [("f1_weighted", 2), ("f1_macro", 3)])
def test_the_best_epoch_is_chosen_by_the_metric_of_the_dataset(data, selection, best, monkeypatch):
    metrics, epochs = training.classification_metrics, iter(({}, {"f1_weighted": 2.0}, {"f1_macro": 2.0}))
    monkeypatch.setattr(training, "classification_metrics", lambda *args: {**metrics(*args), **next(epochs)})
    assert run(dataclasses.replace(data, selection=selection)).best_epoch == best


def test_the_log_has_a_row_a_batch_and_a_row_an_epoch(data):
    trained = run(data, alpha=100.0)
    batches, epochs, curves = read_log("batches"), read_log("epochs"), read_log("curves")
    assert tuple(batches.columns) == COLUMNS["batches"]
    assert tuple(epochs.columns) == COLUMNS["epochs"]
    assert tuple(curves.columns) == CURVES
    assert batches["batch"].tolist() == list(range(1, len(trained.rows) + 1)) == list(range(1, 10))
    assert batches["epoch"].tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert epochs["epoch"].tolist() == [1, 2, 3]
    assert batches.notna().all(axis=None)
    assert epochs.notna().all(axis=None)
    assert epochs["learning_rate"].tolist() == pytest.approx([1e-3, 1e-3, 5e-4])
    total = 5 * batches["L_ce"] + batches["L_clt"] + batches["L_cli"]
    np.testing.assert_allclose(batches["loss"], total, rtol=1e-5)
    assert batches["count_over_p"].tolist() == pytest.approx(
        [row["count_over_p"] for row in trained.rows], rel=1e-5
    )
    assert batches["step2"].tolist() == [1] * 9
    means = batches.groupby("epoch")[["loss", "L_ce", "L_clt", "L_cli", "L_clm", "count_over_p"]].mean()
    np.testing.assert_allclose(epochs[means.columns], means, rtol=1e-4)
    drawn = {(plot, curve) for plot, curves in SppScl.plots.items() for curve in curves}
    assert set(curves[["plot", "curve"]].itertuples(index=False, name=None)) == drawn
    assert {curve for _, curve in drawn} == set(LOGGED)
    for (_, curve), own in curves.groupby(["plot", "curve"]):
        assert own["epoch"].tolist() == [1, 2, 3]
        assert own["value"].tolist() == epochs[curve].tolist()


def test_the_log_is_whole_after_each_epoch(data, monkeypatch):
    """`dvc plots show` reads it while the training runs."""
    seen, save = [], training.save_checkpoint

    def look(*args):
        seen.append((len(read_log("batches")), len(read_log("epochs"))))
        save(*args)

    monkeypatch.setattr(training, "save_checkpoint", look)
    run(data)
    assert seen == [(3, 1), (6, 2), (9, 3)]


@pytest.mark.parametrize(("alpha", "share", "mattered"), [(0.0, 0.0, False), (1e6, 1.0, False)])
def test_a_run_in_which_alpha_made_no_difference_says_so(data, alpha, share, mattered):
    summary = run(data, alpha=alpha).summary()
    assert (summary["step2_share"], summary["alpha_mattered"]) == (share, mattered)


@pytest.mark.parametrize("changes", [{"step2": "never"}, {"alpha": 0.0}, {"intra_modal": False}])
def test_whatever_a_run_lacks_every_column_that_is_plotted_is_there(data, changes):
    run(data, epochs=1, **changes)
    empty = "L_clt" if "intra_modal" in changes else "L_clm"
    for name, columns in COLUMNS.items():
        log = read_log(name)
        assert tuple(log.columns) == columns
        assert log[empty].isna().all()
        assert log["loss"].notna().all()
    # What a run lacks is no curve of it, and an empty value would be drawn as 0.
    curves = read_log("curves")
    assert tuple(curves.columns) == CURVES
    assert curves.notna().all(axis=None)
    assert set(LOGGED) - set(curves["curve"]) == set(LOGGED) - set(
        read_log("epochs").dropna(axis=1, how="all")
    )
    plots = YAML(typ="safe").load(ROOT / "dvc.yaml")["plots"]
    own = {f"reports/train/{name}.csv": columns for name, columns in {**COLUMNS, "curves": CURVES}.items()}
    plotted = 0
    for plot in plots:
        for properties in plot.values() if isinstance(plot, dict) else ():
            for file, columns in properties["y"].items() if isinstance(properties["y"], dict) else ():
                assert {properties["x"], *([columns] if isinstance(columns, str) else columns)} <= set(
                    own[file]
                )
                # The default template draws an empty value as 0.
                of_curves = file == "reports/train/curves.csv"
                assert properties["template"] == (".dvc/plots/curves.json" if of_curves else "simple")
                plotted += 1
    assert plotted >= 7


def test_the_template_of_the_curves_reads_what_the_log_writes():
    template = json.loads((ROOT / ".dvc/plots/curves.json").read_text())
    encoding = template["spec"]["encoding"]
    fields = {template["facet"]["row"]["field"], *(each["field"] for each in encoding.values())}
    assert fields == {"plot", "curve", "rev", "<DVC_METRIC_X>", "<DVC_METRIC_Y>"}
    assert {"plot", "curve"} <= set(CURVES)


@pytest.mark.parametrize("alpha", [0.0, 1e6])
def test_an_alpha_on_the_same_side_of_the_bound_gives_the_same_model_and_one_beyond_another(data, alpha):
    trained = run(data, alpha=alpha, keep="last")
    bound = trained.summary()["alpha_bound"]
    side = 1 if alpha > bound else -1

    def same(other: float) -> bool:
        weights = run(data, alpha=other, keep="last").model.state_dict()
        return all(torch.equal(weights[name], t) for name, t in trained.model.state_dict().items())

    below = math.nextafter(bound, 0)
    assert (same(bound), same(below)) == ((True, False) if side > 0 else (False, True))


def test_where_alpha_has_no_say_or_mattered_there_is_no_bound(data):
    assert run(data, alpha=0.0, step2="always").summary()["alpha_bound"] is None
    assert run(data, alpha=0.0, step2="never").summary()["alpha_bound"] is None
    bounds = sorted(row["alpha_from"] for row in run(data, alpha=0.0).rows)
    summary = run(data, alpha=bounds[len(bounds) // 2]).summary()
    assert (summary["alpha_mattered"], summary["alpha_bound"]) == (True, None)


def test_the_test_split_is_not_touched_in_training(data, monkeypatch):
    seen = set()
    gather = type(data.source).batch

    def watch(self, rows):
        seen.update(rows.tolist())
        return gather(self, rows)

    monkeypatch.setattr(type(data.source), "batch", watch)
    run(data, epochs=1)
    assert seen == set(data.rows["train"].tolist()) | set(data.rows["valid"].tolist())


def test_a_loss_that_is_not_finite_is_a_clear_error(data):
    with pytest.raises(UserError, match=r"no longer a finite number \(epoch 1\)"):
        run(data, learning_rate=1e30)


def test_a_saved_model_predicts_the_same_after_loading(data, tmp_path):
    trained = run(data)
    save_model(tmp_path / "model.safetensors", trained.model, artifact(data, trained))
    model, loaded = load_model(tmp_path / "model.safetensors")
    assert loaded == artifact(data, trained)
    assert not model.training
    rows = data.rows["test"]
    outputs = [predict(m, data.source, rows, 16, 42).logits for m in (trained.model, model)]
    assert torch.equal(*outputs)


def test_per_sample_predictions_are_the_same_at_any_batch_size_and_order(data):
    model = run(data, epochs=1).model
    rows = data.rows["train"]
    whole = predict(model, data.source, rows, 64, 42).logits
    for size in (1, 7):
        torch.testing.assert_close(
            predict(model, data.source, rows, size, 1).logits, whole, rtol=1e-4, atol=1e-5
        )
    order = torch.randperm(len(rows))
    shuffled = predict(model, data.source, rows[order], 16, 42).logits
    torch.testing.assert_close(shuffled, whole[order], rtol=1e-4, atol=1e-5)


def test_batch_fusion_is_evaluated_in_a_drawn_order_not_in_the_files(data):
    model = run(data, "batch", epochs=1).model
    rows = data.rows["train"]
    batches = []
    gather = type(data.source).batch
    watched = type("Watched", (), {"lengths": data.source.lengths})()
    watched.batch = lambda r: (batches.append(r.tolist()), gather(data.source, r))[1]
    predict(model, watched, rows, 16, seed=42)
    seen = [row for batch in batches for row in batch]
    assert sorted(seen) == sorted(rows.tolist())
    assert seen != rows.tolist()


@pytest.mark.parametrize("damage", ["missing", "truncated", "not json", "another network", "unknown key"])
def test_a_damaged_model_is_named_with_the_way_to_train_it_again(damage, data, tmp_path):
    trained = run(data, epochs=1)
    path = tmp_path / "model.safetensors"
    save_model(path, trained.model, artifact(data, trained))
    values = json.loads(path.with_suffix(".json").read_text())
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "not json":
        path.with_suffix(".json").write_text("{")
    elif damage == "another network":
        values["settings"]["fusion"] = "batch"
        path.with_suffix(".json").write_text(json.dumps(values))
    else:
        path.with_suffix(".json").write_text(json.dumps({**values, "more": 1}))
    with pytest.raises(UserError, match=r"model\.(safetensors|json)"):
        load_model(path)


def test_features_of_another_encoder_or_other_classes_are_refused(data, tmp_path):
    trained = run(data, epochs=1)
    known = artifact(data, trained)
    require_features(known, data.fingerprint, data.classes, "model")
    with pytest.raises(UserError, match="features of another encoder"):
        require_features(known, "0" * 64, data.classes, "model")
    with pytest.raises(UserError, match="knows the classes positive, neutral, negative"):
        require_features(known, data.fingerprint, ["yes", "no"], "model")


def test_metrics_are_those_of_their_definitions():
    logits = torch.tensor([[3.0, 0, 0], [2.0, 0, 1], [0, 1.0, 0], [0, 0.5, 0], [1.0, 0, 0]])
    truth, predicted = [0, 2, 1, 0, 0], [0, 0, 1, 1, 0]
    found = classification_metrics(logits, torch.tensor(truth), ["a", "b", "c"])
    each, precision, recall = {}, {}, {}
    for c in range(3):
        hits = sum(t == p == c for t, p in zip(truth, predicted, strict=True))
        precision[c] = hits / predicted.count(c) if predicted.count(c) else 0.0
        recall[c] = hits / truth.count(c)
        both = precision[c] + recall[c]
        each[c] = 2 * precision[c] * recall[c] / both if both else 0.0
    weights = {c: truth.count(c) / 5 for c in range(3)}
    losses = [-(row[t] - row.exp().sum().log()) for row, t in zip(logits, truth, strict=True)]
    assert found == {
        "accuracy": pytest.approx(3 / 5),
        "f1_weighted": pytest.approx(sum(weights[c] * each[c] for c in range(3))),
        "f1_macro": pytest.approx(sum(each.values()) / 3),
        "precision_weighted": pytest.approx(sum(weights[c] * precision[c] for c in range(3))),
        "recall_weighted": pytest.approx(sum(weights[c] * recall[c] for c in range(3))),
        "loss": pytest.approx(sum(loss.item() for loss in losses) / 5),
        "f1": {name: pytest.approx(each[c]) for c, name in enumerate("abc")},
    }


@pytest.mark.parametrize("n", [3, 40, 400])
def test_scores_are_scikit_learns_also_for_many_matrices_at_once(n):
    rng = np.random.default_rng(n)
    # Of four classes one may never be predicted, and with three rows one never occurs.
    pairs = [(rng.integers(0, 4, n), rng.integers(0, 3, n)) for _ in range(5)]
    matrices = np.stack([confusion_matrix(*pair, 4) for pair in pairs])
    found, each = scores(matrices), scores_per_class(matrices)
    options = {"labels": range(4), "zero_division": 0}
    for i, (truth, predicted) in enumerate(pairs):
        assert found["accuracy"][i] == pytest.approx(accuracy_score(truth, predicted))
        expected = precision_recall_fscore_support(truth, predicted, **options)
        for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
            assert each[name][i] == pytest.approx(values)
        macro = f1_score(truth, predicted, average="macro", zero_division=0)
        assert found["f1_macro"][i] == pytest.approx(macro)
        expected = precision_recall_fscore_support(truth, predicted, average="weighted", **options)
        for name, value in zip(("precision", "recall", "f1"), expected[:3], strict=True):
            assert found[f"{name}_weighted"][i] == pytest.approx(value)


def test_scores_without_a_class_do_not_count_it():
    """A resample, or a test set without its repeats, may lack a class."""
    matrix = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert scores(matrix)["f1_macro"] == pytest.approx((6 / 7 + 8 / 9) / 2)


@pytest.mark.parametrize("fusion", ["sample", "batch"])
@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_a_training_that_goes_on_ends_as_if_it_had_never_stopped(epoch, fusion, data, monkeypatch, caplog):
    save = training.save_checkpoint

    def keep(path, key, state):
        save(path, key, state)
        shutil.copy(path, f"after{state['epoch']}")

    monkeypatch.setattr(training, "save_checkpoint", keep)
    wanted = run(data, fusion, epochs=4)
    logs = [Path(f"run/{name}.csv").read_bytes() for name in ("batches", "epochs", "curves")]
    torch.manual_seed(1234)
    Path("batches.csv").write_text("half of a li")
    Path(f"after{epoch}").rename("checkpoint")
    caplog.set_level("INFO")
    found = train(
        data,
        make_recipe(fusion=fusion, epochs=4),
        seed=42,
        params=TRAIN,
        log_folder=".",
        checkpoint="checkpoint",
    )
    assert f"going on after epoch {epoch}" in caplog.text
    assert [Path(f"{name}.csv").read_bytes() for name in ("batches", "epochs", "curves")] == logs
    assert found.summary() == wanted.summary()
    for name, value in wanted.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value), name


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "c.tmp"
    weights = {"x": torch.arange(3000.0), "y": torch.ones(5, dtype=torch.int64)}
    save_checkpoint(path, "key", {"epoch": 3, "weights": weights, "gates": [(1, None)]})
    return path


def test_a_checkpoint_gives_back_its_state(checkpoint):
    state = load_checkpoint(checkpoint, "key")
    assert (state["epoch"], state["gates"]) == (3, [(1, None)])
    assert torch.equal(state["weights"]["x"], torch.arange(3000.0))


@pytest.mark.parametrize("size", [0, 1, 100, 5000, -1])
def test_a_truncated_checkpoint_is_not_used(size, checkpoint, caplog):
    checkpoint.write_bytes(checkpoint.read_bytes()[:size])
    assert load_checkpoint(checkpoint, "key") is None
    assert "c.tmp: the checkpoint is damaged" in caplog.text


def test_a_checkpoint_with_a_flipped_bit_is_not_used_or_gives_the_same_state(checkpoint, caplog):
    """A zip archive has bytes that say nothing; in them a flipped bit is no damage."""
    whole, wanted = checkpoint.read_bytes(), load_checkpoint(checkpoint, "key")
    places = [*range(0, len(whole), 97), whole.index(torch.arange(3000.0).numpy().tobytes()) + 5000]
    used = 0
    for place in places:
        checkpoint.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        state = load_checkpoint(checkpoint, "key")
        if state is not None:
            used += 1
            assert (state["epoch"], state["gates"]) == (wanted["epoch"], wanted["gates"])
            assert all(torch.equal(state["weights"][n], t) for n, t in wanted["weights"].items())
    assert used < len(places) / 5
    assert state is None, "the last one lies among the numbers"
    assert "differs from its CRC" in caplog.text


def test_a_checkpoint_of_another_training_is_not_used(checkpoint, caplog):
    assert load_checkpoint(checkpoint, "other") is None
    assert "c.tmp: the checkpoint is of another training" in caplog.text
    checkpoint.unlink()
    caplog.clear()
    assert load_checkpoint(checkpoint, "key") is None
    assert not caplog.text


def test_nothing_pickled_in_a_checkpoint_is_executed(checkpoint, caplog):
    torch.save({"key": "key", "state": Path}, checkpoint)
    assert load_checkpoint(checkpoint, "key") is None
    assert "damaged" in caplog.text


def test_a_training_is_distinguished_by_its_data_recipe_and_settings(data):
    recipe = make_recipe()
    key = training_key(data, recipe, {"seed": 1})
    assert key == training_key(data, make_recipe(), {"seed": 1})
    others = {
        training_key(data, recipe, {"seed": 2}),
        training_key(data, make_recipe(dropout=0.3), {"seed": 1}),
        training_key(data, dataclasses.replace(recipe, encoders="live"), {"seed": 1}),
        training_key(data, dataclasses.replace(recipe, sources={"text": {"seed": 1}}), {"seed": 1}),
        training_key(dataclasses.replace(data, digest="other"), recipe, {"seed": 1}),
    }
    assert len(others | {key}) == 6


def test_a_training_is_distinguished_by_its_code(data, tmp_path, monkeypatch):
    recipe = make_recipe()
    key = training_key(data, recipe, {})
    package = shutil.copytree(ROOT / "spp_scl", tmp_path / "spp_scl")
    monkeypatch.setattr("spp_scl.__file__", str(package / "__init__.py"))
    assert training_key(data, recipe, {}) == key
    for file in (
        "methods/spp_scl.py",
        "methods/shared/losses.py",
        "training/updates.py",
        "batches/batch.py",
        "features/store.py",
        "metrics.py",
    ):
        before = (package / file).read_text()
        (package / file).write_text(before + "\nmore = 1\n")
        assert training_key(data, recipe, {}) != key, file
        (package / file).write_text(before)
    # Another method's code is no part of it.
    (package / "methods/other.py").write_text("\n")
    assert training_key(data, recipe, {}) == key


def test_a_dataset_is_read_from_where_the_stages_write_it(sample, data, tmp_path):
    places = {
        sample.clean: "clean/x.parquet",
        sample.split: "split/x.parquet",
        sample.images: "features/x/image.h5",
        sample.texts: "features/x/text.h5",
        sample.views: "views/x",
    }
    for source, place in places.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).symlink_to(source)
    assert load_dataset("x", tmp_path, views=True).digest == data.digest
    assert load_dataset("x", tmp_path).digest == load_data(*list(places)[:4]).digest != data.digest
    with pytest.raises(UserError, match=r"data/clean/x\.parquet: no such file"):
        load_dataset("x")


def test_a_clean_table_that_does_not_say_how_to_choose_the_epoch_is_refused(sample, tmp_path):
    table = pd.read_parquet(sample.clean)
    table.attrs = {}
    table.to_parquet(tmp_path / "clean.parquet", index=False)
    with pytest.raises(UserError, match=r"clean\.parquet: damaged \(not a clean table\)"):
        load_data(tmp_path / "clean.parquet", sample.split, sample.images, sample.texts)


def test_a_model_file_is_only_used_on_the_data_that_it_was_made_for(data):
    model = make_network(sizes_of(data), fusion="batch")
    known = make_artifact(data, model, features=None, trained_on=hash_ids(data.ids("train")))
    require_usable(known, data, "m")
    require_usable(dataclasses.replace(known, trained_on=None), data, "m")
    with pytest.raises(UserError, match=r"train\.weights: m: the model was trained on other tweets"):
        require_usable(dataclasses.replace(known, trained_on=hash_ids(data.ids("test"))), data, "m")
    wider = {**known.sizes, "text_width": 999}
    with pytest.raises(UserError, match=r"train\.weights: m: the model takes features of .*text_width 999"):
        require_usable(dataclasses.replace(known, sizes=wider), data, "m")
    own = dataclasses.replace(known, encoders={"text": {}})
    with pytest.raises(UserError, match=r"train\.weights: m: the model has encoders of its own"):
        require_usable(own, data, "m")


@pytest.mark.parametrize(("accumulation", "steps"), [(1, 1), (1, 2), (4, 1)])
def test_the_rates_of_a_finetuning_fall_to_0_however_many_steps_its_batches_take(data, accumulation, steps):
    finetuned = FINETUNED.model_copy(update={"warmup": 0.1, "decay": "linear", "accumulation": accumulation})
    recipe = dataclasses.replace(make_recipe(epochs=2), finetuned=finetuned)
    model = make_method(recipe, data, seed=1)
    if accumulation > 1:
        model.steps_a_batch = 1
    model.encoders = torch.nn.ModuleDict({"text": torch.nn.Linear(2, 2)})
    updates = Updates(model, recipe, batches=10)
    factors = []
    for batch in range(20):
        factors.append(updates.optimizer.param_groups[-1]["lr"] / 0.1)
        for _ in range(steps):
            loss = sum(p.sum() for p in model.parameters() if p.requires_grad)
            updates.apply(Step(loss), last=batch % 10 == 9)
        updates.end_batch()
    assert max(factors) == 1
    assert factors[0] == (1 if accumulation == 4 else 0.5)
    assert updates.optimizer.param_groups[-1]["lr"] == 0 < factors[-1]
