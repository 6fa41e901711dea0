"""The texts of a table through a text encoder: the last four layers, words apart.

Shapes: T positions (special tokens included), D width.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from spp_scl.encoders.encode import encode
from spp_scl.encoders.text import TextEncoder, load_text_encoder
from spp_scl.encoders.weights import describe_source
from spp_scl.encoders.writing import text_layout, tokens_layout, writing
from spp_scl.features.device import autocast, choose_device, choose_precision, describe_hardware
from spp_scl.features.encoder import EncoderInfo, hash_code, hash_weights
from spp_scl.options import Content, Padding

log = logging.getLogger(__name__)

# What a batch of token ids needs.
_ATTRIBUTES = ("prefix", "suffix", "pad_id", "max_positions", "padding_side")

# Texts are padded to a multiple of this, so that batches have few different shapes.
_BUCKET = 8

# The code that decides token ids, and features beside the encoder's own.
_TOKENS = ("encoders/tokenizer.py", "encoders/vocabulary.py")
_FEATURES = ("encoders/encode.py", "encoders/text.py", "encoders/texts.py", "features/device.py")

_PREPARATIONS = {
    "masked": "at most {} positions, special tokens apart",
    "kept": "padded to {} positions, {} in front and {} behind apart",
}


class TextBatches:
    """Texts in batches, through a text encoder. A blank one has no words and is all zeros: none sees it.

    Attributes:
        tokens: of each text, int32; none of a blank one.
        blank: (N,) which are.
        words: (N,) how many words each has.
    """

    name = "texts"

    def __init__(
        self,
        texts: Sequence[str],
        encoder: TextEncoder,
        device: torch.device,
        precision: str,
        batch_size: int,
        padding: str,
    ):
        self.encoder, self.device, self.precision, self.batch_size = encoder, device, precision, batch_size
        self.kept = padding == "kept"
        self.tokens, self.blank = _tokenize(texts, encoder)
        self.special = encoder.prefix + encoder.suffix
        lengths = [encoder.max_positions if self.kept else len(ids) for ids in self.tokens]
        self.words = np.where(self.blank, 0, np.array(lengths, np.int64) - self.special)

    def pieces(self) -> np.ndarray:
        """The token id of each word, text by text, int32."""
        pieces = [self._row(i)[self._words(i)] for i in np.flatnonzero(~self.blank).tolist()]
        return np.concatenate([np.zeros(0, np.int32), *pieces])

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
        ids = torch.full((self.batch_size, size), self.encoder.pad_id)
        mask = torch.zeros(self.batch_size, size, dtype=torch.long)
        mask[len(batch) :, 0] = 1  # rows that only fill the batch up attend to something
        for i, item in enumerate(batch):
            begin = self._begin(item, size)
            ids[i, begin : begin + len(self.tokens[item])] = torch.from_numpy(self.tokens[item])
            mask[i, begin : begin + len(self.tokens[item])] = 1
        return ids, mask

    def forward(self, *prepared: torch.Tensor) -> torch.Tensor:
        with autocast(self.device, self.precision):
            return self.encoder(*prepared)

    def parts(self, item: int, features: np.ndarray) -> tuple[np.ndarray, ...]:
        mask = torch.zeros(1, len(features), dtype=torch.long)
        mask[0, self._begin(item, len(features)) :][: len(self.tokens[item])] = 1
        return features[int(self.encoder.summary(mask))], features[self._words(item)]

    def _row(self, item: int) -> np.ndarray:
        """The ids of a text, padded."""
        size, tokens = self._padded(item), self.tokens[item]
        row = np.full(size, self.encoder.pad_id, np.int32)
        row[self._begin(item, size) :][: len(tokens)] = tokens
        return row

    def _begin(self, item: int, size: int) -> int:
        return 0 if self.encoder.padding_side == "right" else size - len(self.tokens[item])

    def _words(self, item: int) -> slice:
        """Where its words are in its padded row."""
        begin = 0 if self.kept else self._begin(item, self._padded(item))
        return slice(begin + self.encoder.prefix, begin + self.encoder.prefix + int(self.words[item]))

    def _padded(self, item: int) -> int:
        length = int(self.words[item]) + self.special
        return min(self.encoder.max_positions, -(-length // _BUCKET) * _BUCKET)


class _Texts(TextBatches):
    """The texts of a clean table."""

    def __init__(self, table: pd.DataFrame, encoder: TextEncoder, *of: Any):
        super().__init__(table["text"].tolist(), encoder, *of)
        self.layout = text_layout(
            table["id"].tolist(),
            self.words,
            _hash_tokens(self.tokens),
            self.blank,
            (encoder.layers, encoder.width),
            self.pieces(),
            encoder.vocabulary().detach().to(torch.float16).cpu().numpy(),
        )


def _tokenize(texts: Sequence[str], encoder: TextEncoder) -> tuple[list[np.ndarray], np.ndarray]:
    """Tokens (none of a blank text), and which texts are blank."""
    blank = np.array([not text for text in texts], bool)
    tokens = encoder.tokenize(texts)
    if cut := sum(len(ids) == encoder.max_positions for ids in tokens):
        log.info("%d text(s) reach %d positions and may be cut", cut, encoder.max_positions)
    return [np.array([] if none else ids, np.int32) for ids, none in zip(tokens, blank, strict=True)], blank


def _hash_tokens(tokens: Sequence[np.ndarray]) -> np.ndarray:
    keys = [np.frombuffer(hashlib.sha256(ids.data).digest(), np.uint8) for ids in tokens]
    return np.array(keys, np.uint8).reshape(-1, 32)


def encode_texts(
    table: pd.DataFrame,
    path: Path | str,
    *,
    weights: str,
    seed: int,
    batch_size: int,
    precision: str,
    max_positions: int,
    padding: Padding = "masked",
    content: Content = "features",
    vocabulary: Sequence[str] | None = None,
) -> None:
    """Encode the texts of a clean table into an HDF5 file.

    Texts that the last file or a killed run has, from the same encoder, are copied.

    Args:
        table: a clean table.
        path: the file to write.
        weights: see `load_text_encoder`.
        seed: draws untrained weights.
        batch_size: texts a batch; every batch is filled up to it, and its length is a multiple of 8, so
            that a text's features do not depend on which others there are.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        max_positions: longer texts are cut, special tokens counted; less where the encoder has fewer.
        padding: `masked`: a text has its words and no more; `kept`: it has every position between the special
            tokens of a text of `max_positions`, padding too, as the released code's BiLSTM sees it.
        content: `features`, or `inputs`: the token ids, for training with the encoder in the loop.
        vocabulary: the texts that an untrained encoder's is collected from; None: the table's.

    Raises:
        UserError: the encoder cannot be had or does not fit, or the disk is full.
    """
    device = choose_device()
    if content == "features":
        precision = choose_precision(device, precision, "text_features.precision")
    collected = table["text"].tolist() if vocabulary is None else vocabulary
    encoder = load_text_encoder(weights, seed, collected, max_positions)
    if encoder.max_positions < max_positions:
        log.info(
            "text_features.max_positions: %d are asked for, and %s has %d: texts are cut there",
            max_positions,
            weights,
            encoder.max_positions,
        )
    inputs = content == "inputs"
    info = EncoderInfo(
        architecture=encoder.name,
        weights=describe_source(weights, seed, "bert-base-uncased"),
        sha256=hash_weights(encoder.state_dict(), encoder.vocabulary_hash()),
        preparation=_PREPARATIONS[padding].format(encoder.max_positions, encoder.prefix, encoder.suffix),
        # What is only prepared is the same on any processor.
        precision="prepared" if inputs else precision,
        software=encoder.software if inputs else f"torch {torch.__version__}, {encoder.software}",
        hardware="any" if inputs else describe_hardware(device),
        batch_size=0 if inputs else batch_size,
        code=hash_code(*_TOKENS) if inputs else hash_code(*_TOKENS, *_FEATURES, *encoder.code),
    )
    if inputs:
        tokens, blank = _tokenize(table["text"].tolist(), encoder)
        attributes = {"padding": padding, **{name: getattr(encoder, name) for name in _ATTRIBUTES}}
        lengths = np.array(list(map(len, tokens)), np.int64)
        layout = tokens_layout(table["id"].tolist(), lengths, _hash_tokens(tokens), blank, attributes)
        with writing(path, layout, info) as writer:
            for item in writer.missing:
                writer.write(item, tokens[item])
        return
    texts = _Texts(table, encoder, device, precision, batch_size, padding)
    encoder.optimize(device, precision)
    encode(texts, path, info)
