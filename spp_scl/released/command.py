"""`spp-scl released`: read the authors' checkpoint."""

import argparse
import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path

from spp_scl.raw.datasets import DATASETS


def main(arguments: Sequence[str]) -> None:
    """Write the checkpoint's model and encoders, and print the experiment that evaluates them.

    Raises:
        UserError: the checkpoint cannot be read or does not fit, or the text encoder's vocabulary is missing.
    """
    options = _parse(arguments)
    from spp_scl.released.checkpoint import read_checkpoint, write_checkpoint  # torch: not for --help

    state = read_checkpoint(options.checkpoint)
    folder = options.to
    if folder is None:
        # DVC does not watch these files: another checkpoint must have other paths.
        with options.checkpoint.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        folder = Path(f"models/released-{digest[:8]}")
    write_checkpoint(state, _classes()[options.dataset], options.text_encoder, folder)
    print(f"{folder}: model and encoders. Their metrics and audit, on your copy of the data:\n")
    print(_experiment(options.dataset, folder.resolve()))


def _classes() -> dict[str, tuple[str, ...]]:
    """Of the datasets that the paper trains on."""
    return {name: data.classes for name, data in DATASETS.items() if data.classes and data.published}


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="spp-scl released",
        description="Read the authors' checkpoint into this project.",
        epilog="example: spp-scl released checkpoint.pth --dataset mvsa_single",
    )
    parser.add_argument("checkpoint", type=Path, help="a .pth state dict in the released layout")
    parser.add_argument(
        "--dataset", required=True, choices=sorted(_classes()), help="the one that it was trained on"
    )
    parser.add_argument(
        "--text-encoder",
        default="bert-base-uncased",
        metavar="NAME",
        help="hub name or local directory with its BERT's configuration, vocabulary (default: %(default)s)",
    )
    parser.add_argument(
        "--to",
        type=Path,
        metavar="FOLDER",
        help="the folder to write (default: models/released-<hash of the checkpoint>)",
    )
    return parser.parse_args(arguments)


def _experiment(dataset: str, folder: Path) -> str:
    """The command that evaluates the checkpoint as it was trained: padding kept, encoders in float32."""
    overrides = [
        f"dataset={dataset}",
        "split.protocol=published",
        "text_features.padding=kept",
        "image_features.precision=fp32",
        "text_features.precision=fp32",
        f"image_features.weights={folder / 'resnet50.safetensors'}",
        f"text_features.weights={folder / 'bert'}",
        f"train.weights={folder / 'model.safetensors'}",
    ]
    return "dvc exp run" + "".join(f" \\\n    -S {shlex.quote(override)}" for override in overrides)
