"""Text encoders that transformers loads: BERT and its relatives, and the text towers of two-tower models.

Shapes: B batch, T positions (special tokens included), D width, V vocabulary, E width of its vectors.
"""

from collections.abc import Sequence
from typing import Any

import tokenizers
import torch

import spp_scl.encoders.torchvision_ops  # noqa: F401  (before transformers)

# isort: split
import transformers
from transformers import AutoTokenizer, BertConfig, BertModel, PreTrainedModel
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from spp_scl.encoders.huggingface import (
    TEXT,
    build_model,
    describe_model,
    load_model,
    refuse_code,
    unavailable,
    unfit,
)
from spp_scl.encoders.text import LAYERS, TextEncoder
from spp_scl.encoders.tokenizer import TextTokenizer
from spp_scl.errors import UserError, first_line
from spp_scl.features.device import DTYPES

PRETRAINED = "bert-base-uncased"

# A network's vocabulary may be padded beyond its tokenizer's; one whose file is missing knows a handful.
_KNOWN_AT_LEAST = 0.9


class HFTextEncoder(TextEncoder):
    """A network of transformers, with its tokenizer where it is needed."""

    code = ("encoders/hf_text.py", "encoders/huggingface.py")
    software = f"transformers {transformers.__version__}, tokenizers {tokenizers.__version__}"

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        prefix: int,
        suffix: int,
        max_positions: int,
        pad_id: int,
        padding_side: str,
        first_stands: bool,
        tokenizer: TextTokenizer | None = None,
    ):
        """Put it together.

        Args:
            model: without its pooler.
            prefix: special tokens in front of a text.
            suffix: and behind it.
            max_positions: special tokens included.
            pad_id: the token that fills a batch up.
            padding_side: `left` or `right`.
            first_stands: whether the first token stands for the text, else the last one.
            tokenizer: None: `tokenize` is not needed.
        """
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.prefix, self.suffix, self.max_positions = prefix, suffix, max_positions
        self.pad_id, self.padding_side, self.first_stands = pad_id, padding_side, first_stands
        self.width = int(model.config.hidden_size)
        self.name = f"{type(model).__name__}, last {LAYERS} of {model.config.num_hidden_layers} layers"

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        if self.tokenizer is None:
            raise RuntimeError("an encoder with a slow tokenizer has none once it is rebuilt")
        return self.tokenizer.encode(texts, self.max_positions)

    def forward(self, ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        output = self.model(ids, attention_mask=attention_mask, output_hidden_states=True)
        # Where a norm follows the last layer (CLIP), the hidden states lack it.
        return torch.stack([*output.hidden_states[-LAYERS:-1], output.last_hidden_state], dim=2)

    def summary(self, attention_mask: torch.Tensor) -> torch.Tensor:
        lengths = attention_mask.sum(dim=1)
        if self.padding_side == "right":
            return torch.zeros_like(lengths) if self.first_stands else lengths - 1
        last = torch.full_like(lengths, attention_mask.shape[1] - 1)
        return last + 1 - lengths if self.first_stands else last

    def vocabulary(self) -> torch.Tensor:
        return _embeddings(self.model)

    def vocabulary_hash(self) -> str:
        return "" if self.tokenizer is None else self.tokenizer.fingerprint()

    def optimize(self, device: torch.device, precision: str) -> None:
        for module in self.model.modules():
            if isinstance(module, torch.nn.Linear):  # which autocast computes in `precision`
                module.to(DTYPES[precision])
        self.to(device)

    def describe(self) -> dict[str, Any]:
        names = ("prefix", "suffix", "max_positions", "pad_id", "padding_side", "first_stands")
        return {
            "family": "transformers",
            **describe_model(self.model),
            "tokens": {name: getattr(self, name) for name in names},
            "tokenizer": self.tokenizer and self.tokenizer.to_json(),
        }


def rebuild(description: dict[str, Any]) -> HFTextEncoder:
    """See `text.rebuild_text_encoder`."""
    known = description.get("tokenizer")
    tokenizer = TextTokenizer.from_json(known) if known else None
    return HFTextEncoder(build_model(description), **description["tokens"], tokenizer=tokenizer)


def untrained(seed: int, tokenizer: TextTokenizer, max_positions: int) -> HFTextEncoder:
    """A BERT-base drawn from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = BertConfig(vocab_size=tokenizer.size)
        model = BertModel(config, add_pooling_layer=False)
    return _assemble(model.eval(), tokenizer, "untrained", max_positions, causal=False)


def load(source: str, weights: str, max_positions: int) -> HFTextEncoder:
    """The encoder of a local directory or a hub name.

    Raises:
        UserError: see `text.load_text_encoder`.
    """
    model = load_model(source, weights, TEXT)
    try:
        refuse_code(get_tokenizer_config(source), weights, TEXT)
        tokenizer = TextTokenizer(AutoTokenizer.from_pretrained(source, trust_remote_code=False))
    except UserError:
        raise
    except Exception as error:  # no such file, a damaged one, a library that it needs: each has its own
        raise unavailable(TEXT, weights, error) from None
    # transformers does not miss a vocabulary: without one it makes a tokenizer that knows no word.
    rows = len(_embeddings(model))
    if not (_KNOWN_AT_LEAST * rows <= tokenizer.size and tokenizer.ids <= rows):
        raise unfit(
            TEXT,
            weights,
            f"the tokenizer knows {tokenizer.size} tokens and the network {rows}; is vocab.txt or "
            "tokenizer.json missing, or another encoder's",
        )
    return _assemble(model, tokenizer, weights, max_positions, causal=None)


def _assemble(
    model: PreTrainedModel, tokenizer: TextTokenizer, weights: str, max_positions: int, causal: bool | None
) -> HFTextEncoder:
    """Put an encoder together; `causal` None: to be found out."""
    if not tokenizer.prefix + tokenizer.suffix:
        raise unfit(TEXT, weights, "its tokenizer adds no token that could stand for a whole text")
    positions = min(max_positions, _limit(model), tokenizer.limit)
    if positions <= tokenizer.prefix + tokenizer.suffix:
        raise unfit(TEXT, weights, f"{positions} positions leave no room for a word")
    pad_id = tokenizer.pad_id if tokenizer.pad_id is not None else model.config.pad_token_id
    if causal is None:
        causal = _is_causal(model, tokenizer, pad_id or 0, weights)
    if causal and not tokenizer.suffix:
        raise unfit(TEXT, weights, "it is a decoder: no token that its tokenizer adds has seen the text")
    return HFTextEncoder(
        model,
        prefix=tokenizer.prefix,
        suffix=tokenizer.suffix,
        max_positions=positions,
        pad_id=pad_id or 0,
        padding_side=tokenizer.padding_side,
        first_stands=tokenizer.prefix > 0 and not causal,
        tokenizer=tokenizer,
    )


def _embeddings(model: PreTrainedModel) -> torch.Tensor:
    table: Any = model.get_input_embeddings()
    return table.weight


def _limit(model: PreTrainedModel) -> int:
    """Positions that the network has: of RoBERTa's relatives, the first ones belong to padding."""
    limits = [getattr(model.config, "max_position_embeddings", None) or 0]
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding) and "position_embedding" in name:
            before = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - before)
    return min((limit for limit in limits if limit > 0), default=10**9)  # XLNet says -1


