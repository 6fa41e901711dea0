"""Batches, gathered from features that lie in memory as they are stored.

Shapes: B batch, T words of the longest text, D text width.
"""

from dataclasses import dataclass

import torch

from spp_scl.features.store import ImageFeatures, TextFeatures


@dataclass(frozen=True)
class Batch:
    """What the network sees of some rows.

    Args:
        words: (B, T, 4, D) float16 hidden states of the words; anything where `word_mask` is false.
        word_mask: (B, T) true for words, false for padding; a blank text has no word.
        cls: (B, 4, D) hidden states of [CLS].
        maps: (B, 49, 2048) feature maps, zero for a blank picture.
        pictured: (B,) false for a blank picture.
    """

    words: torch.Tensor
    word_mask: torch.Tensor
    cls: torch.Tensor
    maps: torch.Tensor
    pictured: torch.Tensor


class FeatureTable:
    """All rows' features in float16, on the GPU where they fit, else in main memory."""

    def __init__(self, images: ImageFeatures, texts: TextFeatures, device: torch.device):
        self.device = device
        self.lengths = texts.offsets.diff()
        self._starts = texts.offsets[:-1]
        self._index = images.index
        # Padding is gathered from the first word: one of zeros stands in where no text has any.
        words = texts.words if len(texts.words) else texts.words.new_zeros(1, *texts.words.shape[1:])
        storage = device if _fits(device, words, images.maps, texts.cls) else torch.device("cpu")
        self._words, self._maps, self._cls = (t.to(storage) for t in (words, images.maps, texts.cls))

    def batch(self, rows: torch.Tensor) -> Batch:
        """Gather rows, (B,) int64 on the CPU, onto the device."""
        lengths = self.lengths[rows]
        # At least one position: the LSTM cannot run over none.
        steps = torch.arange(max(1, int(lengths.max())))
        mask = steps < lengths[:, None]
        positions = ((self._starts[rows, None] + steps) * mask).to(self._words.device)
        words = self._words[positions].to(self.device)
        index = self._index[rows]
        pictured = index >= 0
        maps = self._maps[index[pictured].to(self._maps.device)].to(self.device).float()
        if not pictured.all():
            found, maps = maps, maps.new_zeros(len(rows), *maps.shape[1:])
            maps[pictured.to(self.device)] = found
        cls = self._cls[rows.to(self._cls.device)].to(self.device).float()
        return Batch(words, mask.to(self.device), cls, maps, pictured.to(self.device))


def _fits(device: torch.device, *tensors: torch.Tensor) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    # A fifth stays free for the network, its gradients and the batches.
    return sum(t.numel() * t.element_size() for t in tensors) < 0.8 * free
