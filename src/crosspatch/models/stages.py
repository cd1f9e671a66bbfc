"""What a network is trained on, and how: the same for one network and for many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from crosspatch.models.loop import Epoch, TrainingSettings, shuffled, train_network
from crosspatch.models.sequence import Network

EpochProgress = Callable[[int, Epoch], None]

#: Where there is a class, says that there is no cell; what torch's losses pass by.
NO_CELL = -100


class TrainingCells(NamedTuple):
    """Cells on the device a network runs on; the first axis is that of cells."""

    values: Tensor
    present: Tensor
    y: Tensor
    #: What dropout leaves of their encodings, where it is drawn beforehand: none, or one tensor.
    kept: tuple[Tensor, ...] = ()

    def at(self, index: Tensor) -> TrainingCells:
        """The cells of these numbers."""
        return TrainingCells(self.values[index], self.present[index], self.y[index])


Parts = tuple[TrainingCells, ...]
#: The loss of a network on the cells of a batch, given what it is to know of each part's classes.
Loss = Callable[[Network, Parts, tuple[Tensor, ...]], Tensor]


@dataclass(frozen=True, kw_only=True)
class TrainingStage:
    """The training of a network from one state to the next."""

    network: Network
    trained: nn.Module  # the network or a part of it
    cells: Parts  # what batches are taken from: of the target, or of target and source
    loss: Loss
    classes: tuple[Tensor, ...]  # what the loss takes of the classes of each part
    validation: TrainingCells
    settings: TrainingSettings
    generator: torch.Generator  # of the order of cells
    seed: int  # of dropout, where it is drawn beforehand
    progress: EpochProgress | None = None
    history: list[Epoch] = field(default_factory=list)  # what came of it

    def batches(self) -> Iterator[tuple[Tensor, ...]]:
        """The numbers of an epoch's cells, for each part.

        The largest part is gone through once, another starts anew where it ends.
        """
        sizes = [len(part.y) for part in self.cells]
        largest = sizes.index(max(sizes))
        orders = [self._again(n) for n in sizes]
        orders[largest] = self._shuffled(sizes[largest])
        # The largest comes first, so that no other is asked where it has ended.
        for index in orders.pop(largest):
            batch = [next(order) for order in orders]
            yield (*batch[:largest], index, *batch[largest:])

    def _shuffled(self, n: int) -> Iterator[Tensor]:
        return shuffled(n, self.settings.batch_size, self.generator)

    def _again(self, n: int) -> Iterator[Tensor]:
        while True:
            yield from self._shuffled(n)

    def run(self) -> None:
        """Train the network alone."""
        self.network.requires_grad_(False)
        self.trained.requires_grad_(True)
        validation = self.validation

        def loss(batch: tuple[Tensor, ...]) -> Tensor:
            parts = tuple(cells.at(index) for cells, index in zip(self.cells, batch, strict=True))
            return self.loss(self.network, parts, self.classes)

        def score() -> float:
            logits = self.network(validation.values, validation.present)
            return float(macro_f1(logits, validation.y))

        self.history[:] = train_network(
            self.network,
            batches=self.batches,
            loss=loss,
            score=score,
            settings=self.settings,
            parameters=self.trained.parameters(),
            progress=self.progress,
        )


def macro_f1(logits: Tensor, y: Tensor) -> Tensor:
    """Macro-F1 over the classes that are there or predicted.

    The logits have shape (..., cells, classes), ``y`` has shape (..., cells), the result (...).
    """
    classes = torch.arange(logits.shape[-1], device=y.device)
    true = y[..., None] == classes
    predicted = (logits.argmax(-1, keepdim=True) == classes) & (y != NO_CELL)[..., None]
    counted = true.sum(-2) + predicted.sum(-2)
    scores = 2 * (true & predicted).sum(-2).double() / counted.clamp(min=1)
    return scores.sum(-1) / (counted > 0).sum(-1)
