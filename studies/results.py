"""What the experiments have found, read from Git and from DVC's cache."""

import io
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from dvc.repo import Repo
from ruamel.yaml import YAML

from spp_scl.errors import UserError
from studies.definitions import Overrides, experiment_name

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
        revision: its commit.
    """

    name: str
    seed: int
    params: Mapping
    metrics: Mapping
    audit: Mapping
    floors: Mapping
    inputs: Mapping[str, str]
    revision: str

    def table(self, output: str) -> pd.DataFrame:
        """An output that is a table, from DVC's cache."""
        lock = YAML(typ="safe").load(_show(self.revision, "dvc.lock"))
        outs = {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}
        with Repo() as repo:
            path = Path(repo.cache.local.oid_to_path(outs[output]))
        if not path.is_file():
            raise UserError(f"{self.name}: {output} is not in DVC's cache any more; remove and run it again")
        text = {"id": str, "label": str, "prediction": str}
        return pd.read_csv(io.BytesIO(path.read_bytes()), dtype=text, keep_default_na=False)


def list_experiments() -> dict[str, str]:
    """The commit of each finished experiment, by its name."""
    listed = subprocess.run(
        ["git", "for-each-ref", "--format=%(refname) %(objectname)", "refs/exps"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = {}
    for line in listed.splitlines():
        ref, revision = line.split()
        parts = ref.split("/")
        # refs/exps/<two digits of the commit it began from>/<the rest>/<name>
        if len(parts) == 5 and len(parts[2]) == 2:
            found[parts[4]] = revision
    return found


def read_params(revision: str) -> dict[str, object]:
    """All parameters of a commit, by their full names."""
    return _flat(YAML(typ="safe").load(_show(revision, "params.yaml")))


def read_runs(data: str, overrides: Overrides, seeds: Sequence[int]) -> list[Run]:
    """The runs of one row that are there."""
    there = list_experiments()
    names = {seed: experiment_name(data, overrides, seed) for seed in seeds}
    return [_read(names[seed], seed, there[names[seed]]) for seed in seeds if names[seed] in there]


def require_comparable(rows: Mapping[str, Sequence[Run]], overrides: Mapping[str, Overrides]) -> None:
    """Refuse runs that differ in more than their row's overrides and the seed.

    Raises:
        UserError: they do; the first such difference is named.
    """
    # For each parameter and each input its value in the first run that does not vary it.
    common: dict[str, tuple[object, str]] = {}
    for name, runs in rows.items():
        for run in runs:
            inputs = dict(run.inputs)
            if any(key.startswith("text_features.") for key in overrides[name]):
                inputs = {path: md5 for path, md5 in inputs.items() if not path.endswith("text.h5")}
            facts = {**run.params, **inputs}
            wrong = {k: facts[k] for k, v in overrides[name].items() if facts[k] != v}
            if wrong:
                raise UserError(f"experiment {run.name} has other parameters than its row: {wrong}")
            for key in facts.keys() - overrides[name].keys() - {"seed"}:
                value, other = common.setdefault(key, (facts[key], run.name))
                if value != facts[key]:
                    raise UserError(
                        f"experiments {run.name} and {other} differ in more than their rows do: {key}; "
                        "remove the older ones (`dvc exp remove`) and run again"
                    )


def _read(name: str, seed: int, revision: str) -> Run:
    lock = YAML(typ="safe").load(_show(revision, "dvc.lock"))
    inputs = {
        dep["path"]: dep["md5"]
        for stage in _STAGES
        for dep in lock["stages"][stage]["deps"]
        if dep["path"].startswith(("spp_scl", "stages", "data"))
    }
    return Run(
        name,
        seed,
        read_params(revision),
        json.loads(_show(revision, "reports/metrics.json")),
        json.loads(_show(revision, "reports/audit.json")),
        json.loads(_show(revision, "reports/floors.json")),
        inputs,
        revision,
    )


def _show(revision: str, path: str) -> str:
    return subprocess.run(
        ["git", "show", f"{revision}:{path}"], capture_output=True, text=True, check=True
    ).stdout


def _flat(values: Mapping, prefix: str = "") -> dict[str, object]:
    flat = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
