"""The training loop: two steps a batch, the best epoch on validation data kept."""

import copy
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from spp_scl.errors import UserError
from spp_scl.model.batches import Batch
from spp_scl.model.data import Data
from spp_scl.model.inference import predict
from spp_scl.model.metrics import classification_metrics
from spp_scl.model.network import Branches, ModelConfig, Output, SppScl
from spp_scl.params import TrainParams
from spp_scl.progress import progress
from spp_scl.train.gate import Gate, gate
from spp_scl.train.losses import inter_modal_loss, intra_modal_loss

log = logging.getLogger(__name__)

_LOSSES = ("loss", "loss_ce", "loss_clt", "loss_cli", "loss_clm")
_GATE = ("step2_share", "step2_share_float32", "count_over_p", "saturated_share")

# Every metric that a training may log; which ones it does depends on the parameters and on the gate.
METRICS = (
    *(f"{every}/{name}" for every in ("batch", "epoch") for name in _LOSSES),
    *("batch/step2", "batch/count_over_p", "epoch/learning_rate"),
    *(f"epoch/{name}" for name in _GATE),
    *(
        f"valid/{name}"
        for name in ("accuracy", "f1_weighted", "f1_macro", "precision_weighted", "recall_weighted", "loss")
    ),
)


class Log(Protocol):
    """What training writes to; `dvclive.Live` is one."""

    step: int
    summary: dict[str, Any]

    def log_metric(self, name: str, val: float) -> None: ...

    def make_summary(self) -> None: ...


@dataclass
class Trained:
    """A finished training.

    Args:
        model: with the weights of the epoch that is kept.
        best_epoch: whose weights these are, counted from 1.
        epochs: how many ran.
        gates: of every batch of the run that had one.
    """

    model: SppScl
    best_epoch: int = 0
    epochs: int = 0
    gates: list[Gate] = field(default_factory=list)

    @property
    def step2_share(self) -> float:
        """The share of all batches in which step 2 ran."""
        return fmean(g.step2 for g in self.gates) if self.gates else 0.0

    def summary(self) -> dict[str, float | int | bool | None]:
        """What the metrics say of the training; None for the gate's where there was none."""
        return {
            "best_epoch": self.best_epoch,
            "epochs": self.epochs,
            **(_means(self.gates) if self.gates else {**dict.fromkeys(_GATE), "step2_share": 0.0}),
            # When step 2 always or never ran, another alpha on the same side of the bound changes nothing.
            "alpha_mattered": 0 < self.step2_share < 1,
            "alpha_bound": self._alpha_bound(),
        }

    def _alpha_bound(self) -> float | None:
        """Below it, or from it on, every alpha gives this model; None where alpha mattered or had no say."""
        bounds = [g.alpha_from for g in self.gates]
        if not bounds or 0 < self.step2_share < 1 or any(map(math.isnan, bounds)):
            return None
        return max(bounds) if self.step2_share else min(bounds)


