"""Several processes that train together, where the encoders are in the loop."""

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
    if torch.cuda.is_available() and torch.cuda.device_count() < number:
        raise UserError(
            f"train.processes: {number}: there are {torch.cuda.device_count()} GPUs, and each "
            "process needs one"
        )
    with tempfile.TemporaryDirectory() as folder:
        store = f"file://{folder}/store"
        context = mp.spawn(_join, (number, store, others, arguments), nprocs=number - 1, join=False)
        try:
            _initialize(0, number, store)
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
    child: int, number: int, store: str, others: Callable[..., object], arguments: tuple[Any, ...]
) -> None:
    rank = child + 1
    # The first process speaks for all.
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    if torch.cuda.is_available():
        # Before anything touches a GPU: then this process's only one is cuda:0, as the code expects.
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(number)))).split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[rank]
    _initialize(rank, number, store)
    others(*arguments)
    dist.destroy_process_group()


def _initialize(rank: int, number: int, store: str) -> None:
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, init_method=store, rank=rank, world_size=number)
