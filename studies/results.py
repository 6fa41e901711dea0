"""What the experiments have found, and whether they can be compared."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from ruamel.yaml import YAML

from spp_scl.errors import UserError, first_line
from spp_scl.raw.datasets import DATASETS
from studies.definitions import Overrides, experiment_name, run_overrides
from studies.experiments import git, list_experiments, read_params

# Whose inputs decide the figures that are compared.
_STAGES = ("train", "evaluate")


@dataclass(frozen=True)
class Run:
    """One experiment.

    Args:
        name: the experiment's.
        seed: its seed.
        params: all of its parameters, by their full names.
        metrics: `reports/metrics.json`.
        audit: `reports/audit.json`.
        floors: `reports/floors.json`.
        inputs: the MD5 of each file of code and data that the training and the evaluation read.
        base: the commit it began from.
        files: all of its files, from Git and from DVC's cache.
    """

    name: str
    seed: int
    params: Mapping[str, object]
    metrics: Mapping[str, Any]
    audit: Mapping[str, Any]
    floors: Mapping[str, Any]
    inputs: Mapping[str, str]
    base: str
    files: DVCFileSystem

    @property
    def classes(self) -> list[str]:
        """In the dataset's order."""
        return list(self.metrics["test"]["f1"])

    @cached_property
    def test_predictions(self) -> pd.DataFrame:
        """`reports/predictions.csv`, the test tweets alone."""
        predictions = self.read_csv("reports/predictions.csv")
        return predictions[predictions["split"] == "test"].reset_index(drop=True)

    def read_csv(self, path: str) -> pd.DataFrame:
        """An output that is a table.

        Raises:
            UserError: it is not there.
        """
        return read_text_csv(self.files, path, self.name)

    def read_parquet(self, path: str) -> pd.DataFrame:
        """An output that is a Parquet table.

        Raises:
            UserError: it is not there.
        """
        with _found(path, self.name):
            content = self.files.cat_file(path)
        return pd.read_parquet(io.BytesIO(content))

    def fetch(self, path: str, to: Path) -> None:
        """Copy a file of the experiment's, from Git or from DVC's cache.

        Raises:
            UserError: it is not there.
        """
        with _found(path, self.name):
            self.files.get_file(path, str(to))


def read_runs(data: str, row: Overrides, base: Overrides, seeds: Sequence[int]) -> list[Run]:
    """The runs of one row that are there.

    Raises:
        UserError: one was run with other parameters, see `require_parameters`.
    """
    experiments, runs = list_experiments(), []
    for seed in seeds:
        name = experiment_name(data, row, seed)
        if name in experiments:
            require_parameters(name, experiments[name], run_overrides(row, base, seed))
            runs.append(_read(name, seed, experiments[name]))
    return runs


def _read(name: str, seed: int, revision: str) -> Run:
    files = DVCFileSystem(rev=revision)
    lock = YAML(typ="safe").load(read_text(files, "dvc.lock", name))
    metrics, audit, floors = (
        json.loads(read_text(files, f"reports/{file}.json", name)) for file in ("metrics", "audit", "floors")
    )
    return Run(
        name=name,
        seed=seed,
        params=read_params(revision),
        metrics=metrics,
        audit=audit,
        floors=floors,
        inputs={
            dep["path"]: dep["md5"]
            for stage in _STAGES
            for dep in lock["stages"][stage]["deps"]
            if dep["path"].startswith(("data", "spp_scl", "stages"))
        },
        base=git("rev-parse", f"{revision}^").strip(),
        files=files,
    )


def read_text_csv(files: DVCFileSystem, path: str, name: str) -> pd.DataFrame:
    """A table that a run has left, in which what looks like a number or like nothing stays text.

    Raises:
        UserError: it is not there.
    """
    types = {"id": str, "text": str, "label": str, "prediction": str}
    return pd.read_csv(io.StringIO(read_text(files, path, name)), dtype=types, keep_default_na=False)


