"""`spp-scl compare`: experiments side by side, as a page that opens without a network."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from dvc.api import DVCFileSystem
from ruamel.yaml import YAML

from spp_scl.audit.uncertainty import wilson
from spp_scl.errors import UserError
from spp_scl.files import replacing
from spp_scl.metrics import MAIN
from spp_scl.report.html import make_thumbnails, records, render
from spp_scl.report.style import FLOOR_NAMES, SCORE_NAMES
from studies.experiments import flatten, git, list_experiments
from studies.results import read_text, read_text_csv
from studies.statistics import compare
from studies.tables import format_difference, format_p

PAGE = Path("reports/compare.html")
WORKSPACE = "workspace"


@dataclass(frozen=True)
class Compared:
    """A run that is compared.

    Args:
        name: as it was asked for.
        params: by their full names.
        metrics: of the test set.
        floors: their accuracies, by name.
        test: the test tweets' predictions.
    """

    name: str
    params: Mapping[str, object]
    metrics: Mapping[str, Any]
    floors: Mapping[str, float]
    test: pd.DataFrame


def main(argv: Sequence[str]) -> None:
    """Write the page.

    Args:
        argv: the command's arguments, without its name.

    Raises:
        UserError: there is no such experiment or commit, it holds no results, or the runs are of other data.
    """
    parser = argparse.ArgumentParser(
        prog="spp-scl compare",
        description=f"Compare experiments: {PAGE} has the parameters that differ, metrics with paired "
        "intervals, and the test tweets on which they disagree.",
        epilog="examples: spp-scl compare (the last commit and the workspace); spp-scl compare HEAD my-run",
    )
    parser.add_argument(
        "experiments",
        nargs="*",
        default=["HEAD", WORKSPACE],
        help=f"two or more: names of `dvc exp show`, commits, branches, or {WORKSPACE}",
    )
    names = list(dict.fromkeys(parser.parse_args(argv).experiments))
    if len(names) < 2:
        parser.error("give two experiments or more")
    runs = [read_run(name) for name in names]
    page = write_page(runs)
    with replacing(PAGE) as aside:
        aside.write_text(page, encoding="utf-8")
    print(PAGE)


def read_run(name: str) -> Compared:
    """Read what a run has left, from the workspace, or from Git and DVC's cache.

    Raises:
        UserError: there is no such run, or its results are not there.
    """
    if name == WORKSPACE:
        files = DVCFileSystem()
    else:
        try:
            revision = (
                list_experiments().get(name) or git("rev-parse", "--verify", f"{name}^{{commit}}").strip()
            )
        except UserError:
            raise UserError(
                f"{name}: no experiment and no commit has that name; `dvc exp show` lists the experiments"
            ) from None
        files = DVCFileSystem(rev=revision)
    metrics, floors = (
        json.loads(read_text(files, f"reports/{file}.json", name)) for file in ("metrics", "floors")
    )
    predictions = read_text_csv(files, "reports/predictions.csv", name)
    return Compared(
        name,
        flatten(YAML(typ="safe").load(read_text(files, "params.yaml", name))),
        metrics["test"],
        {floor: values["test"]["accuracy"] for floor, values in floors.items()},
        predictions[predictions["split"] == "test"].reset_index(drop=True),
    )


def write_page(runs: Sequence[Compared]) -> str:
    """The page.

    Raises:
        UserError: the runs are of other datasets, or share no test tweet.
    """
    first = runs[0]
    datasets = sorted({str(run.params["dataset"]) for run in runs})
    if len(datasets) > 1:
        raise UserError(f"runs of {' and '.join(datasets)} have no tweet in common, and cannot be compared")
    tweets, tests = _disagreements(runs)
    columns = [("id", "id"), ("text", "text"), ("label", "label")]
    columns += [(f"run{i}", run.name) for i, run in enumerate(runs)]
    return render(
        "report/compare.html.jinja",
        title=" and ".join(run.name for run in runs),
        dataset=datasets[0],
        tests=tests,
        scores=[(key, SCORE_NAMES[key]) for key in MAIN],
        runs=[_describe(run, first) for run in runs],
        floors=[(FLOOR_NAMES[name], accuracy) for name, accuracy in first.floors.items()],
        parameters=_differences(runs),
        columns=columns,
        predictions=[name for name, _ in columns if name.startswith("run")],
        tweets=records(tweets),
    )


def _describe(run: Compared, first: Compared) -> dict[str, Any]:
    right = int((run.test["label"] == run.test["prediction"]).sum())
    line = {"name": run.name, "metrics": run.metrics, **wilson(right, len(run.test))}
    if run is first:
        return {**line, "difference": "", "p": ""}
    if not run.test[["id", "label"]].equals(first.test[["id", "label"]]):
        return {**line, "difference": "other test tweets", "p": ""}
    found = compare([run.test], [first.test])
    return {**line, "difference": format_difference(vars(found)), "p": format_p(found.p)}


def _differences(runs: Sequence[Compared]) -> list[tuple[str, list[object]]]:
    keys = sorted({key for run in runs for key in run.params})
    values = [(key, [run.params.get(key, "") for run in runs]) for key in keys]
    return [(key, own) for key, own in values if any(value != own[0] for value in own)]


def _disagreements(runs: Sequence[Compared]) -> tuple[pd.DataFrame, int]:
    """The test tweets that all have and not all predict the same, and how many all have."""
    table = runs[0].test[["id", "text", "label"]]
    for i, run in enumerate(runs):
        own = run.test[["id", "prediction"]].rename(columns={"prediction": f"run{i}"})
        table = table.merge(own, on="id")
    if table.empty:
        raise UserError("the runs have no test tweet in common, and cannot be compared")
    said = table[[f"run{i}" for i in range(len(runs))]]
    wrong = table["run0"] != table["label"]
    differ = said.nunique(axis=1) > 1
    found = table[differ].assign(wrong=wrong[differ])
    pictures = _pictures(runs[0])
    small = make_thumbnails(found["id"].tolist(), pictures)
    found["picture"] = found["id"].isin(list(pictures))
    return found.assign(image=found["id"].map(small)), len(table)


def _pictures(run: Compared) -> dict[str, Path]:
    """The workspace's, by the tweet's id, where they are."""
    dataset = run.params["dataset"]
    clean = Path(f"data/clean/{dataset}.parquet")
    if not clean.is_file():
        return {}
    table = pd.read_parquet(clean, columns=["id", "image"]).dropna()
    return {own: Path(f"data/raw/{dataset}", image) for own, image in table.itertuples(index=False)}
