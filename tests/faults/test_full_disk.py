"""A disk that is full, or fills up: one clear line, the earlier outputs intact, and then the same bytes."""

import contextlib
import re
import shutil
import subprocess
import time

import pytest

from tests.pipeline import ENVIRONMENT, snapshot, stage, temporary_files

# Every stage, and every folder that it writes to.
PLACES = [
    ("sample", "data/raw"),
    ("clean", "data/clean"),
    ("clean", "reports"),
    ("split", "data/split"),
    ("split", "reports"),
    ("image_features", "data/features/sample"),
    ("text_features", "data/features/sample"),
    ("train", "reports"),
    ("train", "models"),
    ("evaluate", "reports"),
]


@contextlib.contextmanager
def small_disk(place):
    """A file system of its own where a folder was, with what was in the folder."""
    kept = place.with_name("kept")
    place.rename(kept)
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40M", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        shutil.copytree(kept, place, dirs_exist_ok=True)
        shutil.rmtree(kept)
        yield place / "filler"
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(path, left=0):
    """Write until the file system is full, and give some bytes back."""
    with path.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        file.truncate(file.tell() - left)


def assert_one_clear_line(output):
    assert len(re.findall("^error: ", output, re.MULTILINE)) == 1, output
    assert "no space left on the device" in output
    assert "Traceback" not in output


def without_log(files):
    """All but the training's log, which is written while it trains; DVC removes it before a training."""
    return {path: content for path, content in files.items() if path.parts[:2] != ("reports", "train")}


@pytest.mark.parametrize(("name", "full"), PLACES)
def test_a_full_disk_is_one_clear_line_and_changes_no_file(name, full, copy, reference):
    with small_disk(copy / full) as filler:
        # A page left, so that a file is begun; but it is all that the split needs.
        fill(filler, left=0 if name == "split" else 4096)
        before = without_log(snapshot(copy))
        assert_one_clear_line(stage(copy, name, code=1))
        assert without_log(snapshot(copy)) == before
        # The training's own state stays, for the next run to go on from.
        assert {path.name for path in temporary_files(copy)} <= {".train.tmp", ".checkpoint.tmp"}
        filler.unlink()
        stage(copy, name)
        assert snapshot(copy) == snapshot(reference)
        assert temporary_files(copy) == []


@pytest.mark.parametrize("kind", ["image", "text"])
def test_features_are_finished_though_others_fill_the_disk_meanwhile(kind, copy, reference):
    """The stage asks for all its room before it begins; then somebody else takes the rest."""
    place = copy / "data/features/sample"
    with small_disk(place) as filler:
        (place / f"{kind}.h5").unlink()
        free = shutil.disk_usage(place).free
        process = subprocess.Popen(
            ["python", "-m", f"stages.{kind}_features"],
            cwd=copy,
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            text=True,
        )
        while free - shutil.disk_usage(place).free < 2**20 and process.poll() is None:
            time.sleep(0.001)
        fill(filler)
        assert not (place / f"{kind}.h5").exists()
        _, output = process.communicate(timeout=120)
        assert process.returncode == 0, output
        filler.unlink()
        assert snapshot(copy) == snapshot(reference)
        assert temporary_files(copy) == []


def test_a_training_goes_on_after_the_disk_filled_up_in_it(copy, reference):
    with small_disk(copy / "reports") as filler:
        process = subprocess.Popen(
            ["python", "-m", "stages.train"], cwd=copy, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
        )
        while not (copy / "reports/.checkpoint.tmp").exists() and process.poll() is None:
            time.sleep(0.001)
        fill(filler)
        _, output = process.communicate(timeout=120)
        assert process.returncode == 1, output
        assert_one_clear_line(output)
        filler.unlink()
        assert "going on after epoch" in stage(copy, "train")
        assert snapshot(copy) == snapshot(reference)
        assert temporary_files(copy) == []
