"""CLMLF: contrastive learning and multi-layer fusion (Li et al., Findings of NAACL 2022).

Where the equations leave a gap the released code (Link-Li/CLMLF) fills it: layers as BERT's, the heads of the
contrasts, attention pooling with a softmax instead of equation 7. The [SEP] token is not among the tokens.

Shapes: B batch, M pictures in all, P positions, C channels, T words of the longest text, D text width, K the
Transformer's width, S its tokens.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, ValidationInfo, field_validator
from torch import nn

from spp_scl.batches.batch import Batch, Sizes
from spp_scl.errors import UserError
from spp_scl.methods.shared.layers import mean_map
from spp_scl.methods.shared.losses import label_contrast, view_contrast
from spp_scl.methods.shared.method import Method, Output, Reads, Recipe, Step
from spp_scl.params import Count, Dropout, NonNegative, Positive


class Params(Recipe):
    """The section `clmlf` of the parameters; docs/clmlf.md says what each is."""

    fusion_layers: Count
    image_layers: Annotated[int, Field(ge=0)]
    width: Count
    heads: Count
    dropout: Dropout
    tokens: Literal["positions", "view"]
    global_token: bool
    text_layer: bool
    contrast_heads: bool
    normalize: bool
    temperature: Positive | None
    temperature_inside: bool
    lbcl_mean: Literal["anchors", "pairs"]
    lbcl_weight: NonNegative
    dbcl_weight: NonNegative
    first_view: Literal["own", "drawn"]
    divide_by_batch: bool
    outputs: Literal["classes", "three"]
    train_image: bool
    batch_norm: Literal["eval", "train"]

    @field_validator("heads")
    @classmethod
    def _divide(cls, heads: int, info: ValidationInfo) -> int:
        if info.data.get("width", 0) % heads:
            raise ValueError(f"clmlf.width, {info.data['width']}, is no multiple of it")
        return heads


class Clmlf(Method):
    """Text and image tokens through one Transformer, their weighted mean, and two contrasts."""

    title = "CLMLF"
    paper = "Li et al., Findings of NAACL 2022, https://aclanthology.org/2022.findings-naacl.175"
    reads = Reads(text="layers", image="map", views=True)
    spaces: ClassVar = {
        "fused": "CLMLF: the fused vector R",
        "text": "text encoder: [CLS]",
        "image": "image encoder: mean over the positions",
    }
    logged = ("L_sc", "L_lbcl", "L_dbcl")
    plots: ClassVar = {"losses": ("L_sc", "L_lbcl", "L_dbcl")}

    params: Params

    def __init__(self, params: Params, sizes: Sizes):
        super().__init__(params, sizes)
        width = params.width
        self.text_in = _project(sizes.text_width, width, params.text_layer)
        self.image_in = _project(sizes.channels, width, True)
        self.global_in = _project(sizes.channels, width, True) if params.global_token else None
        self.image_layers = _layers(params.image_layers, params)
        self.fusion_layers = _layers(params.fusion_layers, params)
        self.score = nn.Sequential(nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, 1))
        classes = sizes.classes if params.outputs == "classes" else max(3, sizes.classes)
        self.classifier = nn.Sequential(
            nn.Dropout(params.dropout),
            nn.Linear(width, width // 2),
            nn.GELU(),
            nn.Linear(width // 2, classes),
        )
        # One for each view, as released: the equations contrast R itself.
        self.contrast = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
            if params.contrast_heads
            else nn.Identity()
            for _ in range(2)
        )

    def steps(self, batch: Batch) -> Iterator[Step]:
        """One step on the sentiment, the label-based and the data-based contrast."""
        p = self.params
        # The paper gives none. Products of R grow with its width: divided by 0.07 they drown all else.
        temperature = p.width**0.5 if p.temperature is None else p.temperature
        if p.first_view == "drawn":
            view = batch.view("drawn")
            assert view is not None  # every training row has one
            fused = self.fuse(view.batch)["fused"][view.place]
        else:
            fused = self.fuse(batch)["fused"]
        losses = {"L_sc": F.cross_entropy(self.classifier(fused), batch.labels)}
        total = losses["L_sc"]
        z = self.contrast[0](fused)
        z = F.normalize(z, dim=1) if p.normalize else z
        if p.lbcl_weight:
            losses["L_lbcl"] = label_contrast(
                z, batch.labels, temperature, inside=p.temperature_inside, pairs=p.lbcl_mean == "pairs"
            )
            total = total + p.lbcl_weight * losses["L_lbcl"]
        # Rows whose texts have no translation may have no second view.
        if p.dbcl_weight and (view := batch.view("translated")) is not None:
            other = self.contrast[1](self.fuse(view.batch)["fused"])[view.place]
            other = F.normalize(other, dim=1) if p.normalize else other
            losses["L_dbcl"] = view_contrast(z[view.rows], other, temperature)
            total = total + p.dbcl_weight * losses["L_dbcl"]
        yield Step(total / len(batch.labels) if p.divide_by_batch else total, losses)

    def forward(self, batch: Batch) -> Output:
        """Logits, and the vectors fused (B, K), text (B, D) and image (B, C)."""
        vectors = self.fuse(batch)
        return Output(self.classifier(vectors["fused"])[:, : self.sizes.classes], vectors)

    def fuse(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The vectors that `spaces` names."""
        tokens, mask, vectors = self.tokens(batch)
        for layer in self.fusion_layers:
            tokens = layer(tokens, src_key_padding_mask=~mask)
        scores = self.score(tokens)[:, :, 0].masked_fill(~mask, torch.finfo(tokens.dtype).min)
        fused = torch.bmm(scores.softmax(dim=1)[:, None], tokens)[:, 0]
        return {"fused": fused, **vectors}

    def word_attention(self, batch: Batch, head: int) -> torch.Tensor:
        """See `Method`; of the last fusion layer."""
        if self.params.tokens == "view":
            raise UserError("clmlf.tokens: view: an image token is of some channels, and has no place")
        if not 0 <= head < self.params.heads:
            raise UserError(f"--head {head}: there are {self.params.heads}, from 0 on")
        tokens, mask, _ = self.tokens(batch)
        last: Any
        *before, last = self.fusion_layers
        for layer in before:
            tokens = layer(tokens, src_key_padding_mask=~mask)
        _, weights = last.self_attn(
            tokens, tokens, tokens, key_padding_mask=~mask, average_attn_weights=False
        )
        # Behind [CLS].
        of_words = weights[batch.packing.text, head, batch.packing.time + 1]
        return of_words[:, -self.sizes.positions :]

    def tokens(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """What the fusion layers get.

        Returns:
            [CLS] and words, then the global token and the positions, (B, S, K); which of them there are,
            (B, S); and the encoders' vectors.
        """
        read, maps = batch.text(), batch.image()
        cls = read.cls[:, -1]
        words = batch.packing.padded(self.text_in(read.words[:, -1]))
        text = torch.cat([self.text_in(cls)[:, None], words], dim=1)
        image = self.image_tokens(maps)
        there = batch.has_image.nonzero()[:, 0]
        image = image.new_zeros(len(cls), *image.shape[1:]).index_copy(0, there, image)
        of_text = torch.cat([batch.has_text[:, None], batch.packing.mask()], dim=1)
        of_image = batch.has_image[:, None].expand(-1, image.shape[1])
        mask = torch.cat([of_text, of_image], dim=1)
        # Attention needs something to attend to where a post has neither.
        mask = mask | torch.cat([~mask.any(dim=1, keepdim=True), torch.zeros_like(mask[:, 1:])], dim=1)
        return torch.cat([text, image], dim=1), mask, {"text": cls, "image": mean_map(maps, batch.has_image)}

    def image_tokens(self, maps: torch.Tensor) -> torch.Tensor:
        """From (M, P, C) to (M, P, K), or (M, 1 + P, K) with the global token, through the image layers."""
        regions = maps
        if self.params.tokens == "view":
            # (C, P) in memory read as (P, C), without moving an axis: each token is of some channels.
            regions = maps.transpose(1, 2).reshape(maps.shape)
        tokens = self.image_in(regions)
        if self.global_in is not None:
            tokens = torch.cat([self.global_in(maps.mean(dim=1, keepdim=True)), tokens], dim=1)
        for layer in self.image_layers:
            tokens = layer(tokens)
        return tokens

    def prepare_encoders(self) -> None:
        """As released, the image encoder's weights stay unless `train_image`."""
        if not self.params.train_image:
            self.encoders["image"].requires_grad_(False)

    def train(self, mode: bool = True) -> "Clmlf":
        """As any module; the image encoder's batch statistics are used in training only if asked for."""
        super().train(mode)
        if mode and self.params.batch_norm == "eval" and len(self.encoders):
            self.encoders["image"].eval()
        return self


def _project(inputs: int, width: int, layer: bool) -> nn.Module:
    if layer:
        return nn.Sequential(nn.Linear(inputs, width), nn.GELU())
    return nn.Identity() if inputs == width else nn.Linear(inputs, width)


def _layers(number: int, params: Params) -> nn.ModuleList:
    """BERT's layers: the normalization behind, and no dropout within the feed-forward part."""
    layers = nn.ModuleList()
    for _ in range(number):
        layer: Any = nn.TransformerEncoderLayer(
            params.width,
            params.heads,
            4 * params.width,
            params.dropout,
            activation="gelu",
            layer_norm_eps=1e-12,
            batch_first=True,
        )
        layer.dropout = nn.Identity()
        layers.append(layer)
    return layers
