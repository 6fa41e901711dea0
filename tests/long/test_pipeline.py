"""The pipeline as a user runs it: DVC in a repository of its own, on a small sample."""

import csv
import io
import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML
from safetensors.torch import load_file

from spp_scl.methods.spp_scl import SppScl
from tests.pipeline import (
    ENVIRONMENT,
    ROOT,
    copy_clone,
    outputs,
    ran,
    run,
    set_params,
    small_clone,
    snapshot,
    stage,
    stages,
    temporary_files,
)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The working tree as a fresh repository, reproduced once."""
    folder = small_clone(tmp_path_factory.mktemp("clone"), epochs=2)
    assert ran(run(folder, "dvc", "repro")) == list(stages())
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "reproduced")
    return folder


@pytest.fixture
def used(clone):
    """The reproduced repository for a test that changes it: put back as it was afterwards."""
    yield clone
    run(clone, "git", "checkout", "-q", ".")
    run(clone, "dvc", "checkout")


@pytest.fixture
def copy(clone, tmp_path):
    """A copy of the reproduced repository to break, without DVC's cache."""
    return copy_clone(clone, tmp_path / "copy")


def test_a_second_repro_runs_nothing_and_leaves_nothing_behind(clone):
    output = run(clone, "dvc", "repro")
    assert ran(output) == []
    assert "up to date" in output
    assert run(clone, "git", "status", "--porcelain") == ""
    assert not temporary_files(clone)


def test_every_declared_output_is_there_and_is_what_it_says(clone):
    for declared in stages().values():
        for path in outputs(declared):
            assert (clone / path.replace("${dataset}", "sample")).exists(), path
    metrics = json.loads((clone / "reports/metrics.json").read_text())
    wanted = ["accuracy", "f1_weighted", "f1_macro", "precision_weighted", "recall_weighted", "loss", "f1"]
    assert list(metrics["valid"]) == list(metrics["test"]) == wanted
    assert list(metrics["test"]["f1"]) == ["positive", "neutral", "negative"]
    assert metrics["train"]["best_epoch"] in (1, 2)
    assert 0 <= metrics["train"]["step2_share"] <= 1
    clean = pd.read_parquet(clone / "data/clean/sample.parquet")
    split = pd.read_parquet(clone / "data/split/sample.parquet")
    assert list(split) == ["id", "split"]
    assert {"id", "text", "image", "label"} <= set(clean)
    report = json.loads((clone / "reports/clean.json").read_text())
    dropped = pd.read_csv(clone / "reports/dropped.csv")
    assert report["kept"] == len(clean) == 60
    assert report["dropped"] == dropped["reason"].value_counts().to_dict()
    assert report["rows"] == len(clean) + len(dropped)
    predictions = pd.read_csv(clone / "reports/predictions.csv", dtype={"id": str})
    assert predictions["id"].tolist() == [
        row for part in ("valid", "test") for row in split.loc[split["split"] == part, "id"]
    ]
    assert load_file(clone / "models/model.safetensors")["fc.bias"].shape == (3,)


def test_running_everything_again_leaves_the_lock_file_as_it_is(clone):
    before = (clone / "dvc.lock").read_bytes()
    # Features would be taken over from the last files.
    for name in ("image.h5", "text.h5"):
        (clone / "data/features/sample" / name).unlink()
    assert ran(run(clone, "dvc", "repro", "--force")) == list(stages())
    assert (clone / "dvc.lock").read_bytes() == before


def test_another_alpha_runs_only_the_training_and_what_follows(used):
    before = json.loads((used / "reports/metrics.json").read_text())
    assert ran(run(used, "dvc", "exp", "run", "-S", "alpha=0")) == ["recipe", "train", "evaluate", "report"]
    after = json.loads((used / "reports/metrics.json").read_text())
    assert before["train"]["step2_share"] > 0
    assert (after["train"]["step2_share"], after["train"]["alpha_mattered"]) == (0, False)
    assert "train.step2_share" in run(used, "dvc", "metrics", "diff")
    # There is nothing of the loss of a step that never ran, and a plot of it all the same.
    assert "failed" not in run(used, "dvc", "plots", "show")


