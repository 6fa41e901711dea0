"""Running the experiments of studies in DVC's queue, until all are there."""

import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence

from dvc.repo import Repo

from spp_scl.errors import UserError
from spp_scl.progress import progress
from studies.definitions import Overrides, experiment_name
from studies.results import list_experiments, read_params, require_committed, require_own_name

_POLL = 5  # seconds


def run_all(
    data: str, rows: Sequence[Overrides], base: Overrides, seeds: Sequence[int], jobs: int
) -> list[str]:
    """Run every row with every seed, as far as it has not been run.

    Few wait in DVC's queue at a time, so that an interruption leaves little behind; what runs then goes on,
    and the next call takes it into account.

    Args:
        data: the first part of the experiments' names.
        rows: overrides; equal ones are run once.
        base: overrides of every run.
        seeds: of the parameter `seed`.
        jobs: how many run at once, each with one thread.

    Returns:
        The names of those that failed.

    Raises:
        UserError: `params.yaml` has changes that are not committed, `data` is the name of another dataset,
            or an experiment of the same name has other parameters.
    """
    committed = require_committed()
    require_own_name(data, {**committed, **base})
    wanted = {
        # Seed by seed, so that an unfinished study has whole comparisons.
        experiment_name(data, row, seed): {**base, **row, "seed": seed, "train.threads": 1}
        for seed in seeds
        for row in rows
    }
    _forget_dead(wanted)
    _require_same(wanted, committed)
    failed: list[str] = []
    queued: set[str] = set()  # by this call: none twice, whatever DVC says of it in between
    bar = progress(desc=data, unit="experiments", total=len(wanted))
    while True:
        status = _status()
        done = list_experiments()  # after the status: what ends in between is done, and not missing
        failed += [n for n in wanted if status.get(n) == "Failed" and n not in done and n not in failed]
        rest = [n for n in wanted if n not in done and n not in failed]
        waiting = [n for n in rest if n in queued or status.get(n) in ("Queued", "Running")]
        bar.n = len(wanted) - len(rest) - len(failed)
        bar.refresh()
        if not rest:
            break
        missing = [n for n in rest if n not in waiting]
        for name in missing[: max(0, jobs + 1 - len(waiting))]:
            _dvc("exp", "run", "--queue", "--name", name, *_settings(wanted[name]))
            queued.add(name)
        if list(status.values()).count("Running") < min(jobs, len(waiting) + len(missing)):
            _dvc("queue", "start", "-j", str(jobs))  # workers end when there is nothing for them
        time.sleep(_POLL)
    bar.close()
    return failed


def _forget_dead(wanted: Mapping[str, Overrides]) -> None:
    """Take back what an earlier call left: failures, runs whose worker was killed, removed experiments."""
    status = _status()
    running = [name for name, state in status.items() if state == "Running"]
    with Repo() as repo:
        alive = any(repo.experiments.celery_queue.worker_status().values())
    if running and not alive:
        _dvc("queue", "kill", "--force", *running, may_fail=True)
        status = _status()
    there = list_experiments()
    for name in wanted:
        if status.get(name) == "Failed" or (status.get(name) == "Success" and name not in there):
            _dvc("queue", "remove", name, may_fail=True)


def _require_same(wanted: Mapping[str, Overrides], committed: Mapping[str, object]) -> None:
    """Refuse to take an experiment of the same name and other parameters for a run of this study."""
    for name, revision in list_experiments().items():
        if name not in wanted:
            continue
        asked = {**committed, **wanted[name]}
        other = {k: v for k, v in read_params(revision).items() if k in asked and asked[k] != v}
        if other:
            raise UserError(
                f"experiment {name} is there with other parameters ({other}); give this data another name "
                f"(--data), or remove it (`dvc exp remove {name}`)"
            )


def _status() -> dict[str, str]:
    """The queue's experiments: Queued, Running, Failed or Success, by their names."""
    with Repo() as repo:
        return {entry["name"]: entry["status"] for entry in repo.experiments.celery_queue.status()}


def _settings(overrides: Overrides) -> list[str]:
    settings = []
    for key, value in overrides.items():
        told = str(value).lower() if isinstance(value, bool) else value
        settings += ["-S", f"{key}={told}"]
    return settings


def _dvc(*arguments: str, may_fail: bool = False) -> None:
    # Into a file: a pipe stays open as long as the workers that `queue start` leaves behind.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(["dvc", *arguments], stdout=output, stderr=subprocess.STDOUT)
        output.seek(0)
        if done.returncode and not may_fail:
            raise UserError(f"dvc {' '.join(arguments)}: {output.read().strip()[-2000:]}")
