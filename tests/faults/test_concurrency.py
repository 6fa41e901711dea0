"""Several runs at once, in one clone and over one cache, and features that grow row by row in experiments."""

import re
import shutil
import subprocess
import time

import pandas as pd
import pytest

from spp_scl.encoders.vocabulary import collect_vocabulary
from tests.pipeline import (
    ENVIRONMENT,
    copy_clone,
    damaged_objects,
    run,
    set_params,
    snapshot,
    temporary_files,
)
from tests.small_bert import save_bert


def start(folder, *command):
    return subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.fixture
def clone(reference, tmp_path):
    """The reference, committed, with DVC's cache."""
    folder = shutil.copytree(reference, tmp_path / "clone")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "reproduced")
    return folder


def run_queue(folder, jobs):
    """Run all experiments that wait in the queue, and return their logs."""
    run(folder, "dvc", "queue", "start", "-j", str(jobs))
    deadline = time.monotonic() + 300
    status = "Queued"
    while re.search("Queued|Running", status) and time.monotonic() < deadline:
        time.sleep(1)
        status = run(folder, "dvc", "queue", "status")
    names = re.findall(r"^(\w{7}) ", status, re.MULTILINE)
    logs = {name: run(folder, "dvc", "queue", "logs", name) for name in names}
    run(folder, "dvc", "queue", "stop")
    assert status.count("Success") == len(names), (status, logs)
    return logs


def test_two_queued_experiments_at_once_give_what_each_gives_alone(clone, reference, tmp_path):
    changes = {"text_features.seed=7": "text_features", "image_features.seed=7": "image_features"}
    for change in changes:
        run(clone, "dvc", "exp", "run", "--queue", "-S", change, "-n", change.split(".")[0].replace("_", "-"))
    logs = run_queue(clone, jobs=2)
    assert len(logs) == 2
    for change, name in changes.items():
        alone = copy_clone(reference, tmp_path / name)
        set_params(alone, **{name: {"seed": 7}})
        run(alone, "dvc", "repro")
        run(clone, "git", "checkout", "-q", ".")
        run(clone, "dvc", "exp", "apply", name.replace("_", "-"))
        assert snapshot(clone) == snapshot(alone), change
        assert (clone / "dvc.lock").read_bytes() == (alone / "dvc.lock").read_bytes()
    assert damaged_objects(clone) == []
    assert temporary_files(clone) == []


def test_two_clones_that_share_a_cache_may_run_at_once(fresh, reference, tmp_path):
    clones = [shutil.copytree(fresh, tmp_path / name) for name in ("one", "other")]
    for folder in clones:
        run(folder, "dvc", "cache", "dir", "--local", tmp_path / "cache")
    running = [start(folder, "dvc", "repro") for folder in clones]
    for process in running:
        output, _ = process.communicate(timeout=300)
        # DVC tries a reflink first, which empties and then removes what the other clone has put into the
        # cache under the same name since it looked: the other finds its file changed, and stops.
        assert process.returncode == 0 or "without a confirmation" in output, output
    for folder in clones:
        run(folder, "dvc", "repro")
        assert snapshot(folder) == snapshot(reference)
        assert (folder / "dvc.lock").read_bytes() == (reference / "dvc.lock").read_bytes()
        assert temporary_files(folder) == []
    assert damaged_objects(tmp_path / "cache", "") == []


def test_a_second_run_beside_a_running_one_is_told_so_or_waits(fresh, reference, tmp_path):
    folder = shutil.copytree(fresh, tmp_path / "clone")
    first = start(folder, "dvc", "repro")
    outputs = {}
    while first.poll() is None:
        second = start(folder, "dvc", "repro")
        outputs[second] = second.communicate(timeout=300)[0]
    # Whichever finds the other at work is refused, be it at its next stage.
    outputs[first] = first.communicate()[0]
    refused = [outputs[process] for process in outputs if process.returncode]
    assert refused
    for output in refused:
        assert "it is being blocked by" in output or "Unable to acquire lock" in output, output
        assert "Traceback" not in output
    run(folder, "dvc", "repro")
    assert snapshot(folder) == snapshot(reference)
    assert (folder / "dvc.lock").read_bytes() == (reference / "dvc.lock").read_bytes()
    assert temporary_files(folder) == []
    assert damaged_objects(folder) == []


@pytest.fixture
def bert(tmp_path, reference):
    """A small local BERT: an untrained one's words are those of the table, and change with it."""
    words = collect_vocabulary(pd.read_parquet(reference / "data/clean/sample.parquet")["text"], 1000)
    return save_bert(tmp_path / "bert", words)


def test_of_a_table_that_grows_only_the_new_rows_are_encoded_in_every_kind_of_experiment(clone, bert):
    clean = pd.read_parquet(clone / "data/clean/sample.parquet")
    # Each picture and each text once, so that new rows are new ones.
    rows = clean.drop_duplicates("picture").drop_duplicates("text")[["id", "text", "image", "label"]]
    folder = clone / "data/raw/own"
    shutil.copytree(clone / "data/raw/sample/data", folder / "data")

    def rows_until(end):
        rows.iloc[:end].to_csv(folder / "posts.csv", index=False)
        run(clone, "dvc", "add", "data/raw/own")
        run(clone, "git", "add", "data/raw/own.dvc")
        run(clone, "git", "commit", "-qm", f"{end} rows")

    def assert_encoded(output, before, now):
        for what in ("pictures", "texts"):
            assert f"{before} of {now} {what} were encoded before" in output, output

    features = ["image_features", "text_features"]
    changes = ["-S", "dataset=own", "-S", "image_features.weights=untrained"]
    changes += ["-S", f"text_features.weights={bert}"]
    rows_until(40)
    run(clone, "dvc", "exp", "run", *changes, *features)
    run(clone, "git", "commit", "-qam", "the table's features")
    rows_until(44)
    assert_encoded(run(clone, "dvc", "exp", "run", *features), 40, 44)
    run(clone, "git", "commit", "-qam", "its new rows' features")
    rows_until(49)
    assert_encoded(run(clone, "dvc", "exp", "run", "--temp", *features), 44, 49)
    # More rows, or DVC's run cache would have what the run before has made.
    rows_until(52)
    run(clone, "dvc", "exp", "run", "--queue", *features)
    (log,) = run_queue(clone, jobs=1).values()
    assert_encoded(log, 44, 52)
