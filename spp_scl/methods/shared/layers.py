"""Layers that several methods use.

Shapes: B batch, W words in all, C channels, V word pieces in the vocabulary, E their width.
"""

import torch
from torch import nn


def masked_mean(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean over the true positions, (B, N, K) and (B, N) to (B, K); zero where there is none."""
    total = (tokens * mask[:, :, None]).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


def mean_map(maps: torch.Tensor, has_image: torch.Tensor) -> torch.Tensor:
    """Each picture's mean over its positions, (M, P, C) and (B,) to (B, C); zero for a blank one."""
    pooled = maps.mean(dim=1)  # (M, C)
    there = has_image.nonzero()[:, 0]
    return pooled.new_zeros(len(has_image), pooled.shape[1]).index_copy(0, there, pooled)


def word_vectors(vocabulary: torch.Tensor, embedding: str) -> nn.Embedding:
    """A copy of the text encoder's own vectors of word pieces, (V, E), instead of published word vectors.

    Args:
        vocabulary: (V, E).
        embedding: `trained`, or `static`: they stay as they are.
    """
    return nn.Embedding.from_pretrained(vocabulary.clone(), freeze=embedding == "static")
