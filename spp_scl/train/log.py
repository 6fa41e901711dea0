"""The log of a training as two CSV files, `batches.csv` and `epochs.csv`.

Every run has every column, empty where there is no value, so that whoever plots them need not ask which
losses and which gate a run has.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import torch

from spp_scl.files import replacing
from spp_scl.train.gate import GATE, Gate, gate_means

# `loss` is what step 1 minimizes; the others are named as in the paper.
LOSSES = ("loss", "L_ce", "L_clt", "L_cli", "L_clm")
VALIDATION = ("accuracy", "f1_weighted", "f1_macro", "precision_weighted", "recall_weighted", "loss")
BATCH_COLUMNS = ("batch", "epoch", *LOSSES, "step2", "count_over_p")
EPOCH_COLUMNS = ("epoch", "learning_rate", *LOSSES, *GATE, *(f"valid_{name}" for name in VALIDATION))

Row = dict[str, float]


@dataclass
class TrainingLog:
    """The rows so far, one a batch and one an epoch, both counted from 1."""

    batches: list[Row] = field(default_factory=list)
    epochs: list[Row] = field(default_factory=list)

    def add_batches(
        self, epoch: int, losses: Sequence[Mapping[str, torch.Tensor]], gates: Sequence[Gate | None]
    ) -> dict[str, float]:
        """Log an epoch's batches.

        Returns:
            The mean of each loss over the batches that had it.
        """
        rows: list[Row] = [
            {"batch": len(self.batches) + i, "epoch": epoch} for i in range(1, len(losses) + 1)
        ]
        means = {}
        # Fetched from the device here, once an epoch, so that no step waits for its log.
        for name in LOSSES:
            having = [i for i, each in enumerate(losses) if name in each]
            if having:
                values = torch.stack([losses[i][name] for i in having]).tolist()
                means[name] = fmean(values)
                for i, value in zip(having, values, strict=True):
                    rows[i][name] = value
        for row, gate in zip(rows, gates, strict=True):
            if gate is not None:
                row |= {"step2": int(gate.step2), "count_over_p": gate.count_over_p}
        self.batches += rows
        return means

    def add_epoch(
        self,
        epoch: int,
        learning_rate: float,
        losses: Mapping[str, float],
        gates: Sequence[Gate],
        valid: Mapping[str, float],
    ) -> None:
        """Log an epoch: the means of its losses and gates, and the metrics on validation data."""
        of_gates = gate_means(gates) if gates else {}
        of_valid = {f"valid_{name}": valid[name] for name in VALIDATION}
        self.epochs.append({"epoch": epoch, "learning_rate": learning_rate, **losses, **of_gates, **of_valid})

    def write(self, folder: Path | str) -> None:
        """Write both files."""
        for name, columns, rows in (
            ("batches", BATCH_COLUMNS, self.batches),
            ("epochs", EPOCH_COLUMNS, self.epochs),
        ):
            with replacing(Path(folder) / f"{name}.csv") as path, path.open("w", newline="") as file:
                writer = csv.DictWriter(file, columns, lineterminator="\n")
                writer.writeheader()
                writer.writerows({name: _text(value) for name, value in row.items()} for row in rows)


def _text(value: float) -> str:
    # Six digits: more would only make the page of plots larger.
    return str(value) if isinstance(value, int) else f"{value:.6g}"
