"""A study's result: a page for people, tables for programs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from spp_scl.raw.datasets import DATASETS
from studies.cases import Cases, draw_cases, draw_sentence, find_cases, find_sentence
from studies.definitions import Overrides, Study
from studies.figures import draw_curve, draw_rows, draw_tsne
from studies.results import Run, common_seeds, same_seed
from studies.statistics import compare, summarize
from studies.tables import (
    describe_coupling,
    describe_modalities,
    describe_spread,
    is_gated,
    scores_table,
    to_markdown,
)

FOLDER = Path("reports/studies")

_GATE = "step2_share"

_PAIRED = (
    "Difference: accuracy minus the first row's, in points, with its 95 % interval and p, paired by seed and "
    "by test tweet, both random effects; {} comparison(s), not corrected for how many they are."
)


def write_report(
    study: Study, data: str, runs: Mapping[str, Sequence[Run]], base: Overrides, command: str
) -> list[Path]:
    """Write `<data>-<study>.md`, `.csv`, `-runs.csv`, `.png` and `.svg`; returns the files.

    With `tsne` and `cases` of a study, also `-tsne.*`, `-cases.csv`, `-cases.*` and `-sentence.*`.

    Args:
        study: its rows are reported as far as they have runs.
        data: the name of the data, for the files' names.
        runs: of each row, seed by seed.
        base: the overrides of every run.
        command: what ran them.
    """
    runs = {name: found for name, found in runs.items() if found}
    dataset = str(_first(runs).params["dataset"])
    f1 = DATASETS[dataset].selection
    title = f"{study.title}: {data}" + (f" ({dataset})" if dataset != data else "")
    summary = _summary_table(study, runs, f1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    stem = f"{FOLDER}/{data}-{study.name}"
    files = [Path(f"{stem}.md"), Path(f"{stem}.csv"), Path(f"{stem}-runs.csv")]
    summary.to_csv(files[1], index=False)
    _runs_table(study, runs).to_csv(files[2], index=False)
    figures = [Path(f"{stem}.png")]
    if study.x:
        draw_curve(figures[0], study.x, runs, f1, title)
    else:
        draw_rows(figures[0], runs, study.reference, f1, title)
    if panel := {name: runs[name] for name in study.tsne if name in runs}:
        figures.append(Path(f"{stem}-tsne.png"))
        draw_tsne(figures[1], same_seed(panel), data)
    cases = None
    if study.cases and common_seeds(runs, study.cases):
        cases = _write_cases(stem, study, runs, title, figures)
        files.append(Path(f"{stem}-cases.csv"))
    page = _page(study, title, runs, summary, base, command, figures, cases)
    files[0].write_text(page, encoding="utf-8")
    return [*files, *figures, *(path.with_suffix(".svg") for path in figures)]


def _write_cases(
    stem: str, study: Study, runs: Mapping[str, Sequence[Run]], title: str, figures: list[Path]
) -> Cases:
    """Write `-cases.csv` and the pictures, whose paths are added to `figures`."""
    cases = find_cases(runs, *study.cases)
    rows = same_seed({name: runs[name] for name in study.cases})
    first = rows[study.cases[0]]
    cases.found.to_csv(f"{stem}-cases.csv", index=False)
    if len(cases.found):
        figures.append(Path(f"{stem}-cases.png"))
        draw_cases(figures[-1], cases, first)
    if len(tweets := find_sentence(first)):
        figures.append(Path(f"{stem}-sentence.png"))
        draw_sentence(figures[-1], tweets, rows, f"{title}, seed {first.seed}")
    return cases


def _first(runs: Mapping[str, Sequence[Run]]) -> Run:
    return next(iter(runs.values()))[0]


def _summary_table(study: Study, runs: Mapping[str, Sequence[Run]], f1: str) -> pd.DataFrame:
    reference = {run.seed: run.test_predictions for run in runs.get(study.reference, ())}
    lines = []
    for name, found in runs.items():
        line = {"row": name, "overrides": _overrides(study, name), "seeds": len(found)}
        values = {score: [run.metrics["test"][score] for run in found] for score in ("accuracy", f1)}
        values["step2"] = [run.metrics["train"].get(_GATE, math.nan) for run in found]
        for score, of_seeds in values.items():
            line |= {f"{score}_{key}": value for key, value in asdict(summarize(of_seeds)).items()}
        paired = [run for run in found if study.paired and run.seed in reference]
        if paired and name != study.reference:
            before = [reference[run.seed] for run in paired]
            difference = compare([run.test_predictions for run in paired], before)
            line |= {f"difference_{key}": value for key, value in asdict(difference).items()}
        lines.append(line)
    return pd.DataFrame(lines)


def _overrides(study: Study, row: str) -> str:
    return " ".join(f"{key}={value}" for key, value in study.rows[row].items())


def _runs_table(study: Study, runs: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    lines = []
    for name, found in runs.items():
        for run in found:
            test, train, coupling = run.metrics["test"], run.metrics["train"], run.audit["coupling"]
            gate = (_GATE, "count_over_p", "saturated_share")
            lines.append(
                {
                    "row": name,
                    "overrides": _overrides(study, name),
                    "seed": run.seed,
                    **{score: test[score] for score in ("accuracy", "f1_weighted", "f1_macro", "loss")},
                    "valid_accuracy": run.metrics["valid"]["accuracy"],
                    **{key: train.get(key) for key in ("best_epoch", "epochs", *gate)},
                    **{f"{order}_{k}": v for order, part in coupling.items() for k, v in part.items()},
                    "experiment": run.name,
                    "base": run.base,
                }
            )
    return pd.DataFrame(lines)


def _page(
    study: Study,
    title: str,
    runs: Mapping[str, Sequence[Run]],
    summary: pd.DataFrame,
    base: Overrides,
    command: str,
    figures: Sequence[Path],
    cases: Cases | None,
) -> str:
    first = _first(runs)
    commits = sorted({run.base[:10] for found in runs.values() for run in found})
    overrides = ", ".join(f"`{key}={value}`" for key, value in base.items()) or "none"
    parts = [
        f"# {title}",
        f"Dataset `{first.params['dataset']}`, test set. Mean ± standard deviation over "
        f"{summary['seeds'].max()} seed(s), with the 95 % interval of the mean (Student's t). "
        + (_PAIRED.format(len(runs) - 1) if study.paired else describe_spread(runs))
        + (" Step 2: the share of the batches in which it ran." if is_gated(summary) else ""),
        f"```\n{command}\n```",
        f"Overrides of every row beside those that were committed: {overrides}. "
        f"Begun from the commit(s) {', '.join(commits)}.",
        to_markdown(scores_table(summary, runs, paired=study.paired)),
        *describe_modalities(runs),
        *describe_coupling(runs),
    ]
    if missing := [name for name in study.rows if name not in runs]:
        parts.append(f"Not run: {'; '.join(missing)}.")
    if cases:
        parts.append(
            f"Of {cases.tests} test tweets, with every one of {cases.seeds} seed(s), {len(cases.found)} are "
            f"wrong in the row *{cases.before}* and right in *{cases.after}*, and {cases.opposite} the other "
            f"way round (`{figures[0].stem}-cases.csv`)."
        )
    parts += [f"![{figure.stem}]({figure.name})" for figure in figures]
    parameters = "\n".join(f"{key}: {value}" for key, value in first.params.items())
    parts += ["All parameters of the first row's first run:", f"```yaml\n{parameters}\n```"]
    return "\n\n".join(parts) + "\n"
