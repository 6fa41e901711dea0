"""Text encoders: from token ids to the hidden states of the last four layers.

Shapes: B batch, T positions (special tokens included), D width, V vocabulary, E width of its vectors.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from spp_scl.encoders.tokenizer import TextTokenizer
from spp_scl.encoders.vocabulary import collect_vocabulary, make_tokenizer
from spp_scl.encoders.weights import find_text_weights

LAYERS = 4


class TextEncoder(torch.nn.Module, ABC):
    """From token ids to the hidden states of the last four layers. One family a module of its own.

    Attributes:
        width: D.
        layers: 4.
        prefix: special tokens in front of a text.
        suffix: and behind it.
        max_positions: T at most.
        pad_id: the token that fills a batch up.
        padding_side: `left` or `right`.
        name: the network, in words.
        software: the libraries that tokenize and compute, with their versions.
        code: its modules, for `hash_code`.
    """

    layers = LAYERS
    width: int
    prefix: int
    suffix: int
    max_positions: int
    pad_id: int
    padding_side: str
    name: str
    software: str
    code: tuple[str, ...]

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, special tokens included, cut to `max_positions`.

        Raises:
            RuntimeError: it was rebuilt from its description, without a tokenizer.
        """

    @abstractmethod
    def forward(self, ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """From (B, T) ids and mask to (B, T, 4, D): the last four layers, the lowest first."""

    @abstractmethod
    def summary(self, attention_mask: torch.Tensor) -> torch.Tensor:
        """(B,) the position of the token that stands for the text, from (B, T): BERT's [CLS], CLIP's end."""

    @abstractmethod
    def vocabulary(self) -> torch.Tensor:
        """(V, E) the vectors of the word pieces that the network begins with."""

    @abstractmethod
    def vocabulary_hash(self) -> str:
        """A text that differs where the tokens of a text may."""

    @abstractmethod
    def optimize(self, device: torch.device, precision: str) -> None:
        """Move to the device, for encoding alone: weights are rounded once, and not in every batch."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What `rebuild_text_encoder` needs, in JSON; its tokenizer included, unless it is a slow one."""


def load_text_encoder(
    weights: str,
    seed: int,
    texts: Sequence[str],
    max_positions: int,
    tokenizer: Mapping[str, Any] | None = None,
) -> TextEncoder:
    """Open an encoder: in evaluation mode, frozen, on the CPU.

    Args:
        weights: `pretrained` (bert-base-uncased), `untrained` (a BERT-base), a hub name or a local directory.
        seed: draws untrained weights.
        texts: an untrained encoder's vocabulary is collected from them.
        max_positions: longer texts are cut, special tokens counted; less where the encoder has fewer.
        tokenizer: an untrained encoder's, which is then collected from no texts.

    Raises:
        UserError: the encoder cannot be had, is none that gives hidden states of four layers, comes with code
            of its own, or differs from what its files say.
    """
    from spp_scl.encoders import hf_text

    source = find_text_weights(weights)
    if source == "untrained":
        known = TextTokenizer.from_json(tokenizer) if tokenizer else collect_tokenizer(texts)
        encoder = hf_text.untrained(seed, known, max_positions)
    else:
        encoder = hf_text.load(
            hf_text.PRETRAINED if source == "pretrained" else source, weights, max_positions
        )
    return encoder.eval().requires_grad_(False)


def word_pieces(encoder: TextEncoder, text: str) -> list[int]:
    """The token ids of a text without the special ones around it."""
    (ids,) = encoder.tokenize([text])
    return ids[encoder.prefix : len(ids) - encoder.suffix]


def collect_tokenizer(texts: Sequence[str]) -> TextTokenizer:
    """An untrained encoder's tokenizer: BERT's, with a vocabulary collected from texts."""
    return TextTokenizer(make_tokenizer(collect_vocabulary(texts)))


def rebuild_text_encoder(description: dict[str, Any]) -> TextEncoder:
    """The encoder that `describe` describes; its weights are to be loaded.

    Raises:
        UserError: the libraries have no such network.
    """
    from spp_scl.encoders import hf_text

    return hf_text.rebuild(description).eval().requires_grad_(False)
