"""Text features: the last four layers of a frozen BERT, [CLS] and words apart.

Shapes: B batch, T positions ([CLS] and [SEP] included), D width.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import tokenizers
import torch

import spp_scl.encoders.torchvision_ops  # noqa: F401  (before transformers)

# isort: split
import transformers
from huggingface_hub.utils import enable_progress_bars
from transformers import AutoConfig, AutoTokenizer, BertConfig, BertModel

from spp_scl.encoders.encode import encode
from spp_scl.encoders.vocabulary import collect_vocabulary, make_tokenizer
from spp_scl.encoders.weights import is_path, require_text_weights
from spp_scl.encoders.writing import text_layout
from spp_scl.errors import UserError, first_line
from spp_scl.features.device import DTYPES, autocast, choose_device, choose_precision, describe_hardware
from spp_scl.features.encoder import EncoderInfo, hash_code, hash_weights

log = logging.getLogger(__name__)

PRETRAINED = "bert-base-uncased"
_LAYERS = 4
# What decides the features, beside the libraries.
_CODE = ("encoders/encode.py", "encoders/text.py", "encoders/vocabulary.py", "features/device.py")

# Texts are padded to a multiple of this, so that batches have few different shapes.
_BUCKET = 8

_PREPARATIONS = {
    "masked": "WordPiece, at most {} positions, [CLS] and [SEP] apart",
    "kept": "WordPiece, padded to {} positions, the first ([CLS]) and the last one apart",
}


class TextEncoder(torch.nn.Module):
    """A BERT without its pooler, in evaluation mode and frozen, with its tokenizer."""

    def __init__(self, weights: str, seed: int, texts: Sequence[str], max_positions: int):
        """Build it.

        Args:
            weights: `pretrained` (bert-base-uncased), `untrained`, a hub name or a local directory.
            seed: draws untrained weights.
            texts: an untrained encoder's vocabulary is collected from them.
            max_positions: longer texts are cut, [CLS] and [SEP] counted.

        Raises:
            UserError: the encoder cannot be had, is no BERT, has fewer than four layers or positions.
        """
        super().__init__()
        if weights == "untrained":
            vocabulary = collect_vocabulary(texts, BertConfig().vocab_size)
            self.tokenizer = make_tokenizer(vocabulary)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                config = BertConfig(vocab_size=len(vocabulary))
                self.bert = BertModel(config, add_pooling_layer=False)
        else:
            self.tokenizer, self.bert = _load(PRETRAINED if weights == "pretrained" else weights)
        positions = self.bert.config.max_position_embeddings
        if max_positions > positions:
            raise UserError(
                f"text_features.max_positions: {max_positions}: {weights} has only {positions} positions"
            )
        self.tokenizer.enable_truncation(max_positions)
        self.eval().requires_grad_(False)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, [CLS] and [SEP] included."""
        # A few at a time: an encoding keeps what was cut off a text, which may be a megabyte.
        parts = (texts[start : start + 512] for start in range(0, len(texts), 512))
        return [encoding.ids for part in parts for encoding in self.tokenizer.encode_batch(list(part))]

    def forward(self, ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """From (B, T) ids and mask to (B, T, 4, D): the last four layers, the lowest first."""
        output = self.bert(ids, attention_mask=attention_mask, output_hidden_states=True)
        return torch.stack(output.hidden_states[-_LAYERS:], dim=2)

    def optimize(self, device: torch.device, precision: str) -> None:
        """Move to the device, for encoding alone: weights are rounded once, and not in every batch."""
        for module in self.bert.modules():
            if isinstance(module, torch.nn.Linear):  # which autocast computes in `precision`
                module.to(DTYPES[precision])
        self.to(device)


class _Texts:
    """The texts of a clean table. A blank one has no words and a [CLS] of zeros: no encoder sees it."""

    name = "texts"

    def __init__(
        self,
        table: pd.DataFrame,
        encoder: TextEncoder,
        device: torch.device,
        precision: str,
        batch_size: int,
        max_positions: int,
        padding: str,
    ):
        self.encoder, self.device, self.precision = encoder, device, precision
        self.batch_size, self.max_positions = batch_size, max_positions
        texts = table["text"].tolist()
        blank = np.array([not text for text in texts], bool)
        tokens = encoder.tokenize(texts)
        cut = sum(len(ids) == max_positions for ids in tokens)
        if cut:
            log.info("%d text(s) reach %d positions and may be cut", cut, max_positions)
        self.tokens = [
            np.array([] if none else ids, np.int32) for ids, none in zip(tokens, blank, strict=True)
        ]
        words = [max_positions - 2 if padding == "kept" else len(ids) - 2 for ids in tokens]
        self.words = np.where(blank, 0, np.array(words, np.int64))
        keys = [np.frombuffer(hashlib.sha256(ids.data).digest(), np.uint8) for ids in self.tokens]
        self.layout = text_layout(
            table["id"].tolist(), self.words, np.stack(keys), blank, _LAYERS, encoder.bert.config.hidden_size
        )

    def batches(self, items: Sequence[int]) -> Iterator[list[int]]:
        """Texts of like length, the longest first: too little memory then shows at once."""
        buckets: dict[int, list[int]] = {}
        for item in items:
            buckets.setdefault(self._padded(item), []).append(item)
        for length in sorted(buckets, reverse=True):
            members = buckets[length]
            for start in range(0, len(members), self.batch_size):
                yield members[start : start + self.batch_size]

    def prepare(self, batch: Sequence[int]) -> tuple[torch.Tensor, ...]:
        size = max(map(self._padded, batch))
        ids = torch.full((self.batch_size, size), self.encoder.bert.config.pad_token_id or 0)
        mask = torch.zeros(self.batch_size, size, dtype=torch.long)
        mask[:, 0] = 1  # rows that only fill the batch up attend to something
        for i, item in enumerate(batch):
            tokens = self.tokens[item]
            ids[i, : len(tokens)] = torch.from_numpy(tokens)
            mask[i, : len(tokens)] = 1
        return ids, mask

    def forward(self, *prepared: torch.Tensor) -> torch.Tensor:
        with autocast(self.device, self.precision):
            return self.encoder(*prepared)

    def parts(self, item: int, features: np.ndarray) -> tuple[np.ndarray, ...]:
        return features[0], features[1 : self.words[item] + 1]

    def _padded(self, item: int) -> int:
        return min(self.max_positions, -(-int(self.words[item] + 2) // _BUCKET) * _BUCKET)


def encode_texts(
    table: pd.DataFrame,
    path: Path | str,
    *,
    weights: str,
    seed: int,
    batch_size: int,
    precision: str,
    max_positions: int,
    padding: Literal["masked", "kept"] = "masked",
) -> None:
    """Encode the texts of a clean table into an HDF5 file.

    Texts that the last file or a killed run has, from the same encoder, are copied.

    Args:
        table: a clean table.
        path: the file to write.
        weights: see `TextEncoder`.
        seed: draws untrained weights.
        batch_size: texts a batch; every batch is filled up to it, and its length is a multiple of 8, so
            that a text's features do not depend on which others there are.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        max_positions: longer texts are cut, [CLS] and [SEP] counted.
        padding: `masked`: a text has its words and no more; `kept`: it has every position but the first and
            the last of `max_positions`, [SEP] and padding too, as the released code's BiLSTM sees it.

    Raises:
        UserError: the encoder cannot be had or does not fit, or the disk is full.
    """
    device = choose_device()
    precision = choose_precision(device, precision)
    encoder = TextEncoder(weights, seed, table["text"].tolist(), max_positions)
    info = EncoderInfo(
        architecture=f"BERT, last {_LAYERS} of {encoder.bert.config.num_hidden_layers} layers",
        weights=_name(weights, seed),
        sha256=hash_weights(encoder.bert.state_dict(), encoder.tokenizer.to_str()),
        preparation=_PREPARATIONS[padding].format(max_positions),
        precision=precision,
        software=(
            f"torch {torch.__version__}, transformers {transformers.__version__}, "
            f"tokenizers {tokenizers.__version__}"
        ),
        hardware=describe_hardware(device),
        batch_size=batch_size,
        code=hash_code(*_CODE),
    )
    encoder.optimize(device, precision)
    encode(_Texts(table, encoder, device, precision, batch_size, max_positions, padding), path, info)


def _name(weights: str, seed: int) -> str:
    if weights == "untrained":
        return f"untrained, seed {seed}"
    if weights == "pretrained":
        return PRETRAINED
    return f"local directory {Path(weights).name}" if is_path(weights) else weights


def _load(weights: str) -> tuple[tokenizers.Tokenizer, BertModel]:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    enable_progress_bars()  # of downloads; the line above turns them off as well
    source = require_text_weights(weights)
    try:
        config = AutoConfig.from_pretrained(source)
        if config.model_type != "bert" or config.num_hidden_layers < _LAYERS:
            raise UserError(
                f"text_features.weights: {weights}: a BERT with at least {_LAYERS} layers is needed, this is "
                f"{config.model_type} with {getattr(config, 'num_hidden_layers', 'no')} layers"
            )
        tokenizer = AutoTokenizer.from_pretrained(source).backend_tokenizer
        loaded: Any = BertModel.from_pretrained(
            source, add_pooling_layer=False, output_loading_info=True, dtype=torch.float32
        )
        bert, report = loaded
    except UserError:
        raise
    except Exception as error:  # no network, no such name, a damaged file: each library has its own
        raise UserError(
            f"the text encoder {weights} cannot be had ({first_line(error)}). Either give a local "
            "directory (-S text_features.weights=/path/to/bert) or go without "
            "(-S text_features.weights=untrained)"
        ) from None
    # transformers draws what a checkpoint lacks at random, and the features would mean nothing.
    lacking = sorted(report["missing_keys"]) + sorted(str(k) for k in report["mismatched_keys"])
    if lacking:
        raise UserError(
            f"text_features.weights: {weights}: the checkpoint lacks {len(lacking)} tensors of a BERT "
            f"({', '.join(lacking[:4])})"
        )
    # Nor does it miss a vocabulary: without one it makes a tokenizer that knows no word.
    tokenizer.no_padding()  # which a published tokenizer.json may have on
    known, ends = tokenizer.get_vocab_size(), tokenizer.encode("a").tokens
    if known != config.vocab_size or (ends[0], ends[-1]) != ("[CLS]", "[SEP]"):
        raise UserError(
            f"text_features.weights: {weights}: the tokenizer knows {known} tokens and the network "
            f"{config.vocab_size}; is vocab.txt or tokenizer.json missing?"
        )
    return tokenizer, bert
