"""The bundle: `config.json` beside `model.safetensors`, with all that using a model takes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spp_scl.batches.data import Data
from spp_scl.encoders.image import ImageEncoder, load_image_encoder, rebuild_image_encoder
from spp_scl.encoders.text import TextEncoder, collect_tokenizer, load_text_encoder, rebuild_text_encoder
from spp_scl.errors import UserError, first_line
from spp_scl.features.encoder import EncoderInfo, hash_weights
from spp_scl.files import read_json
from spp_scl.methods.shared.method import Method
from spp_scl.training.artifact import Artifact, build_model

CONFIG, WEIGHTS, ENCODERS = "config.json", "model.safetensors", "encoders"

_FORMAT = 1
# What Python's pickle may be in: reading it runs whatever its author wants.
_PICKLED = (".bin", ".ckpt", ".joblib", ".npy", ".pickle", ".pkl", ".pt", ".pth")
# How a user gets an encoder of another place or version.
_ELSEWHERE = (
    "Put it there, give its place (`Predictor.load(..., {kind}=...)`, `--{kind}-encoder`), or use a bundle "
    "that `spp-scl export --with-encoders` has made"
)


@dataclass(frozen=True)
class Bundle:
    """A model with what using it takes.

    Args:
        folder: of the bundle.
        model: in evaluation mode, on the CPU.
        artifact: what the training says of it.
        config: all of `config.json`.
    """

    folder: Path
    model: Method
    artifact: Artifact
    config: Mapping[str, Any]

    def info(self, kind: str) -> EncoderInfo:
        """Of the encoder `image` or `text` that the model was trained with."""
        return EncoderInfo(**self.config["encoders"][kind]["info"])


def describe_bundle(
    data: Data,
    description: Mapping[str, Any],
    sources: Mapping[str, Mapping[str, Any]],
    evaluated: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of `config.json`.

    Args:
        data: that the model was trained and evaluated on.
        description: `model.json`'s content.
        sources: of each encoder, what `load_image_encoder` and `load_text_encoder` take, and the padding.
        evaluated: sections for people and reports: what the method is, the data, metrics, the audit.
    """
    encoders: dict[str, dict[str, Any]] = {
        kind: {**sources[kind], "info": vars(data.encoders[kind])} for kind in ("image", "text")
    }
    if encoders["text"]["weights"] == "untrained":
        tokenizer = collect_tokenizer(data.table["text"].tolist())
        encoders["text"]["tokenizer"] = tokenizer.to_json()
    return {"format": _FORMAT, "model": dict(description), "encoders": encoders, **evaluated}


def load_bundle(folder: Path | str) -> Bundle:
    """Read a bundle; nothing in it is executed.

    Raises:
        UserError: a file is missing, damaged or pickled, or they do not belong together.
    """
    folder = Path(folder)
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"{path}: no such file; train a model (`dvc repro`), or give the folder of a bundle")
    pickled = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.suffix in _PICKLED)
    if pickled:
        raise UserError(
            f"{folder}: {', '.join(pickled[:3])}: a pickled file may run code when it is read, and no bundle "
            "has one; remove it, and ask who made the bundle why it is there"
        )
    config = read_json(path, "the bundle's configuration")
    try:
        if config["format"] != _FORMAT:
            raise UserError(f"{path}: of another format than this version reads ({_FORMAT})")
        for kind in ("image", "text"):
            EncoderInfo(**config["encoders"][kind]["info"])
        model, artifact = build_model(config["model"], folder / WEIGHTS, path)
    except FileNotFoundError:
        raise UserError(f"{folder / WEIGHTS}: no such file; the bundle is not whole") from None
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged, or not a bundle's ({first_line(error)})") from None
    return Bundle(folder, model, artifact, config)


def load_encoder(bundle: Bundle, kind: str, weights: str | None = None) -> ImageEncoder | TextEncoder:
    """The encoder that a bundle's model was trained with: its own, the bundle's, or that of its source.

    Args:
        bundle: whose.
        kind: `image` or `text`.
        weights: where it is, if not where it was.

    Raises:
        UserError: it is missing, or is another than the model was trained with.
    """
    if kind in bundle.model.encoders:
        own: Any = bundle.model.encoders[kind]
        if kind == "image" or own.tokenizer is not None:
            return own
    source = {key: v for key, v in bundle.config["encoders"][kind].items() if key not in ("info", "padding")}
    source |= {"weights": weights} if weights else {}
    packed = bundle.folder / ENCODERS / f"{kind}.json"
    if packed.is_file() and weights is None:
        return _unpack(packed, kind, bundle.info(kind))
    try:
        encoder = load_image_encoder(**source) if kind == "image" else load_text_encoder(texts=(), **source)
    except UserError as error:
        raise UserError(
            f"{bundle.folder}: the model needs its {kind} encoder, {bundle.info(kind).weights}, and "
            f"`{source['weights']}` does not give it ({error}). {_ELSEWHERE.format(kind=kind)}"
        ) from None
    require_encoder(encoder, kind, bundle.info(kind), str(source["weights"]))
    if kind in bundle.model.encoders:  # of the source only the tokenizer was wanted
        own = bundle.model.encoders[kind]
        own.tokenizer = encoder.tokenizer
        return own
    return encoder


def require_encoder(
    encoder: ImageEncoder | TextEncoder, kind: str, info: EncoderInfo, place: Path | str
) -> None:
    """Refuse another encoder than the one that was described.

    Raises:
        UserError: it is another.
    """
    more = [] if isinstance(encoder, ImageEncoder) else [encoder.vocabulary_hash()]
    if hash_weights(encoder.state_dict(), *more) != info.sha256:
        raise UserError(
            f"{place}: not the {kind} encoder that the model was trained with ({info.weights}, "
            f"{info.architecture}, SHA-256 {info.sha256[:12]}...): other weights, or another vocabulary. "
            f"{_ELSEWHERE.format(kind=kind)}"
        )


def _unpack(path: Path, kind: str, info: EncoderInfo) -> ImageEncoder | TextEncoder:
    """An encoder that `spp-scl export` has written."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        encoder = rebuild_image_encoder(description) if kind == "image" else rebuild_text_encoder(description)
        encoder.load_state_dict(load_file(path.with_suffix(".safetensors")))
    except (SafetensorError, OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: the encoder is damaged or missing ({first_line(error)})") from None
    require_encoder(encoder, kind, info, path)
    return encoder
