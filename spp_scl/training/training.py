"""The training loop: epochs of batches, the best epoch on validation data kept."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spp_scl.batches.batch import Batch
from spp_scl.batches.data import Data
from spp_scl.encoders.parallel import share_buffers
from spp_scl.errors import UserError
from spp_scl.methods.shared.method import Log, Method, Summary
from spp_scl.methods.shared.prediction import predict
from spp_scl.metrics import classification_metrics
from spp_scl.params import TrainParams
from spp_scl.progress import progress
from spp_scl.training.checkpoint import load_checkpoint, save_checkpoint, training_key
from spp_scl.training.recipe import TrainingRecipe
from spp_scl.training.state import TrainingState

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Args:
        model: with the weights of the epoch that is kept.
        best_epoch: whose weights these are, counted from 1.
        epochs: how many ran.
        rows: the logs of all batches.
    """

    model: Method
    best_epoch: int
    epochs: int
    rows: list[Mapping[str, Any]]

    def summary(self) -> Summary:
        """What the metrics say of the training."""
        return {"best_epoch": self.best_epoch, "epochs": self.epochs, **self.model.summarize(self.rows)}


def train(
    data: Data,
    recipe: TrainingRecipe,
    *,
    seed: int,
    params: TrainParams,
    log_folder: Path | str | None,
    checkpoint: Path | str,
) -> Trained:
    """Train a method, or go on with a training that was interrupted, to the same weights and log.

    Args:
        data: `train` is learned from, `valid` chooses the epoch, `test` is not touched.
        recipe: the method and its parameters.
        seed: draws the weights, the batches and dropout.
        params: the section `train` of the parameters.
        log_folder: takes the log's files, written anew after each epoch; None: not the first of several
            processes, which writes neither a log nor the checkpoint.
        checkpoint: the file that is written after each epoch; remove it once the result is in place.

    Raises:
        UserError: a loss is not finite, or the recipe's encoders cannot be had.
    """
    torch.set_num_threads(params.threads)
    checkpoint = Path(checkpoint)
    epochs = recipe.settings.epochs
    key = training_key(data, recipe, {"seed": seed, "params": params.model_dump()})
    state = TrainingState.start(recipe, data, seed)
    if (saved := load_checkpoint(checkpoint, key)) is not None:
        state.load_state_dict(saved)
        log.info("going on after epoch %d", state.epoch)
    if log_folder is not None:
        state.log.write(log_folder)
    with progress(desc="train", unit="epochs", total=epochs, initial=state.epoch) as bar:
        while state.epoch < epochs and not state.exhausted(params.patience):
            bar.set_postfix_str(train_epoch(state, data, recipe.settings.batch_size, seed))
            bar.update()
            if log_folder is not None:
                state.log.write(log_folder)
                save_checkpoint(checkpoint, key, state.state_dict())
    if state.epoch < epochs:
        log.info("stopped: no better validation F1 in %d epochs", params.patience)
    if params.keep == "best":
        state.model.load_state_dict(state.best_weights)
    kept = state.best_epoch if params.keep == "best" else state.epoch
    return Trained(state.model, kept, state.epoch, list(state.log.batches))


def train_epoch(state: TrainingState, data: Data, batch_size: int, seed: int) -> str:
    """Run one epoch, validation included, and say how it went."""
    state.epoch += 1
    state.model.train()
    batches = epoch_batches(data.rows["train"], batch_size, state.shuffle)
    logs = [
        train_batch(state, data.source.batch(rows), last=i == len(batches))
        for i, rows in enumerate(batches, start=1)
    ]
    means = state.log.add_batches(state.epoch, logs)
    if not all(map(math.isfinite, means.values())):
        raise UserError(
            f"training: the loss is no longer a finite number (epoch {state.epoch}); a lower learning_rate, "
            "or a higher temperature where the method has one, may help"
        )
    # A forward pass without an update moves each process's running statistics alone.
    share_buffers(state.model.encoders)
    rows = data.rows["valid"]
    output = predict(state.model, data.source, rows, batch_size, seed)
    valid = classification_metrics(output.logits, data.labels[rows], data.classes)
    state.log.add_epoch(state.epoch, state.updates.learning_rate, means, valid)
    state.updates.end_epoch()
    value = valid[data.selection]
    state.keep_best(value)
    return f"loss {means['loss']:.3f}, valid F1 {value:.3f}, best {state.best_value:.3f}"


def train_batch(state: TrainingState, batch: Batch, last: bool) -> Log:
    """Take a method's steps on a batch; `last`: see `Updates.apply`.

    Returns:
        What the steps log, and `loss`, the first one's; tensors are not yet fetched from the device.
    """
    logged: Log = {}
    for step in state.model.steps(batch):
        if step.loss is not None:
            state.updates.apply(step, last)
            logged.setdefault("loss", step.loss.detach())
        for name, value in step.log.items():
            logged.setdefault(name, value.detach() if isinstance(value, torch.Tensor) else value)
    state.updates.end_batch()
    return logged


def epoch_batches(rows: torch.Tensor, size: int, shuffle: torch.Generator) -> list[torch.Tensor]:
    """Shuffle rows into batches; a last batch of one, too small for batch normalization, joins another."""
    batches = list(rows[torch.randperm(len(rows), generator=shuffle)].split(size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches
