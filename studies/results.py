"""What the experiments have found, read from Git and from DVC's cache."""

import io
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pandas as pd
from dvc.repo import Repo
from ruamel.yaml import YAML

from spp_scl.errors import UserError
from spp_scl.raw.datasets import DATASETS
from studies.definitions import Overrides, experiment_name, only_alpha

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
        overridden: those that differ from the commit it began from.
        inputs: the MD5 of each file of code and data that the training and the evaluation read.
        revision: its commit.
        base: the commit it began from.
    """

    name: str
    seed: int
    params: Mapping
    overridden: Mapping
    metrics: Mapping
    audit: Mapping
    floors: Mapping
    inputs: Mapping[str, str]
    revision: str
    base: str

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
    found = {}
    for line in _git("for-each-ref", "--format=%(refname) %(objectname)", "refs/exps").splitlines():
        ref, revision = line.split()
        parts = ref.split("/")
        # refs/exps/<two digits of the commit it began from>/<the rest>/<name>
        if len(parts) == 5 and len(parts[2]) == 2:
            found[parts[4]] = revision
    return found


def read_params(revision: str) -> dict[str, object]:
    """All parameters of a commit, by their full names."""
    return _flat(YAML(typ="safe").load(_show(revision, "params.yaml")))


def require_committed() -> dict[str, object]:
    """The committed parameters, which every experiment of a study begins from.

    Raises:
        UserError: `params.yaml` differs from them, as after a `dvc exp run -S`.
    """
    committed = read_params("HEAD")
    now = _flat(YAML(typ="safe").load(Path("params.yaml")))
    changed = [f"{key}={now.get(key)}" for key in {**committed, **now} if committed.get(key) != now.get(key)]
    if changed:
        raise UserError(
            f"params.yaml has changes that are not committed ({', '.join(changed)}); every run of a study "
            "begins from what is committed: commit them, or take them back (`git restore params.yaml`)"
        )
    return committed


def require_own_name(data: str, params: Mapping[str, object]) -> None:
    """Refuse a name for the data that is another dataset's.

    Raises:
        UserError: it is.
    """
    if data in DATASETS and data != params["dataset"]:
        raise UserError(
            f"--data {data} is only a name, and the runs would be of the dataset {params['dataset']}; "
            f"add `-S dataset={data}`, or choose another name"
        )


def require_told(runs: Sequence[Run], row: Overrides, base: Overrides) -> None:
    """Refuse runs of other overrides than their row's and those of all rows.

    Raises:
        UserError: there is one.
    """
    told = {**base, **row}
    for run in runs:
        wrong = {key: run.params.get(key) for key, value in told.items() if run.params.get(key) != value}
        hidden = {key: v for key, v in run.overridden.items() if key not in {*told, "seed", "train.threads"}}
        if wrong or hidden:
            settings = " ".join(f"-S {key}={value}" for key, value in {**wrong, **hidden}.items())
            raise UserError(
                f"experiment {run.name} was run with other parameters than these ({settings}); "
                "give the ones that it was run with, or remove it (`dvc exp remove`) and run it again"
            )


def read_runs(data: str, overrides: Overrides, seeds: Sequence[int]) -> list[Run]:
    """The runs of one row that are there.

    For one that varies alpha alone and need not be run, see `same_model`, it is the run without overrides.
    """
    there, runs, alpha = list_experiments(), [], only_alpha(overrides)
    for seed in seeds:
        name, plain = (experiment_name(data, row, seed) for row in (overrides, {}))
        if name in there:
            runs.append(_read(name, seed, there[name]))
        elif alpha is not None and plain in there and same_model(there[plain], alpha):
            run = _read(plain, seed, there[plain])
            runs.append(replace(run, params={**run.params, "alpha": alpha}))
    return runs


@cache
def same_model(revision: str, alpha: float) -> bool:
    """Whether a run's gate proves that another alpha gives its very model: step 2 ran in every batch, or in
    none, and would have with that alpha.

    Args:
        revision: the run's commit.
        alpha: the other.
    """
    training = json.loads(_show(revision, "reports/metrics.json"))["train"]
    bound = training.get("alpha_bound")
    if bound is None:
        return False
    return alpha >= bound if training["step2_share"] else alpha < bound


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
    params, began = read_params(revision), read_params(f"{revision}^")
    return Run(
        name,
        seed,
        params,
        {key: value for key, value in params.items() if key not in began or began[key] != value},
        json.loads(_show(revision, "reports/metrics.json")),
        json.loads(_show(revision, "reports/audit.json")),
        json.loads(_show(revision, "reports/floors.json")),
        inputs,
        revision,
        _git("rev-parse", f"{revision}^").strip(),
    )


def _show(revision: str, path: str) -> str:
    return _git("show", f"{revision}:{path}")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout


def _flat(values: Mapping, prefix: str = "") -> dict[str, object]:
    flat = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