def train(
    data: Data,
    config: ModelConfig,
    *,
    alpha: float,
    seed: int,
    params: TrainParams,
    selection: str,
    live: Log,
    state: Mapping[str, Any] | None = None,
    save: Callable[[Mapping[str, Any]], None] | None = None,
) -> Trained:
    """Train a network.

    Args:
        data: `train` is learned from, `valid` chooses the epoch, `test` is not touched.
        config: of the network.
        alpha: of the gate.
        seed: draws the weights, the batches and dropout.
        params: the section `train` of the parameters.
        selection: the metric that chooses the epoch, `f1_weighted` or `f1_macro`.
        live: takes the log, a step and an epoch.
        state: what `save` was given in an earlier run, to go on from there to the same weights and log.
        save: called after each epoch with all that is needed to go on.

    Raises:
        UserError: a loss is not finite.
    """
    torch.set_num_threads(params.threads)
    torch.manual_seed(seed)
    model = SppScl(config).to(data.features.device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay, fused=True
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, params.lr_step, params.lr_decay)
    shuffle = torch.Generator().manual_seed(seed)
    run = _Run(model, optimizer, scheduler, shuffle)
    if state is not None:
        live.summary = run.restore(state)
        log.info("going on after epoch %d", run.epoch)
    bar = progress(desc="train", unit="epochs", total=params.epochs, initial=run.epoch)
    while run.epoch < params.epochs and not run.exhausted(params.patience):
        run.epoch += 1
        model.train()
        losses, gates = [], []
        for rows in epoch_batches(data.rows["train"], params.batch_size, shuffle):
            batch = data.features.batch(rows)
            target = data.labels[rows[batch.order]].to(data.features.device)
            step_losses, step_gate = train_batch(model, optimizer, batch, target, alpha, params)
            losses.append(step_losses)
            gates += [step_gate] if step_gate else []
        mean = _log_steps(live, run.batches, losses, gates)
        run.batches += len(losses)
        run.gates += gates
        if not all(map(math.isfinite, mean.values())):
            raise UserError(
                f"training: the loss is no longer a finite number (epoch {run.epoch}); a lower "
                "train.learning_rate or a higher train.temperature may help"
            )
        valid = _validate(model, data, params.batch_size, seed)
        _log_epoch(live, run.epoch, mean, gates, scheduler.get_last_lr()[0], valid)
        scheduler.step()
        run.keep_best(valid[selection])
        if save:
            save(run.state(live.summary))
        share = f", step 2 {fmean(g.step2 for g in gates):.0%}" if gates else ""
        bar.set_postfix_str(
            f"loss {mean['loss']:.3f}, valid F1 {valid[selection]:.3f}, best {run.best_value:.3f}{share}"
        )
        bar.update()
    bar.close()
    # Once more: a run that was killed after its last epoch goes on without one that would write it.
    live.step = run.epoch
    live.make_summary()
    if run.epoch < params.epochs:
        log.info("stopped: no better validation F1 in %d epochs", params.patience)
    if params.keep == "last":
        return Trained(model, run.epoch, run.epoch, run.gates)
    model.load_state_dict(run.best_state)
    return Trained(model, run.best_epoch, run.epoch, run.gates)


def complete_log(folder: Path) -> None:
    """Give each metric that a run has not logged a file without values, for whoever plots them all.

    Args:
        folder: DVCLive's.
    """
    for name in METRICS:
        path = folder / "plots/metrics" / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(f"step\t{path.stem}\n")


