"""The contract of a method: what it reads, its parameters, its network and its optimizer steps.

A method is one file in `spp_scl/methods`; the file's name is what the parameter `method` takes. It has a
class `Params`, its section in `params.yaml`, and one subclass of `Method`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from spp_scl.batches.batch import Batch, Sizes
from spp_scl.errors import UserError
from spp_scl.params import Count, Decay, NonNegative, Positive, Section

# Of one batch: a number, or a scalar on the device that is fetched at the end of the epoch.
Log = dict[str, Any]
Summary = dict[str, float | int | bool | None]


class Recipe(Section):
    """What every method has: AdamW, whose rate is multiplied by `lr_decay` every `lr_step` epochs."""

    epochs: Count
    # Batch normalization and a contrast both need two samples.
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: Positive
    weight_decay: NonNegative
    lr_step: Count
    lr_decay: Decay


@dataclass(frozen=True)
class Reads:
    """What a method reads of a post.

    Args:
        text: `layers`: the encoder's hidden states; `pieces`: word pieces alone; None: nothing.
        image: `map`: the encoder's positions; None: nothing.
        views: whether it learns from second views; its section of `params.yaml` then has a part `views`.
    """

    text: Literal["layers", "pieces"] | None = None
    image: Literal["map"] | None = None
    views: bool = False

    @property
    def kinds(self) -> list[str]:
        """Which parts of a post it reads, in whatever form."""
        return ["text"] * (self.text is not None) + ["image"] * (self.image is not None)

    @property
    def encoders(self) -> list[str]:
        """Which encoders it needs."""
        return ["text"] * (self.text == "layers") + ["image"] * (self.image == "map")


@dataclass(frozen=True)
class Output:
    """Logits (B, classes), and vectors (B, any) by the names of `Method.spaces`."""

    logits: torch.Tensor
    vectors: Mapping[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One optimizer step.

    Args:
        loss: to minimize; None: nothing, this only logs.
        log: of this batch; `Method.logged` says what of it is kept.
        zeros: whether gradients are zeros, and not absent, where the loss does not reach.
    """

    loss: torch.Tensor | None
    log: Log = field(default_factory=dict)
    zeros: bool = False


class Method(nn.Module, ABC):
    """A method's network and how it is trained; with encoders in the loop they are its `encoders`."""

    title: ClassVar[str]
    paper: ClassVar[str]
    # What of it is not published and had to be filled in; empty: nothing.
    reconstruction: ClassVar[str] = ""
    reads: ClassVar[Reads]
    # Names of vectors and what they are, for t-SNE and its picture: at least one.
    spaces: ClassVar[Mapping[str, str]]
    # What of the steps' logs goes into the training log, and which of it is drawn together.
    logged: ClassVar[tuple[str, ...]] = ()
    plots: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    # The most that `steps` yields a batch.
    steps_a_batch: ClassVar[int] = 1

    def __init__(self, params: Recipe, sizes: Sizes):
        super().__init__()
        self.params, self.sizes = params, sizes
        self.encoders = nn.ModuleDict()  # filled where they are in the loop

    @abstractmethod
    def forward(self, batch: Batch) -> Output:
        """Classify a batch."""

    def steps(self, batch: Batch) -> Iterator[Step]:
        """The optimizer steps of one batch; what follows a `yield` sees the weights that it has updated."""
        yield Step(F.cross_entropy(self(batch).logits, batch.labels))

    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups of parameters, as torch takes them, the encoders' not among them."""
        return [{"params": [p for name, p in self.named_parameters() if not name.startswith("encoders.")]}]

    def prepare_encoders(self) -> None:
        """Say which of `encoders` are not trained, where they are in the loop and trained."""

    @property
    def couples_batch(self) -> bool:
        """Whether a prediction depends on the posts that share its batch."""
        return False

    def word_attention(self, batch: Batch, head: int) -> torch.Tensor:
        """Each word's attention over the picture's positions, of a head of the last layer that has both.

        Returns:
            (W, P), zeros for the words of a post without a picture.

        Raises:
            UserError: the method has no such attention, or no such head.
        """
        raise UserError(f"{self.title}: no word attends to positions of the picture")

    @classmethod
    def summarize(cls, rows: Sequence[Mapping[str, float]]) -> Summary:
        """What the metrics say of a training, from the logs of all its batches."""
        return {}

    @classmethod
    def describe(cls, summary: Mapping[str, Any]) -> list[str]:
        """What an audit says of a training, in sentences."""
        return []


def count_parameters(model: nn.Module) -> int:
    """The number of trainable values."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
