"""A study's result: a table for people, a table for programs, and figures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from spp_scl.raw.datasets import DATASETS
from spp_scl.report.tsne import COLORS, MARKERS, scatter
from studies.definitions import Overrides, Study
from studies.results import Run
from studies.statistics import Difference, Summary, compare, summarize

FOLDER = Path("reports/studies")

# Accuracy and the F1 that the dataset's papers report, of the paper's SPP-SCL (arXiv 2602.20767).
PUBLISHED = {"mvsa_single": (0.8133, 0.8015), "mvsa_multiple": (0.7871, 0.7753), "hfm": (0.9469, 0.9450)}


def write_report(
    study: Study, data: str, runs: Mapping[str, Sequence[Run]], base: Overrides, command: str
) -> list[Path]:
    """Write `<data>-<study>.md`, `.csv`, `-runs.csv` and `.png` (and `-tsne.png`); returns the files.

    Args:
        study: its rows are reported as far as they have runs.
        data: the name of the data, for the files' names.
        runs: of each row, seed by seed.
        base: the overrides of every run.
        command: what ran them.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    dataset = next(run for found in runs.values() for run in found).params["dataset"]
    f1 = DATASETS[dataset].selection
    title = f"{study.title}: {data}" + (f" ({dataset})" if dataset != data else "")
    rows = {name: found for name, found in runs.items() if found}
    summaries = {
        name: {
            **{s: summarize([r.metrics["test"][s] for r in found]) for s in ("accuracy", f1)},
            "step2": summarize([r.metrics["train"].get("step2_share", 0) for r in found]),
        }
        for name, found in rows.items()
    }
    differences = {
        name: _difference(found, rows[study.reference])
        for name, found in rows.items()
        if name != study.reference and study.reference in rows
    }
    stem = FOLDER / f"{data}-{study.name}"
    _summary_table(study, summaries, differences).to_csv(f"{stem}.csv", index=False)
    _runs_table(study, rows).to_csv(f"{stem}-runs.csv", index=False)
    figures = [Path(f"{stem}.png")]
    if study.x:
        _draw_curve(figures[0], study, rows, f1, title)
    else:
        _draw_rows(figures[0], rows, summaries, study.reference, f1, title)
    panel = {name: rows[name][0] for name in study.tsne if name in rows}
    if panel:
        figures.append(Path(f"{stem}-tsne.png"))
        _draw_tsne(figures[-1], panel, title.removeprefix(f"{study.title}: "))
    page = _page(study, title, dataset, rows, summaries, differences, base, command, figures)
    Path(f"{stem}.md").write_text(page, encoding="utf-8")
    return [Path(f"{stem}{end}") for end in (".md", ".csv", "-runs.csv")] + figures


def _difference(row: Sequence[Run], reference: Sequence[Run]) -> Difference | None:
    """Over the seeds that both have."""
    pairs = [(r, o) for r in row for o in reference if r.seed == o.seed]
    if not pairs:
        return None
    return compare([_tested(r) for r, _ in pairs], [_tested(o) for _, o in pairs])


def _tested(run: Run) -> pd.DataFrame:
    predictions = run.table("reports/predictions.csv")
    return predictions[predictions["split"] == "test"].reset_index(drop=True)


def _summary_table(
    study: Study,
    summaries: Mapping[str, Mapping[str, Summary]],
    differences: Mapping[str, Difference | None],
) -> pd.DataFrame:
    lines = []
    for name, scores in summaries.items():
        line = {"row": name, "overrides": _overrides(study, name), "seeds": scores["accuracy"].seeds}
        for score, s in scores.items():
            line |= {f"{score}_{key}": value for key, value in asdict(s).items() if key != "seeds"}
        if difference := differences.get(name):
            line |= {f"difference_{key}": value for key, value in asdict(difference).items()}
        lines.append(line)
    return pd.DataFrame(lines)


def _overrides(study: Study, row: str) -> str:
    return " ".join(f"{key}={value}" for key, value in study.rows[row].items())