@dataclass
class _Run:
    """A training under way: all that changes from epoch to epoch."""

    model: SppScl
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    shuffle: torch.Generator
    epoch: int = 0
    batches: int = 0
    best_epoch: int = 0
    best_value: float = -1.0
    best_state: dict[str, torch.Tensor] = field(default_factory=dict)
    gates: list[Gate] = field(default_factory=list)

    def exhausted(self, patience: int) -> bool:
        """Whether too many epochs have gone by without a better one."""
        return bool(patience) and self.epoch - self.best_epoch >= patience

    def keep_best(self, value: float) -> None:
        """Keep the weights if this epoch's validation is the best so far."""
        if value > self.best_value:
            self.best_value, self.best_epoch = value, self.epoch
            self.best_state = copy.deepcopy(self.model.state_dict())

    def state(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Everything, and the log's summary, for a checkpoint."""
        return {
            **{name: getattr(self, name).state_dict() for name in _WITH_STATE},
            **{name: getattr(self, name) for name in _PLAIN},
            "gates": [astuple(g) for g in self.gates],
            "shuffle": self.shuffle.get_state(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all(),
            "summary": summary,
        }

    def restore(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Take over what `state` gave; returns the log's summary."""
        for name in _WITH_STATE:
            getattr(self, name).load_state_dict(state[name])
        for name in _PLAIN:
            setattr(self, name, state[name])
        self.gates = [Gate(*values) for values in state["gates"]]
        self.shuffle.set_state(state["shuffle"])
        torch.set_rng_state(state["random"])
        torch.cuda.set_rng_state_all(state["random_cuda"])
        return state["summary"]


def _means(gates: Sequence[Gate]) -> dict[str, float]:
    """What is told of an epoch's or a run's gates, each a share or a mean; the keys are `_GATE`."""
    values = [(g.step2, g.step2_float32, g.count / g.positives, g.saturated) for g in gates]
    return dict(zip(_GATE, map(fmean, zip(*values, strict=True)), strict=True))


_WITH_STATE = ("model", "optimizer", "scheduler")
_PLAIN = ("epoch", "batches", "best_epoch", "best_value", "best_state")


def epoch_batches(rows: torch.Tensor, size: int, shuffle: torch.Generator) -> list[torch.Tensor]:
    """Shuffle rows into batches; a last batch of one, too small for batch normalization, joins another."""
    batches = list(rows[torch.randperm(len(rows), generator=shuffle)].split(size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def train_batch(
    model: SppScl,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    labels: torch.Tensor,
    alpha: float,
    params: TrainParams,
) -> tuple[dict[str, torch.Tensor], Gate | None]:
    """The two steps on one batch.

    Returns:
        The losses, not yet fetched from the device, and the gate; None where step 2 has none.
    """
    output = model(batch)
    modalities = model.config.modalities
    losses = {"loss_ce": F.cross_entropy(output.logits, labels)}
    for name, part, embeddings in (("loss_clt", "text", output.text), ("loss_cli", "image", output.image)):
        if params.intra_modal and modalities in ("both", part):
            losses[name] = intra_modal_loss(
                embeddings, labels, params.temperature, params.anchor_in_denominator
            )
    if params.step2 == "merged" and modalities == "both":
        losses["loss_clm"] = _inter_modal(output, labels, params)
    weights = {"loss_ce": params.ce_weight}
    losses["loss"] = sum(weights.get(name, 1) * loss for name, loss in losses.items())
    _step(optimizer, losses["loss"])
    if params.step2 in ("never", "merged") or modalities != "both":
        return _detached(losses), None
    # Again, with the updated weights and still in training mode; only as far as T_p and I_p, for the head has
    # no part in what follows. Its parameters have no gradient here, so the optimizer leaves them alone.
    branches = model.branches(batch)
    decision = gate(branches.text, branches.image, labels, alpha, params.gate)
    if params.step2 == "always":
        decision = replace(decision, step2=True, alpha_from=math.nan)
    if decision.step2:
        losses["loss_clm"] = _inter_modal(branches, labels, params)
        _step(optimizer, losses["loss_clm"])
    return _detached(losses), decision


def _inter_modal(features: Branches | Output, labels: torch.Tensor, params: TrainParams) -> torch.Tensor:
    anchors, others = features.image, features.text
    if params.anchors == "text":
        anchors, others = others, anchors
    return inter_modal_loss(anchors, others, labels, params.temperature)


def _detached(losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: loss.detach() for name, loss in losses.items()}


def count_parameters(model: nn.Module) -> int:
    """The number of trainable values."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _validate(model: SppScl, data: Data, batch_size: int, seed: int) -> dict:
    rows = data.rows["valid"]
    output = predict(model, data.features, rows, batch_size, seed)
    return classification_metrics(output.logits, data.labels[rows], data.classes)


def _log_steps(
    live: Log, first: int, losses: list[dict[str, torch.Tensor]], gates: list[Gate]
) -> dict[str, float]:
    """Log an epoch's steps, and return the mean of each loss over the steps that had it."""
    values: dict[str, list[float]] = {}
    # Fetched from the device here, once an epoch, so that no step waits for its log.
    for name in _LOSSES:
        steps = [i for i, step in enumerate(losses) if name in step]
        if steps:
            values[name] = torch.stack([losses[i][name] for i in steps]).tolist()
            for i, value in zip(steps, values[name], strict=True):
                live.step = first + i
                live.log_metric(f"batch/{name}", value)
    for i, g in enumerate(gates):
        live.step = first + i
        live.log_metric("batch/step2", int(g.step2))
        live.log_metric("batch/count_over_p", g.count / g.positives)
    return {name: fmean(numbers) for name, numbers in values.items()}


def _log_epoch(
    live: Log, epoch: int, losses: dict[str, float], gates: list[Gate], rate: float, valid: dict
) -> None:
    live.step = epoch
    for name, value in losses.items():
        live.log_metric(f"epoch/{name}", value)
    live.log_metric("epoch/learning_rate", rate)
    if gates:
        for name, value in _means(gates).items():
            live.log_metric(f"epoch/{name}", value)
    for name, value in valid.items():
        if name != "f1":
            live.log_metric(f"valid/{name}", value)
    live.make_summary()
