"""A training under way: all that changes from epoch to epoch."""

import copy
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from typing import Any

import torch

from spp_scl.model.network import ModelConfig, SppScl
from spp_scl.params import TrainParams
from spp_scl.train.gate import Gate
from spp_scl.train.log import TrainingLog

_WITH_STATE = ("model", "optimizer", "scheduler")
_PLAIN = ("epoch", "best_epoch", "best_value", "best_weights")


@dataclass
class TrainingState:
    """The state after an epoch.

    Args:
        model: and
        optimizer: and
        scheduler: of the learning rate, an epoch.
        shuffle: draws the batches.
        log: the rows so far.
        gates: of every batch so far that had one.
        epoch: how many have run.
        best_epoch: the best one so far on validation data, counted from 1.
        best_value: its metric.
        best_weights: the network's state after it.
    """

    model: SppScl
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    shuffle: torch.Generator
    log: TrainingLog = field(default_factory=TrainingLog)
    gates: list[Gate] = field(default_factory=list)
    epoch: int = 0
    best_epoch: int = 0
    best_value: float = -1.0
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def start(
        cls, config: ModelConfig, params: TrainParams, seed: int, device: torch.device
    ) -> "TrainingState":
        """Before the first epoch; `seed` draws the weights, the batches and dropout."""
        torch.manual_seed(seed)
        model = SppScl(config).to(device)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay, fused=True
        )
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, params.lr_step, params.lr_decay)
        return cls(model, optimizer, scheduler, torch.Generator().manual_seed(seed))

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
            "gates": [astuple(gate) for gate in self.gates],
            "shuffle": self.shuffle.get_state(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        for name in _WITH_STATE:
            getattr(self, name).load_state_dict(state[name])
        for name in _PLAIN:
            setattr(self, name, state[name])
        self.log = TrainingLog(state["batches"], state["epochs"])
        self.gates = [Gate(*values) for values in state["gates"]]
        self.shuffle.set_state(state["shuffle"])
        torch.set_rng_state(state["random"])
        torch.cuda.set_rng_state_all(state["random_cuda"])
