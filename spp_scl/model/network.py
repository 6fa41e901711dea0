"""SPP-SCL's trainable network, in the order in which data flows (Wu and Li, AAAI 2026, arXiv 2602.20767).

Shapes: B batch, T words, P = 49 picture positions, L = 4 layers, D text width, C classes.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from spp_scl.model.batches import Batch

LAYERS = 4  # of the text encoder
CHANNELS = 2048  # of the image encoder
TOKEN = 128  # a word after the BiLSTM, a picture position after ConvP
SHARED = 32  # the space in which text and image are compared
FUSED = 64  # the vector before the classifier, which the t-SNE shows


@dataclass(frozen=True)
class ModelConfig:
    """All that is needed to build the network again.

    Args:
        classes: how many.
        text_width: D, of the text encoder.
        fusion: `sample`: the tokens of one tweet attend to each other; `batch`: the tweets of a batch do,
            as in the released code, so that a prediction depends on its batch.
        dropout: probability, the same everywhere.
    """

    classes: int
    text_width: int
    fusion: Literal["sample", "batch"]
    dropout: float


@dataclass(frozen=True)
class Branches:
    """What the two branches give.

    Args:
        text: (B, 32), T_p; zero for a blank text.
        image: (B, 32), I_p; zero for a blank picture.
        text_tokens: (B, T, 128), the BiLSTM's outputs, zero at padding.
        image_tokens: (B, P, 128), ConvP's positions before pooling, zero for a blank picture.
        word_mask: (B, T).
    """

    text: torch.Tensor
    image: torch.Tensor
    text_tokens: torch.Tensor
    image_tokens: torch.Tensor
    word_mask: torch.Tensor


@dataclass(frozen=True)
class Output:
    """Logits (B, C), the fused vector (B, 64), T_p (B, 32) and I_p (B, 32)."""

    logits: torch.Tensor
    fused: torch.Tensor
    text: torch.Tensor
    image: torch.Tensor


class SppScl(nn.Module):
    """The whole trainable part."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.text_branch = TextBranch(config.text_width, config.dropout)
        self.image_branch = ImageBranch(config.dropout)
        fusions = {"sample": SampleFusion, "batch": BatchFusion}
        self.fusion = fusions[config.fusion](config.dropout)
        self.classifier = nn.Sequential(
            nn.Linear(4 * SHARED, FUSED),
            nn.BatchNorm1d(FUSED),
            nn.ReLU(),
            nn.Dropout(config.dropout),
        )
        self.fc = nn.Linear(FUSED, config.classes)

    def branches(self, batch: Batch) -> Branches:
        """Only as far as T_p and I_p, all that step 2 needs."""
        text, text_tokens = self.text_branch(batch.words, batch.word_mask, batch.cls)
        image, image_tokens = self.image_branch(batch.maps)
        # What a tweet lacks is zero in the shared space too. A constant input would leave a branch's batch
        # normalization with no variance, and its evaluation then amplifies rounding into noise.
        text = text * batch.word_mask.any(dim=1)[:, None]
        image, image_tokens = image * batch.pictured[:, None], image_tokens * batch.pictured[:, None, None]
        return Branches(text, image, text_tokens, image_tokens, batch.word_mask)

    def forward(self, batch: Batch) -> Output:
        """Classify a batch."""
        b = self.branches(batch)
        text_stream, image_stream = self.fusion(b)  # (B, 32) each
        fused = self.classifier(torch.cat([text_stream, image_stream, b.image, b.text], dim=1))
        return Output(self.fc(fused), fused, b.text, b.image)


