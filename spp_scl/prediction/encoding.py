"""Posts to the features that a model reads, in memory, as the feature stages write them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from spp_scl.batches.batch import FeatureStore
from spp_scl.encoders.encode import Batched, run_batch
from spp_scl.encoders.image import ImageEncoder
from spp_scl.encoders.pictures import PictureBatches
from spp_scl.encoders.text import TextEncoder
from spp_scl.encoders.texts import TextBatches
from spp_scl.encoders.workers import in_order
from spp_scl.features.encoder import EncoderInfo
from spp_scl.features.store import ImageFeatures, TextFeatures
from spp_scl.prediction.posts import Prepared


class _Given(PictureBatches):
    """Prepared pictures that are in memory."""

    def __init__(self, pictures: Sequence[torch.Tensor], *of: object):
        super().__init__(*of)  # type: ignore[arg-type]
        self.pictures = pictures

    def prepare_one(self, item: int) -> torch.Tensor:
        """See `PictureBatches`."""
        return self.pictures[item]


@dataclass(frozen=True)
class Encoding:
    """How posts go through an encoder.

    Args:
        info: the encoder that the model was trained with.
        device: of the encoder.
        precision: in which it computes.
        batch_size: posts at a time; a batch is filled up to it, unless there are fewer posts in all.
        half: whether features are rounded to float16, as they are in the files that a frozen encoder writes.
    """

    info: EncoderInfo
    device: torch.device
    precision: str
    batch_size: int
    half: bool


def encode_pictures(posts: Sequence[Prepared], encoder: ImageEncoder | None, how: Encoding) -> ImageFeatures:
    """The maps of the posts that have a picture; `encoder` None: no picture is read."""
    having = [i for i, post in enumerate(posts) if post.pixels is not None]
    index = torch.full((len(posts),), -1)
    index[having] = torch.arange(len(having))
    if encoder is None:
        return ImageFeatures([], index, torch.zeros(0, 1, 1), how.info, "")
    pictures = [post.pixels for post in posts if post.pixels is not None]
    inputs = _Given(pictures, encoder, how.device, min(how.batch_size, max(1, len(pictures))))
    batches = list(inputs.batches(range(len(pictures))))
    maps = _compute(inputs, batches, how, few=len(pictures) < how.batch_size)
    found = (
        torch.from_numpy(np.concatenate(maps))
        if maps
        else torch.zeros(0, encoder.positions, encoder.channels)
    )
    return ImageFeatures([], index, found, how.info, "")


def encode_texts(
    posts: Sequence[Prepared], encoder: TextEncoder | None, how: Encoding, padding: str, run: bool
) -> TextFeatures:
    """The hidden states of the posts' words.

    Args:
        posts: N posts.
        encoder: on the device; None: no text is read.
        how: they go through it.
        padding: `masked` or `kept`, as in training.
        run: false where the model reads the word pieces alone.
    """
    if encoder is None:
        none = torch.zeros(0, 1, 1)
        offsets = torch.zeros(len(posts) + 1, dtype=torch.int64)
        cls, pieces = torch.zeros(len(posts), 1, 1), torch.zeros(0, dtype=torch.int32)
        return TextFeatures([], offsets, none, cls, pieces, torch.zeros(0, 0), how.info, "")
    size = min(how.batch_size, max(1, len(posts)))
    inputs = TextBatches([post.text for post in posts], encoder, how.device, how.precision, size, padding)
    shape = (encoder.layers, encoder.width if run else 0)
    dtype = torch.float16 if how.half else torch.float32
    cls = torch.zeros(len(posts), *shape, dtype=dtype)
    words = [torch.zeros(int(n) if not run else 0, *shape, dtype=dtype) for n in inputs.words]
    items = np.flatnonzero(~inputs.blank).tolist() if run else []
    batches = list(inputs.batches(items))
    found = _compute(inputs, batches, how, few=len(items) < how.batch_size)
    for batch, features in zip(batches, found, strict=True):
        for item, own in zip(batch, features, strict=True):
            first, rest = inputs.parts(item, own)
            cls[item], words[item] = torch.from_numpy(first), torch.from_numpy(rest)
    return TextFeatures(
        ids=[],
        offsets=torch.tensor([0, *inputs.words]).cumsum(0),
        words=torch.cat(words),
        cls=cls,
        pieces=torch.from_numpy(inputs.pieces()),
        vocabulary=torch.zeros(0, 0),
        encoder=how.info,
        digest="",
    )


def store(images: ImageFeatures, texts: TextFeatures, device: torch.device) -> FeatureStore:
    """A source of batches; the labels are not known."""
    return FeatureStore(images, texts, torch.zeros(len(texts.cls), dtype=torch.int64), device)


def _compute(inputs: Batched, batches: Sequence[list[int]], how: Encoding, few: bool) -> list[np.ndarray]:
    """The features of each batch.

    Args:
        inputs: whose items the batches hold.
        batches: of them.
        how: they go through the encoder.
        few: items, too few to fill a batch: then torch's threads share out each of the batches. Else a core
            computes a batch, as in the feature stages, and gives the same bits.
    """

    def run(batch: list[int]) -> np.ndarray:
        return run_batch(inputs, batch, how.info.weights, how.half)

    return list(map(run, batches) if few else in_order(run, batches, inputs.device))
