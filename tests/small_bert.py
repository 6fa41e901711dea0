"""A BERT that takes no time, in a local directory as transformers saves one."""

from collections.abc import Sequence
from pathlib import Path

import torch

import spp_scl.encoders.torchvision_ops  # noqa: F401  (before transformers)

# isort: split
from transformers import BertConfig, BertModel


def save_bert(folder: Path, words: Sequence[str], layers: int = 4) -> Path:
    """Write config, weights and vocabulary; the folder is made if need be."""
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words))
    return folder
