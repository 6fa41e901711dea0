"""The loop that encodes pictures and texts: prepare a batch, run the network, write; go on after a kill."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from spp_scl.encoders.workers import in_order
from spp_scl.encoders.writing import Layout, writing
from spp_scl.errors import UserError
from spp_scl.features.encoder import EncoderInfo
from spp_scl.progress import progress

log = logging.getLogger(__name__)


class Batched(Protocol):
    """Pictures or texts, and the encoder that is to see them.

    Args:
        name: what they are, in the plural.
        device: of the encoder.
    """

    name: str
    device: torch.device

    def batches(self, items: Sequence[int]) -> Iterator[list[int]]:
        """Group items into batches."""
        ...

    def prepare(self, batch: Sequence[int]) -> tuple[torch.Tensor, ...]:
        """The tensors that the network gets for a batch, filled up to the full batch size."""
        ...

    def forward(self, *prepared: torch.Tensor) -> torch.Tensor:
        """Their features, one entry an item, then what fills the batch up."""
        ...


class Inputs(Batched, Protocol):
    """The same, to be written into a file.

    Args:
        layout: of the file, an item of which is one input.
    """

    @property
    def layout(self) -> Layout:
        """See above."""
        ...

    def parts(self, item: int, features: np.ndarray) -> tuple[np.ndarray, ...]:
        """What the file keeps of an item's features, in the order of `layout.arrays`."""
        ...


def encode(inputs: Inputs, path: Path | str, info: EncoderInfo) -> None:
    """Write the features of `inputs` into a file; what an earlier run has encoded is not encoded again.

    Raises:
        UserError: an input cannot be read, the features are not finite, or the disk is full.
    """
    log.info("%s: %s, %s on %s", inputs.name, info.weights, info.precision, inputs.device.type)
    with writing(path, inputs.layout, info) as writer:
        total = len(inputs.layout.keys) - int(inputs.layout.blank.sum())
        missing = writer.missing
        if len(missing) < total:
            log.info("%d of %d %s were encoded before", total - len(missing), total, inputs.name)
        batches = list(inputs.batches(missing))
        computed = in_order(lambda batch: run_batch(inputs, batch, info.weights), batches, inputs.device)
        # Closed, so that the workers end with a run that fails.
        with closing(computed), progress(desc=inputs.name, unit=inputs.name, total=len(missing)) as bar:
            for batch, features in zip(batches, computed, strict=True):
                for item, own in zip(batch, features, strict=True):
                    writer.write(item, *inputs.parts(item, own))
                bar.update(len(batch))


def run_batch(inputs: Batched, batch: Sequence[int], weights: str, half: bool = True) -> np.ndarray:
    """Run a batch through the encoder.

    Args:
        inputs: whose items these are.
        batch: items.
        weights: where the encoder comes from, for the error.
        half: features in float16, as files keep them; else in float32, as encoders in the loop give them.

    Returns:
        The features, one entry an item.

    Raises:
        UserError: an input cannot be read, or the features are not finite.
    """
    prepared = [tensor.to(inputs.device) for tensor in inputs.prepare(batch)]
    with torch.inference_mode():
        features = inputs.forward(*prepared)[: len(batch)]
    if features.is_floating_point():
        features = features.to(torch.float16 if half else torch.float32)
    if not _all_finite(features):
        raise UserError(f"{inputs.name}: the features are not finite; are the weights damaged ({weights})?")
    return features.cpu().numpy()


def _all_finite(features: torch.Tensor) -> bool:
    """Whether nothing in float16 features, or in bytes, is infinite or no number."""
    # Neither goes away in a sum, and float32 holds the largest one: a fifth of the time of looking at each.
    return bool(features.sum(dtype=torch.float32).isfinite())
