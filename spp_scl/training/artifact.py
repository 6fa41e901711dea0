"""The trained model on disk: `model.safetensors`, and beside it `model.json` with what rebuilds it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from spp_scl.batches.batch import Sizes
from spp_scl.batches.data import Data
from spp_scl.batches.inputs import InputStore
from spp_scl.encoders.loop import rebuild_encoders
from spp_scl.errors import UserError, first_line
from spp_scl.files import replacing, write_json
from spp_scl.methods import check_settings, list_methods, load_method
from spp_scl.methods.shared.method import Method
from spp_scl.previous import damaged_output

_FORMAT = 5
_AGAIN = "train it again with `dvc repro train --force`"


@dataclass(frozen=True)
class Artifact:
    """What a model needs beside its weights.

    Args:
        method: its name.
        settings: its parameters.
        sizes: what its network was built for, see `Sizes.numbers`.
        classes: names, in the order of the logits.
        encoders: what rebuilds those that were in the loop, whose weights are among the model's; empty for
            frozen ones.
        precision: in which these compute.
        features: the fingerprint of the encoders whose features it was trained on; None: not known.
        trained_on: a hash of the training tweets' ids (`hash_ids`); None: not known.
        seed: of the training, which draws the order of a method that couples a batch in prediction too.
        threads: of the CPU, in training and in prediction.
        training: the summary of the training; empty for a model that was not trained here.
    """

    method: str
    settings: Mapping[str, Any]
    sizes: Mapping[str, Any]
    classes: list[str]
    encoders: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    precision: str = "fp32"
    features: str | None = None
    trained_on: str | None = None
    seed: int = 42
    threads: int = 2
    training: Mapping[str, float | int | bool | None] = field(default_factory=dict)

    @property
    def batch_size(self) -> int:
        """Of the training, and of prediction."""
        return int(self.settings["batch_size"])


def save_model(path: Path | str, model: Method, artifact: Artifact) -> None:
    """Write the weights to `path` (.safetensors) and the rest beside it (.json)."""
    path = Path(path)
    state = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path) as weights, replacing(path.with_suffix(".json")) as description:
        content = safetensors.torch.save(state)
        weights.write_bytes(content)
        values = asdict(artifact)
        write_json(description, {"format": _FORMAT, "sha256": _hash(content, values), **values})


def load_model(path: Path | str) -> tuple[Method, Artifact]:
    """Read a model, on the CPU, in evaluation mode.

    Raises:
        UserError: a file is missing or damaged, or the two do not belong together.
    """
    path = Path(path)
    description = path.with_suffix(".json")
    try:
        return build_model(json.loads(description.read_bytes()), path, description)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {_AGAIN}") from None
    except ValueError as error:
        why = f"or not the model that {description.name} describes: {first_line(error)}"
        raise damaged_output(why, path, description) from None


def build_model(values: Any, path: Path, description: Path) -> tuple[Method, Artifact]:
    """A model of what its description says and of its weights.

    Args:
        values: the description's content.
        path: of the weights.
        description: its file.

    Raises:
        FileNotFoundError: there are no weights.
        UserError: a file is damaged, or the two do not belong together.
    """
    try:
        if not isinstance(values, dict):
            raise ValueError("not a description")
        values = dict(values)
        if values.pop("format") != _FORMAT:
            raise UserError(f"{description}: of another format; {_AGAIN}")
        known, content = values.pop("sha256"), path.read_bytes()
        if known != _hash(content, values):
            raise ValueError("they differ from their hash")
        artifact = Artifact(**values)
        if artifact.method not in list_methods():
            raise UserError(f"{description}: of the method {artifact.method}, which is not among these")
        model = _build(artifact, description)
        model.load_state_dict(safetensors.torch.load(content))
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"or not the model that {description.name} describes: {first_line(error)}"
        raise damaged_output(why, path, description) from None
    return model.eval(), artifact


def _build(artifact: Artifact, path: Path) -> Method:
    settings = check_settings(artifact.method, dict(artifact.settings), str(path))
    model = load_method(artifact.method).network(settings, Sizes.of_numbers(dict(artifact.sizes)))
    if artifact.encoders:
        model.encoders = rebuild_encoders(artifact.encoders)
    return model


def place_model(model: Method, artifact: Artifact, data: Data) -> Data:
    """Bring a loaded model to the data's device.

    Returns:
        The data; where the model has its own encoders, validation and test data as these encode them.
    """
    model.to(data.source.device)
    if not (artifact.encoders and isinstance(data.source, InputStore)):
        return data
    data.source.use(model.encoders, artifact.precision)
    rows = torch.cat([data.rows["valid"], data.rows["test"]])
    return replace(data, source=data.source.encode(rows, artifact.batch_size))


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
    """Refuse a model file (`train.weights`) that cannot be tested on this data.

    Raises:
        UserError: it takes other features, has other classes, or was trained on other tweets.
    """
    in_loop = isinstance(data.source, InputStore)
    if bool(artifact.encoders) != in_loop:
        has = "has encoders of its own" if artifact.encoders else "takes features from the cache"
        takes = "finetuned" if artifact.encoders else "frozen"
        raise UserError(f"train.weights: {path}: the model {has}; it takes encoders={takes}")
    require_features(artifact, data.fingerprint, data.classes, path)
    known, own = (_list(sizes) for sizes in (artifact.sizes, data.source.sizes(len(data.classes)).numbers()))
    if not artifact.encoders and known != own:
        raise UserError(
            f"train.weights: {path}: the model takes features of {known}, and these are of {own}; choose its "
            "own encoders (image_features.weights, text_features.weights)"
        )
    if artifact.trained_on not in (None, hash_ids(data.ids("train"))):
        raise UserError(
            f"train.weights: {path}: the model was trained on other tweets than this split's, and would be "
            "tested on some of them; choose the split that it was trained with"
        )


def _hash(weights: bytes, values: Mapping[str, Any]) -> str:
    return hashlib.sha256(weights + json.dumps(values, sort_keys=True).encode()).hexdigest()


def _list(sizes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {sizes[name]}" for name in ("layers", "text_width", "positions", "channels"))
