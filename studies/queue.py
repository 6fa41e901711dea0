"""Running the experiments of studies in DVC's queue, until all are there."""

import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence

from dvc.repo import Repo

from spp_scl.errors import UserError
from spp_scl.progress import progress
from studies.definitions import Overrides, experiment_name, only_alpha
from studies.results import list_experiments, read_params, require_committed, require_own_name, same_model

_POLL = 10  # seconds: a look costs one of CPU
_PATIENCE = 4  # polls, until what DVC says now is not taken for what is between two of its steps


def run_all(
    data: str, rows: Sequence[Overrides], base: Overrides, seeds: Sequence[int], jobs: int
) -> list[str]:
    """Run every row with every seed, as far as it has not been run and has to be (see `same_model`).

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
    # Runs that vary alpha alone, beside the one without overrides, which may make them needless.
    alphas = {
        experiment_name(data, row, seed): (plain, only_alpha(row))
        for seed in seeds
        for row in rows
        if (plain := experiment_name(data, {}, seed)) in wanted and only_alpha(row) is not None
    }
    _forget_dead(wanted)
    _require_same(wanted, committed)
    failed: list[str] = []
    untraced: dict[str, int] = {}  # what this call has queued: for how many polls DVC has known nothing of it
    dead = 0  # for how many polls more has been running than the workers know of
    bar = progress(desc=data, unit="experiments", total=len(wanted))
    while True:
        status, tasks = _look()
        done = list_experiments()  # after the status: what ends in between is done, and not missing
        for name in untraced:
            traced = status.get(name) in ("Queued", "Running") or name in done
            untraced[name] = 0 if traced else untraced[name] + 1
        # Failed, or taken out of the queue, or gone without a result.
        gone = [n for n in wanted if status.get(n) == "Failed" or untraced.get(n, 0) > _PATIENCE]
        failed += [n for n in gone if n not in done and n not in failed]
        same = {n for n, (plain, a) in alphas.items() if plain in done and same_model(done[plain], a)}
        rest = [n for n in wanted if n not in done and n not in same and n not in failed]
        bar.n = len(wanted) - len(rest) - len(failed)
        bar.refresh()
        if not rest:
            break
        running = sum(status.get(name) == "Running" for name in wanted)
        dead = dead + 1 if running > sum(tasks) else 0
        if dead <= _PATIENCE:
            waiting = [n for n in rest if n in untraced or status.get(n) in ("Queued", "Running")]
            # What another run may make needless waits for it.
            missing = [n for n in rest if n not in waiting and (n not in alphas or alphas[n][0] not in rest)]
            missing = missing[: max(0, jobs + 1 - len(waiting))]
            for name in missing:
                if require_committed() != committed:
                    raise UserError("params.yaml has been committed anew while the study ran; run it again")
                _dvc("exp", "run", "--queue", "--name", name, *_settings(wanted[name]))
                untraced[name] = 0
            if len(tasks) < min(jobs, len(waiting) + len(missing)):
                _dvc("queue", "start", "-j", str(jobs))  # workers end when there is nothing for them
        elif not any(tasks):
            # A worker was killed, and the others have come to an end: its run begins again.
            _forget_dead(wanted)
            untraced.clear()
            dead = 0
        time.sleep(_POLL)
    bar.close()
    _require_same(wanted, committed)  # among them may be what an earlier call had queued
    return failed


def _forget_dead(wanted: Mapping[str, Overrides]) -> None:
    """Take back what is no more: failures, runs whose worker was killed, removed experiments."""
    for _ in range(_PATIENCE + 1):
        status, tasks = _look()
        running = [name for name in wanted if status.get(name) == "Running"]
        if not running or any(tasks):
            break
        time.sleep(_POLL)
    else:
        _dvc("queue", "kill", "--force", *running, may_fail=True)
        status, _ = _look()
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


def _look() -> tuple[dict[str, str], list[int]]:
    """The queue's experiments (Queued, Running, Failed, Success, by name), and each worker's number of tasks.

    A run whose worker was killed stays Running.
    """
    with Repo() as repo:
        queue = repo.experiments.celery_queue
        tasks = [len(found) for found in queue.worker_status().values()]
        return {entry["name"]: entry["status"] for entry in queue.status()}, tasks


def _settings(overrides: Overrides) -> list[str]:
    settings = []
    for key, value in overrides.items():
        told = str(value).lower() if isinstance(value, bool) else value
        settings += ["-S", f"{key}={told}"]
    return settings


def _dvc(*arguments: str, may_fail: bool = False) -> None:
    # Into a file: a pipe stays open as long as the workers that `queue start` leaves behind.
    with tempfile.TemporaryFile("w+") as output:
        # Out of reach of Ctrl-C, and waited for then: in the middle of queueing, DVC has the overrides of the
        # run in params.yaml.
        process = subprocess.Popen(
            ["dvc", *arguments], stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait()
        except KeyboardInterrupt:
            process.wait()
            raise
        output.seek(0)
        if process.returncode and not may_fail:
            raise UserError(f"dvc {' '.join(arguments)}: {output.read().strip()[-2000:]}")
