"""Texts of unequal lengths in one tensor without padding: all first words, all second words, and so on.

Shapes: B texts, the longest first; W words in all.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Packing:
    """Where the words lie.

    Args:
        lengths: (B,), descending, on the CPU; zero for a blank text.
        sizes: how many texts have a first word, a second one, ...
        text: (W,) whose word it is.
        time: (W,) which of the text's words.
        mirrored: (W,) where the word is that stands as far from the text's end as this from its beginning.
    """

    lengths: torch.Tensor
    sizes: list[int]
    text: torch.Tensor
    time: torch.Tensor
    mirrored: torch.Tensor

    def mean(self, words: torch.Tensor) -> torch.Tensor:
        """Each text's mean, (W, K) to (B, K); zero for a blank text."""
        total = words.new_zeros(len(self.lengths), words.shape[1]).index_add(0, self.text, words)
        return total / self.lengths.clamp(min=1).to(words.device)[:, None]

    def padded(self, words: torch.Tensor) -> torch.Tensor:
        """(W, K) to (B, T, K), zero behind a text's end; T is at least 1."""
        shape = (len(self.lengths), max(1, len(self.sizes)), words.shape[1])
        flat = words.new_zeros(shape[0] * shape[1], shape[2])
        return flat.index_copy(0, self.text * shape[1] + self.time, words).view(shape)

    def mask(self) -> torch.Tensor:
        """(B, T), true for a word."""
        steps = torch.arange(max(1, len(self.sizes)))
        return (steps < self.lengths[:, None]).to(self.text.device)


def pack(lengths: torch.Tensor, device: torch.device) -> Packing:
    """Lay out texts of these lengths, (B,) int64 descending, on the CPU."""
    there = torch.arange(int(lengths[0]))[:, None] < lengths  # (T, B)
    time, text = there.nonzero(as_tuple=True)
    sizes = there.sum(dim=1)
    starts = sizes.cumsum(0) - sizes
    mirrored = starts[lengths[text] - 1 - time] + text
    return Packing(lengths, sizes.tolist(), text.to(device), time.to(device), mirrored.to(device))
