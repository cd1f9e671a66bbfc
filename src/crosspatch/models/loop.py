"""The one training loop."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

_Batch = TypeVar("_Batch")


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained; the defaults are those of arXiv 2603.11000."""

    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    batch_size: int = 64
    max_norm: float = 2.0  # gradients are clipped to this norm
    epochs: int = 50
    patience: int = 7  # epochs without gain on the validation cells before it stops


@dataclass(frozen=True)
class Epoch:
    """One epoch's mean training loss and validation score."""

    loss: float
    score: float


def train_network(
    network: nn.Module,
    batches: Callable[[], Iterable[_Batch]],
    loss: Callable[[_Batch], Tensor],
    score: Callable[[], float],
    settings: TrainingSettings,
    parameters: Iterable[nn.Parameter] | None = None,
    progress: Callable[[int, Epoch], None] | None = None,
) -> list[Epoch]:
    """Train a network with AdamW; it ends in the state with the best validation score.

    An epoch goes through ``batches()``, each with its ``loss``; then ``score()``, in evaluation
    mode, says how good the network is, larger being better. Trained are the ``parameters``, all
    by default; ``progress`` is told the number of the epoch and what came of it.
    """
    trained = list(network.parameters() if parameters is None else parameters)
    optimizer = torch.optim.AdamW(
        trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    history: list[Epoch] = []
    best, best_state, waited = -float("inf"), None, 0
    for number in range(1, settings.epochs + 1):
        network.train()
        total, count = 0.0, 0
        for batch in batches():
            optimizer.zero_grad(set_to_none=True)
            value = loss(batch)
            torch.autograd.backward(value)
            nn.utils.clip_grad_norm_(trained, settings.max_norm)
            optimizer.step()
            total, count = total + float(value.detach()), count + 1
        network.eval()
        with torch.inference_mode():
            epoch = Epoch(total / max(count, 1), score())
        history.append(epoch)
        if progress is not None:
            progress(number, epoch)
        if epoch.score > best:
            best, waited = epoch.score, 0
            best_state = copy.deepcopy(network.state_dict())
        else:
            waited += 1
            if waited >= settings.patience:
                break
    if best_state is not None:
        network.load_state_dict(best_state)
    network.eval()
    return history


def shuffled(n: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of an epoch's batches, in random order; a last batch of one cell is joined."""
    order = torch.randperm(n, generator=generator)
    parts = list(torch.split(order, batch_size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return iter(parts)
