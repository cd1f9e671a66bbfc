"""Many networks of one kind trained at once, with weights stacked: `TrainingStage.run` for many.

Made for a GPU, which a single network of this size leaves idle. Every network has its own cells,
batches, class weights, dropout, optimizer, clipping and early stopping; one that is done stays as
it is, and leaves the stack when enough others are done too. Which others are in the stack changes
nothing for a network except rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import pad_sequence

from crosspatch.models.loop import Epoch, TrainingSettings
from crosspatch.models.sequence import LinearHead, Network
from crosspatch.models.sequence_classifier import SequenceClassifierBase
from crosspatch.models.stages import NO_CELL, Loss, Parts, TrainingCells, TrainingStage, macro_f1

#: The most networks of a stack: more need memory and are hardly faster.
_MOST = 64
#: A stack is made smaller when no more than this share of it still learns.
_WORTH_KEEPING = 0.6


def fit_together(
    models: Sequence[SequenceClassifierBase], given: Sequence[Mapping[str, Any]]
) -> None:
    """Fit models that differ in seeds and cells alone, each with what its `fit` is given."""
    for start in range(0, len(models), _MOST):
        several, begun = models[start : start + _MOST], []
        for model, cells in zip(several, given[start : start + _MOST], strict=True):
            with model.started(**cells) as stages:
                begun.append(stages)
        for together in zip(*begun, strict=True):
            train_together(together)
        for model, stages in zip(several, begun, strict=True):
            model.network_ = stages[-1].network


def train_together(stages: Sequence[TrainingStage]) -> None:
    """Run stages that differ in cells, class weights and seeds alone."""
    settings = stages[0].settings
    stack = _Stack(stages)
    best = stack.weights.detach().clone()  # of every network, whether in the stack or not
    highest, waited = [-float("inf")] * len(stages), [0] * len(stages)
    learning = list(range(len(stages)))
    for number in range(1, settings.epochs + 1):
        if len(learning) <= _WORTH_KEEPING * len(stack.members):
            stack = stack.of(learning)
        epochs = stack.epoch(learning)
        for member, epoch in epochs.items():
            stages[member].history.append(epoch)
            if (progress := stages[member].progress) is not None:
                progress(number, epoch)
            waited[member] += 1
            if epoch.score > highest[member]:
                highest[member], waited[member] = epoch.score, 0
        gained = [member for member in learning if not waited[member]]
        best[gained] = stack.weights.detach()[[stack.members.index(each) for each in gained]]
        learning = [member for member in learning if waited[member] < settings.patience]
        if not learning:
            break
    for stage, weights in zip(stages, best, strict=True):
        stack.form.write(weights, stage.network)


class _Form:
    """How the weights of a network that are trained lie in one row of numbers."""

    def __init__(self, stage: TrainingStage):
        trained = {id(each) for each in stage.trained.parameters()}
        named = dict(stage.network.named_parameters())
        self.shapes = {name: each.shape for name, each in named.items() if id(each) in trained}
        self.frozen = [name for name in named if name not in self.shapes]

    def row(self, network: nn.Module) -> Tensor:
        """The weights of a network."""
        named = dict(network.named_parameters())
        return torch.cat([named[name].detach().flatten() for name in self.shapes])

    def apart(self, rows: Tensor) -> dict[str, Tensor]:
        """The weights by name, of one row or of many."""
        parts = torch.split(rows, [shape.numel() for shape in self.shapes.values()], dim=-1)
        return {
            name: torch.unflatten(part, -1, shape)
            for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)
        }

    def write(self, row: Tensor, network: nn.Module) -> None:
        """Give a network the weights, and leave it as `TrainingStage.run` does."""
        network.load_state_dict(self.apart(row), strict=False)
        network.requires_grad_(True).eval()


class _Loss(nn.Module):
    """The loss of a network, as a network."""

    def __init__(self, network: Network, loss: Loss):
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, parts: Parts, classes: tuple[Tensor, ...]) -> Tensor:
        """The loss of a batch."""
        return self.loss(self.network, parts, classes)


class _AdamW:
    """`torch.optim.AdamW` for rows of weights that have taken different numbers of steps."""

    betas, eps = (0.9, 0.999), 1e-8

    def __init__(self, weights: Tensor, settings: TrainingSettings):
        self.weights, self.settings = weights, settings
        self.first, self.second = torch.zeros_like(weights), torch.zeros_like(weights)
        self.steps = weights.new_zeros(len(weights), 1, dtype=torch.float64)

    def of(self, rows: Tensor, weights: Tensor) -> _AdamW:
        """The same for some of the rows."""
        found = _AdamW(weights, self.settings)
        found.first, found.second, found.steps = (
            each[rows] for each in (self.first, self.second, self.steps)
        )
        return found

    @torch.no_grad()
    def step(self, gradient: Tensor, active: Tensor) -> None:
        """Clip each row's gradient and descend; rows that are not active stay. Shape (rows, 1)."""
        gradient = torch.where(active, gradient, 0.0)
        norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
        gradient = gradient * (self.settings.max_norm / (norm + 1e-6)).clamp(max=1.0)
        self.steps += active
        moves = active.to(gradient.dtype)
        ours, theirs = self.betas
        self.first.lerp_(gradient, (1 - ours) * moves)
        self.second.lerp_(gradient.square(), (1 - theirs) * moves)
        taken = self.steps.clamp(min=1)
        rate = (self.settings.learning_rate / (1 - ours**taken)).to(gradient.dtype) * moves
        root = (1 - theirs**taken).sqrt().to(gradient.dtype)
        decay = self.settings.learning_rate * self.settings.weight_decay
        self.weights.mul_(1 - decay * moves)
        self.weights.sub_(rate * self.first / (self.second.sqrt() / root + self.eps))


