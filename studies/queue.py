"""Running the experiments of studies in DVC's queue, until all are there."""

import logging
import subprocess
import time
from collections.abc import Mapping, Sequence

from dvc.repo import Repo

from spp_scl.errors import UserError
from spp_scl.progress import progress
from studies.definitions import Overrides, experiment_name
from studies.results import list_experiments

log = logging.getLogger(__name__)

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
    """
    wanted = {
        # Seed by seed, so that an unfinished study has whole comparisons.
        experiment_name(data, row, seed): {**base, **row, "seed": seed, "train.threads": 1}
        for seed in seeds
        for row in rows
    }
    _forget_dead(wanted)
    failed: list[str] = []
    bar = progress(desc=data, unit="experiments", total=len(wanted))
    while True:
        done = list_experiments()
        status = _status()
        failed += [n for n in wanted if status.get(n) == "Failed" and n not in done and n not in failed]
        waiting = [n for n in wanted if status.get(n) in ("Queued", "Running") and n not in done]
        rest = [n for n in wanted if n not in done and n not in waiting and n not in failed]
        bar.n = len(wanted) - len(rest) - len(waiting) - len(failed)
        bar.refresh()
        if not rest and not waiting:
            break
        for name in rest[: max(0, jobs + 1 - len(waiting))]:
            _dvc("exp", "run", "--queue", "--name", name, *_settings(wanted[name]))
            waiting.append(name)
        _dvc("queue", "start", "-j", str(jobs))
        time.sleep(_POLL)
    bar.close()
    return failed


def _forget_dead(wanted: Mapping[str, Overrides]) -> None:
    """Take back what an earlier call left: failures, and runs whose worker was killed."""
    queue = Repo().experiments.celery_queue
    status = _status()
    running = [name for name, state in status.items() if state == "Running"]
    if running and not any(queue.worker_status().values()):
        _dvc("queue", "kill", "--force", *running, may_fail=True)
        status = _status()
    for name in wanted:
        if status.get(name) == "Failed":
            _dvc("queue", "remove", name, may_fail=True)


def _status() -> dict[str, str]:
    """The queue's experiments: Queued, Running, Failed or Success, by their names."""
    return {entry["name"]: entry["status"] for entry in Repo().experiments.celery_queue.status()}


def _settings(overrides: Overrides) -> list[str]:
    settings = []
    for key, value in overrides.items():
        told = str(value).lower() if isinstance(value, bool) else value
        settings += ["-S", f"{key}={told}"]
    return settings


def _dvc(*arguments: str, may_fail: bool = False) -> None:
    done = subprocess.run(["dvc", *arguments], capture_output=True, text=True)
    if done.returncode and not may_fail:
        raise UserError(f"dvc {' '.join(arguments)}: {(done.stderr or done.stdout).strip()[-2000:]}")
