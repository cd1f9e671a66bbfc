"""How the screen for excitatory cells is learnt, and how it does in laboratories held out."""

from __future__ import annotations

from collections.abc import Callable
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
from crosspatch.models.screen import GRID, KINDS, Limits, Scorer, Screen
from crosspatch.models.trees import Trees

#: By how many standard deviations of the training cells the second trees' cells are blurred.
BLUR = 2.0

#: Groups of datasets that a screen is learnt from, at least: with one held out two are left.
FEWEST_RIGS = 3

# Copies of every cell with features taken away, for training and for the limits.
_COPIES = 4

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
    """The limits that hold in every group of datasets that was held out."""
    weights = _balanced(cells)[held.rows]
    order = np.argsort(held.information)
    share = np.cumsum(weights[order]) / weights.sum()
    least = held.information[order][np.searchsorted(share, np.arange(GROUPS) / GROUPS)]
    group = group_of(held.information, least)
    return Limits(
        least,
        _envelopes(cells, held, held.score, group, kind=False, outer=np.max),
        _envelopes(cells, held, held.score, group, kind=True, outer=np.min),
        _envelopes(cells, held, held.distance, group, kind=True, outer=np.max),
    )


def _envelopes(
    cells: KindCells,
    held: HeldKinds,
    values: NDArray[np.float64],
    group: NDArray[np.intp],
    *,
    kind: bool,
    outer: Callable[..., NDArray],
) -> NDArray[np.float64]:
    """Of each group of cells the outermost of the quantiles of every rig that has enough.

    Where none has, those of the next group that tells less, else of the next that tells more.
    """
    rigs, found = cells.rigs[held.rows], {}
    for number in range(GROUPS):
        parts = []
        for rig in np.unique(rigs):
            here = (rigs == rig) & (cells.excitatory[held.rows] == kind) & (group == number)
            if len(np.unique(held.rows[here])) >= _ENOUGH:
                weights = donor_weights(cells.donors[held.rows[here]])
                parts.append(weighted_quantiles(values[here], weights, GRID))
        if parts:
            found[number] = outer(parts, axis=0)
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
    return Screen(scorer, held_limits(cells, held), datasets)
