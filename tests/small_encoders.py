"""Encoders that take no time, drawn at random, in local directories as their libraries save them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

import spp_scl.encoders.torchvision_ops  # noqa: F401  (before transformers and timm)

# isort: split
import timm
import transformers as tr
from timm.models import save_for_hf

WORDS = ["a", "good", "day", "bad", "sad", "night", "happy", "city", "rain", "sun"]
WIDTH = 16

_SHAPE = {"hidden_size": WIDTH, "num_hidden_layers": 5, "num_attention_heads": 2, "intermediate_size": 32}
_ROBERTA = ("<s>", "</s>", "<pad>", "<unk>", "<mask>")
_BERT = ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")


def save_tokenizer(
    folder: Path, special: Sequence[str], template: str, limit: int = 512, side: str = "right"
) -> int:
    """A tokenizer of whole words; returns their number. `special`: begin, end, pad, unknown, mask."""
    begin, end, pad, unknown, mask = special
    order = [begin, pad, end, unknown, mask, *WORDS]  # RoBERTa's: its padding is 1
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(order))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = Whitespace()
    if template != "$A":
        pairs = [(token, vocabulary[token]) for token in (begin, end)]
        tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=pairs)
    names = {"bos_token": begin, "eos_token": end, "pad_token": pad, "unk_token": unknown, "mask_token": mask}
    tr.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **names, model_max_length=limit, padding_side=side
    ).save_pretrained(folder)
    return len(vocabulary)


def _text(config: Callable[..., Any], special: Sequence[str], limit: int = 512, **more: Any) -> Callable:
    def save(folder: Path) -> Path:
        size = save_tokenizer(folder, special, f"{special[0]} $A {special[1]}", limit)
        torch.manual_seed(5)
        made = config(vocab_size=size, pad_token_id=1, **{**_SHAPE, **more})
        tr.AutoModel.from_config(made).save_pretrained(folder)
        return folder

    return save


def _distilbert(**shape: Any) -> Any:
    names = {"dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads"}
    return tr.DistilBertConfig(
        vocab_size=shape["vocab_size"],
        pad_token_id=1,
        hidden_dim=32,
        **{a: shape[b] for a, b in names.items()},
    )


def save_bertweet(folder: Path) -> Path:
    """With a tokenizer that has no fast form: a vocabulary and merges that make whole words."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces, merges = [], []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges.append(f"{parts[0]} {parts[1]} 1")
            parts = ["".join(parts[:2]), *parts[2:]]
        pieces.append(word)
    (folder / "vocab.txt").write_text("".join(f"{piece} 1\n" for piece in pieces))
    (folder / "bpe.codes").write_text("".join(f"{merge}\n" for merge in dict.fromkeys(merges)))
    tokenizer = tr.BertweetTokenizer(
        str(folder / "vocab.txt"), str(folder / "bpe.codes"), model_max_length=128
    )
    merged = (folder / "bpe.codes").read_text()
    tokenizer.save_pretrained(folder)
    (folder / "bpe.codes").write_text(merged)  # it saves them without the counts that it wants to read
    torch.manual_seed(5)
    config = tr.RobertaConfig(
        vocab_size=len(tokenizer), pad_token_id=1, max_position_embeddings=130, type_vocab_size=1, **_SHAPE
    )
    config.tokenizer_class = "BertweetTokenizer"
    tr.RobertaModel(config).save_pretrained(folder)
    return folder


def save_clip(folder: Path) -> Path:
    """Both towers, the tokenizer and the image processor."""
    special = ("<|startoftext|>", "<|endoftext|>", "<|endoftext|>", "<unk>", "<mask>")
    size = save_tokenizer(folder, special, "<|startoftext|> $A <|endoftext|>", limit=77)
    torch.manual_seed(5)
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    text = {**_SHAPE, "vocab_size": size, "max_position_embeddings": 77, **ids}
    vision = {**_SHAPE, "image_size": 64, "patch_size": 16}
    tr.CLIPModel(tr.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(
        folder
    )
    tr.CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}).save_pretrained(
        folder
    )
    return folder


TEXT = {
    "bert": _text(tr.BertConfig, _BERT),
    "roberta": _text(tr.RobertaConfig, _ROBERTA, max_position_embeddings=66),
    "distilbert": _text(_distilbert, _BERT),
    "mpnet": _text(tr.MPNetConfig, _ROBERTA, max_position_embeddings=66),
    "electra": _text(tr.ElectraConfig, _BERT, embedding_size=8),
    "deberta-v2": _text(
        tr.DebertaV2Config,
        _BERT,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
    ),
    "bertweet": save_bertweet,
    "clip": save_clip,
}


def _vision(config: Any, processor: Any) -> Callable:
    def save(folder: Path) -> Path:
        torch.manual_seed(5)
        tr.AutoModel.from_config(config).save_pretrained(folder)
        processor.save_pretrained(folder)
        return folder

    return save


def save_siglip(folder: Path) -> Path:
    """The vision tower counts; the text tower is the smallest that there is."""
    torch.manual_seed(5)
    vision = {**_SHAPE, "image_size": 64, "patch_size": 16}
    text = {**_SHAPE, "num_hidden_layers": 1, "vocab_size": 9}
    tr.SiglipModel(tr.SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    tr.SiglipImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


_SQUARE = {"height": 64, "width": 64}
_DINO = tr.BitImageProcessor(size={"shortest_edge": 80}, crop_size={"height": 70, "width": 70})
_PATCHES = {**_SHAPE, "image_size": 64, "patch_size": 16}

HF_IMAGE = {
    "vit": _vision(tr.ViTConfig(**_PATCHES), tr.ViTImageProcessor(size=_SQUARE)),
    "convnext": _vision(
        tr.ConvNextConfig(hidden_sizes=[8, 8, 16, 24], depths=[1, 1, 1, 1]),
        tr.ConvNextImageProcessor(size={"shortest_edge": 64}),
    ),
    # Of another side than the network's own, as DINOv2 is published.
    "dinov2": _vision(tr.Dinov2Config(**{**_SHAPE, "image_size": 98, "patch_size": 14}), _DINO),
    "registers": _vision(
        tr.Dinov2WithRegistersConfig(
            **{**_SHAPE, "image_size": 98, "patch_size": 14, "num_register_tokens": 4}
        ),
        _DINO,
    ),
    "swin": _vision(
        tr.SwinConfig(image_size=64, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4),
        tr.ViTImageProcessor(size=_SQUARE),
    ),
    "clip": save_clip,
    "siglip": save_siglip,
}


def _timm(architecture: str, **arguments: Any) -> Callable:
    def save(folder: Path) -> Path:
        torch.manual_seed(5)
        save_for_hf(
            timm.create_model(architecture, num_classes=7, **arguments), folder, safe_serialization=True
        )
        return folder

    return save


TIMM = {
    "test_vit": _timm("test_vit"),
    "test_convnext": _timm("test_convnext"),
    "test_efficientnet": _timm("test_efficientnet"),
    "swin": _timm(
        "swin_tiny_patch4_window7_224",
        embed_dim=8,
        depths=(1, 1, 1, 1),
        num_heads=(1, 1, 2, 2),
        drop_path_rate=0.1,
    ),
    "levit": _timm("levit_128s"),  # keeps what it derives from its weights
    "registers": _timm(
        "vit_small_patch16_224", embed_dim=16, depth=2, num_heads=2, reg_tokens=4, img_size=64
    ),
}
