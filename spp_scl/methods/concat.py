"""Concat: a text vector and an image vector side by side (after Schifanella et al., ACM MM 2016).

As in the table of Cai et al. (ACL 2019), where it is Concat(2): both vectors concatenated, a linear layer to
512, ReLU, and a linear layer. Not as there: the text vector is of the text encoder, not of a BiLSTM; the
image vector is the pooled map itself, without a layer of its own; cross entropy has no class weights.
Dropout and training settings are not published.

Shapes: B batch, L layers, D text width, C channels.
"""

from typing import ClassVar, Literal

import torch
from torch import nn

from spp_scl.batches.batch import Batch, Sizes
from spp_scl.methods.shared.layers import mean_map
from spp_scl.methods.shared.method import Method, Output, Reads, Recipe
from spp_scl.params import Dropout

FUSED = 512


class Params(Recipe):
    """The section `concat` of the parameters."""

    text: Literal["mean", "cls"]
    dropout: Dropout


class Concat(Method):
    """Two vectors, one hidden layer."""

    title = "Concat (text and image vectors)"
    paper = "after Schifanella et al., ACM MM 2016, https://doi.org/10.1145/2964284.2964321"
    reconstruction = "vectors of the encoders for a BiLSTM's and a projected map's; the training settings"
    reads = Reads(text="layers", image="map")
    spaces: ClassVar = {
        "fused": "Concat: the 512-vector before the classifier",
        "text": "text encoder: one vector a text",
        "image": "image encoder: mean over the positions",
    }

    params: Params

    def __init__(self, params: Params, sizes: Sizes):
        super().__init__(params, sizes)
        self.hidden = nn.Sequential(nn.Linear(sizes.text_width + sizes.channels, FUSED), nn.ReLU())
        self.dropout = nn.Dropout(params.dropout)
        self.fc = nn.Linear(FUSED, sizes.classes)

    def forward(self, batch: Batch) -> Output:
        """Logits, and fused (B, 512), text (B, D) and image (B, C); what a post lacks is zero."""
        read = batch.text()
        text = read.cls[:, -1] if self.params.text == "cls" else batch.packing.mean(read.words[:, -1])
        image = mean_map(batch.image(), batch.has_image)
        fused = self.hidden(torch.cat([text, image], dim=1))
        return Output(self.fc(self.dropout(fused)), {"fused": fused, "text": text, "image": image})
