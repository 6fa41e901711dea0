"""Alternating timings, and the rows of the report."""

import importlib.metadata
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch

REPEATS = 5


@dataclass(frozen=True)
class Row:
    """A row of the report.

    Args:
        what: is measured.
        against: what it is compared with.
        measured: the figures, with their units.
        aim: what was asked for.
        met: whether it was reached.
    """

    what: str
    against: str
    measured: str
    aim: str
    met: bool


def alternate(*functions: Callable[[], object], repeats: int = REPEATS) -> list[float]:
    """The median seconds of each function, run in turns, after one run of each that does not count."""
    times: list[list[float]] = [[] for _ in functions]
    for turn in range(repeats + 1):
        for own, function in zip(times, functions, strict=True):
            started = time.perf_counter()
            function()
            if turn:
                own.append(time.perf_counter() - started)
    return [median(own) for own in times]


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Yield a list that holds, after the block, the peak of the memory that is not page cache, in GiB."""
    peak, stop = [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            peak[0] = max(peak[0], anonymous_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()


def anonymous_memory() -> float:
    """This process's resident memory that no file backs, in GiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 2**20
    raise RuntimeError("this system does not tell the anonymous memory of a process")


def describe_machine() -> dict[str, str]:
    """The machine and the versions that the figures belong to."""
    cpu = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":")[1].strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    capability = torch.backends.cpu.get_cpu_capability()
    amx = ", AMX" if torch.cpu._is_amx_tile_supported() else ""
    return {
        "processor": f"{cpu}, {os.cpu_count()} cores, {capability}{amx}",
        "memory": f"{memory:.0f} GiB",
        "GPU": "not measured",
        "Python": platform.python_version(),
        **{p: importlib.metadata.version(p) for p in ("torch", "torchvision", "transformers", "h5py", "dvc")},
    }


def report(*rows: Row) -> None:
    """Print rows for a person, and for `python -m benchmarks` on standard output."""
    for row in rows:
        print(f"{row.what} | {row.against}\n    {row.measured}\n    aim: {row.aim}", file=sys.stderr)
        print(f"    {'met' if row.met else 'NOT met'}", file=sys.stderr)
        print(json.dumps(asdict(row)))
