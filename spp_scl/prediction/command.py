"""The command `spp-scl predict`: what a trained model says of a post, or of a file of posts."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spp_scl.errors import UserError

if TYPE_CHECKING:  # torch: not for --help
    from spp_scl.prediction.predictor import Prediction, Predictor


def main(arguments: Sequence[str]) -> None:
    """Print a prediction, or score a file.

    Args:
        arguments: those of the command line.

    Raises:
        UserError: there is no model, or a file or an encoder is missing or wrong.
    """
    parser = argparse.ArgumentParser(
        prog="spp-scl predict",
        description="What a trained model says of a post, or of each post of a file.",
        epilog='examples: spp-scl predict --text "Blue Jays game with the fam!" --image photo.jpg; '
        "spp-scl predict posts.csv --out scores.parquet",
    )
    add_model_options(parser)
    parser.add_argument(
        "--precision", choices=("fp32", "bf16", "fp16"), help="of the encoders (default: as in training)"
    )
    parser.add_argument("posts", nargs="?", type=Path, help="a CSV, Parquet or JSON Lines file")
    parser.add_argument("--out", type=Path, help="the file's scores: .csv, .parquet or .jsonl")
    parser.add_argument("--text", help="of one post")
    parser.add_argument("--image", type=Path, help="of one post")
    parser.add_argument(
        "--explain", type=Path, metavar="FIGURE.png", help="draw what each word and region of the post adds"
    )
    parser.add_argument("--text-column", help="of the file (default: text)")
    parser.add_argument("--image-column", help="of the file: paths (default: image)")
    parser.add_argument(
        "--images", type=Path, help="the folder that the paths are relative to (default: the file's)"
    )
    parser.add_argument("--batch-size", type=int, help="posts at a time (default: as in training)")
    options = parser.parse_args(arguments)
    one = options.text is not None or options.image is not None
    if one == (options.posts is not None):
        parser.error("give a file of posts, or --text, --image or both")
    if options.posts is not None and options.out is None:
        parser.error("--out: where the file's scores go")
    if options.explain is not None and (not one or options.explain.suffix != ".png"):
        parser.error("--explain: a .png, of one post")
    if options.posts is not None and not options.posts.is_file():  # before seconds of loading
        raise UserError(f"{options.posts}: no such file")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    predictor = load_predictor(options)
    if one:
        found = predictor(options.text, image=options.image, explain=options.explain is not None)
        print(found.label)
        for name, probability in found.probabilities.items():
            print(f"  {name:<14} {probability:.4f}")
        if found.explanation is not None:
            _draw(options.explain, found, options.image)
        return
    from spp_scl.prediction.reading import Columns
    from spp_scl.prediction.scoring import score_file

    columns = Columns(
        options.text_column or "text",
        options.image_column or "image",
        options.images or options.posts.parent,
        named=[name for name in (options.text_column, options.image_column) if name],
        hint=". Name them with --text-column and --image-column",
    )
    rows, errors = score_file(predictor, options.posts, options.out, columns, options.batch_size)
    print(
        f"{options.out}: {rows} posts"
        + (f", {errors} without a prediction (column `error`)" if errors else "")
    )


def _draw(path: Path, found: "Prediction", image: Path | None) -> None:
    from spp_scl.clean.pictures import open_picture
    from spp_scl.report.explanation import draw_explanation

    parts = found.explanation
    assert parts is not None
    picture = None if image is None else open_picture(image)
    draw_explanation(path, parts.words, parts.regions, picture, found.label)
    print(f"{path} and {path.with_suffix('.svg').name}")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which model."""
    parser.add_argument("--model", default="models", help="the folder of a bundle (default: models)")
    parser.add_argument("--text-encoder", help="where it is, if not where it was in training")
    parser.add_argument("--image-encoder", help="likewise")


def load_predictor(options: argparse.Namespace) -> "Predictor":
    """The model that the options name."""
    from spp_scl.prediction.predictor import Predictor

    return Predictor.load(
        options.model, text=options.text_encoder, image=options.image_encoder, precision=options.precision
    )
