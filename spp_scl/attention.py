"""The command `spp-scl attention`: where in the picture a word of a tweet looks."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spp_scl.errors import UserError

if TYPE_CHECKING:
    from spp_scl.encoders.text import TextEncoder
    from spp_scl.params import Params

FOLDER = Path("reports/attention")
_MODEL = "models/model.safetensors"


def main(arguments: Sequence[str]) -> None:
    """Draw the attention of the trained model in `models/`.

    Args:
        arguments: those of the command line.

    Raises:
        UserError: the folder holds no trained model, the tweet or the word is not there, the tweet has no
            picture, or the method has no such attention.
    """
    parser = argparse.ArgumentParser(
        prog="spp-scl attention",
        description="Draw a tweet's picture, and where in it the trained model's attention of each word is: "
        "in the last layer that words and picture share, after the softmax, a word's pieces averaged.",
        epilog="example: spp-scl attention --id 409 --word happy smile",
    )
    parser.add_argument("--id", required=True, help="of a clean tweet of the dataset in params.yaml")
    parser.add_argument("--word", required=True, nargs="+", help="one or more, as they stand in the tweet")
    parser.add_argument("--head", type=int, default=0, help="of the attention (default: 0, the first)")
    options = parser.parse_args(arguments)
    if not Path("params.yaml").is_file():
        raise UserError(f"{Path.cwd()}: no params.yaml; go to the pipeline's folder")
    from spp_scl.params import load_params
    from spp_scl.report.attention import draw_attention  # matplotlib: not for --help

    found = read_attention(load_params(), options.id, options.word, options.head)
    words = "-".join(re.sub(r"\W+", "", word) for word in options.word)[:80]
    tweet = re.sub(r"[^\w.-]+", "-", options.id)
    path = FOLDER / f"{tweet}-{words}-head{options.head}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_attention(path, **found)
    print(f"{path} and {path.with_suffix('.svg').name}")


def read_attention(params: "Params", tweet: str, words: Sequence[str], head: int) -> dict[str, Any]:
    """What `draw_attention` takes, from the model and the data in this folder.

    Args:
        params: the pipeline's.
        tweet: its id.
        words: of the tweet.
        head: of the attention.

    Raises:
        UserError: see `main`.
    """
    import torch

    from spp_scl.batches.batch import FeatureStore
    from spp_scl.batches.data import load_dataset
    from spp_scl.batches.inputs import InputStore
    from spp_scl.clean.pictures import reopen_picture
    from spp_scl.encoders.loop import load_encoders
    from spp_scl.encoders.text import word_pieces
    from spp_scl.encoders.weights import choose_sources
    from spp_scl.training.artifact import load_model, require_features

    model, artifact = load_model(_MODEL)
    data = load_dataset(params.dataset)
    require_features(artifact, data.fingerprint, data.classes, _MODEL)
    rows = (data.table["id"] == tweet).to_numpy().nonzero()[0]
    if not len(rows):
        raise UserError(
            f"--id {tweet}: no clean tweet of {params.dataset} has it (reports/dropped.csv has more)"
        )
    row = data.table.iloc[int(rows[0])]
    if not isinstance(row["picture"], str):
        raise UserError(f"--id {tweet}: the tweet has no picture")
    sources = choose_sources(params.image_features, params.text_features, params.dataset)
    encoders: Any = load_encoders(("text", "image"), sources, data.table["text"].tolist())
    if isinstance(data.source, InputStore):
        data.source.require(encoders)
        data.source.use(model.encoders, artifact.precision)
    batch = data.source.batch(torch.tensor(rows))
    pieces = word_pieces(encoders["text"], row["text"])
    if isinstance(data.source, FeatureStore) and batch.pieces()[: len(pieces)].tolist() != pieces:
        raise UserError(
            "text_features.weights: not the encoder that the features are of, whose word pieces are others; "
            "run `dvc repro`"
        )
    places = [find_word(encoders["text"], row["text"], word) for word in words]
    with torch.inference_mode():
        weights = model.to(data.source.device).word_attention(batch, head).float().cpu()
        probabilities = model(batch).logits.softmax(dim=1)[0].cpu()
    code = int(probabilities.argmax())
    said = f"{data.classes[code]} ({probabilities[code]:.0%})"
    picture = reopen_picture(Path("data/raw", params.dataset, row["image"]))
    return {
        "picture": encoders["image"].prepare(picture),
        "words": {word: weights[place].mean(dim=0) for word, place in zip(words, places, strict=True)},
        "caption": f"{row['text']}\n{row['label']}; {model.title}: {said}",
    }


def find_word(encoder: "TextEncoder", text: str, word: str) -> list[int]:
    """Which of a text's word pieces are a word's, wherever it stands as a word of its own.

    Raises:
        UserError: the word is not in the text, or behind where the encoder cuts it.
    """
    from spp_scl.encoders.text import word_pieces

    whole = len(word_pieces(encoder, text))
    found: list[int] = []
    for place in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE):
        # What stands in front of a word is cut apart in the same way with and without it.
        before = len(word_pieces(encoder, text[: place.start()].rstrip()))
        found += range(before, min(whole, len(word_pieces(encoder, text[: place.end()]))))
    if not found:
        raise UserError(f"--word {word}: not in the tweet, as far as the text encoder reads it: {text}")
    return found
