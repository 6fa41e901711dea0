"""BiLSTM, in the two readings of "BiLSTM" in the published tables.

`pool: attention` is Att-BLSTM (Zhou et al., ACL 2016): vectors of 100, 100 units each way, both directions
summed, r = sum of softmax(w . tanh(H)) H, tanh(r), a linear layer; dropout 0.3 on the vectors, 0.3 on H, 0.5
before the classifier. `pool: mean` is the text branch of MMSD (Cai et al., ACL 2019), whose rows of HFM the
tables repeat: vectors of 200, 256 units each way, the mean over time, an MLP 512, 256, classes.

Not as published: the text encoder's own vectors of word pieces, projected to 100 or 200, for word vectors;
AdamW for Adadelta; masked padding in the mean; one set of dropouts for both. Which model and settings the
baseline of the MVSA tables had is not known.

Shapes: B batch, W words in all, E width of a word piece, K = 100 units or 256.
"""

from typing import ClassVar, Literal

import torch
from torch import nn

from spp_scl.batches.batch import Batch, Sizes
from spp_scl.batches.packing import Packing
from spp_scl.methods.shared.layers import word_vectors
from spp_scl.methods.shared.method import Method, Output, Reads, Recipe
from spp_scl.params import Dropout


class Params(Recipe):
    """The section `bilstm` of the parameters."""

    pool: Literal["attention", "mean"]
    embedding: Literal["trained", "static"]
    word_dropout: Dropout
    state_dropout: Dropout
    dropout: Dropout


class BiLstm(Method):
    """Words read both ways, pooled to one vector."""

    title = "BiLSTM (word pieces)"
    paper = "Zhou et al., ACL 2016, https://doi.org/10.18653/v1/P16-2034"
    reconstruction = "word pieces for word vectors; AdamW for Adadelta; which of two models the tables mean"
    reads = Reads(text="pieces")
    spaces: ClassVar = {"text": "BiLSTM: the vector before the classifier"}

    params: Params

    def __init__(self, params: Params, sizes: Sizes):
        super().__init__(params, sizes)
        width, units = (100, 100) if params.pool == "attention" else (200, 256)
        self.words = word_vectors(sizes.vocabulary, params.embedding)
        self.project = nn.Linear(self.words.embedding_dim, width)
        self.word_dropout = nn.Dropout(params.word_dropout)
        self.lstm = nn.LSTM(width, units, bidirectional=True)
        self.state_dropout = nn.Dropout(params.state_dropout)
        self.dropout = nn.Dropout(params.dropout)
        self.fc: nn.Module
        if params.pool == "attention":
            self.score = nn.Linear(units, 1, bias=False)
            self.fc = nn.Linear(units, sizes.classes)
        else:
            self.fc = nn.Sequential(
                nn.Linear(2 * units, units), nn.ReLU(), self.dropout, nn.Linear(units, sizes.classes)
            )

    def forward(self, batch: Batch) -> Output:
        """Logits, and the vector text, (B, 100) or (B, 512), zero for a blank text."""
        words = self.word_dropout(self.project(self.words(batch.pieces())))
        states = self.state_dropout(self.read(words, batch.packing))  # (W, 2K)
        if self.params.pool == "mean":
            text = batch.packing.mean(states)
            return Output(self.fc(text), {"text": text})
        forwards, backwards = states.chunk(2, dim=1)
        text = self.attend(forwards + backwards, batch.packing).tanh()
        return Output(self.fc(self.dropout(text)), {"text": text})

    def read(self, words: torch.Tensor, packing: Packing) -> torch.Tensor:
        """Both directions side by side, (W, D) to (W, 2K)."""
        if not len(words):  # an LSTM refuses a batch of blank texts
            return words.new_zeros(0, 2 * self.lstm.hidden_size)
        packed = nn.utils.rnn.PackedSequence(words, torch.tensor(packing.sizes))
        return self.lstm(packed)[0].data

    def attend(self, states: torch.Tensor, packing: Packing) -> torch.Tensor:
        """Each text's weighted sum, (W, K) to (B, K); zero for a blank text."""
        scores = packing.padded(self.score(states.tanh()))  # (B, T, 1)
        # Not -inf: the softmax of a blank text must stay finite.
        scores = scores.masked_fill(~packing.mask()[:, :, None], torch.finfo(scores.dtype).min)
        return (scores.softmax(dim=1) * packing.padded(states)).sum(dim=1)
