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
from spp_scl.files import replacing, write_json
from spp_scl.model.data import Data
from spp_scl.model.network import ModelConfig, SppScl
from spp_scl.previous import damaged_output

_FORMAT = 4
_AGAIN = "train it again with `dvc repro train --force`"


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
    try:
        values = json.loads(description.read_bytes())
        if not isinstance(values, dict):
            raise ValueError("not a description")
        if values.pop("format") != _FORMAT:
            raise UserError(f"{description}: of another format; {_AGAIN}")
        known, content = values.pop("sha256"), path.read_bytes()
        if known != _hash(content, values):
            raise ValueError("they differ from their hash")
        artifact = Artifact(**{**values, "config": ModelConfig(**values["config"])})
        state = safetensors.torch.load(content)
        model = SppScl(artifact.config)
        model.load_state_dict(state)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {_AGAIN}") from None
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"or not the model that {description.name} describes: {first_line(error)}"
        raise damaged_output(why, path, description) from None
    return model.eval(), artifact


def hash_ids(ids: Sequence[str]) -> str:
    """SHA-256 of ids, in any order."""
    return hashlib.sha256(json.dumps(sorted(ids)).encode()).hexdigest()


def require_features(artifact: Artifact, features: str, classes: list[str], path: Path | str) -> None:
    """Refuse features of another encoder, or of other classes, than the model was trained on.

    Raises:
        UserError: they are.
    """
    if artifact.features not in (None, features):
        raise UserError(
            f"{path}: the model was trained on features of another encoder than these files hold; {_AGAIN}"
        )
    if artifact.classes != classes:
        raise UserError(
            f"{path}: the model knows the classes {', '.join(artifact.classes)}, and the data has "
            f"{', '.join(classes)}; {_AGAIN}"
        )


def require_usable(artifact: Artifact, data: Data, path: Path | str) -> None:
    """Refuse a model file (`model.weights`) that cannot be tested on this data.

    Raises:
        UserError: it takes other features, has other classes, or was trained on other tweets.
    """
    require_features(artifact, data.fingerprint, data.classes, path)
    if artifact.config.text_width != data.text_width:
        raise UserError(
            f"model.weights: {path}: the model takes texts of width {artifact.config.text_width}, and the "
            f"text encoder's is {data.text_width}; choose its own encoder (text_features.weights)"
        )
    if artifact.trained_on not in (None, hash_ids(data.ids("train"))):
        raise UserError(
            f"model.weights: {path}: the model was trained on other tweets than this split's, and would be "
            "tested on some of them; choose the split that it was trained with"
        )


def _hash(weights: bytes, values: Mapping[str, Any]) -> str:
    return hashlib.sha256(weights + json.dumps(values, sort_keys=True).encode()).hexdigest()
