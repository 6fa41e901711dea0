"""Batches, gathered from features that lie in memory as they are stored.

Shapes: B batch, W words in all, M pictures in all, P picture positions, C channels, L layers, D text width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch

from spp_scl.batches.packing import Packing, pack
from spp_scl.features.store import ImageFeatures, TextFeatures


@dataclass(frozen=True)
class Text:
    """Hidden states: of the `words`, (W, L, D), and of what stands for a whole text, `cls` (B, L, D)."""

    words: torch.Tensor
    cls: torch.Tensor


@dataclass(frozen=True)
class Batch:
    """What a method sees of some rows, the longest text first.

    What a method does not ask for is not gathered. Where the encoders are in the loop, each call of `text`
    and of `image` runs one: with the weights of that moment, and with dropout of its own in training.

    Args:
        order: (B,) int64, on the CPU; of the rows asked for, which one is where.
        labels: (B,) int64.
        packing: of the words.
        has_text: (B,) false for a blank text.
        has_image: (B,) false for a blank picture.
        text: gives `Text`; a blank text has no words and a cls of zeros.
        image: gives (M, P, C), the maps of the rows that have a picture, in their order.
        pieces: gives (W,) int64, the words' ids in the text encoder's vocabulary.
        view: gives another view of the rows, of the training alone: `drawn`, the pictures changed at random,
            or `translated`, the texts translated too. None: no row has one.
    """

    order: torch.Tensor
    labels: torch.Tensor
    packing: Packing
    has_text: torch.Tensor
    has_image: torch.Tensor
    text: Callable[[], Text]
    image: Callable[[], torch.Tensor]
    pieces: Callable[[], torch.Tensor]
    view: Callable[[str], "View | None"]


@dataclass(frozen=True)
class View:
    """A second view of some of a batch's rows.

    Args:
        batch: the view.
        rows: (n,) which rows of the first batch it is of.
        place: (n,) where they are in this one.
    """

    batch: Batch
    rows: torch.Tensor
    place: torch.Tensor


@dataclass(frozen=True)
class Sizes:
    """What a method's network is built for.

    Args:
        classes: how many.
        layers: L, of the text encoder, the last ones.
        text_width: D.
        positions: P.
        channels: C.
        vocabulary: (V, E), the text encoder's own vectors of word pieces.
    """

    classes: int
    layers: int
    text_width: int
    positions: int
    channels: int
    vocabulary: torch.Tensor

    def numbers(self) -> dict[str, int | list[int]]:
        """Everything but the vectors, for a file."""
        return {**vars(self), "vocabulary": list(self.vocabulary.shape)}

    @classmethod
    def of_numbers(cls, numbers: dict) -> "Sizes":
        """For a network whose weights, the vectors of word pieces among them, come from a file."""
        return cls(**{**numbers, "vocabulary": torch.zeros(numbers["vocabulary"])})


class Source(Protocol):
    """Where batches come from.

    Args:
        device: of their tensors.
        lengths: (N,) words of each row's text.
    """

    device: torch.device
    lengths: torch.Tensor

    def sizes(self, classes: int) -> Sizes:
        """For a network that takes these batches."""
        ...

    def batch(self, rows: torch.Tensor) -> Batch:
        """Gather rows, (B,) int64 on the CPU, onto the device; the longest text comes first."""
        ...


@dataclass(frozen=True)
class Arrangement:
    """How rows lie in a batch, whatever is read of them.

    Args:
        rows: (B,) the longest text first, on the CPU.
        packing: of their words.
        pictures: (M,) which pictures they have, on the CPU.
        fields: of `Batch`, those that are the same from every source.
    """

    rows: torch.Tensor
    packing: Packing
    pictures: torch.Tensor
    fields: dict[str, Any]

    @classmethod
    def of(
        cls,
        rows: torch.Tensor,
        lengths: torch.Tensor,
        labels: torch.Tensor,
        index: torch.Tensor,
        device: torch.device,
    ) -> "Arrangement":
        """Lay out rows, (B,).

        Args:
            rows: int64, on the CPU as all others.
            lengths: (N,) words of each row's text.
            labels: (N,).
            index: (N,) which picture a row has; -1: none.
            device: of the batch.
        """
        order = lengths[rows].argsort(descending=True, stable=True)
        rows = rows[order]
        packing = pack(lengths[rows], device)
        has_image = index[rows] >= 0
        fields = {
            "order": order,
            "labels": labels[rows].to(device),
            "packing": packing,
            "has_text": (lengths[rows] > 0).to(device),
            "has_image": has_image.to(device),
        }
        return cls(rows, packing, index[rows][has_image], fields)


class FeatureStore:
    """All rows' features in float16, on the GPU where they fit, else in main memory."""

    def __init__(
        self,
        images: ImageFeatures,
        texts: TextFeatures,
        labels: torch.Tensor,
        device: torch.device,
        text_of: torch.Tensor | None = None,
    ):
        """Take a file's rows.

        Args:
            images: of N rows.
            texts: of N rows, or of those that `text_of` names.
            labels: (N,).
            device: of the batches.
            text_of: (N,) which text a row has; None: its own.
        """
        self.device = device
        self._text_of = torch.arange(len(texts.offsets) - 1) if text_of is None else text_of
        self.lengths = texts.offsets.diff()[self._text_of]
        self._labels = labels
        self._starts = texts.offsets[:-1]
        self._index = images.index
        self.views: dict[str, Any] = {}
        fits = _fits(device, texts.words, images.maps, texts.cls)
        storage = device if fits else torch.device("cpu")
        self._words, self._maps, self._cls = (t.to(storage) for t in (texts.words, images.maps, texts.cls))
        self._pieces, self._vocabulary = texts.pieces, texts.vocabulary

    def sizes(self, classes: int) -> Sizes:
        """See `Source`."""
        _, layers, width = self._words.shape
        _, positions, channels = self._maps.shape
        return Sizes(classes, layers, width, positions, channels, self._vocabulary.float())

    def batch(self, rows: torch.Tensor) -> Batch:
        """See `Source`."""
        arranged = Arrangement.of(rows, self.lengths, self._labels, self._index, self.device)
        rows, packing, pictures = arranged.rows, arranged.packing, arranged.pictures
        texts = self._text_of[rows]
        words = self._starts[texts].to(self.device)[packing.text] + packing.time
        return Batch(
            **arranged.fields,
            # Gathered once, however often they are asked for.
            text=cache(lambda: Text(self._take(self._words, words), self._take(self._cls, texts))),
            image=cache(lambda: self._take(self._maps, pictures)),
            pieces=cache(lambda: self._pieces[words.cpu()].to(self.device, torch.int64)),
            view=lambda name: self.views[name].of(rows),
        )

    def _take(self, features: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return features.index_select(0, index.to(features.device)).to(self.device).float()


def _fits(device: torch.device, *tensors: torch.Tensor) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    # A fifth stays free for the network, its gradients and the batches.
    return sum(t.numel() * t.element_size() for t in tensors) < 0.8 * free
