"""What the benchmarks of training share: the settings, and one epoch of ours."""

import tempfile
from pathlib import Path

from spp_scl.model.data import Data
from spp_scl.model.network import ModelConfig
from spp_scl.params import TrainParams, load_params
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
    """A training of one epoch as the stage runs it: log, validation and checkpoint included."""
    with tempfile.TemporaryDirectory() as folder:
        train(
            data,
            network(data),
            alpha=ALPHA,
            seed=42,
            params=settings(),
            log_folder=folder,
            checkpoint=Path(folder, "checkpoint"),
        )
