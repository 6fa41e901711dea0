"""The two steps, the loop, and what training promises of its result."""

import copy
import dataclasses
import json
import math
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dvclive import Live
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from spp_scl.errors import UserError
from spp_scl.model.inference import predict
from spp_scl.model.metrics import classification_metrics, confusion_matrix, scores, scores_per_class
from spp_scl.model.network import ModelConfig, SppScl
from spp_scl.params import TrainParams
from spp_scl.train.artifact import Artifact, load_model, require_features, save_model
from spp_scl.train.checkpoint import Checkpoint, training_key
from spp_scl.train.losses import inter_modal_loss, intra_modal_loss
from spp_scl.train.training import METRICS, complete_log, epoch_batches, train, train_batch
from tests.pipeline import ROOT

PARAMS = TrainParams(
    epochs=3,
    batch_size=16,
    learning_rate=1e-3,
    weight_decay=1e-6,
    lr_step=2,
    lr_decay=0.5,
    ce_weight=5.0,
    intra_modal=True,
    anchor_in_denominator=False,
    step2="gated",
    anchors="image",
    gate="exact",
    temperature=0.07,
    patience=0,
    keep="best",
    threads=2,
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """DVCLive looks for a Git repository with a commit around the working directory."""
    folder = tmp_path_factory.mktemp("repository")
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "x"], cwd=folder, check=True)
    return folder


@pytest.fixture(autouse=True)
def _inside_a_repository(repository, monkeypatch):
    monkeypatch.chdir(repository)


def run(data, fusion="sample", alpha=2 / 3, seed=42, **changes):
    config = ModelConfig(len(data.classes), data.text_width, fusion, 0.2)
    return train(
        data,
        config,
        alpha=alpha,
        seed=seed,
        params=PARAMS.model_copy(update=changes),
        selection="f1_weighted",
        live=Live("live", save_dvc_exp=False, dvcyaml=None),
    )


def artifact(data, trained):
    return Artifact(trained.model.config, data.classes, data.fingerprint, None, 16, 42, 2, trained.summary())


def read_log(name):
    header, *rows = Path(f"live/plots/metrics/{name}.tsv").read_text().split("\n")[:-1]
    assert header.split("\t")[0] == "step"
    return [float(row.split("\t")[1]) for row in rows]


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
    """One batch by hand, with plain autograd and AdamW, dropout off so that both forwards agree."""
    rows = data.rows["train"][:16]
    batch = data.features.batch(rows)
    labels = data.labels[rows[batch.order]]
    config = ModelConfig(len(data.classes), data.text_width, "sample", 0.0)
    ours, theirs = SppScl(config), SppScl(config)
    theirs.load_state_dict(ours.state_dict())
    optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-3, weight_decay=1e-6) for m in (ours, theirs)]
    losses, decision = train_batch(ours, optimizers[0], batch, labels, alpha=100.0, params=PARAMS)
    assert decision.step2

    output = theirs(batch)
    first = 5 * F.cross_entropy(output.logits, labels)
    first = first + intra_modal_loss(output.text, labels, 0.07) + intra_modal_loss(output.image, labels, 0.07)
    first.backward()
    optimizers[1].step()
    optimizers[1].zero_grad()
    output = theirs(batch)
    second = inter_modal_loss(output.image, output.text, labels, 0.07)
    second.backward()
    optimizers[1].step()
    assert losses["loss"].item() == pytest.approx(first.item(), rel=1e-6)
    assert losses["loss_clm"].item() == pytest.approx(second.item(), rel=1e-6)
    expected = dict(theirs.named_parameters())
    for name, value in ours.named_parameters():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-7, msg=name)


