"""The figure and the tables of `studies.epochs`."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from spp_scl.errors import UserError
from spp_scl.report.style import COLORS, save_figure
from studies.statistics import Summary, summarize

_ORDERS = {
    "sorted": "batches sorted by label, as the published files are",
    "shuffled": "shuffled",
    "alone": "one at a time",
}

# What is compared with shuffled batches.
_COMPARED = ("sorted", "alone")

_SPLITS = {"valid": "validation", "test": "test"}

# Epochs that papers train, and the patience of this project.
_LENGTHS = (20, 50, 150)
_PATIENCE = 20


def draw(folder: Path, names: Sequence[str]) -> list[Path]:
    """Write `orders.png`, `.svg`, and `orders`, `gains`, `recalls` and `lengths.csv`; returns the files.

    Args:
        folder: with `<name>-s<seed>.csv`.
        names: of trainings, side by side.

    Raises:
        UserError: nothing of a name was trained.
    """
    runs = {name: _read(folder, name) for name in names}
    orders = tabulate_orders(runs)
    tables = {
        "orders": orders,
        "gains": tabulate_gains(orders),
        "recalls": tabulate_recalls(runs),
        "lengths": tabulate_lengths(runs),
    }
    files = []
    for name, table in tables.items():
        files.append(folder / f"{name}.csv")
        table.to_csv(files[-1], index=False)
    figure = folder / "orders.png"
    _draw_orders(figure, orders)
    return [*files, figure, figure.with_suffix(".svg")]


def _read(folder: Path, name: str) -> list[pd.DataFrame]:
    """A table a seed, the lowest seed first."""
    whole = re.compile(rf"{re.escape(name)}-s(\d+)\.csv")
    matches = [match for path in folder.glob("*.csv") if (match := whole.fullmatch(path.name))]
    if not matches:
        raise UserError(f"{folder}/{name}-s*.csv: no such file; run `python -m studies.epochs train {name}`")
    seeds = sorted(int(match[1]) for match in matches)
    return [pd.read_csv(folder / f"{name}-s{seed}.csv").assign(seed=seed) for seed in seeds]


def tabulate_orders(runs: Mapping[str, Sequence[pd.DataFrame]]) -> pd.DataFrame:
    """For each name, seed, split and scored epoch the accuracy in each order, and the gains over shuffled."""
    table = _scored(runs)
    wide = table.pivot_table(
        index=["name", "seed", "split", "epoch"], columns="order", values="accuracy", sort=False
    )
    gains = {f"{key}_gain": wide[key] - wide["shuffled"] for key in _COMPARED}
    return wide[list(_ORDERS)].assign(**gains).reset_index().rename_axis(columns=None)


def tabulate_gains(orders: pd.DataFrame) -> pd.DataFrame:
    """For each name, split and seed each order's gain: mean, minimum and maximum over the scored epochs."""
    groups = orders.groupby(["name", "split", "seed"], sort=False)
    columns = {
        f"{key}_gain_{how}": (f"{key}_gain", how) for key in _COMPARED for how in ("mean", "min", "max")
    }
    return groups.agg(epochs=("epoch", "size"), **columns).reset_index()


def tabulate_recalls(runs: Mapping[str, Sequence[pd.DataFrame]]) -> pd.DataFrame:
    """For each name, seed, split, scored epoch and order the recall of each class."""
    table = _scored(runs)
    recalls = [column for column in table if column.startswith("recall_")]
    return (
        table.groupby(["name", "seed", "split", "epoch", "order"], sort=False)[recalls].mean().reset_index()
    )


def _scored(runs: Mapping[str, Sequence[pd.DataFrame]]) -> pd.DataFrame:
    """The scores in several orders of all trainings."""
    table = pd.concat([run.assign(name=name) for name, found in runs.items() for run in found])
    return table[table["order"].isin(_ORDERS)]


def tabulate_lengths(runs: Mapping[str, Sequence[pd.DataFrame]]) -> pd.DataFrame:
    """For each name what the test accuracy would be after so many epochs, and by the best validation F1.

    `early stopping` is the best epoch until 20 have brought nothing better; `best of all` the best of
    the whole training. The differences are to early stopping, paired by seed.
    """
    lines = []
    for name, found in runs.items():
        by_length: dict[str, list[tuple[float, int]]] = {}
        for table in found:
            for length, (epoch, accuracy) in _lengths(table).items():
                by_length.setdefault(length, []).append((accuracy, epoch))
        stopped = [accuracy for accuracy, _ in by_length["early stopping"]]
        for length, values in by_length.items():
            accuracies = [accuracy for accuracy, _ in values]
            own = summarize(accuracies)
            gain = summarize([a - b for a, b in zip(accuracies, stopped, strict=True)])
            epochs = float(np.mean([epoch for _, epoch in values]))
            lines.append(
                {
                    "name": name,
                    "kept": length,
                    "seeds": len(values),
                    "epoch": epochs,
                    **_columns("accuracy", own),
                    **_columns("difference", gain),
                }
            )
    return pd.DataFrame(lines)


def _columns(name: str, summary: Summary) -> dict[str, float]:
    return {f"{name}_mean": summary.mean, f"{name}_low": summary.low, f"{name}_high": summary.high}


def _lengths(table: pd.DataFrame) -> dict[str, tuple[int, float]]:
    """The epoch that is kept, and its test accuracy."""
    own = table[table["order"] == "own"]
    valid = own[own["split"] == "valid"].set_index("epoch")["selection"]
    test = own[own["split"] == "test"].set_index("epoch")["accuracy"]
    best = stopped = int(valid.index[0])
    waiting = True
    for epoch, value in valid.items():
        if value > valid[best]:
            best = int(epoch)
            stopped = best if waiting else stopped
        waiting = waiting and epoch - stopped < _PATIENCE
    kept = {"early stopping": stopped, "best of all": best}
    kept |= {f"{length} epochs": length for length in _LENGTHS if length in test.index}
    return {name: (epoch, float(test[epoch])) for name, epoch in kept.items()}


def _draw_orders(path: Path, orders: pd.DataFrame) -> None:
    """Accuracy in shuffled batches, and below it the other orders' gains, a line a seed."""
    names = orders["name"].unique()
    figure, axes = plt.subplots(
        3,
        len(names),
        figsize=(5 * len(names), 9),
        sharex=True,
        sharey="row",
        layout="constrained",
        squeeze=False,
    )
    for column, name in zip(axes.T, names, strict=True):
        own = orders[orders["name"] == name]
        count = own["seed"].nunique()
        column[0].set_title(f"{name} ({count} seed{'s' if count > 1 else ''})")
        for ax, (split, title) in zip(column[1:], _SPLITS.items(), strict=True):
            of_split = own[own["split"] == split]
            values = of_split.pivot_table(index="epoch", columns="seed", values="shuffled")
            style = {"color": "black", "linestyle": "-" if split == "test" else "--"}
            column[0].plot(values.index, values.mean(axis=1), label=f"{title}, shuffled", **style)
            column[0].fill_between(
                values.index, values.min(axis=1), values.max(axis=1), color="black", alpha=0.1, linewidth=0
            )
            ax.axhline(0, color="black", linewidth=0.8)
            for color, order in zip(COLORS, _COMPARED, strict=False):
                gain = of_split.pivot_table(index="epoch", columns="seed", values=f"{order}_gain") * 100
                lines = ax.plot(gain.index, gain, color=color, linewidth=1)
                lines[0].set_label(_ORDERS[order])
        for ax in column:
            ax.grid(alpha=0.3)
        column[-1].set_xlabel("epoch")
    axes[0][0].set_ylabel("accuracy:\nmean and range over seeds")
    for ax, title in zip(axes[1:, 0], _SPLITS.values(), strict=True):
        ax.set_ylabel(f"{title}: points above\nshuffled, a line a seed")
    handles = [*axes[0][0].get_legend_handles_labels()[0], *axes[1][0].get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    save_figure(figure, path)
