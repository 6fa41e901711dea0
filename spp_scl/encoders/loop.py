"""Encoders for the loop: opened together, or rebuilt from what a model file says of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from spp_scl.encoders.image import ImageEncoder, load_image_encoder, rebuild_image_encoder
from spp_scl.encoders.text import TextEncoder, load_text_encoder, rebuild_text_encoder


def load_encoders(
    kinds: Iterable[str], sources: Mapping[str, Mapping[str, Any]], texts: Sequence[str]
) -> nn.ModuleDict:
    """Open encoders: in evaluation mode, frozen, on the CPU.

    Args:
        kinds: `text`, `image`, or both.
        sources: see `choose_sources`.
        texts: an untrained text encoder's vocabulary is collected from them.

    Raises:
        UserError: one cannot be had, or not be rebuilt from a model file.
    """
    encoders = nn.ModuleDict()
    for kind in kinds:
        encoder: ImageEncoder | TextEncoder
        if kind == "image":
            encoder = load_image_encoder(**sources[kind])
        else:
            encoder = load_text_encoder(texts=texts, **sources[kind])
        encoder.describe()  # refuses what could not be rebuilt after its training
        encoders[kind] = encoder
    return encoders


def rebuild_encoders(descriptions: Mapping[str, Mapping[str, Any]]) -> nn.ModuleDict:
    """The encoders that were described; their weights are to be loaded.

    Raises:
        UserError: the libraries have no such network.
    """
    rebuild = {"image": rebuild_image_encoder, "text": rebuild_text_encoder}
    return nn.ModuleDict({kind: rebuild[kind](dict(about)) for kind, about in descriptions.items()})
