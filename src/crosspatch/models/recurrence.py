"""A bidirectional LSTM over short sequences with gaps, made for one core.

torch's own takes gaps only as packed sequences, one step and one direction at a time, and its
backward pass runs through every operation of a step. Here both directions go together, and the
backward pass is written out: what does not depend on later steps is done for all steps at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# Input and output gates of an absent family are closed, its forget gate is open: the cell stays.
_SHUT = 1e9


def bidirectional(values: Tensor, absent: Tensor, lstm: nn.LSTM) -> Tensor:
    """Outputs of a one-layer LSTM with two directions, shape (cells, families, 2 × hidden).

    An absent family leaves the state as it is, which is the same as taking it out of the sequence;
    the output there is the state. The values have shape (cells, families, width); ``absent``,
    shape (cells, families), says which are passed by.
    """
    gaps = absent.t()[..., None] if bool(absent.any()) else None
    weights = (weight for one_way in lstm.all_weights for weight in one_way)
    run: Callable[..., Tensor] = _Bidirectional.apply
    return run(values.transpose(0, 1), gaps, *weights).transpose(0, 1)


class _Bidirectional(torch.autograd.Function):
    """Steps first: (families, cells, width) to (families, cells, 2 × hidden).

    Arrays of both directions have shape (2, steps, cells, ...); the second goes from the last step
    to the first. Weights are those of `torch.nn.LSTM`, gates in its order: input, forget, cell
    (what is new), output.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, gaps: Tensor | None, *weights: Tensor) -> Tensor:
        steps, n, width = values.shape
        hidden = weights[1].shape[1]
        inputs = torch.stack([values, values.flip(0)]).view(2, steps * n, width)
        gates = values.new_empty(2, steps, n, 4, hidden)
        for way, (of_input, _, bias, other) in enumerate((weights[:4], weights[4:])):
            flat = gates[way].view(steps * n, 4 * hidden)
            torch.addmm(bias + other, inputs[way], of_input.t(), out=flat)
        opened, forget, new, output = gates.unbind(3)
        kept = None
        if gaps is not None:
            there = torch.stack([gaps, gaps.flip(0)])
            for gate, shut in ((opened, -_SHUT), (forget, _SHUT), (output, -_SHUT)):
                gate.masked_fill_(there, shut)
            kept = there.to(values.dtype)
        # State and output before the first step are zero.
        states, outputs = values.new_zeros(2, 2, steps + 1, n, hidden)
        squashed = values.new_empty(2, steps, n, hidden)
        for t in range(steps):
            if t:
                for way in (0, 1):
                    flat = gates[way, t].view(n, 4 * hidden)
                    flat.addmm_(outputs[way, t], weights[4 * way + 1].t())
            gates[:, t, :, :2].sigmoid_()
            new[:, t].tanh_()
            output[:, t].sigmoid_()
            state = torch.mul(forget[:, t], states[:, t], out=states[:, t + 1])
            state.addcmul_(opened[:, t], new[:, t])
            torch.tanh(state, out=squashed[:, t])
            said = torch.mul(output[:, t], squashed[:, t], out=outputs[:, t + 1])
            if kept is not None:
                said.addcmul_(outputs[:, t], kept[:, t])
        ctx.save_for_backward(inputs, gates, outputs, states, squashed, kept, *weights)
        return torch.cat([outputs[0, 1:], outputs[1, 1:].flip(0)], 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, gates, outputs, states, squashed, kept, *weights = ctx.saved_tensors
        _, steps, n, _, hidden = gates.shape
        one, two = gradients[0].chunk(2, dim=2)
        of_outputs = torch.stack([one, two.flip(0)])
        opened, forget, new, output = gates.unbind(3)
        # The derivative of every gate, times what it is multiplied with on the way to the state
        # (the last: to the output). All are zero where a family is absent.
        slopes = torch.addcmul(gates, gates, gates, value=-1)
        slopes[:, :, :, 0].mul_(new)
        slopes[:, :, :, 1].mul_(states[:, :-1])
        torch.addcmul(opened, opened * new, new, value=-1, out=slopes[:, :, :, 2])
        slopes[:, :, :, 3].mul_(squashed)
        to_state = torch.addcmul(output, output * squashed, squashed, value=-1)
        of_output = of_outputs[:, -1]
        of_state = torch.zeros_like(of_output)
        for t in reversed(range(steps)):
            of_state.addcmul_(of_output, to_state[:, t])
            slopes[:, t, :, :3].mul_(of_state[:, :, None])
            slopes[:, t, :, 3].mul_(of_output)
            if t:
                of_state.mul_(forget[:, t])
                earlier = of_outputs[:, t - 1]
                if kept is not None:
                    earlier.addcmul_(of_output, kept[:, t])
                for way in (0, 1):
                    flat = slopes[way, t].view(n, 4 * hidden)
                    earlier[way].addmm_(flat, weights[4 * way + 1])
                of_output = earlier
        of_inputs, of_weights = [], []
        for way, flat in enumerate(slopes.view(2, steps * n, 4 * hidden)):
            before = outputs[way, 1:-1].reshape(-1, hidden)
            bias = flat.sum(0)
            of_weights += [flat.t() @ inputs[way], flat[n:].t() @ before, bias, bias]
            of_inputs.append((flat @ weights[4 * way]).view(steps, n, -1))
        return of_inputs[0] + of_inputs[1].flip(0), None, *of_weights
