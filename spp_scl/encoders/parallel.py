"""An encoder's batch shared out among several processes, a GPU each.

All else is done by every process alike: each has the features of the whole batch, so that a contrast sees all
its pairs, and the same random numbers outside the encoders, so that the methods' own weights stay equal.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn


def shared_out() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized()


def run_shared(encoder: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
    """Run an encoder over a batch: some of its rows in each process, the result whole in each.

    Args:
        encoder: from the inputs to (B, ...).
        inputs: (B, ...) each, the same in every process.
    """
    if not shared_out():
        return encoder(*inputs)
    rank, rows = dist.get_rank(), len(inputs[0])
    share = -(-rows // dist.get_world_size())
    # Equal shares: where there are too few rows, some run twice, and what is too much is cut off.
    own = (torch.arange(share, device=inputs[0].device) + rank * share) % rows
    # Drawn by all, so that they stay in step; dropout differs from share to share.
    seed = int(torch.randint(2**62, (1,)))
    with torch.random.fork_rng():
        torch.manual_seed(seed + rank)
        part = encoder(*(each[own] for each in inputs))
    return _Gather.apply(part)[:rows]


class _Gather(torch.autograd.Function):
    """Every process's rows, in the order of the processes."""

    @staticmethod
    def forward(ctx: Any, part: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(part) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        # Every process has computed the same loss, of all rows: its own rows' part is all that it needs.
        return grad.chunk(dist.get_world_size())[dist.get_rank()]


def synchronize(encoders: nn.Module) -> None:
    """Add up the gradients of all shares; nothing where one process trains."""
    if not shared_out():
        return
    for parameter in encoders.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)


def share_buffers(encoders: nn.Module) -> None:
    """Take the first process's running statistics; nothing where one process trains."""
    if not shared_out():
        return
    for buffer in encoders.buffers():
        dist.broadcast(buffer, src=0)
