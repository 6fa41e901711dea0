"""Running the experiments of studies, several at once, each in a clone of its own.

`dvc exp run --temp` and `--queue` put a run's parameters into the workspace for a moment, and a kill leaves
them there; two at once get in each other's way. In a clone that shares DVC's cache, a run touches nothing of
the user's, and what another run has computed comes from the run cache.
"""

import asyncio
import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import starmap
from pathlib import Path

from configobj import ConfigObj
from tqdm import tqdm

from spp_scl.errors import UserError
from spp_scl.progress import progress
from studies.definitions import Overrides, experiment_name, run_overrides
from studies.experiments import experiment_ref, git, list_experiments, read_params
from studies.results import decide_inputs, require_dataset, require_parameters

log = logging.getLogger("studies")

FOLDER = Path(".dvc/tmp/studies")


def run_all(
    data: str, rows: Sequence[Overrides], base: Overrides, seeds: Sequence[int], jobs: int
) -> dict[str, Path]:
    """Run every row with every seed, as far as it has not been run.

    All begin from the commit that is HEAD now. Interrupted (Ctrl-C), the runs end too; when this process is
    killed, they go on to their end, and the next call waits for it.

    Args:
        data: the first part of the experiments' names.
        rows: overrides; equal ones are run once.
        base: overrides of every run.
        seeds: of the parameter `seed`.
        jobs: how many run at once, each with one thread.

    Returns:
        The log of each that failed, by the experiment's name.

    Raises:
        UserError: there are changes that are not committed, `data` is the name of another dataset, or an
            experiment of the same name has other parameters.
    """
    _require_clean()
    require_dataset(data, {**read_params("HEAD"), **base})
    # Seed by seed, so that an unfinished study has whole comparisons.
    wanted = {
        experiment_name(data, row, seed): run_overrides(row, base, seed) for seed in seeds for row in rows
    }
    with _alone() as lock:
        done = {name: revision for name, revision in list_experiments().items() if name in wanted}
        for name, revision in done.items():
            require_parameters(name, revision, wanted[name])
        missing = {name: overrides for name, overrides in wanted.items() if name not in done}
        if not missing:
            return {}
        commit = git("rev-parse", "HEAD").strip()
        bar = progress(desc=data, unit="experiments", total=len(wanted), initial=len(done))
        try:
            return asyncio.run(_run_missing(missing, jobs, commit, lock, bar))
        finally:
            bar.close()


def _require_clean() -> None:
    changed = git("diff", "--name-only", "HEAD", "--", ".", ":!dvc.lock", ":!reports").split("\n")[:-1]
    if changed:
        raise UserError(
            f"not committed: {', '.join(changed)}; every run of a study begins from what is committed: "
            f"commit the changes, or take them back (`git restore {changed[0]}`)"
        )


@contextmanager
def _alone() -> Iterator[int]:
    """Hold the lock of all studies of this repository; yields its file descriptor.

    The runs inherit it: it is held until the last of them has ended, even when this process is killed.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for the runs of another call, or of one that was killed")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _cache() -> str:
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"dvc cache dir: {done.stderr.strip()}")
    return done.stdout.strip()


async def _run_missing(
    missing: Mapping[str, Overrides], jobs: int, commit: str, lock: int, bar: tqdm
) -> dict[str, Path]:
    cache, free = _cache(), asyncio.Semaphore(jobs)
    failed = {}

    async def run(name: str, overrides: Overrides, *stages: str) -> None:
        async with free:
            _clone(FOLDER / name, commit, cache)
            if await _run(name, overrides, stages, lock):
                failed[name] = FOLDER / f"{name}.log"
            elif not stages:
                _take(name, commit)
                bar.update()

    # Features and second views first: else all that begin at once would encode the same.
    firsts: dict[str, tuple[str, Overrides]] = {}
    for name, overrides in missing.items():
        firsts.setdefault(decide_inputs(overrides), (name, overrides))
    for name, overrides in firsts.values():
        await run(name, overrides, "image_features", "text_features", "views")
        if failed:
            return failed
    # With exceptions returned, an interruption is waited for until every run has ended.
    for error in await asyncio.gather(*starmap(run, missing.items()), return_exceptions=True):
        if error:
            raise error
    return failed


async def _run(name: str, overrides: Overrides, stages: Sequence[str], lock: int) -> int:
    """Run an experiment in its clone, or some stages of it; returns the exit status."""
    command = [sys.executable, "-m", "dvc", "exp", "run", "--name", name, *_settings(overrides), *stages]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        # What DVC remembers of a clone goes with it.
        "DVC_SITE_CACHE_DIR": str((FOLDER / name / ".dvc/tmp/site").absolute()),
    }
    with (FOLDER / f"{name}.log").open("w") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=FOLDER / name,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[lock],
        )
        try:
            return await process.wait()
        except asyncio.CancelledError:
            os.killpg(process.pid, signal.SIGINT)  # DVC and the stage that it runs
            await process.wait()
            raise


def _take(name: str, commit: str) -> None:
    """Fetch an experiment from its clone, which is not needed any more."""
    ref = experiment_ref(commit, name)
    git("fetch", "-q", str(FOLDER / name), f"{ref}:{ref}")
    shutil.rmtree(FOLDER / name)
    (FOLDER / f"{name}.log").unlink()


def _settings(overrides: Overrides) -> list[str]:
    texts = {
        key: str(value).lower() if isinstance(value, bool) else value for key, value in overrides.items()
    }
    return [argument for key, text in texts.items() for argument in ("-S", f"{key}={text}")]


def _clone(folder: Path, commit: str, cache: str) -> None:
    """Put the commit into a folder. Where a run was interrupted there, the stages go on from what it left."""
    for part in (".git", ".dvc/tmp"):  # a kill may have left them in any state
        shutil.rmtree(folder / part, ignore_errors=True)
    git("init", "-q", str(folder))
    git("-C", str(folder), "fetch", "-q", "--update-shallow", str(Path.cwd()), commit)
    git("-C", str(folder), "checkout", "-q", "--force", "--detach", commit)
    git("-C", str(folder), "clean", "-qfd")
    config = ConfigObj(".dvc/config.local")
    config.filename = str(folder / ".dvc/config.local")
    config.setdefault("cache", {})["dir"] = cache
    config.write()