def test_what_a_recipe_does_not_read_trains_nothing_again(used):
    """How encoders are trained, where none is."""
    set_params(used, finetuned={"warmup": 0.5})
    assert ran(run(used, "dvc", "repro")) == ["recipe"]


def test_the_way_back_from_an_experiment_runs_nothing(used):
    """As the README says it; and so does going forth again."""
    before, lock = snapshot(used), (used / "dvc.lock").read_bytes()
    assert ran(run(used, "dvc", "exp", "run", "-S", "alpha=0.25"))[:2] == ["recipe", "train"]
    after = snapshot(used)
    run(used, "git", "restore", "params.yaml")
    assert ran(run(used, "dvc", "repro")) == []
    assert snapshot(used) == before
    assert (used / "dvc.lock").read_bytes() == lock
    assert run(used, "git", "status", "--porcelain") == ""
    assert ran(run(used, "dvc", "exp", "run", "-S", "alpha=0.25")) == []
    assert snapshot(used) == after


def test_an_earlier_commit_runs_nothing(used):
    begun = run(used, "git", "rev-parse", "HEAD").strip()
    before = snapshot(used)
    set_params(used, alpha=0.5, tsne={"perplexity": 9.0}, split={"seed": 1})
    run(used, "dvc", "repro")
    run(used, "git", "commit", "-qam", "another split")
    assert snapshot(used) != before
    run(used, "git", "reset", "-q", "--hard", begun)
    assert ran(run(used, "dvc", "repro")) == []
    assert snapshot(used) == before


def test_another_text_encoder_does_not_compute_the_pictures_again(used):
    assert ran(run(used, "dvc", "repro", "--dry")) == []
    set_params(used, text_features={"seed": 7}, split={"protocol": "grouped"})
    would_run = ran(run(used, "dvc", "repro", "--dry"))
    assert {"split", "text_features"} <= set(would_run)
    assert not {"sample", "clean", "image_features"} & set(would_run)


def test_queued_experiments_run(clone):
    run(clone, "dvc", "exp", "run", "--queue", "-S", "alpha=0.1,0.9")
    run(clone, "dvc", "queue", "start", "-j", "2")
    deadline = time.monotonic() + 150
    while True:
        status = run(clone, "dvc", "queue", "status")
        if not re.search("Queued|Running", status) or time.monotonic() > deadline:
            break
        time.sleep(1)
    assert status.count("Success") == 2, status + run(clone, "dvc", "queue", "logs", status.split()[3])
    shown = run(clone, "dvc", "exp", "show", "--csv")
    assert {"0.1", "0.9"} <= {row["alpha"] for row in csv.DictReader(io.StringIO(shown))}, shown
    run(clone, "dvc", "queue", "stop")


def test_plots_are_one_page_with_everything(clone):
    output = run(clone, "dvc", "plots", "show")
    page = (clone / "dvc_plots/index.html").read_text()
    for title in (
        "Training loss",
        "weighted F1",
        "What the method logs",
        "Learning rate",
        "Confusion matrix",
    ):
        assert title in page
    assert page.count(".png") >= 2
    assert "could not find" not in output.lower()
    # The method's own curves, in the plots that it names.
    for plot, curves in SppScl.plots.items():
        assert all(name in page for name in (plot, *curves))
    assert '"row": {"field": "plot"' in page
    shutil.rmtree(clone / "dvc_plots")


def test_your_own_posts_take_one_override(used):
    folder = used / "data/raw/own"
    source = pd.read_parquet(used / "data/clean/sample.parquet")
    table = pd.DataFrame({"id": source["id"], "text": source["text"], "label": "yes"})
    table["image"] = source["image"]
    table.loc[::2, "label"] = "no"
    shutil.copytree(used / "data/raw/sample/data", folder / "data")
    table.to_csv(folder / "posts.csv", index=False)
    assert ran(run(used, "dvc", "exp", "run", "-S", "dataset=own", "split")) == ["clean", "split"]
    report = json.loads((used / "reports/split.json").read_text())
    assert report["train"]["classes"] == {"no": 24, "yes": 24}
    # Tracked as the README says, it is there in a workspace of the queue's kind as well.
    run(used, "git", "checkout", "-q", ".")
    run(used, "dvc", "add", "data/raw/own")
    run(used, "git", "add", "data/raw/own.dvc")
    # With other parameters, for which the run cache has nothing.
    changes = ["-S", "dataset=own", "-S", "clean.empty_text=blank", "-S", "split.seed=7"]
    output = run(used, "dvc", "exp", "run", "--temp", *changes, "split")
    assert ran(output)[-2:] == ["clean", "split"]
    run(used, "git", "rm", "-qf", "data/raw/own.dvc")
    shutil.rmtree(folder)


