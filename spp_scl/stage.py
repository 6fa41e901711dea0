"""Running a stage: what it reads and writes, its messages, and how it ends.

Nothing here imports a library, so that a stage's errors are messages from its first line on.
"""

import gc
import logging
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from spp_scl.errors import UserError, is_disk_full

if TYPE_CHECKING:
    from spp_scl.params import Params

log = logging.getLogger("spp_scl")

_PARAMS = Path("params.yaml")


def prepare_process() -> None:
    """Set what must be set before a stage's script imports its libraries."""
    # OpenMP's threads wait for each other in a loop. With two other programs on two cores its default, many
    # turns, makes a training step 4 times as long as on an idle machine (554 against 143 ms); with this it
    # is 2.2 times (320 ms), and an idle machine loses 4 %.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    sys.excepthook = report_error
    # What the libraries make while they are imported stays: to look for garbage among it, then and once more
    # when the process ends, takes 0.7 s of every stage that trains or evaluates. `run_stage` turns it on.
    gc.disable()
    # SIGTERM ends a stage as Ctrl-C does, through every `finally`.
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as in the background of a shell
            signal.signal(number, signal.default_int_handler)


def run_stage(main: "Callable[[Params], None]") -> None:
    """Run the `main` of a stage's script with the parameters; its time and peak memory go to stderr.

    With `--help` on the command line, print what the stage reads and writes, and run nothing.

    Raises:
        UserError: a parameter that the stage reads has changed in the file while it ran, and DVC would record
            the new value beside outputs of the old one.
    """
    from spp_scl.params import load_params

    gc.freeze()
    gc.enable()
    name = Path(sys.modules["__main__"].__file__ or "").stem
    if len(sys.argv) > 1:
        print(describe_stage(name))
        sys.exit(0 if sys.argv[1:] in (["-h"], ["--help"]) else 2)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # Libraries that log every file and request at this level would bury the stage's own messages.
    for library in ("httpx", "httpcore", "huggingface_hub", "matplotlib", "PIL"):
        logging.getLogger(library).setLevel(logging.WARNING)
    started = time.perf_counter()
    try:
        with _alone(name):
            params = load_params()
            main(params)
    except KeyboardInterrupt as error:
        report_error(KeyboardInterrupt, error, None)
        sys.exit(130)  # as a shell reports an interrupted command
    _require_unchanged(params, load_params(), read_stage(name)["params"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    log.info("%.1f s, peak memory %.2f GiB, mapped files included", time.perf_counter() - started, peak)


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """One run of a stage at a time in a folder: a killed `dvc` leaves the stage running that it had begun."""
    from filelock import FileLock, Timeout

    lock = FileLock(Path(f".dvc/tmp/{name}.lock"))
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("an earlier run of this stage is still at work in this folder; waiting for its end")
        lock.acquire()
    with lock:
        yield


def read_stage(name: str) -> dict[str, Any]:
    """A stage's entry in `dvc.yaml`, as it stands there."""
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(Path("dvc.yaml"))["stages"][name]


def describe_stage(name: str) -> str:
    """What a stage reads and writes, for a person."""
    entry = read_stage(name)
    outs = [*entry.get("outs", []), *entry.get("metrics", [])]
    listed = {
        "reads": entry["deps"],
        "parameters": entry["params"],
        "writes": [out if isinstance(out, str) else next(iter(out)) for out in outs],
    }
    lines = [f"{name}: {entry['desc']}", "", f"Run it with `dvc repro {name}`. It takes no arguments."]
    for what, names in listed.items():
        lines += ["", f"{what}:", *(f"  {item}" for item in names)]
    return "\n".join(lines)


def _require_unchanged(before: "Params", after: "Params", keys: list[str]) -> None:
    changes = [
        f"{key}: {old!r} has become {new!r}"
        for key in keys
        if (old := _value(before, key)) != (new := _value(after, key))
    ]
    if changes:
        raise UserError(
            f"{_PARAMS} was changed while the stage ran ({'; '.join(changes)}), and its outputs are of the "
            "old parameters; run `dvc repro` again"
        )


def _value(params: "Params", key: str) -> object:
    if key == "${method}":  # the section of the method that is chosen
        return params.methods.get(params.method)
    value: object = params
    for part in key.split("."):
        value = getattr(value, part)
    return value


def report_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an uncaught error: one message for a user's mistake, a traceback for ours.

    A UserError, Ctrl-C, a full disk, and a Python without the project's libraries need no traceback.
    """
    _show_params_to_git()
    if isinstance(error, KeyboardInterrupt):
        print("interrupted; the same command goes on from here", file=sys.stderr)
    elif isinstance(error, UserError):
        print(f"error: {error}", file=sys.stderr)
    elif isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith(("spp_scl", "stages")):
        print(
            f"error: {sys.executable} has no module {error.name}; activate the project's environment "
            "(`source .venv/bin/activate`) or use `make repro`",
            file=sys.stderr,
        )
    elif is_disk_full(error):
        where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
        print(
            f"error: no space left on the device{where}. Free some space and run again; `dvc gc --workspace "
            "--all-commits --all-experiments` removes from the cache what no commit and no experiment needs.",
            file=sys.stderr,
        )
    else:
        traceback.print_exception(kind, error, trace)


def _show_params_to_git() -> None:
    """Make Git look at `params.yaml` again, so that `git restore params.yaml` restores it.

    A failed `dvc exp run -S` leaves the changed file and an index that takes it for unchanged: DVC writes the
    file twice within a second, and Git compares size, inode and whole seconds alone. A copy in its place has
    another inode.
    """
    if _PARAMS.is_file() and not _PARAMS.is_symlink():
        copy = _PARAMS.with_name(f".{_PARAMS.name}.tmp")
        shutil.copy(_PARAMS, copy)
        copy.replace(_PARAMS)
