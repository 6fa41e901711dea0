"""SPP-SCL: semi-push-pull supervised contrastive learning (Wu and Li, AAAI 2026, arXiv 2602.20767).

Shapes: B batch, W words in all, M pictures in all, P picture positions, L layers, D text width.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import nn

from spp_scl.batches.batch import Batch, Sizes
from spp_scl.batches.packing import Packing
from spp_scl.methods.shared.bilstm import bilstm
from spp_scl.methods.shared.fusion import SHARED, TOKEN, BatchFusion, Branches, NoFusion, SampleFusion
from spp_scl.methods.shared.gate import describe_gate, gate, summarize_gates
from spp_scl.methods.shared.losses import inter_modal_loss, intra_modal_loss
from spp_scl.methods.shared.method import Method, Output, Reads, Recipe, Step, Summary
from spp_scl.params import Dropout, NonNegative, Positive

FUSED = 64  # the vector before the classifier, which the t-SNE shows

Losses = dict[str, torch.Tensor]


class Params(Recipe):
    """The section `spp_scl` of the parameters; `docs/parameters.md` says what each is."""

    alpha: NonNegative
    fusion: Literal["sample", "batch", "none"]
    dropout: Dropout
    layers: Literal["attention", "last"]
    modalities: Literal["both", "text", "image"]
    ce_weight: NonNegative
    intra_modal: bool
    anchor_in_denominator: bool
    step2: Literal["gated", "always", "never", "merged"]
    step2_forward: Literal["branches", "whole"]
    anchors: Literal["image", "text"]
    gate: Literal["exact", "float32"]
    zero_grad: Literal["none", "zeros"]
    temperature: Positive


class SppScl(Method):
    """The whole trainable part, in the order in which data flows, and its two steps."""

    title = "SPP-SCL"
    paper = "Wu and Li, AAAI 2026, https://doi.org/10.1609/aaai.v40i3.37200"
    reads = Reads(text="layers", image="map")
    spaces: ClassVar = {
        "fused": "SPP-SCL: the 64-vector before the classifier",
        "text": "text branch: T_p",
        "image": "image branch: I_p",
    }
    logged = (
        *("L_ce", "L_clt", "L_cli", "L_clm"),
        *("step2", "step2_float32", "count_over_p", "saturated_share"),
    )
    plots: ClassVar = {
        "losses": ("L_ce", "L_clt", "L_cli", "L_clm"),
        "share of batches with step 2": ("step2", "step2_float32"),
        "gate": ("count_over_p",),
        "share of saturated pairs": ("saturated_share",),
    }
    steps_a_batch = 2

    params: Params

    def __init__(self, params: Params, sizes: Sizes):
        super().__init__(params, sizes)
        self.text_branch = self.image_branch = self.fusion = None
        if params.modalities != "image":
            self.text_branch = TextBranch(params, sizes)
        if params.modalities != "text":
            self.image_branch = ImageBranch(params.dropout, sizes.channels)
        parts = 1
        if params.modalities == "both":
            fusions = {"sample": SampleFusion, "batch": BatchFusion, "none": NoFusion}
            self.fusion = fusions[params.fusion](params.dropout)
            parts = 2 if params.fusion == "none" else 4
        self.classifier = nn.Sequential(
            nn.Linear(parts * SHARED, FUSED),
            nn.BatchNorm1d(FUSED),
            nn.ReLU(),
            nn.Dropout(params.dropout),
        )
        self.fc = nn.Linear(FUSED, sizes.classes)

    def steps(self, batch: Batch) -> Iterator[Step]:
        """Step 1 on L_ce, L_clt and L_cli; step 2 on L_clm, unless the gate finds the pairs apart."""
        zeros = self.params.zero_grad == "zeros"
        losses = self.step1_losses(self(batch), batch.labels)
        yield Step(losses["loss"], losses, zeros)
        if self.params.step2 in ("never", "merged") or self.params.modalities != "both":
            return
        # Step 2 needs T_p and I_p alone. The head has no part in L_clm, so its parameters get no gradient.
        again = self.branches(batch) if self.params.step2_forward == "branches" else self(batch)
        decision = gate(*_pair(again), batch.labels, self.params.alpha, self.params.gate)
        if self.params.step2 == "always":
            decision = replace(decision, step2=True, alpha_from=None)
        if not decision.step2:
            yield Step(None, decision.log())
            return
        loss = self.inter_modal(again, batch.labels)
        yield Step(loss, {"L_clm": loss, **decision.log()}, zeros)

    def step1_losses(self, output: Output, labels: torch.Tensor) -> Losses:
        """The losses of step 1; `loss` is their weighted sum."""
        text, image = _pair(output)
        losses = {"L_ce": F.cross_entropy(output.logits, labels)}
        if self.params.intra_modal:
            for name, modality, vectors in (("L_clt", "text", text), ("L_cli", "image", image)):
                if self.params.modalities in ("both", modality):
                    losses[name] = intra_modal_loss(
                        vectors, labels, self.params.temperature, self.params.anchor_in_denominator
                    )
        if self.params.step2 == "merged" and self.params.modalities == "both":
            losses["L_clm"] = self.inter_modal(output, labels)
        weighted = {**losses, "L_ce": self.params.ce_weight * losses["L_ce"]}
        return {**losses, "loss": torch.stack(list(weighted.values())).sum()}

    def inter_modal(self, features: Branches | Output, labels: torch.Tensor) -> torch.Tensor:
        """L_clm."""
        text, image = _pair(features)
        anchors, others = (image, text) if self.params.anchors == "image" else (text, image)
        return inter_modal_loss(anchors, others, labels, self.params.temperature)

    def forward(self, batch: Batch) -> Output:
        """Logits, and the vectors fused (B, 64), text (B, 32) and image (B, 32)."""
        b = self.branches(batch)
        if self.fusion is None:
            parts = [b.image if self.text_branch is None else b.text]
        else:
            parts = [*self.fusion(b), b.image, b.text]  # (B, 32) each
        fused = self.classifier(torch.cat(parts, dim=1))
        return Output(self.fc(fused), {"fused": fused, "text": b.text, "image": b.image})

    def branches(self, batch: Batch) -> Branches:
        """Only as far as T_p and I_p, all that step 2 needs."""
        # What a post lacks is zero in the shared space too. A constant input would leave a branch's batch
        # normalization with no variance, and its evaluation then amplifies rounding into noise.
        text = image = self.fc.weight.new_zeros(len(batch.labels), SHARED)
        text_tokens = image_tokens = None
        if self.text_branch is not None:
            read = batch.text()
            text, text_tokens = self.text_branch(read.words, read.cls, batch.packing)
            text = text * batch.has_text[:, None]
        if self.image_branch is not None:
            image, image_tokens = self.image_branch(batch.image(), batch.has_image)
            image = image * batch.has_image[:, None]
            image_tokens = image_tokens * batch.has_image[:, None, None]
        return Branches(text, image, text_tokens, image_tokens, batch.packing)

    @property
    def couples_batch(self) -> bool:
        """With `fusion: batch`."""
        return self.params.fusion == "batch" and self.params.modalities == "both"

    @classmethod
    def summarize(cls, rows: Sequence[Mapping[str, float]]) -> Summary:
        """The gates of a training."""
        return summarize_gates(rows)

    @classmethod
    def describe(cls, summary: Mapping[str, Any]) -> list[str]:
        """Did the gate, and alpha, do anything?"""
        return describe_gate(summary)


def _pair(features: Branches | Output) -> tuple[torch.Tensor, torch.Tensor]:
    """T_p and I_p."""
    if isinstance(features, Output):
        return features.vectors["text"], features.vectors["image"]
    return features.text, features.image


class HierarchicalAttention(nn.Module):
    """HA: a weight for each layer from the layers' [CLS] vectors; with them the words are summed."""

    def __init__(self, layers: int):
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(layers, layers, bias=False), nn.ReLU(), nn.Linear(layers, layers, bias=False)
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

    def __init__(self, params: Params, sizes: Sizes):
        super().__init__()
        self.attention = LastLayer() if params.layers == "last" else HierarchicalAttention(sizes.layers)
        self.lstm = nn.LSTM(sizes.text_width, TOKEN // 2, bias=False, bidirectional=True)
        self.mlp = mlp(params.dropout)
        self.align = align(params.dropout)

    def forward(
        self, words: torch.Tensor, cls: torch.Tensor, packing: Packing
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """T_p (B, 32) and the tokens (W, 128)."""
        tokens = bilstm(self.lstm, self.attention(words, cls, packing), packing)
        return self.align(self.mlp(packing.mean(tokens))), tokens


class ImageBranch(nn.Module):
    """ConvP, mean over the positions, MLP, alignment: I_p."""

    def __init__(self, dropout: float, channels: int):
        super().__init__()
        # A 1 x 1 convolution is a linear layer on every position.
        self.conv = nn.Linear(channels, TOKEN)
        self.norm = nn.BatchNorm1d(TOKEN)
        self.dropout = nn.Dropout(dropout)
        self.mlp = mlp(dropout)
        self.align = align(dropout)

    def forward(self, maps: torch.Tensor, has_image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """From (M, P, C) and (B,), true for the M, to I_p (B, 32) and the tokens (B, P, 128).

        A blank picture's map is zero.
        """
        batch, positions = len(has_image), maps.shape[1]
        x = self.conv(maps.flatten(0, 1))
        if len(maps) < batch:
            where = has_image.repeat_interleave(positions).nonzero()[:, 0]
            x = self.conv.bias.repeat(batch * positions, 1).index_copy(0, where, x)
        tokens = self.dropout(F.relu(self.norm(x))).view(batch, positions, TOKEN)
        return self.align(self.mlp(tokens.mean(dim=1))), tokens


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
