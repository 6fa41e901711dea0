"""BERT: a linear layer on the text encoder's [CLS] vector (Devlin et al., NAACL 2019).

As published: dropout 0.1 and one linear layer on the last layer's [CLS]. BERT's own pooler, a pretrained
linear layer and tanh before the dropout, is left out: the features do not hold it. The published figures are
of a fine-tuned bert-base-uncased, here `encoders: finetuned`; with `frozen` this is a linear probe. Epochs,
rates and batch of the published baseline are not known.

Shapes: B batch, L layers, D text width.
"""

from typing import ClassVar

from torch import nn

from spp_scl.batches.batch import Batch, Sizes
from spp_scl.methods.shared.method import Method, Output, Reads, Recipe
from spp_scl.params import Dropout


class Params(Recipe):
    """The section `bert` of the parameters."""

    dropout: Dropout


class Bert(Method):
    """Dropout and a linear layer on [CLS]."""

    title = "BERT ([CLS] vector)"
    paper = "Devlin et al., NAACL 2019, https://doi.org/10.18653/v1/N19-1423"
    reconstruction = "the published baseline's training settings; it has a pooler, and a fine-tuned encoder"
    reads = Reads(text="layers")
    spaces: ClassVar = {"text": "[CLS] of the text encoder"}

    params: Params

    def __init__(self, params: Params, sizes: Sizes):
        super().__init__(params, sizes)
        self.dropout = nn.Dropout(params.dropout)
        self.fc = nn.Linear(sizes.text_width, sizes.classes)

    def forward(self, batch: Batch) -> Output:
        """Logits, and the vector text (B, D), zero for a blank text."""
        text = batch.text().cls[:, -1]
        return Output(self.fc(self.dropout(text)), {"text": text})
