"""Text features: the last four layers of a frozen BERT, [CLS] and words apart.

Shapes: B batch, T positions ([CLS] and [SEP] included), D width.
"""

import hashlib
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import tokenizers
import torch

import spp_scl.features.torchvision_ops  # noqa: F401  (before transformers)

# isort: split
import transformers
from huggingface_hub.utils import enable_progress_bars
from transformers import AutoConfig, AutoTokenizer, BertConfig, BertModel

from spp_scl.errors import UserError, first_line
from spp_scl.features import device as features_device
from spp_scl.features import vocabulary
from spp_scl.features.device import (
    DTYPES,
    all_finite,
    autocast,
    choose_device,
    choose_precision,
    describe_hardware,
)
from spp_scl.features.encoder import EncoderInfo, hash_code, hash_weights
from spp_scl.features.vocabulary import collect_vocabulary, make_tokenizer
from spp_scl.features.workers import in_order
from spp_scl.features.writing import writing_texts
from spp_scl.progress import progress

log = logging.getLogger(__name__)

PRETRAINED = "bert-base-uncased"
_LAYERS = 4

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

    def quicken(self, device: torch.device, precision: str) -> None:
        """Move to the device, for encoding alone: weights are rounded once, and not in every batch."""
        for module in self.bert.modules():
            if isinstance(module, torch.nn.Linear):  # which autocast computes in `precision`
                module.to(DTYPES[precision])
        self.to(device)


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

    What `path` holds already, from the same encoder, is taken over; so is what a killed run has computed.

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
    texts = table["text"].tolist()
    encoder = TextEncoder(weights, seed, texts, max_positions)
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
        code=hash_code(sys.modules[__name__], vocabulary, features_device),
    )
    encoder.quicken(device, precision)
    log.info("text encoder: %s, %s on %s", info.weights, precision, device.type)
    tokens = encoder.tokenize(texts)
    cut = sum(len(ids) == max_positions for ids in tokens)
    if cut:
        log.info("%d text(s) reach %d positions and may be cut", cut, max_positions)
    # A blank text has no words and a [CLS] of zeros: it is not shown to the encoder.
    rows = [row for row, text in enumerate(texts) if text]
    lengths = np.zeros(len(texts), dtype=np.int64)
    lengths[rows] = [max_positions - 2 if padding == "kept" else len(tokens[row]) - 2 for row in rows]
    width = encoder.bert.config.hidden_size
    # What the encoder is shown, not the text: a blank one has nothing.
    shown = [np.array(ids if text else [], np.int32) for ids, text in zip(tokens, texts, strict=True)]
    keys = np.stack([np.frombuffer(hashlib.sha256(ids).digest(), np.uint8) for ids in shown])

    def encode(batch: list[int]) -> np.ndarray:
        size = _padded(int(lengths[batch].max()) + 2, max_positions)
        ids = torch.full((batch_size, size), encoder.bert.config.pad_token_id or 0)
        mask = torch.zeros(batch_size, size, dtype=torch.long)
        mask[:, 0] = 1  # rows that only fill the batch up attend to something
        for i, row in enumerate(batch):
            ids[i, : len(tokens[row])] = torch.tensor(tokens[row])
            mask[i, : len(tokens[row])] = 1
        with torch.inference_mode(), autocast(device, precision):
            states = encoder(ids.to(device), mask.to(device))[: len(batch)].to(torch.float16)
        if not all_finite(states):
            raise UserError("the text encoder's features are not finite; are its weights damaged?")
        return states.cpu().numpy()

    with writing_texts(path, table["id"].tolist(), lengths, width, keys, info) as writer:
        for row in writer.missing:
            if not texts[row]:
                writer.write(row, np.zeros((_LAYERS, width), np.float16), np.zeros((0, _LAYERS, width)))
        missing = [row for row in writer.missing if texts[row]]
        if len(missing) < len(rows):
            log.info("%d of %d texts were encoded before", len(rows) - len(missing), len(rows))
        batches = list(_batches(missing, lengths, batch_size))
        with progress(desc="texts", unit="tweets", total=len(missing)) as bar:
            for batch, states in zip(batches, in_order(encode, batches, device), strict=True):
                for i, row in enumerate(batch):
                    writer.write(row, states[i, 0], states[i, 1 : lengths[row] + 1])
                bar.update(len(batch))


def _padded(length: int, max_positions: int) -> int:
    return min(max_positions, -(-length // _BUCKET) * _BUCKET)


def _batches(rows: list[int], lengths: np.ndarray, size: int) -> Iterator[list[int]]:
    """Rows of like length, the longest first: too little memory then shows at once."""
    buckets: dict[int, list[int]] = {}
    for row in rows:
        buckets.setdefault(-(-int(lengths[row] + 2) // _BUCKET), []).append(row)
    for bucket in sorted(buckets, reverse=True):
        members = buckets[bucket]
        for start in range(0, len(members), size):
            yield members[start : start + size]


def _name(weights: str, seed: int) -> str:
    if weights == "untrained":
        return f"untrained, seed {seed}"
    if weights == "pretrained":
        return PRETRAINED
    return f"local directory {Path(weights).name}" if _is_path(weights) else weights


def _is_path(weights: str) -> bool:
    """A hub name has at most one slash and does not begin like a path."""
    return weights.startswith((".", "/", "~")) or weights.count("/") > 1 or Path(weights).exists()


def _load(weights: str) -> tuple[tokenizers.Tokenizer, BertModel]:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    enable_progress_bars()  # of downloads; the line above turns them off as well
    source = weights
    if _is_path(weights):
        source = str(Path(weights).expanduser())
        if not Path(source, "config.json").is_file():
            raise UserError(
                f"text_features.weights: {source}: no such directory with a config.json. It takes a "
                "directory, a hub name, pretrained, untrained or auto"
            )
    try:
        config = AutoConfig.from_pretrained(source)
        if config.model_type != "bert" or config.num_hidden_layers < _LAYERS:
            raise UserError(
                f"text_features.weights: {weights}: a BERT with at least {_LAYERS} layers is needed, this is "
                f"{config.model_type} with {getattr(config, 'num_hidden_layers', 'no')} layers"
            )
        tokenizer = AutoTokenizer.from_pretrained(source).backend_tokenizer
        bert, report = BertModel.from_pretrained(
            source, add_pooling_layer=False, output_loading_info=True, dtype=torch.float32
        )
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