def test_without_step_2_the_weights_are_those_of_step_1_alone(data):
    rows = data.rows["train"][:16]
    batch = data.features.batch(rows)
    labels = data.labels[rows[batch.order]]
    model = SppScl(ModelConfig(len(data.classes), data.text_width, "sample", 0.2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses, decision = train_batch(model, optimizer, batch, labels, alpha=0.0, params=PARAMS)
    assert not decision.step2
    assert "loss_clm" not in losses
    assert {s["step"].item() for s in optimizer.state.values()} == {1}


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
    scores = read_log("valid/f1_weighted")
    assert trained.best_epoch == 1 + scores.index(max(scores))
    output = predict(trained.model, data.features, data.rows["valid"], 16, 42)
    found = classification_metrics(output.logits, data.labels[data.rows["valid"]], data.classes)
    assert found["f1_weighted"] == pytest.approx(max(scores))


def test_patience_stops_early_and_zero_never_does(data):
    # At a rate of nearly zero the score never changes after the first epoch.
    assert run(data, epochs=6, patience=2, learning_rate=1e-12).epochs == 3
    assert run(data, epochs=6, patience=0, learning_rate=1e-12).epochs == 6


def test_the_log_has_a_line_a_batch_and_a_line_an_epoch(data):
    trained = run(data, alpha=100.0)
    batches = len(trained.gates)
    assert batches == 3 * 3
    for name in ("loss", "loss_ce", "loss_clt", "loss_cli", "loss_clm", "step2", "count_over_p"):
        assert len(read_log(f"batch/{name}")) == batches
    epochs = ["epoch/loss", "epoch/step2_share", "epoch/count_over_p", "epoch/saturated_share"]
    for name in [*epochs, "valid/loss", "valid/accuracy", "valid/f1_weighted", "valid/f1_macro"]:
        assert len(read_log(name)) == 3
    assert read_log("epoch/learning_rate") == pytest.approx([1e-3, 1e-3, 5e-4])
    total = [
        5 * ce + t + i
        for ce, t, i in zip(*(read_log(f"batch/loss_{x}") for x in ("ce", "clt", "cli")), strict=True)
    ]
    assert read_log("batch/loss") == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(("alpha", "share", "mattered"), [(0.0, 0.0, False), (1e6, 1.0, False)])
def test_a_run_in_which_alpha_made_no_difference_says_so(data, alpha, share, mattered):
    summary = run(data, alpha=alpha).summary()
    assert (summary["step2_share"], summary["alpha_mattered"]) == (share, mattered)


def test_whatever_a_run_lacks_every_plot_of_the_pipeline_has_a_file(data):
    run(data, alpha=0.0)  # without step 2, so without its loss
    logged = set(Path("live").rglob("*.tsv"))
    contents = {path: path.read_bytes() for path in logged}
    assert {f"{p.parent.name}/{p.stem}" for p in logged} <= set(METRICS)
    complete_log(Path("live"))
    assert all(path.read_bytes() == content for path, content in contents.items())
    assert Path("live/plots/metrics/epoch/loss_clm.tsv").read_text() == "step\tloss_clm\n"
    plotted = re.findall(r"reports/train/(plots/\S*\.tsv)", (ROOT / "dvc.yaml").read_text())
    assert len(plotted) > 15
    assert all(Path("live", path).is_file() for path in plotted)


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
    bounds = sorted(g.alpha_from for g in run(data, alpha=0.0).gates)
    summary = run(data, alpha=bounds[len(bounds) // 2]).summary()
    assert (summary["alpha_mattered"], summary["alpha_bound"]) == (True, None)


def test_the_test_split_is_not_touched_in_training(data, monkeypatch):
    seen = set()
    gather = type(data.features).batch

    def watch(self, rows):
        seen.update(rows.tolist())
        return gather(self, rows)

    monkeypatch.setattr(type(data.features), "batch", watch)
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
    outputs = [predict(m, data.features, rows, 16, 42).logits for m in (trained.model, model)]
    assert torch.equal(*outputs)


def test_per_sample_predictions_are_the_same_at_any_batch_size_and_order(data):
    model = run(data, epochs=1).model
    rows = data.rows["train"]
    whole = predict(model, data.features, rows, 64, 42).logits
    for size in (1, 7):
        torch.testing.assert_close(
            predict(model, data.features, rows, size, 1).logits, whole, rtol=1e-4, atol=1e-5
        )
    order = torch.randperm(len(rows))
    shuffled = predict(model, data.features, rows[order], 16, 42).logits
    torch.testing.assert_close(shuffled, whole[order], rtol=1e-4, atol=1e-5)


def test_batch_fusion_is_evaluated_in_a_drawn_order_not_in_the_files(data):
    model = run(data, "batch", epochs=1).model
    rows = data.rows["train"]
    batches = []
    gather = type(data.features).batch
    watched = type("Watched", (), {"lengths": data.features.lengths})()
    watched.batch = lambda r: (batches.append(r.tolist()), gather(data.features, r))[1]
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
        values["config"]["fusion"] = "batch"
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


class Log:
    """A log in memory, as `train` needs one."""

    def __init__(self, lines=()):
        self.step, self.summary, self.lines = 0, {}, list(lines)

    def log_metric(self, name, val):
        self.lines.append((self.step, name, val))
        self.summary[name] = val

    def make_summary(self):
        self.lines.append(dict(self.summary))


@pytest.mark.parametrize("fusion", ["sample", "batch"])
@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_a_training_that_goes_on_ends_as_if_it_had_never_stopped(epoch, fusion, data):
    config = ModelConfig(len(data.classes), data.text_width, fusion, 0.2)
    settings = {
        "alpha": 2 / 3,
        "seed": 42,
        "params": PARAMS.model_copy(update={"epochs": 4}),
        "selection": "f1_macro",
    }
    states, whole = [], Log()
    # Copied as a file would: the run goes on changing its own tensors.
    keep = lambda state: states.append((copy.deepcopy(state), list(whole.lines)))  # noqa: E731
    wanted = train(data, config, live=whole, save=keep, **settings)
    torch.manual_seed(1234)
    state, lines = states[epoch - 1]
    log = Log(lines)
    found = train(data, config, live=log, state=state, **settings)
    assert log.lines == whole.lines
    assert found.summary() == wanted.summary()
    for name, value in wanted.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value), name


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "log/sub").mkdir(parents=True)
    (tmp_path / "log/a.tsv").write_text("one\n")
    (tmp_path / "log/sub/b.tsv").write_text("")
    checkpoint = Checkpoint(tmp_path / "c.tmp", tmp_path / "log", "key")
    checkpoint.save({"epoch": 3, "weights": {"x": torch.arange(3.0)}})
    return checkpoint


def test_a_checkpoint_gives_back_its_state_and_cuts_the_log_back_to_it(checkpoint):
    (checkpoint.log_folder / "a.tsv").write_text("one\ntwo, and half a li")
    (checkpoint.log_folder / "c.tsv").write_text("begun later\n")
    (checkpoint.log_folder / "metrics.json").write_text("{half")
    state = checkpoint.load()
    assert state["epoch"] == 3
    assert torch.equal(state["weights"]["x"], torch.arange(3.0))
    found = {p.name: p.read_text() for p in checkpoint.log_folder.rglob("*") if p.is_file()}
    assert found == {"a.tsv": "one\n", "b.tsv": ""}
    checkpoint.remove()
    assert not checkpoint.path.exists()


@pytest.mark.parametrize(
    "why", ["flipped", "truncated", "empty", "another training", "a shorter log", "none"]
)
def test_a_checkpoint_that_is_damaged_or_of_another_training_is_not_used(why, checkpoint, caplog):
    whole = checkpoint.path.read_bytes()
    broken = {
        "flipped": whole[:700] + bytes([whole[700] ^ 1]) + whole[701:],
        "truncated": whole[:-9],
        "empty": b"",
    }
    if why in broken:
        checkpoint.path.write_bytes(broken[why])
    elif why == "another training":
        checkpoint = dataclasses.replace(checkpoint, key="other")
    elif why == "a shorter log":
        (checkpoint.log_folder / "a.tsv").write_text("on")
    else:
        checkpoint.remove()
    assert checkpoint.load() is None
    # Neither may meet a later run's other half.
    assert not checkpoint.log_folder.exists()
    assert not checkpoint.path.exists()
    assert ("c.tmp: the checkpoint is damaged" in caplog.text) == (why in broken)


def test_a_training_is_told_from_another_by_its_data_network_and_settings(data):
    config = ModelConfig(len(data.classes), data.text_width, "sample", 0.2)
    key = training_key(data, config, {"seed": 1})
    assert key == training_key(data, config, {"seed": 1})
    others = {
        training_key(data, config, {"seed": 2}),
        training_key(data, dataclasses.replace(config, dropout=0.3), {"seed": 1}),
        training_key(dataclasses.replace(data, digest="other"), config, {"seed": 1}),
    }
    assert len(others | {key}) == 4
