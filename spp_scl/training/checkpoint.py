"""The file by which an interrupted training goes on: its state after the last epoch."""

import hashlib
import json
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spp_scl.batches.data import Data
from spp_scl.errors import first_line
from spp_scl.features.device import describe_hardware
from spp_scl.features.encoder import hash_code
from spp_scl.files import replacing
from spp_scl.training.recipe import TrainingRecipe

log = logging.getLogger(__name__)


def save_checkpoint(path: Path, key: str, state: Mapping[str, Any]) -> None:
    """Write a state of tensors, numbers and texts, nested, with the key of its training."""
    # Through a file of Python's, whose error says that the disk is full; torch's own does not.
    with replacing(path) as aside, aside.open("wb") as file:
        torch.save({"key": key, "state": dict(state)}, file)


def load_checkpoint(path: Path, key: str) -> dict[str, Any] | None:
    """The state to go on from, on the CPU; None if there is none, or not one of this training."""
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch does not compare the CRCs
        if damaged is not None:
            raise ValueError(f"{damaged} differs from its CRC")
        saved = torch.load(path, map_location="cpu", weights_only=True)
        known, state = saved["key"], saved["state"]
    except Exception as error:  # a damaged file makes its readers raise whatever they run into
        log.warning("%s: the checkpoint is damaged (%s); the training begins anew", path, first_line(error))
        return None
    if known != key:
        log.warning("%s: the checkpoint is of another training; this one begins anew", path)
        return None
    return state


def training_key(data: Data, recipe: TrainingRecipe, settings: Mapping[str, Any]) -> str:
    """A hash of all that decides a training: data, recipe, settings, libraries, hardware and code.

    Args:
        data: as it is trained on.
        recipe: the method and its parameters.
        settings: every other argument of `train` that matters, as JSON takes it.
    """
    facts = [
        data.digest,
        recipe.numbers(),
        settings,
        np.__version__,
        torch.__version__,
        describe_hardware(data.source.device),
        # Else an interrupted training could go on under other code, while dvc.lock names the new one alone.
        hash_code(
            *(
                f"{folder}/*.py"
                for folder in ("features", "batches", "encoders", "methods/shared", "training")
            ),
            f"methods/{recipe.method}.py",
            "metrics.py",
        ),
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
