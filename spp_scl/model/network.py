"""SPP-SCL's trainable network, in the order in which data flows (Wu and Li, AAAI 2026, arXiv 2602.20767).

Shapes: B batch, W words in all, M pictures in all, P = 49 picture positions, L = 4 layers, D text width,
C classes.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from spp_scl.model.batches import Batch
from spp_scl.model.bilstm import bilstm
from spp_scl.model.packing import Packing

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
            as in the released code, so that a prediction depends on its batch; `none`: T_p and I_p are
            concatenated and no more.
        dropout: probability, the same everywhere.
        layers: what the words are: `attention`: HA over the last four layers; `last`: the last one.
        modalities: `both`, or `text` or `image`: that branch alone, without fusion.
    """

    classes: int
    text_width: int
    fusion: Literal["sample", "batch", "none"]
    dropout: float
    layers: Literal["attention", "last"] = "attention"
    modalities: Literal["both", "text", "image"] = "both"

    @property
    def couples_batch(self) -> bool:
        """Whether a prediction depends on the tweets that share its batch."""
        return self.fusion == "batch" and self.modalities == "both"


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
        self.text_branch = self.image_branch = self.fusion = None
        if config.modalities != "image":
            self.text_branch = TextBranch(config)
        if config.modalities != "text":
            self.image_branch = ImageBranch(config.dropout)
        parts = 1
        if config.modalities == "both":
            fusions = {"sample": SampleFusion, "batch": BatchFusion, "none": NoFusion}
            self.fusion = fusions[config.fusion](config.dropout)
            parts = 2 if config.fusion == "none" else 4
        self.classifier = nn.Sequential(
            nn.Linear(parts * SHARED, FUSED),
            nn.BatchNorm1d(FUSED),
            nn.ReLU(),
            nn.Dropout(config.dropout),
        )
        self.fc = nn.Linear(FUSED, config.classes)

    def branches(self, batch: Batch) -> Branches:
        """Only as far as T_p and I_p, all that step 2 needs."""
        # What a tweet lacks is zero in the shared space too. A constant input would leave a branch's batch
        # normalization with no variance, and its evaluation then amplifies rounding into noise.
        text = image = batch.cls.new_zeros(len(batch.cls), SHARED)
        text_tokens = image_tokens = None
        if self.text_branch is not None:
            text, text_tokens = self.text_branch(batch.words, batch.cls, batch.packing)
            text = text * batch.has_text[:, None]
        if self.image_branch is not None:
            image, image_tokens = self.image_branch(batch.maps, batch.has_image)
            image = image * batch.has_image[:, None]
            image_tokens = image_tokens * batch.has_image[:, None, None]
        return Branches(text, image, text_tokens, image_tokens, batch.packing)

    def forward(self, batch: Batch) -> Output:
        """Classify a batch."""
        b = self.branches(batch)
        if self.fusion is None:
            parts = [b.image if self.text_branch is None else b.text]
        else:
            parts = [*self.fusion(b), b.image, b.text]  # (B, 32) each
        fused = self.classifier(torch.cat(parts, dim=1))
        return Output(self.fc(fused), fused, b.text, b.image)


class HierarchicalAttention(nn.Module):
    """HA: one weight a layer from the four [CLS] vectors; the words are summed over the layers with them."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(LAYERS, LAYERS, bias=False), nn.ReLU(), nn.Linear(LAYERS, LAYERS, bias=False)
        )

    def forward(self, words: torch.Tensor, cls: torch.Tensor, packing: Packing) -> torch.Tensor:
        """From (W, L, D) and (B, L, D) to (W, D)."""
        weights = self.fc(cls.mean(dim=2)).sigmoid()  # (B, L)
        return torch.bmm(weights.index_select(0, packing.text)[:, None], words)[:, 0]


class LastLayer(nn.Module):
    """Instead of HA: the words' vectors of the last layer."""

    def forward(self, words: torch.Tensor, cls: torch.Tensor, packing: Packing) -> torch.Tensor:
        """From (W, L, D) to (W, D)."""
        return words[:, -1]


class TextBranch(nn.Module):
    """HA, BiLSTM, mean over the words, MLP, alignment: T_p."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.attention = LastLayer() if config.layers == "last" else HierarchicalAttention()
        self.lstm = nn.LSTM(config.text_width, TOKEN // 2, bias=False, bidirectional=True)
        self.mlp = mlp(config.dropout)
        self.align = align(config.dropout)

    def forward(
        self, words: torch.Tensor, cls: torch.Tensor, packing: Packing
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """T_p (B, 32) and the tokens (W, 128)."""
        tokens = bilstm(self.lstm, self.attention(words, cls, packing), packing)
        return self.align(self.mlp(packing.mean(tokens))), tokens


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

    def forward(self, maps: torch.Tensor, has_image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """From (M, P, 2048) and (B,), true for the M, to I_p (B, 32) and the tokens (B, P, 128).

        A blank picture's map is zero.
        """
        batch, positions = len(has_image), maps.shape[1]
        x = self.conv(maps.flatten(0, 1))
        if len(maps) < batch:
            where = has_image.repeat_interleave(positions).nonzero()[:, 0]
            x = self.conv.bias.repeat(batch * positions, 1).index_copy(0, where, x)
        tokens = self.dropout(F.relu(self.norm(x))).view(batch, positions, TOKEN)
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


def count_parameters(model: nn.Module) -> int:
    """The number of trainable values."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def masked_mean(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean over the true positions, (B, N, K) and (B, N) to (B, K); zero where there is none."""
    total = (tokens * mask[:, :, None]).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)
