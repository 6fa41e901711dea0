"""What the benchmarks of training share: the settings, and one epoch of ours."""

import tempfile
from pathlib import Path

import torch

from spp_scl.batches.data import Data
from spp_scl.methods import check_settings
from spp_scl.methods.spp_scl import SppScl
from spp_scl.params import TrainParams, load_params
from spp_scl.recipe import choose_recipe
from spp_scl.training.recipe import TrainingRecipe, make_method
from spp_scl.training.state import TrainingState
from spp_scl.training.training import train

ROOT = Path(__file__).parent.parent

# Step 2 runs in every batch: the costlier case.
ALPHA = 1e6


def recipe() -> TrainingRecipe:
    """The repository's own, for one epoch."""
    settings = choose_recipe(load_params(ROOT / "params.yaml"))["settings"]
    settings = check_settings("spp_scl", {**settings, "alpha": ALPHA, "epochs": 1})
    return TrainingRecipe("spp_scl", settings, "frozen", {}, None)


def settings() -> TrainParams:
    """The repository's own."""
    return load_params(ROOT / "params.yaml").train


def network(data: Data) -> SppScl:
    """The default network."""
    model = make_method(recipe(), data, seed=42)
    assert isinstance(model, SppScl)
    return model


def start(data: Data) -> TrainingState:
    """A training before its first batch."""
    return TrainingState.start(recipe(), data, seed=42)


def optimizer_of(model: SppScl, fused: bool = True) -> torch.optim.Optimizer:
    """For the straightforward step."""
    return torch.optim.AdamW(model.parameters(), lr=model.params.learning_rate, fused=fused or None)


def epoch(data: Data, chosen: TrainingRecipe | None = None) -> None:
    """One epoch, by default of `recipe`, as the stage runs it: log, validation and checkpoint included."""
    with tempfile.TemporaryDirectory() as folder:
        train(
            data,
            chosen or recipe(),
            seed=42,
            params=settings(),
            log_folder=folder,
            checkpoint=Path(folder, "checkpoint"),
        )
