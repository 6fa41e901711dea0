"""Read the authors' checkpoint: `python -m spp_scl.released authors.pth --dataset mvsa_single`."""

import argparse
import hashlib
import logging
import sys
from pathlib import Path

from spp_scl.errors import UserError
from spp_scl.raw.datasets import DATASETS
from spp_scl.released.checkpoint import read_checkpoint, write_checkpoint


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    parser = argparse.ArgumentParser(prog="python -m spp_scl.released", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a .pth state dict in the released layout")
    named = sorted(name for name, dataset in DATASETS.items() if dataset.classes and dataset.published)
    parser.add_argument("--dataset", required=True, choices=named, help="which one it was trained on")
    parser.add_argument(
        "--text-encoder",
        default="bert-base-uncased",
        help="a hub name or a local directory with the configuration and vocabulary of its BERT",
    )
    parser.add_argument(
        "--to", type=Path, help="the folder to write (default: models/released-<hash of the checkpoint>)"
    )
    options = parser.parse_args()
    state = read_checkpoint(options.checkpoint)
    if options.to is None:
        # DVC does not watch these files: another checkpoint must have other paths.
        with options.checkpoint.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        options.to = Path(f"models/released-{digest[:8]}")
    write_checkpoint(state, DATASETS[options.dataset].classes, options.text_encoder, options.to)
    folder = options.to.resolve()
    logging.info(
        "written to %s. Its metrics and its audit, on your copy of the data:\n"
        "  dvc exp run -S dataset=%s -S split.protocol=published -S text_features.padding=kept \\\n"
        "    -S image_features.weights=%s \\\n    -S text_features.weights=%s \\\n    -S model.weights=%s",
        options.to,
        options.dataset,
        folder / "resnet50.safetensors",
        folder / "bert",
        folder / "model.safetensors",
    )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
