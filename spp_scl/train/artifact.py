"""The trained model on disk: `model.safetensors`, and beside it `model.json` with what rebuilds it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

from spp_scl.errors import UserError, first_line
from spp_scl.files import look_again, read_json, replacing, write_json
from spp_scl.model.network import ModelConfig, SppScl

_FORMAT = 4


@dataclass(frozen=True)
class Artifact:
    """What a model needs beside its weights.

    Args:
        config: of the network.
        classes: names, in the order of the logits.
        features: the fingerprint of the encoders whose features it was trained on; None: not known.
        trained_on: a hash of the training tweets' ids (`hash_ids`); None: not known.
        batch_size: and
        seed: of the training, which `fusion: batch` repeats in prediction.
        threads: of the CPU, in training and in prediction.
        training: the summary of the training; empty for a model that was not trained here.
    """

    config: ModelConfig
    classes: list[str]
    features: str | None
    trained_on: str | None
    batch_size: int
    seed: int
    threads: int
    training: Mapping[str, float | int | bool | None]


def save_model(path: Path | str, model: SppScl, artifact: Artifact) -> None:
    """Write the weights to `path` (.safetensors) and the rest beside it (.json)."""
    path = Path(path)
    state = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path) as weights, replacing(path.with_suffix(".json")) as description:
        content = safetensors.torch.save(state)
        weights.write_bytes(content)
        values = asdict(artifact)
        write_json(description, {"format": _FORMAT, "sha256": _hash(content, values), **values})


def load_model(path: Path | str) -> tuple[SppScl, Artifact]:
    """Read a model, on the CPU, in evaluation mode.

    Raises:
        UserError: a file is missing or damaged, or the two do not belong together.
    """
    path = Path(path)
    description = path.with_suffix(".json")
    again = "train it again with `dvc repro train --force`"
    try:
        values = read_json(description, "the model's description")
        if values.pop("format") != _FORMAT:
            raise UserError(f"{description}: of another format; {again}")
        known, content = values.pop("sha256"), path.read_bytes()
        if known != _hash(content, values):
            raise ValueError("they differ from their hash")
        artifact = Artifact(**{**values, "config": ModelConfig(**values["config"])})
        state = safetensors.torch.load(content)
        model = SppScl(artifact.config)
        model.load_state_dict(state)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {again}") from None
    except UserError:
        look_again(description)
        raise
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        look_again(path)
        look_again(description)
        raise UserError(
            f"{path}: damaged, or not the model that {description.name} describes "
            f"({first_line(error)}); {again}"
        ) from None
    return model.eval(), artifact


def hash_ids(ids: Sequence[str]) -> str:
    """SHA-256 of ids, in any order."""
    return hashlib.sha256(json.dumps(sorted(ids)).encode()).hexdigest()


def _hash(weights: bytes, values: Mapping[str, Any]) -> str:
    return hashlib.sha256(weights + json.dumps(values, sort_keys=True).encode()).hexdigest()


def require_features(artifact: Artifact, features: str, classes: list[str], path: Path | str) -> None:
    """Refuse features of another encoder, or of other classes, than the model was trained on.

    Raises:
        UserError: they are.
    """
    again = "train it again with `dvc repro train --force`"
    if artifact.features not in (None, features):
        raise UserError(
            f"{path}: the model was trained on features of another encoder than these files hold; {again}"
        )
    if artifact.classes != classes:
        raise UserError(
            f"{path}: the model knows the classes {', '.join(artifact.classes)}, and the data has "
            f"{', '.join(classes)}; {again}"
        )
