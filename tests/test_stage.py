"""What every stage promises, whatever it does: its help, its errors, and that DVC records what it read."""

import os
import re
import sys
import time

import pytest

from spp_scl.stage import describe_stage, prepare_process
from tests.pipeline import ROOT, run, small_clone, snapshot, stages


@pytest.fixture
def fresh(tmp_path):
    """A clone in which nothing has been run."""
    small_clone(tmp_path / "origin", epochs=2)
    run(tmp_path, "git", "clone", "-q", tmp_path / "origin", tmp_path / "fresh")
    return tmp_path / "fresh"


@pytest.mark.parametrize("name", sorted(stages()))
def test_help_says_what_a_stage_reads_and_writes(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    entry, described = stages()[name], describe_stage(name)
    outs = [*entry.get("outs", []), *entry.get("metrics", [])]
    for item in [
        *entry["deps"],
        *entry["params"],
        *(o if isinstance(o, str) else next(iter(o)) for o in outs),
    ]:
        assert f"\n  {item}\n" in f"{described}\n"


def test_help_runs_nothing_and_an_unknown_argument_is_refused(fresh):
    before = snapshot(fresh)
    assert "data/raw/sample" in run(fresh, "python", "-m", "stages.sample", "--help")
    run(fresh, "python", "-m", "stages.sample", "--epochs=3", code=2)
    assert snapshot(fresh) == before


@pytest.mark.parametrize("change", ["spp_scl.fusion=foo", "seed=-1", "spp_scl.epochs=00"])
def test_after_a_refused_value_git_restore_brings_the_file_back(change, fresh):
    """A value of the same length, too: DVC writes within a second, and Git looks at size and second."""
    before = (fresh / "params.yaml").read_bytes()
    time.sleep(1.1)  # else Git itself is in doubt about a file as young as its index, and reads it
    output = run(fresh, "dvc", "exp", "run", "-S", change, code=255)
    assert f"{change.split('=')[0]}: " in output
    assert "Traceback" not in output
    assert (fresh / "params.yaml").read_bytes() != before
    run(fresh, "git", "restore", "params.yaml")
    assert (fresh / "params.yaml").read_bytes() == before


def test_a_python_without_the_libraries_is_told_where_they_are(fresh):
    """As `.venv/bin/dvc repro` runs the stages when the environment is not activated."""
    output = run(fresh, sys.executable, "-S", "-m", "stages.sample", code=1)
    assert re.search(r"^error: .* has no module \w+; activate the project's environment", output)
    assert "Traceback" not in output


def test_waiting_threads_do_not_spin_for_long_unless_the_user_says_so(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    prepare_process()
    assert os.environ["GOMP_SPINCOUNT"] == "10000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    prepare_process()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
