"""Matrix products in a chosen precision, of their own and in nobody else's: the rest stays in float32.

Shapes: R rows, I inputs, O outputs.
"""

import os
from typing import Literal

import torch

from spp_scl.features.device import has_bf16

Precision = Literal["fp32", "bf16"]

# oneDNN keeps what it has compiled for the last thousand shapes. Here nearly every batch has another number
# of words, so that this is of no use and grows to a gigabyte.
for _name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_name, "32")


def choose_products(device: torch.device, precision: str) -> Precision:
    """Resolve `train.precision`.

    `bf16` rounds the factors to bfloat16 and sums in float32, on a CPU; `auto` does so where the CPU has the
    instructions. On a GPU the network's products are too small to matter, and stay in float32.
    """
    if device.type != "cpu" or precision == "fp32":
        return "fp32"
    return "bf16" if precision == "bf16" or has_bf16() else "fp32"


def matmul(a: torch.Tensor, b: torch.Tensor, precision: Precision) -> torch.Tensor:
    """The product of two float32 matrices, in float32. Not for autograd: see `linear`."""
    if precision == "fp32" or a.device.type != "cpu":
        return a @ b
    # A setting of the whole process, which losses and gate must not see: a similarity divided by a
    # temperature of 0.07 needs its digits.
    matmul_settings = torch.backends.mkldnn.matmul
    before = matmul_settings.fp32_precision
    matmul_settings.fp32_precision = "bf16"
    try:
        return a @ b
    finally:
        matmul_settings.fp32_precision = before


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, precision):
        ctx.save_for_backward(x, weight)
        ctx.precision = precision
        return matmul(x, weight.T, precision)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        to_x = matmul(gradient, weight, ctx.precision) if ctx.needs_input_grad[0] else None
        return to_x, matmul(gradient.T, x, ctx.precision), None


def linear(x: torch.Tensor, weight: torch.Tensor, precision: Precision) -> torch.Tensor:
    """x W^T, from (R, I) and (O, I) to (R, O), with its gradients in the same precision."""
    return _Linear.apply(x, weight, precision)
