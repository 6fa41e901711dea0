"""Optimizer and schedule: how a method's steps become updates of the weights."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from spp_scl.encoders.parallel import synchronize
from spp_scl.errors import UserError
from spp_scl.methods.shared.method import Method, Step
from spp_scl.params import FinetunedParams
from spp_scl.training.recipe import TrainingRecipe

_ENCODER_GROUPS = 2  # what decays, and what does not


class Updates:
    """AdamW over a method's groups of parameters, and over the encoders' where they are trained.

    With frozen or live encoders the rate falls by the method's own schedule, an epoch at a time. Where they
    are trained, all rates rise and fall together from batch to batch (with accumulation, from one update to
    the next): `warmup` and `decay`.
    """

    def __init__(self, model: Method, recipe: TrainingRecipe, batches: int):
        """Begin.

        Args:
            model: on its device.
            recipe: of the training.
            batches: an epoch.

        Raises:
            UserError: batches are to be accumulated for a method of several steps.
        """
        self._model, self._finetuned = model, recipe.finetuned
        settings = recipe.settings
        self._every = 1 if self._finetuned is None else self._finetuned.accumulation
        if self._every > 1 and model.steps_a_batch > 1:
            raise UserError(
                f"finetuned.accumulation: {self._every}: {recipe.method} takes {model.steps_a_batch} steps a "
                "batch, the later ones with the weights of the earlier; it takes accumulation=1"
            )
        groups = model.groups()
        if self._finetuned is not None:
            groups += _encoder_groups(model, self._finetuned)
        self.optimizer = torch.optim.AdamW(
            groups, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self.scheduler: lr_scheduler.LRScheduler
        if self._finetuned is None:
            self.scheduler = lr_scheduler.StepLR(self.optimizer, settings.lr_step, settings.lr_decay)
        else:
            epoch = -(-batches // self._every)
            factor = _schedule(self._finetuned, settings.epochs * epoch)
            frozen = self._finetuned.frozen_epochs * epoch
            own = [factor] * (len(groups) - _ENCODER_GROUPS)
            encoders = [lambda update: factor(update) if update >= frozen else 0.0] * _ENCODER_GROUPS
            self.scheduler = lr_scheduler.LambdaLR(self.optimizer, own + encoders)
        self._waiting = 0

    def apply(self, step: Step, last: bool) -> None:
        """Minimize a step's loss.

        Args:
            step: with a loss.
            last: whether it is of the epoch's last batch, after which nothing waits any more.
        """
        assert step.loss is not None
        if not self._waiting:
            # With zeros AdamW also moves what has no part in this loss, by its momentum and by weight decay.
            self.optimizer.zero_grad(set_to_none=not step.zeros)
        (step.loss / self._every if self._every > 1 else step.loss).backward()
        self._waiting += 1
        if self._waiting < self._every and not last:
            return
        self._waiting = 0
        synchronize(self._model.encoders)
        if self._finetuned is not None and self._finetuned.clip:
            nn.utils.clip_grad_norm_(self._model.parameters(), self._finetuned.clip)
        self.optimizer.step()

    def end_batch(self) -> None:
        """Let the rates of trained encoders, and of the method beside them, rise and fall.

        By batches and not by steps: how many of these a batch has may turn out only as it is trained.
        """
        if self._finetuned is not None and not self._waiting:
            self.scheduler.step()

    def end_epoch(self) -> None:
        """Let the rate fall by the method's own schedule."""
        if self._finetuned is None:
            self.scheduler.step()

    @property
    def learning_rate(self) -> float:
        """Of the method's first group."""
        return float(self.scheduler.get_last_lr()[0])

    def state_dict(self) -> dict[str, Any]:
        """What goes on from here needs."""
        return {"optimizer": self.optimizer.state_dict(), "scheduler": self.scheduler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])


def _encoder_groups(model: Method, finetuned: FinetunedParams) -> list[dict[str, Any]]:
    """As is usual for BERT, neither biases nor norms decay."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for p in model.encoders.parameters():
        (decayed if p.dim() > 1 else others).append(p)
    rate = {"lr": finetuned.learning_rate}
    return [
        {"params": decayed, "weight_decay": finetuned.weight_decay, **rate},
        {"params": others, "weight_decay": 0.0, **rate},
    ]


def _schedule(finetuned: FinetunedParams, total: int) -> Callable[[int], float]:
    """The factor of all rates at each update: up over `warmup` of them, then down to zero, or constant."""
    warmup = round(finetuned.warmup * total)

    def factor(update: int) -> float:
        if update < warmup:
            return (update + 1) / warmup
        if finetuned.decay == "none":
            return 1.0
        return max(0.0, (total - update) / max(1, total - warmup))

    return factor
