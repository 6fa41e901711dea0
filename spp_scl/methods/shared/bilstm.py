"""The BiLSTM over packed texts: torch's on a GPU, and a faster one of the same numbers on a CPU.

On a CPU an LSTM is many tiny operations. Here both directions take a step together, and the products with the
input, and all of the backward pass but the recurrence itself, are computed for all words at once. With
torch's packed LSTM a whole training step takes 1.23 times as long on one thread of a processor with AMX, and
1.13 (one thread) or 1.25 times (two threads) on an AMD Zen 4, which has AVX512-BF16 and no AMX.

Shapes: W words in all, D input width, K = 64 units each way; gates in the order input, forget, output, cell,
so that the three sigmoids lie together.
"""

import torch
import torch.nn.functional as F
from torch import nn

from spp_scl.batches.packing import Packing

# MKL chooses its kernels in the first call of a process; when two threads make that call at once, one may get
# another kernel, and other last digits.
torch.zeros(1).tanh_()


def bilstm(lstm: nn.LSTM, words: torch.Tensor, packing: Packing) -> torch.Tensor:
    """What `lstm` (one layer, both directions, no bias) gives for packed texts.

    Args:
        lstm: of K units each way.
        words: (W, D).
        packing: of the words.

    Returns:
        (W, 2K), the two directions side by side.
    """
    if not len(words):
        return words.new_zeros(0, 2 * lstm.hidden_size)
    if words.device.type != "cpu":
        packed = nn.utils.rnn.PackedSequence(words, torch.tensor(packing.sizes))
        return lstm(packed)[0].data
    inputs = torch.cat([_reorder(of_input) for of_input, _ in lstm.all_weights])
    recurrent = torch.stack([_reorder(of_state) for _, of_state in lstm.all_weights])
    return _Recurrence.apply(F.linear(words, inputs), recurrent, packing)


def _reorder(weight: torch.Tensor) -> torch.Tensor:
    """From torch's order of the gates (input, forget, cell, output) to this module's."""
    i, f, g, o = weight.chunk(4)
    return torch.cat([i, f, o, g])


class _Recurrence(torch.autograd.Function):
    """From what the input gives to the gates, (W, 8K), and the weights (2, 4K, K) to the states (W, 2K)."""

    @staticmethod
    def forward(ctx, inputs, weight, packing):
        sizes, units = packing.sizes, weight.shape[2]
        # Read backwards a text is as long, so that both directions have as many words at each step.
        gates = _mirror_second(inputs.view(len(inputs), 2, 4 * units), packing)
        states, cells, squashed = (gates.new_empty(len(gates), 2, units) for _ in range(3))
        # Every view that the steps need, made at once: one by one they would cost as much as the arithmetic.
        step_gates = gates.split(sizes)
        i, f, o, g = (part.split(sizes) for part in gates.chunk(4, dim=2))
        sigmoids = gates[:, :, : 3 * units].split(sizes)
        step_states, step_cells, step_squashed = (t.split(sizes) for t in (states, cells, squashed))
        transposed = weight.transpose(1, 2)
        for t, size in enumerate(sizes):
            if t:
                before = step_states[t - 1][:size].transpose(0, 1)
                step_gates[t].transpose(0, 1).baddbmm_(before, transposed)
            sigmoids[t].sigmoid_()
            g[t].tanh_()
            torch.mul(i[t], g[t], out=step_cells[t])
            if t:
                step_cells[t].addcmul_(f[t], step_cells[t - 1][:size])
            torch.tanh(step_cells[t], out=step_squashed[t])
            torch.mul(o[t], step_squashed[t], out=step_states[t])
        ctx.save_for_backward(gates, weight, states, cells, squashed)
        ctx.packing = packing
        return _mirror_second(states, packing).view(len(states), 2 * units)

    @staticmethod
    def backward(ctx, to_states):
        gates, weight, states, cells, squashed = ctx.saved_tensors
        sizes, units = ctx.packing.sizes, weight.shape[2]
        i, f, o, g = gates.chunk(4, dim=2)
        first = sizes[0]
        # Where the word before lies, of each word but the first ones.
        starts = torch.tensor([0, *sizes]).cumsum(0)
        before = starts[ctx.packing.time[first:] - 1] + ctx.packing.text[first:]
        cells_before = torch.zeros_like(cells)
        cells_before[first:] = cells[before]
        # What a gate's derivative is multiplied by does not depend on the recurrence: all words at once.
        to_gates = torch.empty_like(gates)
        to_i, to_f, to_o, to_g = to_gates.chunk(4, dim=2)
        torch.mul(g * i, 1 - i, out=to_i)
        torch.mul(cells_before * f, 1 - f, out=to_f)
        torch.mul(squashed * o, 1 - o, out=to_o)
        torch.mul(i, 1 - g * g, out=to_g)
        through_tanh = o * (1 - squashed * squashed)
        # The gradient to a state comes from outside, and from the next word.
        total = _mirror_second(to_states.view(len(states), 2, units), ctx.packing)
        to_cell = cells.new_zeros(first, 2, units)
        step_total, step_tanh, step_f = (t.split(sizes) for t in (total, through_tanh, f))
        step_gates = to_gates.split(sizes)
        by_cell = to_gates.view(len(gates), 2, 4, units)[:, :, :2].split(sizes)
        by_state, by_cell_too = to_o.split(sizes), to_g.split(sizes)
        for t in reversed(range(len(sizes))):
            size = sizes[t]
            cell = to_cell[:size]
            cell.addcmul_(step_total[t], step_tanh[t])
            by_cell[t].mul_(cell[:, :, None])
            by_cell_too[t].mul_(cell)
            by_state[t].mul_(step_total[t])
            cell.mul_(step_f[t])
            if t:
                previous = step_total[t - 1][:size].transpose(0, 1)
                previous.baddbmm_(step_gates[t].transpose(0, 1), weight)
        later = to_gates[first:].permute(1, 2, 0)
        to_weight = torch.bmm(later, states[before].transpose(0, 1))
        return _mirror_second(to_gates, ctx.packing).view(len(states), -1), to_weight, None


def _mirror_second(x: torch.Tensor, packing: Packing) -> torch.Tensor:
    """A copy of (W, 2, ...) whose second half reads each text from its other end."""
    mirrored = torch.empty_like(x, memory_format=torch.contiguous_format)
    mirrored[:, 0] = x[:, 0]
    mirrored[:, 1] = x[:, 1].index_select(0, packing.mirrored)
    return mirrored
