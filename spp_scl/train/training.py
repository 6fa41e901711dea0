"""The training loop: epochs of batches, the best epoch on validation data kept."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from spp_scl.errors import UserError
from spp_scl.model.data import Data
from spp_scl.model.inference import predict
from spp_scl.model.metrics import classification_metrics
from spp_scl.model.network import ModelConfig, SppScl
from spp_scl.params import TrainParams
from spp_scl.progress import progress
from spp_scl.train.checkpoint import load_checkpoint, save_checkpoint, training_key
from spp_scl.train.gate import Gate, summarize_gates
from spp_scl.train.state import TrainingState
from spp_scl.train.steps import Losses, train_batch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Args:
        model: with the weights of the epoch that is kept.
        best_epoch: whose weights these are, counted from 1.
        epochs: how many ran.
        gates: of every batch of the run that had one.
    """

    model: SppScl
    best_epoch: int
    epochs: int
    gates: list[Gate]

    def summary(self) -> dict[str, float | int | bool | None]:
        """What the metrics say of the training."""
        return {"best_epoch": self.best_epoch, "epochs": self.epochs, **summarize_gates(self.gates)}


def train(
    data: Data,
    config: ModelConfig,
    *,
    alpha: float,
    seed: int,
    params: TrainParams,
    log_folder: Path | str,
    checkpoint: Path | str,
) -> Trained:
    """Train a network, or go on with a training that was interrupted, to the same weights and log.

    Args:
        data: `train` is learned from, `valid` chooses the epoch, `test` is not touched.
        config: of the network.
        alpha: of the gate.
        seed: draws the weights, the batches and dropout.
        params: the section `train` of the parameters.
        log_folder: takes `batches.csv` and `epochs.csv`, written anew after each epoch.
        checkpoint: the file that is written after each epoch; remove it once the result is in place.

    Raises:
        UserError: a loss is not finite.
    """
    torch.set_num_threads(params.threads)
    checkpoint = Path(checkpoint)
    key = training_key(data, config, {"alpha": alpha, "seed": seed, "params": params.model_dump()})
    state = TrainingState.start(config, params, seed, data.features.device)
    if (saved := load_checkpoint(checkpoint, key)) is not None:
        state.load_state_dict(saved)
        log.info("going on after epoch %d", state.epoch)
    state.log.write(log_folder)
    with progress(desc="train", unit="epochs", total=params.epochs, initial=state.epoch) as bar:
        while state.epoch < params.epochs and not state.exhausted(params.patience):
            bar.set_postfix_str(_epoch(state, data, alpha, params, seed))
            bar.update()
            state.log.write(log_folder)
            save_checkpoint(checkpoint, key, state.state_dict())
    if state.epoch < params.epochs:
        log.info("stopped: no better validation F1 in %d epochs", params.patience)
    if params.keep == "best":
        state.model.load_state_dict(state.best_weights)
    kept = state.best_epoch if params.keep == "best" else state.epoch
    return Trained(state.model, kept, state.epoch, state.gates)


def _epoch(state: TrainingState, data: Data, alpha: float, params: TrainParams, seed: int) -> str:
    """Run one epoch, validation included, and say how it went."""
    state.epoch += 1
    state.model.train()
    losses: list[Losses] = []
    decisions: list[Gate | None] = []
    for rows in epoch_batches(data.rows["train"], params.batch_size, state.shuffle):
        batch = data.features.batch(rows)
        labels = data.labels[rows[batch.order]].to(data.features.device)
        batch_losses, decision = train_batch(state.model, state.optimizer, batch, labels, alpha, params)
        losses.append(batch_losses)
        decisions.append(decision)
    gates = [decision for decision in decisions if decision is not None]
    state.gates += gates
    means = state.log.add_batches(state.epoch, losses, decisions)
    if not all(map(math.isfinite, means.values())):
        raise UserError(
            f"training: the loss is no longer a finite number (epoch {state.epoch}); a lower "
            "train.learning_rate or a higher train.temperature may help"
        )
    rows = data.rows["valid"]
    output = predict(state.model, data.features, rows, params.batch_size, seed)
    valid = classification_metrics(output.logits, data.labels[rows], data.classes)
    state.log.add_epoch(state.epoch, float(state.scheduler.get_last_lr()[0]), means, gates, valid)
    state.scheduler.step()
    state.keep_best(valid[data.selection])
    share = f", step 2 {fmean(gate.step2 for gate in gates):.0%}" if gates else ""
    return (
        f"loss {means['loss']:.3f}, valid F1 {valid[data.selection]:.3f}, best {state.best_value:.3f}{share}"
    )


def epoch_batches(rows: torch.Tensor, size: int, shuffle: torch.Generator) -> list[torch.Tensor]:
    """Shuffle rows into batches; a last batch of one, too small for batch normalization, joins another."""
    batches = list(rows[torch.randperm(len(rows), generator=shuffle)].split(size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches
