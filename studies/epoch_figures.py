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
    "sorted": "batches sorted by label, as in the published files",
    "shuffled": "shuffled",
    "alone": "one at a time",
}

# Epochs that papers train, and the patience of this project.
_LENGTHS = (20, 50, 150)
_PATIENCE = 20


def draw(folder: Path, names: Sequence[str]) -> list[Path]:
    """Write `orders.png`, `.svg`, `orders.csv`, `recalls.csv` and `lengths.csv`; returns the files.

    Args:
        folder: with `<name>-s<seed>.csv`.
        names: a column of the figure each.

    Raises:
        UserError: nothing of a name was trained.
    """
    runs = {name: _read(folder, name) for name in names}
    files = [folder / name for name in ("orders.csv", "recalls.csv", "lengths.csv", "orders.png")]
    tabulate_orders(runs).to_csv(files[0], index=False)
    tabulate_recalls(runs).to_csv(files[1], index=False)
    tabulate_lengths(runs).to_csv(files[2], index=False)
    _draw_orders(files[3], runs)
    return [*files, files[3].with_suffix(".svg")]


def _read(folder: Path, name: str) -> list[pd.DataFrame]:
    whole = re.compile(rf"{re.escape(name)}-s\d+\.csv")
    found = [pd.read_csv(path) for path in sorted(folder.glob("*.csv")) if whole.fullmatch(path.name)]
    if not found:
        raise UserError(f"{folder}/{name}-s*.csv: no such file; run `python -m studies.epochs train {name}`")
    return found


def tabulate_orders(runs: Mapping[str, Sequence[pd.DataFrame]]) -> pd.DataFrame:
    """For each name, split, scored epoch and order the mean over seeds, and sorted less shuffled."""
    lines = []
    for name, found in runs.items():
        wide = [_by_order(table) for table in found]
        for split, epoch in wide[0].index:
            here = [table.loc[(split, epoch)] for table in wide if (split, epoch) in table.index]
            line = {"name": name, "split": split, "epoch": epoch, "seeds": len(here)}
            line |= {order: float(np.mean([one[order] for one in here])) for order in _ORDERS}
            for key in ("sorted", "alone"):
                gain = summarize([one[key] - one["shuffled"] for one in here])
                line |= {f"{key}_gain": gain.mean, f"{key}_gain_low": gain.low, f"{key}_gain_high": gain.high}
            lines.append(line)
    return pd.DataFrame(lines)


def tabulate_recalls(runs: Mapping[str, Sequence[pd.DataFrame]]) -> pd.DataFrame:
    """For each name, split, scored epoch and order the recall of each class, the mean over seeds."""
    table = pd.concat([run.assign(name=name) for name, found in runs.items() for run in found])
    recalls = [column for column in table if column.startswith("recall_")]
    table = table[table["order"].isin(_ORDERS)]
    return table.groupby(["name", "split", "epoch", "order"], sort=False)[recalls].mean().reset_index()


def _by_order(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by (split, epoch) and order, of the epochs that were scored in all of them."""
    return table.pivot_table(index=["split", "epoch"], columns="order", values="accuracy").dropna()


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


def _draw_orders(path: Path, runs: Mapping[str, Sequence[pd.DataFrame]]) -> None:
    figure, axes = plt.subplots(
        2,
        len(runs),
        figsize=(5 * len(runs), 7),
        sharex=True,
        sharey=True,
        layout="constrained",
        squeeze=False,
    )
    for column, (name, found) in zip(axes.T, runs.items(), strict=True):
        wide = [_by_order(table) for table in found]
        for ax, (split, title) in zip(column, (("valid", "validation"), ("test", "test")), strict=True):
            for color, (order, label) in zip(COLORS, _ORDERS.items(), strict=False):
                values = pd.concat([table.loc[split, order] for table in wide], axis=1)
                ax.plot(values.index, values.mean(axis=1), color=color, label=label)
                ax.fill_between(
                    values.index, values.min(axis=1), values.max(axis=1), color=color, alpha=0.15, linewidth=0
                )
            ax.set_title(f"{name}: {title} ({len(found)} seed{'s' if len(found) > 1 else ''})")
            ax.grid(alpha=0.3)
        column[-1].set_xlabel("epoch")
    for ax in axes[:, 0]:
        ax.set_ylabel("accuracy: mean and range over seeds")
    handles = axes[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3)
    save_figure(figure, path)
