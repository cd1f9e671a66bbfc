"""A bidirectional LSTM over short sequences with gaps, of one network or of many at once.

torch's own takes gaps only as packed sequences, one step and one direction at a time, and its
backward pass runs through every operation of a step. Here both directions go together, and the
backward pass is written out: what does not depend on later steps is done for all steps at once.
Under `torch.vmap` the directions of all networks go together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

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
    # Biases are added before they are stacked: their gradients are not to share memory, as clipping
    # scales each.
    ways = ((one, two, bias + other) for one, two, bias, other in lstm.all_weights)
    weights = map(torch.stack, zip(*ways, strict=True))
    steps, gaps = values.transpose(0, 1), absent.t()
    run: Callable[..., tuple[Tensor, ...]] = _Recurrence.apply
    inputs = (torch.stack([each, each.flip(0)]) for each in (steps, gaps))
    outputs, *_ = run(*inputs, *weights)
    forth, back = outputs[:, 1:]
    return torch.cat([forth, back.flip(0)], 2).transpose(0, 1)


class _Kept(NamedTuple):
    """The outputs, and what else the backward pass needs of the forward pass."""

    outputs: Tensor  # shape (ways, steps + 1, cells, hidden), as states; zero before the first step
    states: Tensor
    gates: Tensor  # shape (ways, steps, cells, 4, hidden)
    squashed: Tensor  # tanh of the states after each step
    gaps: Tensor  # shape (ways, steps, cells, 1); empty where no family is absent


class _Recurrence(torch.autograd.Function):
    """LSTMs side by side, each one way: (ways, steps, cells, width) to what is `_Kept`.

    Weights are those of `torch.nn.LSTM`, stacked; gates in its order: input, forget, cell (what is
    new), output.
    """

    @staticmethod
    def forward(
        inputs: Tensor, absent: Tensor, of_input: Tensor, of_output: Tensor, bias: Tensor
    ) -> tuple[Tensor, ...]:
        ways, steps, n, width = inputs.shape
        hidden = of_output.shape[2]
        flat = inputs.reshape(ways, steps * n, width)
        flat = torch.baddbmm(bias[:, None], flat, of_input.transpose(1, 2))
        gates = flat.view(ways, steps, n, 4, hidden)
        opened, forget, new, output = gates.unbind(3)
        gaps = inputs.new_empty(ways, 0)
        if absent.is_cuda or bool(absent.any()):  # a GPU is not waited for
            there = absent[..., None]
            for gate, shut in ((opened, -_SHUT), (forget, _SHUT), (output, -_SHUT)):
                gate.masked_fill_(there, shut)
            gaps = there.to(inputs.dtype)
        states, outputs = inputs.new_zeros(2, ways, steps + 1, n, hidden)
        squashed = inputs.new_empty(ways, steps, n, hidden)
        recurrent = of_output.transpose(1, 2)
        for t in range(steps):
            if t:
                gates[:, t].view(ways, n, 4 * hidden).baddbmm_(outputs[:, t], recurrent)
            gates[:, t, :, :2].sigmoid_()
            new[:, t].tanh_()
            output[:, t].sigmoid_()
            state = torch.mul(forget[:, t], states[:, t], out=states[:, t + 1])
            state.addcmul_(opened[:, t], new[:, t])
            torch.tanh(state, out=squashed[:, t])
            said = torch.mul(output[:, t], squashed[:, t], out=outputs[:, t + 1])
            if gaps.numel():
                said.addcmul_(outputs[:, t], gaps[:, t])
        return _Kept(outputs, states, gates, squashed, gaps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        values, _, of_input, of_output, _ = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(values, of_input, of_output, *output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, of_input, weight, *kept = ctx.saved_tensors
        outputs, states, gates, squashed, gaps = _Kept(*kept)
        ways, steps, n, _, hidden = gates.shape
        of_outputs = gradients[0][:, 1:].clone()
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
                if gaps.numel():
                    earlier.addcmul_(of_output, gaps[:, t])
                earlier.baddbmm_(slopes[:, t].view(ways, n, 4 * hidden), weight)
                of_output = earlier
        flat = slopes.view(ways, steps * n, 4 * hidden)
        before = outputs[:, 1:-1].reshape(ways, (steps - 1) * n, hidden)
        there = inputs.reshape(ways, steps * n, -1)
        return (
            (flat @ of_input).view_as(inputs) if ctx.needs_input_grad[0] else None,
            None,
            flat.transpose(1, 2) @ there,
            flat[:, n:].transpose(1, 2) @ before,
            flat.sum(1),
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *given: Tensor) -> tuple[Any, Any]:
        """The ways of all networks are ways of one call."""
        there = (
            each.expand(info.batch_size, *each.shape) if place is None else each.movedim(place, 0)
            for each, place in zip(given, in_dims, strict=True)
        )
        run: Callable[..., tuple[Tensor, ...]] = _Recurrence.apply
        outputs = run(*(each.flatten(0, 1) for each in there))
        apart = [torch.unflatten(each, 0, (info.batch_size, -1)) for each in outputs]
        return tuple(apart), (0,) * len(apart)
