"""Fixtures: the pipeline on a small sample, run once undisturbed, to compare with what is disturbed."""

import shutil

import pytest

from tests.pipeline import copy_clone, ran, run, small_clone, stages


@pytest.fixture(scope="session")
def fresh(tmp_path_factory):
    """The repository before its first run; treat it as read-only."""
    return small_clone(tmp_path_factory.mktemp("fresh"), epochs=3)


@pytest.fixture(scope="session")
def reference(fresh, tmp_path_factory):
    """A fresh clone after one undisturbed `dvc repro`; treat it as read-only."""
    folder = shutil.copytree(fresh, tmp_path_factory.mktemp("reference"), dirs_exist_ok=True)
    assert ran(run(folder, "dvc", "repro")) == list(stages())
    return folder


@pytest.fixture
def copy(reference, tmp_path):
    """A copy of the reference to break, without DVC's cache."""
    return copy_clone(reference, tmp_path / "copy")
