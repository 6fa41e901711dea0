"""ResNet: a linear layer on the image encoder's pooled map (He et al., CVPR 2016).

As published: the mean over the positions and one linear layer, without dropout. Any image encoder serves,
not ResNet alone. The published figures are of a fine-tuned ResNet-50, here `encoders: finetuned`; with
`frozen` this is a linear probe. Epochs, rates and batch of the published baseline are not known.

Shapes: B batch, C channels.
"""

from typing import ClassVar

from torch import nn

from spp_scl.batches.batch import Batch, Sizes
from spp_scl.methods.shared.layers import mean_map
from spp_scl.methods.shared.method import Method, Output, Reads, Recipe
from spp_scl.params import Dropout


class Params(Recipe):
    """The section `resnet` of the parameters."""

    dropout: Dropout


class ResNet(Method):
    """Dropout and a linear layer on the mean over the positions."""

    title = "ResNet (pooled map)"
    paper = "He et al., CVPR 2016, https://doi.org/10.1109/CVPR.2016.90"
    reconstruction = "the published baseline's training settings; it has a fine-tuned encoder"
    reads = Reads(image="map")
    spaces: ClassVar = {"image": "image encoder: mean over the positions"}

    params: Params

    def __init__(self, params: Params, sizes: Sizes):
        super().__init__(params, sizes)
        self.dropout = nn.Dropout(params.dropout)
        self.fc = nn.Linear(sizes.channels, sizes.classes)

    def forward(self, batch: Batch) -> Output:
        """Logits, and the vector image (B, C), zero for a blank picture."""
        image = mean_map(batch.image(), batch.has_image)
        return Output(self.fc(self.dropout(image)), {"image": image})