def test_raw_data_that_is_not_there_is_told_by_its_path_and_by_what_belongs_there(used):
    set_params(used, dataset="hfm")
    output = run(used, "dvc", "repro", code=255)
    assert "data/raw/hfm" in output
    assert "Traceback" not in output
    assert "data/raw/hfm" in (used / "data/raw/README.md").read_text()


def test_what_a_failing_stage_had_written_before_comes_back_without_running_it(used):
    before = snapshot(used)
    set_params(used, spp_scl={"epochs": 0})
    output = run(used, "dvc", "repro", code=255)
    assert "spp_scl.epochs: 0: input should be greater than or equal to 1" in output
    assert "Traceback" not in output
    run(used, "git", "restore", "params.yaml")
    assert ran(run(used, "dvc", "repro")) == []
    assert snapshot(used) == before


def change_params(folder, old, new):
    path = folder / "params.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


def other_rows(folder):
    path = folder / "data/clean/sample.parquet"
    pd.read_parquet(path).iloc[::-1].to_parquet(path, index=False)


def other_encoder(folder):
    set_params(folder, text_features={"seed": 5})
    stage(folder, "text_features")


def duplicate_label(folder):
    path = folder / "data/raw/sample/labelResultAll.txt"
    path.write_text(path.read_text() + "1\tneutral,neutral\n")


def label_line(line):
    def change(folder):
        path = folder / "data/raw/sample/labelResultAll.txt"
        lines = path.read_text().split("\n")
        lines[4] = line
        path.write_text("\n".join(lines))

    return change


def one_class_too_few(folder):
    path = folder / "data/clean/sample.parquet"
    table = pd.read_parquet(path)
    neutral = table.index[table["label"] == "neutral"]
    table.drop(neutral[2:]).to_parquet(path, index=False)


