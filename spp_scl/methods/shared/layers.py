"""Layers that several methods use.

Shapes: B batch, W words in all, C channels, V word pieces in the vocabulary, E their width.
"""

import torch
from torch import nn

from spp_scl.batches.batch import Batch


def masked_mean(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean over the true positions, (B, N, K) and (B, N) to (B, K); zero where there is none."""
    total = (tokens * mask[:, :, None]).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


def mean_map(batch: Batch) -> torch.Tensor:
    """Each picture's mean over its positions, (B, C); zero for a blank one."""
    pooled = batch.image().mean(dim=1)  # (M, C)
    there = batch.has_image.nonzero()[:, 0]
    return pooled.new_zeros(len(batch.has_image), pooled.shape[1]).index_copy(0, there, pooled)


def word_vectors(vocabulary: torch.Tensor, embedding: str) -> nn.Embedding:
    """A copy of the text encoder's own vectors of word pieces, (V, E), instead of published word vectors.

    Args:
        vocabulary: (V, E).
        embedding: `trained`, or `static`: they stay as they are.
    """
    return nn.Embedding.from_pretrained(vocabulary.clone(), freeze=embedding == "static")
