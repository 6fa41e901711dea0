"""A pipeline that is killed and interrupted at any moment ends, run again, in the same bytes."""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.pipeline import ENVIRONMENT, damaged_objects, ran, run, snapshot, stage, stages, temporary_files

STAGES = list(stages())
BAR_HALF_MADE = r"(?s)Exception ignored in: <function TqdmCallback\.__del__.*?\nAttributeError: [^\n]*"


class Repro:
    """A `dvc repro` in a process group of its own, as a shell starts it."""

    def __init__(self, folder, *arguments):
        # One each: a stage that outlives its DVC goes on writing to its own.
        self.log = folder / f".dvc/tmp/{time.monotonic_ns()}.log"
        self.log.parent.mkdir(exist_ok=True)
        with self.log.open("w") as file:
            self.dvc = subprocess.Popen(
                ["dvc", "repro", *arguments],
                cwd=folder,
                env=ENVIRONMENT,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self):
        return self.log.read_text()

    def wait_for(self, stage):
        """Until DVC has begun the stage; False if it ended before."""
        while stage not in ran(self.output()):
            if self.dvc.poll() is not None:
                return False
            time.sleep(0.005)
        return True

    def stage_process(self):
        """The stage's Python, if it runs at this moment."""
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.dvc.pid).children(recursive=True):
                if any(part.startswith("stages.") for part in child.cmdline()):
                    return child
        return None

    def kill(self, whom):
        """SIGKILL the whole group; or DVC alone, whose stage works on; or the stage. Returns which."""
        stage = self.stage_process()
        if whom == "stage" and not stage:
            whom = "group"
        if whom == "stage":
            with contextlib.suppress(psutil.Error):
                stage.kill()
        elif whom == "dvc":
            self.dvc.kill()
        else:
            os.killpg(self.dvc.pid, signal.SIGKILL)
        self.dvc.wait(60)
        return whom


@pytest.fixture(scope="module")
def seconds(fresh, tmp_path_factory):
    """How long each stage takes here, DVC's part included: what a random moment is drawn from."""
    going = Repro(shutil.copytree(fresh, tmp_path_factory.mktemp("timed") / "clone"))
    begun = []
    for name in STAGES:
        assert going.wait_for(name), going.output()
        begun.append(time.monotonic())
    assert going.dvc.wait(60) == 0
    ended = [*begun[1:], time.monotonic()]
    return {name: end - begin for name, begin, end in zip(STAGES, begun, ended, strict=True)}


def disturbed(folder, share):
    """Yield runs without end, each once DVC has begun a stage; the caller ends them.

    Each goes on from where the one before was ended. A stage that was first `share` times goes through next
    time, so that every stage has its turn; after the last one it begins anew from nothing.
    """
    turns = Counter()
    while True:
        emptied.update(remedy(folder))
        going = Repro(folder)
        while not ran(going.output()) and going.dvc.poll() is None:
            time.sleep(0.005)
        first = (ran(going.output()) or [None])[0]
        if first is not None and turns[first] >= share:
            after = STAGES.index(first) + 1
            first = STAGES[after] if after < len(STAGES) and going.wait_for(STAGES[after]) else None
        if first is None:
            assert going.dvc.wait(120) == 0, going.output()
            wait_for_orphans(folder)
            run(folder, "git", "clean", "-fdxq")
            turns.clear()
            continue
        turns[first] += 1
        yield going, first


