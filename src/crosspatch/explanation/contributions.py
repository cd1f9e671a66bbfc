"""What speaks for and against a class of one cell: the share of each family in its probability."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from crosspatch.features.layouts import Layout
from crosspatch.models.judging import Judging

#: With more families than this, subsets of them are drawn; so many have 4,096, which takes trees
#: one or two seconds per cell.
EXACT_UP_TO = 12

#: Numbers a model is given at a time: 64 MiB.
_AT_A_TIME = 2**24
# Where subsets are drawn: how many, and how often anew, which tells how far off the values are.
_DRAWN = 512
_REPEATS = 8

CONTRIBUTION_COLUMNS = ("cell", "class", "family", "contribution", "error", "base", "probability")


def contributions(
    model: BaseEstimator,
    X: ArrayLike,
    layout: Layout,
    *,
    exact_up_to: int = EXACT_UP_TO,
    repeats: int = _REPEATS,
    seed: int = 0,
) -> pd.DataFrame:
    """How much each family a cell has adds to the probability that a classifier gives each class.

    These are Shapley values. The players are the families that the cell has; a family that is out
    is missing, as it is in cells in which it was never measured, which the models are trained to
    do without. So the value of a set of families is what the model itself says of the cell where
    only they were measured, calibrated for what they tell, and no other cells are needed. A
    family's contribution is what it adds, averaged over all orders in which families can come.

    The contributions to a class sum to its probability minus `base_rates`. Those of a family sum
    to zero over the classes. A fuller cell is calibrated otherwise than a sparse one, so that even
    a family that tells nothing can contribute a little.

    Of a calibrated model the calibrated probabilities are explained, also of sets of families
    that alone would be too little to be given a class. With up to `exact_up_to` families all
    subsets are evaluated; with more, some are drawn, `repeats` times, at least twice; values are
    the mean.

    One row per cell, class and family present: ``cell`` (row of X), ``class``, ``family``,
    ``contribution``, its standard ``error`` (0 where all subsets were evaluated), ``base``, and the
    ``probability`` of the class. Cells that the model gives no class have no rows.

    Shapley: A value for n-person games. Contributions to the Theory of Games 2 (1953).
    Lundberg, Lee: A unified approach to interpreting model predictions. NeurIPS 2017.
    Covert, Lee: Improving KernelSHAP. AISTATS 2021.
    """
    X = np.asarray(X)
    classes = [str(name) for name in model.classes_]
    base = base_rates(model, layout)
    enough = np.ones(len(X), dtype=bool)
    if isinstance(model, Judging):
        enough = model.enough(X)
    present = layout.present(X) & enough[:, None]
    # Cells with the same families are one game with many outcomes: a call for all of them.
    patterns, which = np.unique(present, axis=0, return_inverse=True)
    parts = []
    for number in np.flatnonzero(patterns.any(axis=1)):
        families = np.array(layout.families)[patterns[number]].tolist()
        rows = np.flatnonzero(np.ravel(which) == number)
        exact = len(families) <= exact_up_to
        # The values of all subsets of so many cells stay in memory.
        subsets = 2 ** len(families) if exact else _DRAWN
        step = max(1, _AT_A_TIME // (subsets * len(classes)))
        for first in range(0, len(rows), step):
            here = rows[first : first + step]
            game = _Game(model, X[here], layout, families, base)
            shares, errors = _shapley(game, exact, repeats, seed)
            whole = game(np.ones((1, len(families)), dtype=bool))[0]
            index = pd.MultiIndex.from_product(
                [families, here, classes], names=["family", "cell", "class"]
            )
            part = pd.DataFrame({"contribution": shares.ravel(), "error": errors.ravel()}, index)
            part["base"] = np.tile(base, len(families) * len(here))
            part["probability"] = np.tile(whole, len(families))
            parts.append(part.reset_index())
    columns = list(CONTRIBUTION_COLUMNS)
    if not parts:
        return pd.DataFrame(columns=columns)
    found = pd.concat(parts, ignore_index=True)[columns]
    order = {name: k for k, name in enumerate((*classes, *layout.families))}
    return found.sort_values(
        ["cell", "class", "family"],
        key=lambda c: c if c.name == "cell" else c.map(order),
        ignore_index=True,
    )


def base_rates(model: BaseEstimator, layout: Layout) -> NDArray[np.float64]:
    """What is to be said of a cell of which nothing was measured, shape (classes,).

    Of a calibrated model: the shares of the classes among the cells it learnt from. It gives
    such a cell no class, and has never learnt to: what its trees say of nothing at all is where
    missing values happen to be sent. Of another classifier: its answer.
    """
    if isinstance(model, Judging):
        return np.asarray(model.reference_.priors_, dtype=np.float64)
    nothing = np.full((1, len(layout.features)), np.nan, dtype=np.float32)
    return np.asarray(model.predict_proba(nothing), dtype=np.float64)[0]


@dataclass(frozen=True, eq=False)
class _Game:
    """From sets of families to the probabilities of every cell and class, in one row per set."""

    model: BaseEstimator
    X: NDArray[np.floating]
    layout: Layout
    families: Sequence[str]
    base: NDArray[np.float64]

    def __call__(self, sets: ArrayLike) -> NDArray[np.float64]:
        """Values of sets, shape (sets, cells x classes)."""
        chosen = np.asarray(sets).astype(bool)
        different, which = np.unique(chosen, axis=0, return_inverse=True)
        values = np.empty((len(different), len(self.X), len(self.base)))
        step = max(1, _AT_A_TIME // self.X.size)
        for first in range(0, len(different), step):
            here = different[first : first + step]
            cells = np.repeat(self.X[None], len(here), axis=0)
            for player, family in enumerate(self.families):
                out = np.flatnonzero(~here[:, player])
                columns = self.layout.columns[family]
                cells[np.ix_(out, np.arange(len(self.X)), columns)] = np.nan
            said = _probabilities(self.model, cells.reshape(-1, self.X.shape[1]))
            values[first : first + step] = said.reshape(len(here), len(self.X), -1)
        values[~different.any(axis=1)] = self.base
        return values.reshape(len(different), -1)[np.ravel(which)]


def _probabilities(model: BaseEstimator, X: NDArray) -> NDArray[np.float64]:
    """Probabilities, of a calibrated model also for cells that have too little for a class."""
    said = model.calibrated(X) if isinstance(model, Judging) else model.predict_proba(X)
    return np.asarray(said, dtype=np.float64)


def _shapley(game: _Game, exact: bool, repeats: int, seed: int) -> tuple[NDArray, NDArray]:
    """Shapley values and their standard errors, shape (families, cells x classes).

    Kernel SHAP is exact over all subsets. The library's explainers by enumeration and permutation
    give the same, but compile themselves for ten seconds first.
    """
    from shap import KernelExplainer

    n = len(game.families)
    explainer = KernelExplainer(game, np.zeros((1, n)))

    def values(samples: int) -> NDArray[np.float64]:
        found = explainer.shap_values(np.ones((1, n)), nsamples=samples, l1_reg=False, silent=True)
        return np.asarray(found, dtype=np.float64)[0]

    if exact:
        whole = values(2**n)
        return whole, np.zeros_like(whole)
    with _seeded(seed):
        drawn = np.stack([values(_DRAWN) for _ in range(repeats)])
    return drawn.mean(axis=0), drawn.std(axis=0, ddof=1) / math.sqrt(repeats)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The library draws from numpy's common state; afterwards that is as it was before."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