def _is_causal(model: PreTrainedModel, tokenizer: TextTokenizer, pad_id: int, weights: str) -> bool:
    """Whether the first token is the same whatever follows it.

    Raises:
        UserError: the network gives no hidden states, or padding changes them.
    """
    ids = tokenizer.encode(["a"], tokenizer.prefix + tokenizer.suffix + 1)[0]
    word = ids[tokenizer.prefix]
    text = [ids[0], word, word, ids[-1]]
    other = [*text[:-1], word if ids[-1] != word else ids[0]]
    right = tokenizer.padding_side == "right"
    padded, mask = [pad_id] * 4, [0] * 4
    padded, mask = (text + padded, [1] * 4 + mask) if right else (padded + text, mask + [1] * 4)
    try:
        states = [_states(model, text, [1] * 4), _states(model, other, [1] * 4), _states(model, padded, mask)]
    except Exception as error:  # whatever a network of another kind misses
        raise unfit(TEXT, weights, f"it cannot take a text ({first_line(error)})") from None
    width = model.config.hidden_size
    if [tuple(s.shape) for s in states] != [(LAYERS, n, width) for n in (4, 4, 8)]:
        raise unfit(TEXT, weights, "its layers do not give one vector for each token")
    behind = states[2][:, :4] if right else states[2][:, 4:]
    if not torch.allclose(behind, states[0], rtol=1e-2, atol=1e-2 * states[0].abs().max().item()):
        raise unfit(TEXT, weights, "its vectors depend on the padding of a batch")
    return torch.equal(states[0][-1, 0], states[1][-1, 0])


def _states(model: PreTrainedModel, ids: list[int], mask: list[int]) -> torch.Tensor:
    """(4, T, D) of one text."""
    with torch.inference_mode():
        output = model(torch.tensor([ids]), attention_mask=torch.tensor([mask]), output_hidden_states=True)
    return torch.cat([*output.hidden_states[-LAYERS:-1], output.last_hidden_state])