FAULTS = {
    "an unknown key": ("clean", lambda f: change_params(f, "alpha:", "alhpa:"), r"alhpa: unknown key"),
    "a wrong type": ("train", lambda f: change_params(f, "\nseed: 42\n", "\nseed: x\n"), r"seed: 'x'"),
    "an impossible value": (
        "split",
        lambda f: change_params(f, "protocol: auto", "protocol: new"),
        "'grouped'",
    ),
    "no dataset": (
        "clean",
        lambda f: set_params(f, dataset="hfm"),
        r"data/raw/hfm: no such folder\. Put .*http",
    ),
    "no label file": (
        "clean",
        lambda f: (f / "data/raw/sample/labelResultAll.txt").unlink(),
        r"labelResultAll\.txt: no such file",
    ),
    "a malformed line": ("clean", label_line("5 neutral"), r"labelResultAll\.txt:5: expected an id"),
    "an unknown label": (
        "clean",
        label_line("5\tneutral,good"),
        r"txt:5: unknown label 'good'; allowed: pos",
    ),
    "an id outside": ("clean", label_line("../5\tneutral,neutral"), r"txt:5: the id '\.\./5' points outside"),
    "a duplicate id": ("clean", duplicate_label, r"duplicate id '1', first at .*labelResultAll\.txt:2"),
    "an empty class": ("split", one_class_too_few, r"the \w+ split has no row of class neutral"),
    "no published split": (
        "split",
        lambda f: (
            set_params(f, dataset="mvsa_single", split={"protocol": "published"})
            or shutil.copy(f / "data/clean/sample.parquet", f / "data/clean/mvsa_single.parquet")
        ),
        r"needs train\.json, dev\.json, test\.json\. Get .*github.*put them into data/published/mvsa_single",
    ),
    "features of other rows": ("train", other_rows, r"image\.h5: the features belong to other rows"),
    "features of another encoder": ("evaluate", other_encoder, r"features of another encoder"),
    "a corrupt HDF5 file": (
        "train",
        lambda f: cut(f / "data/features/sample/image.h5"),
        r"image\.h5: damaged",
    ),
    "a corrupt model": (
        "evaluate",
        lambda f: cut(f / "models/model.safetensors"),
        r"model\.safetensors: damaged",
    ),
    "a corrupt table": ("split", lambda f: cut(f / "data/clean/sample.parquet"), r"sample\.parquet: damaged"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_users_mistake_is_one_clear_message_and_changes_no_file(fault, copy):
    name, break_it, message = FAULTS[fault]
    break_it(copy)
    before = snapshot(copy)
    output = stage(copy, name, code=1)
    assert re.search(message, output.replace("\n", " ")), output
    assert output.count("error:") == 1
    assert "Traceback" not in output
    assert snapshot(copy) == before
    assert not temporary_files(copy)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_the_training_ends_it_cleanly(kind, copy):
    set_params(copy, spp_scl={"epochs": 100_000})
    stage(copy, "recipe")
    before = snapshot(copy)
    process = subprocess.Popen(
        ["python", "-m", "stages.train"], cwd=copy, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    checkpoint = copy / "reports/.checkpoint.tmp"
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(kind)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "interrupted; the same command goes on from here" in errors
    assert "Traceback" not in errors
    assert "reports/.checkpoint.tmp" in {str(path.relative_to(copy)) for path in temporary_files(copy)}
    after = snapshot(copy)
    # The log is written as the training goes, for whoever watches its plots.
    assert {path for path in before if after[path] != before[path]} <= {
        Path("reports/train/epochs.csv"),
        Path("reports/train/batches.csv"),
        Path("reports/train/curves.csv"),
    }


def test_the_example_of_contributing_trains_and_computes_no_feature_again(tmp_path):
    page = (ROOT / "CONTRIBUTING.md").read_text()
    page = page[page.index("## Add a method") : page.index("## Add a parameter")]
    file, section, command = re.findall(r"^```\w*\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (path,) = re.findall(r"^`(spp_scl/methods/\w+\.py)`, whole", page, re.MULTILINE)
    folder = small_clone(tmp_path, epochs=2)
    run(folder, "dvc", "repro")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "reproduced")
    (folder / path).write_text(file)
    with (folder / "params.yaml").open("a") as params:
        params.write(section)
    output = run(folder, *command.split())
    assert ran(output) == ["recipe", "train", "evaluate", "report"]
    listing = "from spp_scl.cli import main; main(['methods'])"
    assert "late_fusion: Late fusion" in run(folder, "python", "-c", listing)
    recipe = json.loads((folder / "models/recipe.json").read_text())
    assert recipe["method"] == "late_fusion"
    metrics = json.loads((folder / "reports/metrics.json").read_text())
    assert metrics["train"]["epochs"] <= 50
    run(folder, "ruff", "check", path)
    run(folder, "ruff", "format", "--check", path)


def test_a_stage_whose_parameters_change_meanwhile_is_not_recorded(tmp_path):
    fresh = small_clone(tmp_path, epochs=40)
    set_params(fresh, train={"patience": 0})
    process = subprocess.Popen(
        ["dvc", "repro", "train"],
        cwd=fresh,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not (fresh / "reports/.checkpoint.tmp").exists() and process.poll() is None:
        time.sleep(0.02)
    # What a second `dvc exp run -S`, which DVC refuses, does to the file; training reads one of the two.
    set_params(fresh, seed=7, tsne={"perplexity": 7.0})
    output, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "params.yaml was changed while the stage ran (seed: 42 has become 7)" in output
    assert "Traceback" not in output
    assert "train" not in YAML(typ="safe").load(fresh / "dvc.lock")["stages"]
    set_params(fresh, spp_scl={"epochs": 2})
    assert ran(run(fresh, "dvc", "repro", "train")) == ["recipe", "train"]