def _runs_table(study: Study, rows: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    lines = []
    for name, found in rows.items():
        for run in found:
            test, train, coupling = run.metrics["test"], run.metrics["train"], run.audit["coupling"]
            lines.append(
                {
                    "row": name,
                    "overrides": _overrides(study, name),
                    "seed": run.seed,
                    **{s: test[s] for s in ("accuracy", "f1_weighted", "f1_macro", "loss")},
                    "valid_accuracy": run.metrics["valid"]["accuracy"],
                    **{s: train.get(s) for s in ("best_epoch", "epochs", "step2_share", "count_over_p")},
                    "saturated_share": train.get("saturated_share"),
                    **{f"{way}_{k}": v for way, part in coupling.items() for k, v in part.items()},
                    "experiment": run.name,
                    "base": run.base,
                }
            )
    return pd.DataFrame(lines)


def _page(
    study: Study,
    title: str,
    dataset: str,
    rows: Mapping[str, Sequence[Run]],
    summaries: Mapping[str, Mapping[str, Summary]],
    differences: Mapping[str, Difference | None],
    base: Overrides,
    command: str,
    figures: Sequence[Path],
) -> str:
    f1 = DATASETS[dataset].selection
    seeds = max(s["accuracy"].seeds for s in summaries.values())
    first = next(iter(rows.values()))[0]
    commits = sorted({run.base[:10] for found in rows.values() for run in found})
    lines = [
        f"# {title}",
        "",
        f"Dataset `{dataset}`, test set. Mean ± standard deviation over {seeds} seed(s), with the 95 % "
        "interval of the mean (Student's t). Difference: accuracy minus the first row's, in points, with its "
        "95 % interval and p, paired by seed and by test tweet, both random effects; not corrected for how "
        "many rows are compared. Step 2: the share of the batches in which it ran.",
        "",
        f"```\n{command}\n```",
        "",
        "Overrides of every row beside those that were committed: "
        + (", ".join(f"`{k}={v}`" for k, v in base.items()) or "none")
        + f". Begun from the commit(s) {', '.join(commits)}.",
        "",
        f"| row | seeds | accuracy | {f1.removeprefix('f1_')} F1 | difference | p | step 2 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, s in summaries.items():
        d = differences.get(name)
        told = f"{_points(d.mean)} [{_points(d.low)}, {_points(d.high)}]" if d else ""
        p = "" if not d else f"{d.p:.3f}" if d.p >= 0.001 else "< 0.001"
        lines.append(
            f"| {name} | {s['accuracy'].seeds} | {_told(s['accuracy'])} | {_told(s[f1])} | {told} | {p} "
            f"| {s['step2'].mean:.0%} |"
        )
    for name, floor in first.floors.items():
        lines.append(
            f"| *floor: {name.replace('_', ', ')}* | | {floor['test']['accuracy']:.4f} "
            f"| {floor['test'][f1]:.4f} | | | |"
        )
    if dataset in PUBLISHED:
        accuracy, published_f1 = PUBLISHED[dataset]
        lines.append(f"| *SPP-SCL, as published* | | {accuracy:.4f} | {published_f1:.4f} | | | |")
    lines += ["", *_tell_coupling(rows)]
    names = [run.name for found in rows.values() for run in found]
    if len(set(names)) < len(names):
        lines += [
            "",
            "Where the gate of the first row's run proves that another alpha gives its very model, since "
            "step 2 would run in the same batches, that alpha was not run: it is that run again.",
        ]
    if missing := [name for name in study.rows if name not in summaries]:
        lines += ["", f"Not run: {'; '.join(missing)}."]
    for figure in figures:
        lines += ["", f"![{figure.stem}]({figure.name})"]
    lines += ["", "All parameters of the first row's first run:", "", "```yaml"]
    lines += [*(f"{key}: {value}" for key, value in first.params.items()), "```"]
    return "\n".join(lines) + "\n"


def _tell_coupling(rows: Mapping[str, Sequence[Run]]) -> list[str]:
    """The rows in which a prediction depends on its batch."""
    coupled = {
        name: [run.audit["coupling"] for run in found]
        for name, found in rows.items()
        if any(map(_changes, found))
    }
    if not coupled:
        return ["No test prediction of any run depends on its batch."]
    ways = [way for way in next(iter(coupled.values()))[0] if way not in ("own", "shuffled")]
    lines = [
        "Test predictions that change with their batch (mean, and the most of any seed), and the accuracy "
        "then, in points to the metrics' own order (mean; lowest and highest of any seed). Of a seed's 20 "
        "shuffled orders it is their mean. In the rows that are not here no prediction of any run depends on "
        "its batch.",
        "",
        f"| row | shuffled | {' | '.join(way.replace('_', ' ') for way in ways)} |",
        "|---|" + "---|" * (1 + len(ways)),
    ]
    for name, found in coupled.items():
        cells = []
        for way, end in (("shuffled", "_mean"), *((way, "") for way in ways)):
            changed = [c[way][f"changed{end}"] for c in found]
            gains = [c[way][f"accuracy{end}"] - c["own"]["accuracy"] for c in found]
            cells.append(
                f"{np.mean(changed):.1%} ({max(changed):.1%}); "
                f"{_points(np.mean(gains))} ({_points(min(gains))} to {_points(max(gains))})"
            )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _changes(run: Run) -> bool:
    """Whether any test prediction depends on its batch."""
    return any(way.get("changed_max", way.get("changed")) for way in run.audit["coupling"].values())


def _points(share: float) -> str:
    return f"{round(share * 100, 1) + 0.0:+.1f}"  # + 0.0: no minus before a zero


def _told(s: Summary) -> str:
    if math.isnan(s.deviation):
        return f"{s.mean:.4f}"
    return f"{s.mean:.4f} ± {s.deviation:.4f} [{s.low:.4f}, {s.high:.4f}]"


def _draw_rows(
    path: Path,
    rows: Mapping[str, Sequence[Run]],
    summaries: Mapping[str, Mapping[str, Summary]],
    reference: str,
    f1: str,
    title: str,
) -> None:
    """Each row's runs with their mean and interval, accuracy and F1."""
    figure, ax = plt.subplots(figsize=(9, 2 + 0.5 * len(rows)), layout="constrained")
    places = np.arange(len(rows))[::-1]
    for i, score in enumerate(("accuracy", f1)):
        shifted = places + 0.15 - 0.3 * i
        for place, runs in zip(shifted, rows.values(), strict=True):
            values = [run.metrics["test"][score] for run in runs]
            ax.scatter(values, [place] * len(runs), s=14, color=COLORS[i], alpha=0.4, linewidths=0)
        found = [s[score] for s in summaries.values()]
        half = [0 if math.isnan(s.deviation) else s.high - s.mean for s in found]
        options = {"fmt": MARKERS[i], "color": COLORS[i], "capsize": 3, "label": score.replace("_", " ")}
        ax.errorbar([s.mean for s in found], shifted, xerr=half, **options)
    if reference in summaries:
        ax.axvline(summaries[reference]["accuracy"].mean, color="0.8", zorder=0)
    ax.set_yticks(places, list(rows))
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.set_xlabel("test set: mean and 95 % interval over seeds; small: each seed")
    ax.set_title(title)
    figure.legend(loc="outside lower center", ncols=2)
    _save(figure, path)


def _draw_curve(path: Path, study: Study, rows: Mapping[str, Sequence[Run]], f1: str, title: str) -> None:
    """The scores and the share of batches with step 2, over the parameter that varies."""
    found = sorted(
        ((runs[0].params[study.x], runs) for runs in rows.values()), key=lambda pair: float(pair[0])
    )
    x = [float(value) for value, _ in found]
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(8, 6.5), sharex=True, height_ratios=(3, 2), layout="constrained"
    )
    for i, score in enumerate(("accuracy", f1)):
        s = [summarize([run.metrics["test"][score] for run in runs]) for _, runs in found]
        half = [0 if math.isnan(one.deviation) else one.high - one.mean for one in s]
        options = {"marker": MARKERS[i], "color": COLORS[i], "capsize": 3, "label": score.replace("_", " ")}
        top.errorbar(x, [one.mean for one in s], yerr=half, **options)
    top.set_ylabel("test set: mean and 95 % interval")
    top.legend()
    top.set_title(title)
    for i, (key, label) in enumerate(
        (("step2_share", "step 2 ran"), ("step2_share_float32", "it would have, compared in float32"))
    ):
        # Where there was no gate, nothing is drawn.
        means = [_mean([run.metrics["train"].get(key) for run in runs]) for _, runs in found]
        # The second is often on the first, which has to be seen through it.
        style = {"linestyle": "--", "markerfacecolor": "none", "markersize": 10} if i else {}
        bottom.plot(x, means, marker=MARKERS[i + 2], color=COLORS[i + 2], label=label, **style)
    bottom.set_ylim(-0.05, 1.05)
    bottom.set_ylabel("share of batches")
    bottom.set_xlabel(study.x)
    bottom.legend()
    _save(figure, path)


def _mean(values: Sequence[float | None]) -> float:
    return np.nan if None in values else float(np.mean(values))


def _draw_tsne(path: Path, panel: Mapping[str, Run], data: str) -> None:
    """The fused space of each row's first seed, side by side."""
    figure, axes = plt.subplots(
        1, len(panel), figsize=(5 * len(panel), 5.4), layout="constrained", squeeze=False
    )
    for (name, run), ax in zip(panel.items(), axes[0], strict=True):
        table = run.table("reports/tsne.csv")
        scatter(ax, table, "fused", sorted(table["label"].unique()))
        ax.set_title(f"{name}\naccuracy {run.metrics['test']['accuracy']:.4f}")
    figure.legend(
        *axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=8, markerscale=1.5
    )
    figure.suptitle(f"t-SNE of the fused vectors, test set: {data}, seed {next(iter(panel.values())).seed}")
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, dpi=110, format="png", metadata={"Software": None})
    plt.close(figure)
