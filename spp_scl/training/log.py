"""The log of a training as three CSV files: `batches.csv`, `epochs.csv`, and `curves.csv` for the plots."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from spp_scl.files import replacing
from spp_scl.methods.shared.method import Method

VALIDATION = ("accuracy", "f1_weighted", "f1_macro", "precision_weighted", "recall_weighted", "loss")
_BATCH = ("batch", "epoch", "loss")
_EPOCH = ("epoch", "learning_rate", "loss")

Row = dict[str, Any]


@dataclass
class TrainingLog:
    """The rows so far, one a batch and one an epoch, both counted from 1.

    Args:
        logged: what of the steps' logs the files have, beside the loss of a batch's first step.
        plots: which of it is drawn together, by the plot's title.
    """

    logged: Sequence[str]
    plots: Mapping[str, Sequence[str]]
    batches: list[Row] = field(default_factory=list)
    epochs: list[Row] = field(default_factory=list)

    @classmethod
    def of(cls, network: type[Method]) -> "TrainingLog":
        """An empty log of a method."""
        return cls(network.logged, network.plots)

    def add_batches(self, epoch: int, logs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Log an epoch's batches.

        Returns:
            The mean of each value over the batches that had it.
        """
        rows: list[Row] = [{"batch": len(self.batches) + i, "epoch": epoch} for i in range(1, len(logs) + 1)]
        means = {}
        # Fetched from the device here, once an epoch, so that no step waits for its log.
        for name in sorted({name for each in logs for name in each}):
            having = [i for i, each in enumerate(logs) if each.get(name) is not None]
            values = [logs[i][name] for i in having]
            if values and isinstance(values[0], torch.Tensor):
                values = torch.stack(values).tolist()
            for i, value in zip(having, values, strict=True):
                rows[i][name] = value
            if values:
                means[name] = fmean(values)
        self.batches += rows
        return means

    def add_epoch(
        self, epoch: int, learning_rate: float, means: Mapping[str, float], valid: Mapping[str, float]
    ) -> None:
        """Log an epoch: the means over its batches, and the metrics on validation data."""
        of_valid = {f"valid_{name}": valid[name] for name in VALIDATION}
        self.epochs.append({"epoch": epoch, "learning_rate": learning_rate, **means, **of_valid})

    def write(self, folder: Path | str) -> None:
        """Write the files."""
        curves = [
            {"epoch": row["epoch"], "plot": plot, "curve": name, "value": row[name]}
            for plot, names in self.plots.items()
            for name in names
            for row in self.epochs
            if name in row
        ]
        for file, columns, rows in (
            ("batches", (*_BATCH, *self.logged), self.batches),
            ("epochs", (*_EPOCH, *self.logged, *(f"valid_{name}" for name in VALIDATION)), self.epochs),
            ("curves", ("epoch", "plot", "curve", "value"), curves),
        ):
            with replacing(Path(folder) / f"{file}.csv") as path, path.open("w", newline="") as opened:
                writer = csv.DictWriter(opened, columns, lineterminator="\n", extrasaction="ignore")
                writer.writeheader()
                writer.writerows({name: _text(value) for name, value in row.items()} for row in rows)


def _text(value: object) -> object:
    # Six digits: more would only make the page of plots larger.
    return f"{value:.6g}" if isinstance(value, float) else value
