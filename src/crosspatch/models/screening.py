"""How the screen for excitatory cells is learnt, and how it does in laboratories held out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from crosspatch.errors import ModelError
from crosspatch.features.layouts import Layout
from crosspatch.models.absence import with_copies
from crosspatch.models.boosting import build_boosting
from crosspatch.models.calibration import GROUPS, donor_weights, group_of, weighted_quantiles
from crosspatch.models.gaussian import Gaussians
from crosspatch.models.physics import PhysicsInputs
from crosspatch.models.reference import Reference
from crosspatch.models.screen import GRID, KINDS, HeldRig, Limits, Scorer, Screen
from crosspatch.models.trees import Trees

#: By how many standard deviations of the training cells the second trees' cells are blurred.
BLUR = 2.0

#: Groups of datasets that a screen is learnt from, at least: with one held out two are left.
FEWEST_RIGS = 3

# Copies of every cell with features taken away, for training and for the limits.
_COPIES = 4

# By how much more than over all rigs a limit may be missed in one.
_SLACK = 0.03

# A held-back group of datasets with fewer cells of a kind sets no limit for it.
_ENOUGH = 20

_boosting = partial(
    build_boosting,
    n_estimators=200,
    num_leaves=8,
    learning_rate=0.05,
    colsample_bytree=0.25,
    subsample=0.5,
    subsample_freq=1,
    class_weight=None,
)


class KindCells(NamedTuple):
    """Cells of known kind, from groups of datasets of which each has both kinds."""

    X: NDArray[np.float32]  # shape (cells, features), NaN where missing
    excitatory: NDArray[np.bool_]  # shape (cells,), as are the others
    rigs: NDArray[np.str_]  # the group of datasets, which were measured alike
    donors: NDArray[np.str_]

    def where(self, chosen: NDArray[np.bool_]) -> KindCells:
        """Some of them."""
        return KindCells._make(part[chosen] for part in self)


class HeldKinds(NamedTuple):
    """What was said of cells whose group of datasets was held out; shape (predictions,) each."""

    rows: NDArray[np.intp]  # row of the cell
    whole: NDArray[np.bool_]  # whether it had all that was measured
    score: NDArray[np.float64]
    distance: NDArray[np.float64]
    information: NDArray[np.float64]

    @property
    def whole_only(self) -> HeldKinds:
        """Of cells with all that was measured."""
        return HeldKinds._make(part[self.whole] for part in self)


def fit_scorer(layout: Layout, cells: KindCells, seed: int = 0) -> Scorer:
    """Learn to tell the kinds apart.

    In every group of datasets both kinds weigh the same, and groups do, so that what tells
    datasets apart does not tell kinds apart.
    """
    rng = np.random.default_rng(seed)
    inputs = PhysicsInputs.fit(layout, cells.X)
    copies, rows = with_copies(cells.X, layout, _COPIES, rng)
    Z = inputs.transform(copies)
    whole = Gaussians.fit(Z[: len(cells.X)], np.zeros(len(cells.X), dtype=np.intp))
    Z, y, weights = whole.filled(Z), cells.excitatory[rows], _balanced(cells)[rows]
    blurred = Z + BLUR * rng.standard_normal(Z.shape)
    sharp, blunt = (Trees.of(_boosting(seed).fit(each, y, weights)) for each in (Z, blurred))
    kinds = np.array(KINDS)[cells.excitatory.astype(int)]
    return Scorer(inputs, whole, sharp, blunt, Reference(layout).fit(cells.X, kinds))


def _balanced(cells: KindCells) -> NDArray[np.float64]:
    """Weights of cells, one on average, with which groups weigh the same and kinds in them do."""
    both = np.char.add(cells.rigs, np.where(cells.excitatory, "+", "-"))
    _, which, count = np.unique(both, return_inverse=True, return_counts=True)
    return len(both) / len(count) / count[which]


def held_out(layout: Layout, cells: KindCells, rig: str, seed: int = 0) -> HeldKinds:
    """What a scorer that knows nothing of a group of datasets, nor of its donors, says of it."""
    here = cells.rigs == rig
    others = ~here & ~np.isin(cells.donors, cells.donors[here])
    scorer = fit_scorer(layout, cells.where(others), seed)
    X, rows = with_copies(cells.X[here], layout, _COPIES, np.random.default_rng([seed, 1]))
    whole = np.arange(len(X)) < here.sum()
    found = scorer.scores(X), *scorer.reference.compare(X)
    return HeldKinds(np.flatnonzero(here)[rows], whole, *found)


def held_limits(cells: KindCells, held: HeldKinds) -> Limits:
    """The limits that hold in rigs that were held out."""
    weights = _balanced(cells)[held.rows]
    order = np.argsort(held.information)
    share = np.cumsum(weights[order]) / weights.sum()
    least = held.information[order][np.searchsorted(share, np.arange(GROUPS) / GROUPS)]
    group = group_of(held.information, least)
    excitatory = cells.excitatory[held.rows]
    return Limits(
        least,
        -_lowest(cells, held, -held.score, np.where(excitatory, -1, group))[:, ::-1],
        _lowest(cells, held, held.score, np.where(excitatory, group, -1)),
        -_lowest(cells, held, -held.distance, np.where(excitatory, group, -1))[:, ::-1],
    )


def _lowest(
    cells: KindCells, held: HeldKinds, values: NDArray[np.float64], group: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Quantiles of each group of cells, shape (groups, grid), that leave few of any rig below.

    They are those over all rigs, which weigh the same, and no rig has more than `_SLACK` more below
    one. A group of cells that no rig has enough of has those of the next that tells less, else of
    the next that tells more. Cells of a group below 0 take no part.
    """
    rigs, donors, found = cells.rigs[held.rows], cells.donors[held.rows], {}
    more = np.minimum(np.arange(GRID) + round(_SLACK * GRID), GRID - 1)
    for number in range(GROUPS):
        there = [(rigs == rig) & (group == number) for rig in np.unique(rigs)]
        there = [here for here in there if len(np.unique(held.rows[here])) >= _ENOUGH]
        if not there:
            continue
        weights = [donor_weights(donors[here]) / len(there) for here in there]
        every = np.concatenate([values[here] for here in there])
        parts = [weighted_quantiles(every, np.concatenate(weights), GRID)]
        for here, weight in zip(there, weights, strict=True):
            parts.append(weighted_quantiles(values[here], weight * len(there), GRID)[more])
        found[number] = np.min(parts, axis=0)
    if not found:
        raise ModelError("too few cells of both kinds to set limits")
    nearest = [max((n for n in found if n <= g), default=min(found)) for g in range(GROUPS)]
    return np.array([found[number] for number in nearest])