class _Stack:
    """Networks side by side; the first axis of its tensors is that of networks."""

    def __init__(self, stages: Sequence[TrainingStage]):
        first = stages[0]
        if not isinstance(first.network.head, LinearHead):
            raise TypeError("only networks with linear heads can be stacked")
        self.stages, self.members, self.settings = stages, list(range(len(stages))), first.settings
        self.form, self.network = _Form(first), first.network.eval()
        self.loss = _Loss(first.network, first.loss)
        self.weights = torch.stack([self.form.row(each.network) for each in stages])
        self.weights.requires_grad_()
        self.optimizer = _AdamW(self.weights, first.settings)
        of_networks = [dict(each.network.named_parameters()) for each in stages]
        self.frozen = {
            name: torch.stack([named[name].detach() for named in of_networks])
            for name in self.form.frozen
        }
        by_part = zip(*(each.cells for each in stages), strict=True)
        self.cells = [_side_by_side(cells) for cells in by_part]
        self.validation = _side_by_side([each.validation for each in stages])
        of_classes = zip(*(each.classes for each in stages), strict=True)
        self.classes = tuple(torch.stack(each) for each in of_classes)
        device = self.weights.device
        self.dropouts = [torch.Generator(device).manual_seed(each.seed) for each in stages]
        self._make_ready()

    def of(self, members: list[int]) -> _Stack:
        """The stack of some of its members."""
        places = [self.members.index(member) for member in members]
        rows = torch.tensor(places, device=self.weights.device)
        found = copy.copy(self)
        found.members = members
        found.weights = self.weights.detach()[rows].requires_grad_()
        found.optimizer = self.optimizer.of(rows, found.weights)
        found.frozen = {name: each[rows] for name, each in self.frozen.items()}
        found.cells = [part.at(rows) for part in self.cells]
        found.validation = self.validation.at(rows)
        found.classes = tuple(each[rows] for each in self.classes)
        found.dropouts = [self.dropouts[place] for place in places]
        found._make_ready()
        return found

    def epoch(self, learning: Sequence[int]) -> dict[int, Epoch]:
        """Train those members that still learn for an epoch; what came of it by member."""
        orders = [self._order(member in learning, member) for member in self.members]
        steps = max(len(order[0]) for order in orders)
        numbers = [torch.full((steps, *part.shape), -1) for part in self.numbers]
        kept = [self.kept[0].new_zeros(steps, *part.shape) for part in self.kept]
        for place, order in enumerate(orders):
            for part, indices in enumerate(order):
                n, most = indices.shape
                numbers[part][:n, place, :most] = indices
                kept[part][:n, place] = self._drawn(n, place)[:, : kept[part].shape[2]]
        there = [part.to(self.weights.device) for part in numbers]
        self.total.zero_()
        for step in range(steps):
            for now, later in zip((*self.numbers, *self.kept), (*there, *kept), strict=True):
                now.copy_(later[step])
            self.step()
        taken = (numbers[0][:, :, 0] >= 0).sum(0).tolist()
        found = torch.stack([self.total, self._scores()]).tolist()  # the one wait for the device
        return {
            member: Epoch(total / max(n, 1), score)
            for member, n, total, score in zip(self.members, taken, *found, strict=True)
            if member in learning
        }

    def _order(self, learns: bool, member: int) -> list[Tensor]:
        """The numbers of a member's cells for each part, shape (steps, cells); else none."""
        if not learns:
            return [torch.empty(0, 0, dtype=torch.int64) for _ in self.cells]
        by_part = zip(*self.stages[member].batches(), strict=True)
        return [pad_sequence(list(each), batch_first=True, padding_value=-1) for each in by_part]

    def _drawn(self, steps: int, place: int) -> Tensor:
        """What dropout leaves: of a shape that does not depend on the other networks."""
        size, settings = self.network.encoder.size, self.network.encoder.settings
        most = self.settings.batch_size + 1  # `shuffled` joins a last batch of one cell
        empty = self.kept[0].new_empty(steps, most, size)
        return empty.bernoulli_(1 - settings.dropout, generator=self.dropouts[place])

    def _make_ready(self) -> None:
        """Make room for a batch, and `step`, which trains on what is put there."""
        n, batch_size = len(self.members), self.settings.batch_size
        self.total = self.weights.new_zeros(n, dtype=torch.float64)
        size, device = self.network.encoder.size, self.weights.device
        most = [
            max(_largest_batch(len(each.cells[part].y), batch_size) for each in self.stages)
            for part in range(len(self.cells))
        ]
        self.numbers = [torch.full((n, each), -1, device=device) for each in most]
        self.kept = [torch.zeros(n, each, size, dtype=torch.bool, device=device) for each in most]
        self.step = _captured(self._step) if device.type == "cuda" else self._step

    def _step(self) -> None:
        active = self.numbers[0][:, :1] >= 0
        losses = torch.vmap(self._loss_of)(
            self.form.apart(self.weights), self.frozen, self._batch(), self.classes
        )
        (gradient,) = torch.autograd.grad(losses.sum(), self.weights)
        self.optimizer.step(gradient, active)
        self.total += torch.where(active[:, 0], losses.detach(), 0.0)

    def _loss_of(
        self,
        trained: dict[str, Tensor],
        frozen: dict[str, Tensor],
        parts: Parts,
        classes: tuple[Tensor, ...],
    ) -> Tensor:
        weights = {f"network.{name}": each for name, each in (trained | frozen).items()}
        found: Tensor = functional_call(self.loss, weights, (parts, classes))
        return found

    def _batch(self) -> Parts:
        """The cells whose numbers are given; there is no class where there is no cell."""
        which = torch.arange(len(self.members), device=self.weights.device)[:, None]
        scale = 1 / (1 - self.network.encoder.settings.dropout)
        return tuple(
            TrainingCells(
                cells.values[which, numbers.clamp(min=0)],
                cells.present[which, numbers.clamp(min=0)],
                torch.where(numbers < 0, NO_CELL, cells.y[which, numbers.clamp(min=0)]),
                (kept * scale,),
            )
            for cells, numbers, kept in zip(self.cells, self.numbers, self.kept, strict=True)
        )

    @torch.no_grad()
    def _scores(self) -> Tensor:
        weights = self.form.apart(self.weights) | self.frozen
        cells = self.validation
        logits = torch.vmap(lambda *each: functional_call(self.network, each[0], each[1:]))(
            weights, cells.values, cells.present
        )
        return macro_f1(logits, cells.y)


def _side_by_side(cells: Sequence[TrainingCells]) -> TrainingCells:
    """Cells of many networks, shape (networks, cells, ...)."""
    padded = partial(pad_sequence, batch_first=True)
    return TrainingCells(
        padded([each.values for each in cells]),
        padded([each.present for each in cells]),
        padded([each.y for each in cells], padding_value=NO_CELL),
    )


def _largest_batch(n: int, batch_size: int) -> int:
    return min(n, batch_size + (n % batch_size == 1))


def _captured(step: Callable[[], None]) -> Callable[[], None]:
    """A step as a graph, which a GPU runs without waiting for Python; here it is to do nothing."""
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):  # libraries get ready in the first steps
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
