"""The LSTM with gaps against torch's own over packed sequences, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from crosspatch.models.recurrence import bidirectional


def packed(values: Tensor, absent: Tensor, lstm: nn.LSTM) -> Tensor:
    """Outputs where families are present; zero elsewhere."""
    order = torch.argsort(absent.to(torch.uint8), dim=1, stable=True)[..., None]
    front = values.gather(1, order.expand_as(values))
    count = (~absent).sum(1)
    sequence = pack_padded_sequence(front, count, batch_first=True, enforce_sorted=False)
    outputs = pad_packed_sequence(lstm(sequence)[0], batch_first=True, total_length=order.shape[1])
    return torch.zeros_like(outputs[0]).scatter(1, order.expand_as(outputs[0]), outputs[0])


@pytest.mark.parametrize("gaps", [0.0, 0.4])
@pytest.mark.parametrize("families", [1, 2, 6, 12])
def test_outputs_and_gradients_are_those_of_packed_sequences(gaps: float, families: int):
    torch.manual_seed(families)
    lstm = nn.LSTM(5, 8, batch_first=True, bidirectional=True).double()
    values = torch.randn(30, families, 5, dtype=torch.float64, requires_grad=True)
    absent = torch.rand(30, families) < gaps
    absent[:, 0] &= ~absent.all(1)
    weigh = torch.randn(30, families, 16, dtype=torch.float64) * ~absent[..., None]
    found = []
    for run in (packed, bidirectional):
        outputs = run(values, absent, lstm) * ~absent[..., None]
        wanted = [values, *lstm.parameters()]
        found.append([outputs, *torch.autograd.grad((outputs * weigh).sum(), wanted)])
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