def orphans(folder):
    """Stages that still run there, their DVC killed."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            command = process.info["cmdline"] or []
            if any(part.startswith("stages.") for part in command) and process.cwd() == str(folder):
                found.append(process)
    return found


def wait_for_orphans(folder):
    _, alive = psutil.wait_procs(orphans(folder), timeout=60)
    assert alive == []


# How often a kill fell into the moment in which DVC has emptied a file that it is about to write.
emptied = Counter()


def remedy(folder):
    """What `make repro` does before it runs DVC, which refuses what a killed one left empty."""
    recipe = (folder / "Makefile").read_text().split("\nrepro: setup\n")[1]
    commands = re.findall(r"^\tfind .*", recipe, re.MULTILINE)
    assert len(commands) == 2
    found = [name for name in ("dvc.lock", ".dvc/tmp/rwlock") if (folder / name).exists()]
    found += [str(path.relative_to(folder)) for path in (folder / ".dvc/cache/runs").glob("*/*")]
    for command in commands:
        subprocess.run(command, shell=True, cwd=folder, check=True)
    return [name for name in found if not (folder / name).exists()]


def assert_as_undisturbed(folder, reference):
    """Run the pipeline to its end, and compare everything."""
    remedy(folder)
    run(folder, "dvc", "repro")
    wait_for_orphans(folder)
    assert snapshot(folder) == snapshot(reference)
    assert (folder / "dvc.lock").read_bytes() == (reference / "dvc.lock").read_bytes()
    assert temporary_files(folder) == []
    assert damaged_objects(folder) == []
    assert ran(run(folder, "dvc", "repro")) == []


def test_killed_at_50_random_moments_it_ends_in_the_same_bytes(fresh, reference, seconds, tmp_path):
    folder = shutil.copytree(fresh, tmp_path / "killed")
    rng = random.Random(50)
    hit, whom = Counter(), Counter()
    for going, name in disturbed(folder, share=4):
        time.sleep(rng.uniform(0, seconds[name]))
        if going.dvc.poll() is None:
            kind = going.kill(rng.choice(["group", "group", "dvc", "stage"]))
            hit[ran(going.output())[-1]] += 1
            whom[kind] += 1
        if hit.total() == 50:
            break
    print(dict(hit), dict(whom), dict(emptied))
    assert set(hit) == set(STAGES)
    assert set(whom) == {"group", "dvc", "stage"}
    assert_as_undisturbed(folder, reference)


def test_interrupted_at_16_random_moments_it_says_so_and_ends_in_the_same_bytes(
    fresh, reference, seconds, tmp_path
):
    """SIGINT and SIGTERM, to the whole group as a terminal and a batch system send them."""
    folder = shutil.copytree(fresh, tmp_path / "interrupted")
    rng = random.Random(10)
    kinds = [signal.SIGINT, signal.SIGTERM] * 8
    rng.shuffle(kinds)
    reported = Counter()
    for going, name in disturbed(folder, share=2):
        time.sleep(rng.uniform(0, seconds[name] * 0.7))
        # Until Python itself has started it does not know what to do with a signal.
        while (process := going.stage_process()) and not handles(process, signal.SIGTERM):
            time.sleep(0.005)
        at_work, kind = orphans(folder), kinds.pop()
        os.killpg(going.dvc.pid, kind)
        assert going.dvc.wait(60) != 0
        wait_for_orphans(folder)
        output = going.output()
        # Between two stages it is DVC that works, and fsspec under it complains of a progress bar half made.
        output = re.sub(BAR_HALF_MADE, "", output)
        assert "Traceback" not in output, output
        reported[kind] += bool(at_work) and "interrupted" in output
        if not kinds:
            break
    assert min(reported.values()) >= 3
    assert_as_undisturbed(folder, reference)


def handles(process, number):
    """Whether a process has come so far as to have a handler of its own for a signal."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{process.pid}/status").read_text()
        return bool(int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16) >> number - 1 & 1)
    return True


def test_a_training_killed_in_each_epoch_goes_on_to_the_same_bytes(copy, reference):
    for name in ("model.safetensors", "model.json"):
        (copy / "models" / name).unlink()
    shutil.rmtree(copy / "reports/train")
    checkpoint = copy / "reports/.checkpoint.tmp"

    def train_until(seen):
        errors = copy / "errors.txt"
        with errors.open("w") as file:
            process = subprocess.Popen(
                ["python", "-m", "stages.train"], cwd=copy, env=ENVIRONMENT, stderr=file
            )
        while not seen() and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        return errors.read_text()

    def saved():
        return checkpoint.stat().st_mtime_ns if checkpoint.exists() else None

    assert "going on" not in train_until(saved)
    first = saved()
    assert "going on after epoch 1\n" in train_until(lambda: saved() != first)
    assert "going on after epoch 2\n" in stage(copy, "train")
    (copy / "errors.txt").unlink()
    assert snapshot(copy) == snapshot(reference)
    assert temporary_files(copy) == []


def test_what_a_killed_dvc_left_empty_costs_nothing_but_time(reference, tmp_path):
    """It writes its locks in place, and refuses them empty; `make repro` removes them then."""
    folder = shutil.copytree(reference, tmp_path / "emptied")
    for name in ("dvc.lock", ".dvc/tmp/rwlock"):
        (folder / name).write_text("")
    assert "dvc.lock" in run(folder, "dvc", "repro", code=255)
    assert len(remedy(folder)) == 2
    assert_as_undisturbed(folder, reference)


def test_a_run_cache_whose_folders_are_empty_costs_nothing_but_time(reference, tmp_path):
    """DVC makes an entry's folder first; finding it empty it says "join() argument must be str"."""
    folder = shutil.copytree(reference, tmp_path / "emptied")
    (folder / "dvc.lock").unlink()
    entries = [path for path in (folder / ".dvc/cache/runs").rglob("*") if path.is_file()]
    assert len(entries) >= len(STAGES)
    for path in entries:
        path.unlink()
    assert "join() argument" in run(folder, "dvc", "repro", code=255)
    assert len(remedy(folder)) == len(entries)
    assert_as_undisturbed(folder, reference)
