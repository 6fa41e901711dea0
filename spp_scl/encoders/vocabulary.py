"""The vocabulary of an untrained text encoder, collected from the texts themselves."""

from collections import Counter
from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.implementations import BertWordPieceTokenizer
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

# Of BERT-base.
SIZE = 30_522

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def collect_vocabulary(texts: Sequence[str], size: int = SIZE) -> dict[str, int]:
    """Token to id: special tokens, every character (alone and inside a word), then the commonest words.

    Words are those of BERT's own normalizer and pre-tokenizer; ties in frequency are broken by spelling, so
    the same texts give the same vocabulary in any order.
    """
    normalizer, splitter = BertNormalizer(lowercase=True), BertPreTokenizer()
    counts: Counter[str] = Counter()
    for text in texts:
        normalized = normalizer.normalize_str(text)
        counts.update(word for word, _ in splitter.pre_tokenize_str(normalized))
    characters = sorted({c for word in counts for c in word})
    words = sorted((w for w in counts if len(w) > 1), key=lambda word: (-counts[word], word))
    tokens = [*_SPECIAL, *characters, *(f"##{c}" for c in characters), *words]
    return {token: i for i, token in enumerate(tokens[:size])}


def make_tokenizer(vocabulary: dict[str, int]) -> Tokenizer:
    """An uncased WordPiece tokenizer as BERT's, over `vocabulary`."""
    return Tokenizer.from_str(BertWordPieceTokenizer(vocab=vocabulary, lowercase=True).to_str())
