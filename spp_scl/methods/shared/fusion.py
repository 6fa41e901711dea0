"""SPP-SCL's cross-modal fusion (CMF): attention whose queries and keys the other modality multiplies.

Shapes: B batch, W words in all, P picture positions, N tokens.
"""

from dataclasses import dataclass

import torch
from torch import nn

from spp_scl.batches.packing import Packing
from spp_scl.methods.shared.layers import masked_mean

TOKEN = 128  # a word after the BiLSTM, a picture position after ConvP
SHARED = 32  # the space in which text and image are compared


@dataclass(frozen=True)
class Branches:
    """What the two branches give.

    Args:
        text: (B, 32), T_p; zero for a blank text, or without a text branch.
        image: (B, 32), I_p; zero for a blank picture, or without an image branch.
        text_tokens: (W, 128), the BiLSTM's outputs; None without a text branch.
        image_tokens: (B, P, 128), ConvP's positions before pooling, zero for a blank picture; None without
            an image branch.
        packing: of the words.
    """

    text: torch.Tensor
    image: torch.Tensor
    text_tokens: torch.Tensor | None
    image_tokens: torch.Tensor | None
    packing: Packing


class Modulated(nn.Module):
    """One modality's Q, K and V; its queries and keys are multiplied by the other modality's vector."""

    def __init__(self, dropout: float):
        super().__init__()
        self.query, self.key, self.value = (
            nn.Sequential(nn.Linear(SHARED, SHARED), nn.Dropout(dropout)) for _ in range(3)
        )

    def forward(
        self, tokens: torch.Tensor, other: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """softmax((other * Q)(other * K)^T / sqrt(32)) V.

        Args:
            tokens: (..., N, 32), which attend to each other.
            other: (..., N or 1, 32).
            mask: (..., N), false where no attention may go; None: nowhere.
        """
        query, key = other * self.query(tokens), other * self.key(tokens)
        scores = query @ key.transpose(-2, -1) * SHARED**-0.5
        if mask is not None:
            # Not -inf: where everything is masked the softmax must stay finite.
            scores = scores.masked_fill(~mask[..., None, :], torch.finfo(scores.dtype).min)
        return scores.softmax(dim=-1) @ self.value(tokens)


class SampleFusion(nn.Module):
    """CMF within each tweet: words attend to words, picture positions to picture positions."""

    def __init__(self, dropout: float):
        super().__init__()
        self.text_in, self.image_in = nn.Linear(TOKEN, SHARED), nn.Linear(TOKEN, SHARED)
        self.text, self.image = Modulated(dropout), Modulated(dropout)

    def forward(self, b: Branches) -> tuple[torch.Tensor, torch.Tensor]:
        """The text stream and the image stream, (B, 32) each."""
        mask = b.packing.mask()
        words = self.text(b.packing.padded(self.text_in(b.text_tokens)), b.image[:, None], mask)
        positions = self.image(self.image_in(b.image_tokens), b.text[:, None])
        return masked_mean(words, mask), positions.mean(dim=1)


class NoFusion(nn.Module):
    """Instead of CMF: no streams, and the head reads the two branches alone."""

    def __init__(self, dropout: float):
        super().__init__()

    def forward(self, b: Branches) -> tuple[()]:
        """Nothing."""
        return ()


class BatchFusion(nn.Module):
    """CMF across the batch, as in the released code."""

    def __init__(self, dropout: float):
        super().__init__()
        self.text, self.image = Modulated(dropout), Modulated(dropout)

    def forward(self, b: Branches) -> tuple[torch.Tensor, torch.Tensor]:
        """The text stream and the image stream, (B, 32) each."""
        return self.text(b.text, b.image), self.image(b.image, b.text)