def read_text(files: DVCFileSystem, path: str, name: str) -> str:
    """A file that a run has left; `name` is the run's.

    Raises:
        UserError: it is not there.
    """
    with _found(path, name):
        return files.read_text(path, encoding="utf-8")


@contextmanager
def _found(path: str, name: str) -> Iterator[None]:
    try:
        yield
    except (DvcException, OSError) as error:
        raise UserError(
            f"experiment {name}: {path} is neither in Git nor in DVC's cache ({first_line(error)}); remove "
            f"the experiment (`dvc exp remove {name}`) and run it again"
        ) from None


def require_dataset(data: str, params: Mapping[str, object]) -> None:
    """Refuse a name for the data that is another dataset's.

    Raises:
        UserError: it is.
    """
    if data in DATASETS and data != params["dataset"]:
        raise UserError(
            f"--data {data} is only a name, and the runs would be of the dataset {params['dataset']}; "
            f"add `-S dataset={data}`, or choose another name"
        )


def require_parameters(name: str, revision: str, overrides: Overrides) -> None:
    """Refuse an experiment with other parameters than the committed ones with these overrides.

    A committed parameter that the experiment does not know yet is not compared.

    Args:
        name: the experiment's.
        revision: its commit.
        overrides: all of them.

    Raises:
        UserError: it has others.
    """
    params = read_params(revision)
    asked = {**read_params("HEAD"), **overrides}
    compared = {*overrides, *params} & asked.keys()
    other = [f"-S {key}={params.get(key)}" for key in sorted(compared) if params.get(key) != asked[key]]
    if other:
        raise UserError(
            f"experiment {name} was run with other parameters than these ({' '.join(other)}); give "
            "the ones that it was run with, give this data another name (--data), or remove the experiment "
            f"(`dvc exp remove {name}`)"
        )


def require_comparable(runs: Mapping[str, Sequence[Run]], rows: Mapping[str, Overrides]) -> None:
    """Refuse runs of different code or data.

    Raises:
        UserError: they are; the first difference is named.
    """
    # The MD5 of each input in the first run that has it, and that run's name.
    common: dict[tuple[str, str], tuple[str, str]] = {}
    for row, found in runs.items():
        for run in found:
            for path, md5 in run.inputs.items():
                first, other = common.setdefault((path, _own_inputs(path, rows[row])), (md5, run.name))
                if md5 != first:
                    raise UserError(
                        f"experiments {run.name} and {other} differ in more than their parameters: {path}; "
                        "remove the older ones (`dvc exp remove`) and run again"
                    )


def _own_inputs(path: str, row: Overrides) -> str:
    """What a row sets that gives it a split, features or second views of its own; empty: it has none."""
    keys: list[str] = []
    if path.startswith(("data/split", "data/views")):
        keys += [key for key in row if key.startswith("split.")]
    if path.startswith(("data/features", "data/views")):
        keys += [key for key in row if key == "encoders" or "_features." in key]
    if path.startswith("data/views"):
        keys += [key for key in row if key == "method" or ".views." in key]
    return str({key: row[key] for key in sorted(keys)})


def decide_inputs(row: Overrides) -> str:
    """Equal for rows that have the same features and second views."""
    return _own_inputs("data/views", row)


def common_seeds(runs: Mapping[str, Sequence[Run]], rows: Sequence[str]) -> set[int]:
    """The seeds that all of these rows have been run with."""
    return set.intersection(*({run.seed for run in runs.get(row, ())} for row in rows))


def same_seed(runs: Mapping[str, Sequence[Run]]) -> dict[str, Run]:
    """A run of each row: of the lowest seed that all have, or each one's lowest where they share none."""
    seeds = common_seeds(runs, list(runs)) or {run.seed for found in runs.values() for run in found}
    chosen = {row: [run for run in found if run.seed in seeds] for row, found in runs.items()}
    return {row: min(found, key=lambda run: run.seed) for row, found in chosen.items()}
