"""Batches on several workers at once, each on one core: no core waits for another.

Measured on two cores (AMD Zen 4) against one batch at a time on both, whose threads spin while they wait: 48
to 82 ms of CPU time a picture, 45 to 73 a text; and on a busy machine 17 to 9 pictures and 18 to 6 texts a
second. Features do not depend on the number of cores, either.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# What a worker's batch takes in activations, about, with the libraries' buffers.
_WORKER_BYTES = 2**30


def count_workers(device: torch.device) -> int:
    """One a core, as far as the memory allows; a GPU needs no more than keep it fed."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if device.type == "cuda":
        return min(cores, 16)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(cores, memory // (2 * _WORKER_BYTES)))


def in_order(
    function: Callable[[_Item], _Result], items: Iterable[_Item], device: torch.device
) -> Generator[_Result]:
    """Apply a function to items on all cores; the results come in the order of the items.

    A worker computes on one core: the last digits of a result then do not depend on how many there are, and
    decoding and computing of different batches fill each other's gaps. Only a few items are under way at
    once, so that memory stays bounded.
    """
    workers = count_workers(device)
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        rest = iter(items)
        running = deque(pool.submit(function, item) for item in islice(rest, workers + 1))
        while running:
            result = running.popleft().result()
            running.extend(pool.submit(function, item) for item in islice(rest, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
