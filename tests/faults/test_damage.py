"""Damaged outputs are found before they are used, and the message says how to make them anew."""

import os
import random
import re
import shutil

import pytest

from spp_scl.errors import UserError
from spp_scl.training.artifact import load_model
from tests.pipeline import damaged_objects, ran, run, snapshot, stage, temporary_files

# The file, the stage that makes it, one that reads it.
FILES = {
    "data/clean/sample.parquet": ("clean", "split"),
    "data/split/sample.parquet": ("split", "train"),
    "data/features/sample/image.h5": ("image_features", "train"),
    "data/features/sample/text.h5": ("text_features", "evaluate"),
    "models/model.safetensors": ("train", "evaluate"),
    "models/model.json": ("train", "evaluate"),
}


@pytest.fixture(scope="module", params=["hardlink", "copy"])
def clone(request, reference, tmp_path_factory):
    """The reference once more, with a cache of its own that the files are linked to, or copies of."""
    folder = shutil.copytree(reference, tmp_path_factory.mktemp(request.param), dirs_exist_ok=True)
    run(folder, "dvc", "config", "cache.type", request.param)
    run(folder, "dvc", "checkout", "--relink")
    return folder


def flip(path):
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 3)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 16]))


def cut(path):
    os.truncate(path, path.stat().st_size * 2 // 3)


def damage_in_place(path, how, unseen):
    """Damage a file and whatever shares its blocks; `unseen`: as a disk does, without changing its time."""
    before, mode = path.stat(), path.stat().st_mode
    path.chmod(mode | 0o200)
    how(path)
    path.chmod(mode)
    if unseen:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        assert path.stat().st_mtime_ns != before.st_mtime_ns
    assert path.stat().st_ino == before.st_ino


@pytest.mark.parametrize(("name", "how"), list(zip(FILES, [flip, cut] * len(FILES), strict=False)))
def test_damage_is_named_by_the_reader_with_the_command_that_undoes_it(name, how, clone, reference):
    """Damage that DVC does not see, in its cache as well where the file is a link to it."""
    _, reader = FILES[name]
    damage_in_place(clone / name, how, unseen=True)
    damaged = snapshot(clone)
    output = stage(clone, reader, code=1)
    assert f"{name}: damaged" in output or f"{name.replace('.json', '.safetensors')}: damaged" in output
    assert "Traceback" not in output
    assert snapshot(clone) == damaged
    remedy = re.search(r"`(rm -f .* && dvc repro)`", output)[1]
    run(clone, "bash", "-c", remedy)
    assert snapshot(clone) == snapshot(reference)
    assert damaged_objects(clone) == []
    assert temporary_files(clone) == []


def test_damage_that_dvc_sees_in_a_copy_is_undone_by_the_next_run_from_its_cache(clone, reference):
    run(clone, "dvc", "config", "cache.type", "copy")
    run(clone, "dvc", "checkout", "--relink")
    for name in FILES:
        flip(clone / name)
    assert ran(run(clone, "dvc", "repro")) == []
    assert snapshot(clone) == snapshot(reference)


@pytest.mark.parametrize("how", [flip, cut])
@pytest.mark.parametrize("unseen", [False, True])
def test_a_damaged_checkpoint_is_not_gone_on_from(unseen, how, copy, reference):
    stopped = reference_checkpoint(copy)
    damage_in_place(stopped, how, unseen)
    output = stage(copy, "train")
    assert "reports/.checkpoint.tmp: the checkpoint is damaged (" in output
    assert "the training begins anew" in output
    assert "going on" not in output
    assert snapshot(copy) == snapshot(reference)
    assert temporary_files(copy) == []


def reference_checkpoint(folder):
    """Of a training that ends when it has written its last one."""
    kill = (
        "import os, stages.train as s; from spp_scl.params import load_params; "
        "s.save_model = lambda *a: os._exit(9); s.main(load_params())"
    )
    run(folder, "python", "-c", kill, code=9)
    return folder / "reports/.checkpoint.tmp"


def test_a_model_with_any_flipped_bit_is_refused_or_says_the_same(reference, tmp_path):
    shutil.copytree(reference / "models", tmp_path, dirs_exist_ok=True)
    rng = random.Random(0)
    _, known = load_model(tmp_path / "model.safetensors")
    refused = 0
    for name, count in (("model.json", 600), ("model.safetensors", 30)):
        path = tmp_path / name
        path.chmod(0o644)
        whole = path.read_bytes()
        for _ in range(count):
            damaged = bytearray(whole)
            damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            try:
                _, found = load_model(tmp_path / "model.safetensors")
            except UserError:
                refused += 1
            else:
                assert (name, found) == ("model.json", known)  # as 1e-05 and 1E-05 are
        path.write_bytes(whole)
    assert refused > 600
