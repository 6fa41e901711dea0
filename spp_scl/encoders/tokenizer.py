"""Tokenizers of any family behind one interface; what is special to a family is asked of its tokenizer."""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

# Texts at once: an encoding keeps what was cut off a text, which may be a megabyte.
_AT_ONCE = 512


class TextTokenizer:
    """From texts to token ids, special tokens included.

    Attributes:
        backend: the tokenizers library's tokenizer; None for a family that has only a slow one.
        prefix: special tokens in front of a text.
        suffix: and behind it.
        pad_id: None: it has no token for padding.
        padding_side: `left` or `right`.
        cut_side: likewise, where a long text is cut.
        limit: tokens that it allows at most, special ones included.
        size: tokens that it knows.
        ids: one more than the largest id.
    """

    def __init__(self, tokenizer: Any):
        """Wrap a `tokenizers.Tokenizer`, or a tokenizer of transformers, slow or not."""
        self._slow: Any = None
        self.pad_id: int | None = None
        self.padding_side, self.limit, self.cut_side = "right", 10**9, "right"
        if isinstance(tokenizer, Tokenizer):
            self.backend: Tokenizer | None = tokenizer
        else:
            self.backend = tokenizer.backend_tokenizer if tokenizer.is_fast else None
            self.pad_id = tokenizer.pad_token_id
            self.padding_side, self.cut_side = tokenizer.padding_side, tokenizer.truncation_side
            self.limit = min(self.limit, int(tokenizer.model_max_length))
        if self.backend is not None:
            # A published tokenizer.json may have both on.
            self.backend.no_padding()
            self.backend.no_truncation()
            vocabulary = self.backend.get_vocab(with_added_tokens=True)
            mask = self.backend.encode("a").special_tokens_mask
        else:
            self._slow = tokenizer
            vocabulary = tokenizer.get_vocab()
            mask = tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
        self.size, self.ids = len(vocabulary), max(vocabulary.values(), default=-1) + 1
        words = [i for i, special in enumerate(mask) if not special]
        self.prefix = words[0] if words else len(mask)
        self.suffix = len(mask) - 1 - words[-1] if words else 0

    def to_json(self) -> dict[str, Any] | None:
        """What `from_json` takes; None for a family that has only a slow one."""
        if self.backend is None:
            return None
        self.backend.no_truncation()
        names = ("pad_id", "padding_side", "limit", "cut_side")
        return {"tokenizer": self.backend.to_str(), **{name: getattr(self, name) for name in names}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TextTokenizer":
        """The tokenizer that `to_json` describes.

        Raises:
            ValueError: it is damaged.
        """
        try:
            known = Tokenizer.from_str(values["tokenizer"])
        except Exception as error:  # the library raises nothing more special
            raise ValueError(f"a damaged tokenizer: {error}") from None
        tokenizer = cls(known)
        for name in ("pad_id", "padding_side", "limit", "cut_side"):
            setattr(tokenizer, name, values[name])
        return tokenizer

    def encode(self, texts: Sequence[str], max_positions: int) -> list[list[int]]:
        """The ids of each text, cut to `max_positions`."""
        if self.backend is None:
            options = {"truncation": True, "max_length": max_positions}
            return [list(self._slow(text, **options)["input_ids"]) for text in texts]
        self.backend.enable_truncation(max_positions, direction=self.cut_side)
        parts = (texts[start : start + _AT_ONCE] for start in range(0, len(texts), _AT_ONCE))
        return [encoding.ids for part in parts for encoding in self.backend.encode_batch(list(part))]

    def fingerprint(self) -> str:
        """A text that differs where the tokens may, the place where a text is cut apart."""
        if self.backend is not None:
            self.backend.no_truncation()
            return self.backend.to_str()
        digest = hashlib.sha256(type(self._slow).__name__.encode())
        digest.update(json.dumps(sorted(self._slow.get_vocab().items())).encode())
        switches = {k: v for k, v in self._slow.init_kwargs.items() if isinstance(v, bool)}
        digest.update(json.dumps(switches, sort_keys=True).encode())
        with tempfile.TemporaryDirectory() as folder:
            for path in sorted(map(Path, self._slow.save_vocabulary(folder))):
                digest.update(path.read_bytes())
        return digest.hexdigest()
