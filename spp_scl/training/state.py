"""A training under way: all that changes from epoch to epoch."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from spp_scl.batches.data import Data
from spp_scl.methods.shared.method import Method
from spp_scl.training.log import TrainingLog
from spp_scl.training.recipe import TrainingRecipe, make_method
from spp_scl.training.updates import Updates

_WITH_STATE = ("model", "updates")
_PLAIN = ("epoch", "best_epoch", "best_value", "best_weights")


@dataclass
class TrainingState:
    """The state after an epoch.

    Args:
        model: and
        updates: its optimizer and schedule.
        shuffle: draws the batches.
        log: the rows so far.
        epoch: how many have run.
        best_epoch: the best one so far on validation data, counted from 1.
        best_value: its metric.
        best_weights: the network's state after it.
    """

    model: Method
    updates: Updates
    shuffle: torch.Generator
    log: TrainingLog
    epoch: int = 0
    best_epoch: int = 0
    best_value: float = -1.0
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def start(cls, recipe: TrainingRecipe, data: Data, seed: int) -> "TrainingState":
        """Before the first epoch; `seed` draws the weights, the batches and dropout."""
        model = make_method(recipe, data, seed)
        # A last batch of one joins another.
        batches = max(1, -(-(len(data.rows["train"]) - 1) // recipe.settings.batch_size))
        return cls(
            model,
            Updates(model, recipe, batches),
            torch.Generator().manual_seed(seed),
            TrainingLog.of(type(model)),
        )

    def exhausted(self, patience: int) -> bool:
        """Whether too many epochs have gone by without a better one."""
        return bool(patience) and self.epoch - self.best_epoch >= patience

    def keep_best(self, value: float) -> None:
        """Keep the weights if this epoch's validation is the best so far."""
        if value > self.best_value:
            self.best_value, self.best_epoch = value, self.epoch
            self.best_weights = copy.deepcopy(self.model.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Everything, as tensors, numbers and texts."""
        return {
            **{name: getattr(self, name).state_dict() for name in _WITH_STATE},
            **{name: getattr(self, name) for name in _PLAIN},
            "batches": self.log.batches,
            "epochs": self.log.epochs,
            "shuffle": self.shuffle.get_state(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        for name in _WITH_STATE:
            getattr(self, name).load_state_dict(state[name])
        for name in _PLAIN:
            setattr(self, name, state[name])
        self.log.batches, self.log.epochs = state["batches"], state["epochs"]
        self.shuffle.set_state(state["shuffle"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"])
