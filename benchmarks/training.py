"""What the benchmarks of training share: the settings, and one epoch of ours."""

import os
import subprocess
import tempfile
from pathlib import Path

import torch
from dvclive import Live

from spp_scl.model.data import Data
from spp_scl.model.network import ModelConfig
from spp_scl.params import TrainParams, load_params
from spp_scl.train.checkpoint import Checkpoint
from spp_scl.train.training import train

ROOT = Path(__file__).parent.parent

# Step 2 runs in every batch: the costlier case.
ALPHA = 1e6


def settings() -> TrainParams:
    """The repository's own, for one epoch."""
    return load_params(ROOT / "params.yaml").train.model_copy(update={"epochs": 1})


def network(data: Data) -> ModelConfig:
    """The default network."""
    return ModelConfig(len(data.classes), data.text_width, "sample", 0.2)


def epoch(data: Data) -> None:
    """A training of one epoch as the stage runs it: DVCLive's log, validation and checkpoint included."""
    folder = Path(tempfile.mkdtemp(dir="."))
    train(
        data,
        network(data),
        alpha=ALPHA,
        seed=42,
        params=settings(),
        selection="f1_weighted",
        live=Live(str(folder / "log"), save_dvc_exp=False, dvcyaml=None),
        save=Checkpoint(folder / "checkpoint", folder / "log", "key").save,
    )


def enter_repository(folder: Path) -> None:
    """Make `folder` the working directory, and a Git repository with a commit, which DVCLive looks for."""
    os.chdir(folder)
    identity = ["-c", "user.name=bench", "-c", "user.email=bench@example.org"]
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    torch.set_num_threads(settings().threads)