class HierarchicalAttention(nn.Module):
    """HA: one weight a layer from the four [CLS] vectors; the words are summed over the layers with them."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(LAYERS, LAYERS, bias=False), nn.ReLU(), nn.Linear(LAYERS, LAYERS, bias=False)
        )

    def forward(self, words: torch.Tensor, cls: torch.Tensor) -> torch.Tensor:
        """From (B, T, L, D) and (B, L, D) to (B, T, D)."""
        weights = self.fc(cls.mean(dim=2)).sigmoid()  # (B, L)
        return torch.einsum("btld,bl->btd", words.to(weights.dtype), weights)


class TextBranch(nn.Module):
    """HA, BiLSTM, mean over the words, MLP, alignment: T_p."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.attention = HierarchicalAttention()
        self.lstm = nn.LSTM(width, TOKEN // 2, bias=False, batch_first=True, bidirectional=True)
        self.mlp = mlp(dropout)
        self.align = align(dropout)

    def forward(
        self, words: torch.Tensor, mask: torch.Tensor, cls: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """T_p (B, 32) and the tokens (B, T, 128), zero where the mask is false."""
        tokens = cls.new_zeros(*mask.shape, TOKEN)
        for rows, length in groups_by_length(mask):
            part = mask[rows, :length, None]
            # The backward direction begins in the padding. Without biases a zero input leaves its zero state
            # at zero, so it enters the text as if there were no padding, and nothing needs packing.
            states, _ = self.lstm(self.attention(words[rows, :length], cls[rows]) * part)
            tokens[rows, :length] = states * part
        return self.align(self.mlp(masked_mean(tokens, mask))), tokens


class ImageBranch(nn.Module):
    """ConvP, mean over the positions, MLP, alignment: I_p."""

    def __init__(self, dropout: float):
        super().__init__()
        # A 1 x 1 convolution is a linear layer on every position.
        self.conv = nn.Linear(CHANNELS, TOKEN)
        self.norm = nn.BatchNorm1d(TOKEN)
        self.dropout = nn.Dropout(dropout)
        self.mlp = mlp(dropout)
        self.align = align(dropout)

    def forward(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """From (B, P, 2048) to I_p (B, 32) and the tokens (B, P, 128)."""
        x = self.conv(maps)
        x = self.norm(x.flatten(0, 1)).view_as(x)
        tokens = self.dropout(F.relu(x))
        return self.align(self.mlp(tokens.mean(dim=1))), tokens


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
        words = self.text(self.text_in(b.text_tokens), b.image[:, None], b.word_mask)
        positions = self.image(self.image_in(b.image_tokens), b.text[:, None])
        return masked_mean(words, b.word_mask), positions.mean(dim=1)


class BatchFusion(nn.Module):
    """CMF across the batch, as in the released code."""

    def __init__(self, dropout: float):
        super().__init__()
        self.text, self.image = Modulated(dropout), Modulated(dropout)

    def forward(self, b: Branches) -> tuple[torch.Tensor, torch.Tensor]:
        """The text stream and the image stream, (B, 32) each."""
        return self.text(b.text, b.image), self.image(b.image, b.text)


def mlp(dropout: float) -> nn.Sequential:
    """From 128 to 32, the same shape in both branches."""
    return nn.Sequential(
        nn.Linear(TOKEN, SHARED),
        nn.BatchNorm1d(SHARED),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(SHARED, SHARED),
        nn.BatchNorm1d(SHARED),
    )


def align(dropout: float) -> nn.Sequential:
    """From 32 to 32, into the shared space."""
    return nn.Sequential(nn.Linear(SHARED, SHARED), nn.BatchNorm1d(SHARED), nn.ReLU(), nn.Dropout(dropout))


def groups_by_length(mask: torch.Tensor) -> list[tuple[torch.Tensor | slice, int]]:
    """Rows of like length and the longest's length, to spare a CPU the padding; one group on a GPU.

    Of a batch of tweets a few are three times as long as the rest, and a CPU's time goes with the padded
    size. A GPU's goes with the number of steps, and asking it for lengths would make it wait.
    """
    if mask.device.type != "cpu":
        return [(slice(None), mask.shape[1])]
    lengths = mask.sum(dim=1)
    parts = lengths.argsort(stable=True).chunk(4)
    return [(rows, max(1, int(lengths[rows[-1]]))) for rows in parts]


def masked_mean(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean over the true positions, (B, N, K) and (B, N) to (B, K); zero where there is none."""
    total = (tokens * mask[:, :, None]).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)
