"""What each word, and each region of the picture, adds to a prediction."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import PIL.Image
import torch

from spp_scl.batches.batch import Batch
from spp_scl.encoders.text import TextEncoder, word_pieces
from spp_scl.errors import UserError
from spp_scl.methods.shared.method import Method
from spp_scl.prediction.posts import Post

# The picture is cut into so many regions each way, as ResNet's map has positions.
GRID = 7
# Later words are beyond what a text encoder reads of a tweet.
_WORDS = 100


@dataclass(frozen=True)
class Explanation:
    """What the parts of a post add to the probability of the label that was predicted.

    By occlusion (Zeiler and Fergus 2014): a part's gain is the probability with all of the post, less that
    without the part. Negative: the part speaks for another label. Parts that say the same hide each other's
    gain.

    Args:
        words: each word with its gain, in the text's order.
        regions: (7, 7) gains of the picture's regions, row by row; None: no picture is there, or read.
        attention: (words, R, R) where each word looks, in the method's own attention of its last layer's
            first head; None: the method has none, or text or picture are missing.
    """

    words: Sequence[tuple[str, float]]
    regions: np.ndarray | None
    attention: np.ndarray | None = None


def occlude(
    post: Post,
    score: Callable[[Iterable[Post]], np.ndarray],
    reads_text: bool,
    reads_image: bool,
) -> Explanation:
    """Explain a prediction by what changes without a part.

    Args:
        post: that was predicted.
        score: gives the probability of the predicted label, (n,), of n posts, which are made one by one.
        reads_text: whether the model does.
        reads_image: likewise.
    """
    words = post.text.split()[:_WORDS] if reads_text else []
    rest = post.text.split()[_WORDS:]
    picture = post.picture if reads_image else None

    def variants() -> Iterator[Post]:
        yield post
        for i in range(len(words)):
            yield Post(" ".join([*words[:i], *words[i + 1 :], *rest]), post.picture)
        for covered in () if picture is None else _cover(picture):
            yield Post(post.text, covered)

    whole, *others = score(variants())
    gains = whole - np.array(others, dtype=float)
    of_words = [(word, float(gain)) for word, gain in zip(words, gains, strict=False)]
    regions = None if picture is None else gains[len(words) :].reshape(GRID, GRID)
    return Explanation(of_words, regions)


def _cover(picture: PIL.Image.Image) -> Iterator[PIL.Image.Image]:
    """The picture with one region after the other in its mean color."""
    mean = tuple(np.asarray(picture.resize((1, 1), PIL.Image.Resampling.BOX))[0, 0].tolist())
    columns, rows = (np.linspace(0, size, GRID + 1).round().astype(int) for size in picture.size)
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            copy = picture.copy()
            copy.paste(mean, (int(left), int(top), int(right), int(bottom)))
            yield copy


def read_attention(model: Method, batch: Batch, encoder: TextEncoder, text: str) -> np.ndarray | None:
    """Where each of a text's words looks, (words, R, R); None where the method has no such attention.

    Args:
        model: in evaluation mode.
        batch: of the one post, with a text and a picture.
        encoder: of the text.
        text: its own.
    """
    if type(model).word_attention is Method.word_attention:
        return None
    try:
        weights = model.word_attention(batch, head=0).float().cpu()  # (W, P)
    except UserError:  # with these settings it has none
        return None
    side = math.isqrt(weights.shape[1])
    if side * side != weights.shape[1]:
        return None
    found = []
    for word in list(re.finditer(r"\S+", text))[:_WORDS]:
        # What stands in front of a word is cut apart in the same way with and without it.
        first = len(word_pieces(encoder, text[: word.start()].rstrip()))
        last = len(word_pieces(encoder, text[: word.end()]))
        own = weights[first:last]
        found.append(own.mean(dim=0) if len(own) else torch.zeros(weights.shape[1]))
    return torch.stack(found).view(-1, side, side).numpy()
