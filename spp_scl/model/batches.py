"""Batches, gathered from features that lie in memory as they are stored.

Shapes: B batch, W words in all, M pictures in all, D text width.
"""

from dataclasses import dataclass

import torch

from spp_scl.features.store import ImageFeatures, TextFeatures
from spp_scl.model.packing import Packing, pack


@dataclass(frozen=True)
class Batch:
    """What the network sees of some rows, the longest text first.

    Args:
        order: (B,) int64, on the CPU; of the rows asked for, which one is where.
        packing: of the words.
        words: (W, 4, D) hidden states of the words.
        cls: (B, 4, D) hidden states of [CLS].
        maps: (M, 49, 2048) feature maps of the rows that have a picture, in their order.
        has_text: (B,) false for a blank text.
        has_image: (B,) false for a blank picture.
    """

    order: torch.Tensor
    packing: Packing
    words: torch.Tensor
    cls: torch.Tensor
    maps: torch.Tensor
    has_text: torch.Tensor
    has_image: torch.Tensor


class FeatureStore:
    """All rows' features in float16, on the GPU where they fit, else in main memory."""

    def __init__(self, images: ImageFeatures, texts: TextFeatures, device: torch.device):
        self.device = device
        self.lengths = texts.offsets.diff()
        self._starts = texts.offsets[:-1]
        self._index = images.index
        fits = _fits(device, texts.words, images.maps, texts.cls)
        storage = device if fits else torch.device("cpu")
        self._words, self._maps, self._cls = (t.to(storage) for t in (texts.words, images.maps, texts.cls))

    def batch(self, rows: torch.Tensor) -> Batch:
        """Gather rows, (B,) int64 on the CPU, onto the device."""
        order = self.lengths[rows].argsort(descending=True, stable=True)
        rows = rows[order]
        lengths = self.lengths[rows]
        packing = pack(lengths, self.device)
        starts = self._starts[rows].to(self.device)
        index = self._index[rows]
        has_image = index >= 0
        return Batch(
            order=order,
            packing=packing,
            words=self._take(self._words, starts[packing.text] + packing.time),
            cls=self._take(self._cls, rows),
            maps=self._take(self._maps, index[has_image]),
            has_text=(lengths > 0).to(self.device),
            has_image=has_image.to(self.device),
        )

    def _take(self, features: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return features[index.to(features.device)].to(self.device).float()


def _fits(device: torch.device, *tensors: torch.Tensor) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    # A fifth stays free for the network, its gradients and the batches.
    return sum(t.numel() * t.element_size() for t in tensors) < 0.8 * free
