"""A study's result as text: tables and sentences of its page."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from spp_scl.audit.findings import MODALITY_GROUPS
from spp_scl.checks.shortcuts import TOGETHER
from spp_scl.listing import read_published
from spp_scl.methods import load_method
from spp_scl.raw.datasets import DATASETS
from spp_scl.report.style import FLOOR_NAMES, SCORE_NAMES
from studies.results import Run
from studies.statistics import summarize


def is_gated(summary: pd.DataFrame) -> bool:
    return bool(summary["step2_mean"].notna().any())


def _methods(runs: Mapping[str, Sequence[Run]]) -> list[str]:
    """The rows' methods, each once, in the rows' order."""
    return list(dict.fromkeys(str(found[0].params["method"]) for found in runs.values()))


def to_markdown(table: pd.DataFrame) -> str:
    return table.fillna("").to_markdown(index=False, disable_numparse=True)


def scores_table(
    summary: pd.DataFrame, runs: Mapping[str, Sequence[Run]], paired: bool = True
) -> pd.DataFrame:
    """The rows, the floors and the published figures, as text; not paired: each row has floors of its own."""
    first = next(iter(runs.values()))[0]
    dataset = str(first.params["dataset"])
    score = DATASETS[dataset].selection
    f1 = SCORE_NAMES[score]
    gated = is_gated(summary)
    lines = [
        {
            "row": line["row"],
            "seeds": str(line["seeds"]),
            "accuracy": _interval(line, "accuracy"),
            f1: _interval(line, score),
            **(
                {"difference": _difference(line), "p": format_p(line.get("difference_p", math.nan))}
                if paired
                else {FLOOR_NAMES[name]: f"{_floor(runs[line['row']], name):.4f}" for name in first.floors}
            ),
            **({"step 2": _share(line["step2_mean"])} if gated else {}),
        }
        for line in summary.to_dict("records")
    ]
    others = {}
    if paired:
        others = {
            f"*floor: {FLOOR_NAMES[name]}*": (floor["test"]["accuracy"], floor["test"][score])
            for name, floor in first.floors.items()
        }
        if outside := first.audit.get("shortcuts"):
            others["*floor: a tweet's outside alone*"] = tuple(
                outside[TOGETHER][key] for key in ("accuracy", score)
            )
    published = read_published()
    for method in _methods(runs):
        # The first of a dataset is of the method's own paper, or of the oldest that reports it.
        for row in [r for r in published.get(method, []) if r["dataset"] == dataset and score in r][:1]:
            title = load_method(method).network.title
            others[f"*published: {title} ({row['source']})*"] = (row["accuracy"], row[score])
    for name, (accuracy, value) in others.items():
        lines.append({"row": name, "accuracy": f"{accuracy:.4f}", f1: f"{value:.4f}"})
    return pd.DataFrame(lines)


def _floor(found: Sequence[Run], name: str) -> float:
    return float(np.mean([run.floors[name]["test"]["accuracy"] for run in found]))


def describe_spread(runs: Mapping[str, Sequence[Run]]) -> str:
    """How far rows lie apart, and seeds within a row."""
    values = [[run.metrics["test"]["accuracy"] for run in found] for found in runs.values()]
    means = [float(np.mean(of_row)) for of_row in values]
    within = [np.var(of_row, ddof=1) for of_row in values if len(of_row) > 1]
    sentence = "The rows have test tweets of their own, and are not compared one by one."
    if len(means) > 1:
        sentence += (
            f" Over the {len(means)} rows the mean accuracy has a standard deviation of "
            f"{np.std(means, ddof=1):.4f} (from {min(means):.4f} to {max(means):.4f})"
        )
        sentence += f"; over the seeds of a row it is {math.sqrt(np.mean(within)):.4f}." if within else "."
    return sentence


def describe_modalities(runs: Mapping[str, Sequence[Run]]) -> list[str]:
    """Accuracy by what text and picture are labeled alone, where the dataset says that."""
    known = {name: found for name, found in runs.items() if "modalities" in found[0].audit}
    if not known:
        return []
    first = next(iter(known.values()))[0].audit["modalities"]
    groups, lines = list(first), []
    for name, found in known.items():
        line = {"row": name}
        for group in groups:
            parts = [run.audit["modalities"][group] for run in found if group in run.audit["modalities"]]
            if not parts:  # a split may leave a group without a test tweet
                line[MODALITY_GROUPS[group]] = ""
                continue
            line[MODALITY_GROUPS[group]] = _format_interval(
                asdict(summarize([part["accuracy"] for part in parts]))
            )
        lines.append(line)
    sizes = ", ".join(f"{first[group]['tweets']} {MODALITY_GROUPS[group]}" for group in groups)
    return [
        "Accuracy by what a tweet's text and picture are labeled alone (test tweets of the first row: "
        f"{sizes}):",
        to_markdown(pd.DataFrame(lines)),
    ]


def _interval(line: Mapping, score: str) -> str:
    return _format_interval({key: line[f"{score}_{key}"] for key in ("mean", "deviation", "low", "high")})


def _format_interval(summary: Mapping[str, float]) -> str:
    mean, deviation, low, high = (summary[key] for key in ("mean", "deviation", "low", "high"))
    if math.isnan(deviation):
        return f"{mean:.4f}"
    return f"{mean:.4f} ± {deviation:.4f} [{low:.4f}, {high:.4f}]"


def _difference(line: Mapping) -> str:
    return format_difference(
        {key: line.get(f"difference_{key}", math.nan) for key in ("mean", "low", "high")}
    )


def format_difference(found: Mapping[str, float]) -> str:
    """A difference with its interval, in points; empty where there is none."""
    mean, low, high = (found[key] for key in ("mean", "low", "high"))
    return "" if math.isnan(mean) else f"{_points(mean)} [{_points(low)}, {_points(high)}]"


def _share(share: float) -> str:
    return "" if math.isnan(share) else f"{share:.0%}"


def format_p(p: float) -> str:
    """A p for a table; empty where there is none."""
    return "" if math.isnan(p) else f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _points(share: float) -> str:
    return f"{round(share * 100, 1) + 0.0:+.1f}"  # + 0.0: no minus before a zero


def describe_coupling(runs: Mapping[str, Sequence[Run]]) -> list[str]:
    """The rows in which a prediction depends on its batch."""
    coupled = {
        name: [run.audit["coupling"] for run in found]
        for name, found in runs.items()
        if any(map(_is_coupled, found))
    }
    if not coupled:
        return ["No test prediction of any run depends on its batch."]
    explanation = (
        "Test predictions that change with their batch (mean, and the most of any seed), and the accuracy "
        "then, in points to the metrics' own order (mean; lowest and highest of any seed). Of a seed's 20 "
        "shuffled orders it is their mean. In the rows that are not here no prediction of any run depends on "
        "its batch."
    )
    orders = [order for order in next(iter(coupled.values()))[0] if order not in ("own", "shuffled")]
    lines = []
    for name, found in coupled.items():
        line = {"row": name}
        for order, end in (("shuffled", "_mean"), *((order, "") for order in orders)):
            changed = [c[order][f"changed{end}"] for c in found]
            gains = [c[order][f"accuracy{end}"] - c["own"]["accuracy"] for c in found]
            line[order.replace("_", " ")] = (
                f"{np.mean(changed):.1%} ({max(changed):.1%}); "
                f"{_points(float(np.mean(gains)))} ({_points(min(gains))} to {_points(max(gains))})"
            )
        lines.append(line)
    return [explanation, to_markdown(pd.DataFrame(lines))]


def _is_coupled(run: Run) -> bool:
    """Whether any test prediction depends on its batch."""
    return any(part.get("changed_max", part.get("changed")) for part in run.audit["coupling"].values())
