"""CNN for sentences (Kim, EMNLP 2014).

As published: convolutions over 3, 4 and 5 words, 100 maps each, ReLU, the maximum over time, dropout 0.5, a
linear layer. Not as published: the text encoder's own vectors of word pieces for 300-d word2vec vectors of
words; AdamW for Adadelta; no bound of 3 on the norm of the output's weights. `embedding: trained` is the
paper's CNN-non-static, `static` its CNN-static. Which vectors and settings the baseline of the published
tables had is not known.

Shapes: B batch, W words in all, T words of the longest text, E width of a word piece.
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import nn

from spp_scl.batches.batch import Batch, Sizes
from spp_scl.methods.shared.layers import word_vectors
from spp_scl.methods.shared.method import Method, Output, Reads, Recipe
from spp_scl.params import Dropout

WIDTHS, MAPS = (3, 4, 5), 100


class Params(Recipe):
    """The section `cnn` of the parameters."""

    embedding: Literal["trained", "static"]
    dropout: Dropout


class Cnn(Method):
    """Windows of words, and the strongest answer to each of 300 filters."""

    title = "CNN (word pieces)"
    paper = "Kim, EMNLP 2014, https://doi.org/10.3115/v1/D14-1181"
    reconstruction = "word pieces for word2vec; AdamW for Adadelta; the baseline's training settings"
    reads = Reads(text="pieces")
    spaces: ClassVar = {"text": "CNN: maxima over time"}

    params: Params

    def __init__(self, params: Params, sizes: Sizes):
        super().__init__(params, sizes)
        self.words = word_vectors(sizes.vocabulary, params.embedding)
        self.convolutions = nn.ModuleList(nn.Conv1d(self.words.embedding_dim, MAPS, w) for w in WIDTHS)
        self.dropout = nn.Dropout(params.dropout)
        self.fc = nn.Linear(len(WIDTHS) * MAPS, sizes.classes)

    def forward(self, batch: Batch) -> Output:
        """Logits, and the vector text (B, 300), zero for a blank text."""
        words = batch.packing.padded(self.words(batch.pieces()))  # (B, T, E)
        words = F.pad(words, (0, 0, 0, max(0, max(WIDTHS) - words.shape[1])))
        lengths = batch.packing.lengths.to(words.device)
        maxima = [strongest(convolution, words, lengths) for convolution in self.convolutions]
        text = torch.cat(maxima, dim=1) * batch.has_text[:, None]
        return Output(self.fc(self.dropout(text)), {"text": text})


def strongest(convolution: nn.Module, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The maximum over the windows that lie in a text, (B, T, E) and (B,) to (B, maps).

    A text counts as padded to the widest window, so that it has one of each width.
    """
    answers = F.relu(convolution(words.transpose(1, 2)))  # (B, maps, windows)
    width = words.shape[1] - answers.shape[2] + 1
    windows = lengths.clamp(min=max(WIDTHS)) - width + 1
    outside = torch.arange(answers.shape[2], device=words.device) >= windows[:, None]
    return answers.masked_fill(outside[:, None], torch.finfo(answers.dtype).min).amax(dim=2)