def fit_screen(
    layout: Layout, cells: KindCells, datasets: tuple[str, ...], *, seed: int = 0, jobs: int = 1
) -> Screen:
    """Learn a screen, with limits from groups of datasets held out one by one."""
    rigs = np.unique(cells.rigs).tolist()
    if len(rigs) < FEWEST_RIGS:
        raise ModelError(f"cells of {FEWEST_RIGS} rigs are needed, there are {len(rigs)}")
    work = [delayed(held_out)(layout, cells, rig, seed) for rig in rigs]
    *parts, scorer = Parallel(n_jobs=jobs)([*work, delayed(fit_scorer)(layout, cells, seed)])
    held = HeldKinds._make(np.concatenate(part) for part in zip(*parts, strict=True))
    limits = held_limits(cells, held)
    return Screen(scorer, limits, datasets, tuple(_by_rig(cells, held.whole_only, limits)))


def _by_rig(cells: KindCells, held: HeldKinds, limits: Limits) -> Iterator[HeldRig]:
    """What is said of each rig held out, with limits that were set on its cells too."""
    said = limits.compare(held.score, held.distance, held.information)
    excitatory, rigs = cells.excitatory[held.rows], cells.rigs[held.rows]
    for rig in np.unique(rigs).tolist():
        here, inside = (rigs == rig) & excitatory, (rigs == rig) & ~excitatory
        yield HeldRig(
            rig,
            int(here.sum()),
            round(float(said.excitatory[here].mean()), 3),
            round(float(1 - said.interneuron[here].mean()), 3),
            int(inside.sum()),
            round(float(1 - said.interneuron[inside].mean()), 3),
        )
