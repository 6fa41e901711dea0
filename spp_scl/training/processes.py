"""Several processes that train together, where the encoders are in the loop."""

import gc
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from spp_scl.errors import UserError


@contextmanager
def together(number: int, others: Callable[..., object], *arguments: Any) -> Iterator[None]:
    """Be the first of several processes, which end with the block; with one, nothing.

    Args:
        number: of processes, this one included; where there are GPUs, each has one.
        others: what the other processes run, in step with the block: a function of a module.
        arguments: its own.

    Raises:
        UserError: there are fewer GPUs.
        torch.multiprocessing.ProcessException: another process failed; with its traceback.
    """
    if number == 1:
        yield
        return
    # Asked here alone: CUDA_VISIBLE_DEVICES counts for nothing in a process that has asked before.
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if 0 < gpus < number:
        raise UserError(f"train.processes: {number}: there are {gpus} GPUs, and each process needs one")
    with tempfile.TemporaryDirectory() as folder:
        store = f"file://{folder}/store"
        context = mp.spawn(_join, (number, gpus > 0, store, others, arguments), nprocs=number - 1, join=False)
        try:
            _initialize(0, number, gpus > 0, store)
            yield
        except RuntimeError:
            # The connection to a process that failed broke: its own error says why.
            context.join(timeout=5)
            raise
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
            for process in context.processes:
                process.join(5)
                process.kill()


def _join(
    child: int,
    number: int,
    on_gpus: bool,
    store: str,
    others: Callable[..., object],
    arguments: tuple[Any, ...],
) -> None:
    rank = child + 1
    gc.enable()  # which the first process, as every stage, turned off for its imports
    # The first process speaks for all.
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    if on_gpus:
        # Before anything asks for a GPU: then this process's only one is cuda:0, as the code expects.
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(number)))).split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[rank]
    _initialize(rank, number, on_gpus, store)
    others(*arguments)
    dist.destroy_process_group()


def _initialize(rank: int, number: int, on_gpus: bool, store: str) -> None:
    backend = "nccl" if on_gpus else "gloo"
    dist.init_process_group(backend, init_method=store, rank=rank, world_size=number)
