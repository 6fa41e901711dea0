"""Running a stage: its messages, its end when interrupted, and one run of it at a time."""

import fcntl
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spp_scl.errors import UserError, is_disk_full

log = logging.getLogger("spp_scl")


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's `main`: its errors for the user, its time and its peak memory go to stderr."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # Libraries that log every file and request at this level would bury the stage's own words.
    for library in ("httpx", "httpcore", "huggingface_hub", "dvc", "matplotlib", "PIL"):
        logging.getLogger(library).setLevel(logging.WARNING)
    started = time.perf_counter()
    try:
        # SIGTERM ends a stage as Ctrl-C does, through every `finally`, so that nothing half-written stays.
        _on_interrupt(signal.default_int_handler)
        with _alone(Path(sys.modules["__main__"].__file__)):
            if "DVC_STAGE" in os.environ:
                from spp_scl.dvc_cache import doubt_cache  # here, for DVC may not be installed otherwise

                doubt_cache()
            main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted: nothing was replaced; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if not is_disk_full(error):
            raise
        where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
        sys.exit(
            f"error: no space left on the device{where}; the earlier outputs are as they were. "
            "Free some space and run again; `dvc gc --workspace --all-commits --all-experiments` removes "
            "from the cache what no commit and no experiment needs."
        )
    finally:
        leave_when_interrupted()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    log.info("%.1f s, peak memory %.2f GiB, mapped files included", time.perf_counter() - started, peak)
    # Every output is in its place; taking torch apart would last most of a second more.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def leave_when_interrupted() -> None:
    """End at once when interrupted: for while libraries load or unload, and there is nothing to undo."""

    def leave(number: int, frame: object) -> None:
        os.write(2, b"interrupted; the same command goes on from here\n")
        os._exit(130)

    _on_interrupt(leave)


def _on_interrupt(handler: Callable[[int, Any], object]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as in the background of a shell
            signal.signal(number, handler)


@contextmanager
def _alone(script: Path) -> Iterator[None]:
    """One run of a stage at a time in a folder: a killed `dvc` may have left one behind that still writes."""
    with script.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("an earlier run of this stage is still at work in this folder; waiting for its end")
            parent = os.getppid()
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.getppid() != parent:  # whoever wanted this run was killed meanwhile, and may have a new one
                sys.exit("error: what started this run has ended")
        except OSError as error:  # some network file systems have no locks
            log.info("this file system has no locks (%s): do not run a stage twice at once", error.strerror)
        yield
