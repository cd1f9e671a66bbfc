"""Attention by class and family, and whether it agrees with what families are really worth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from crosspatch.evaluation.comparison import corrected_resampled_t
from crosspatch.explanation.ablation import PERMUTED, REMOVED, drops, share_of_tests
from crosspatch.explanation.result_tables import TABLE_COLUMNS
from crosspatch.species import HUMAN, MOUSE

#: ``subclass`` of the mean over all cells.
EVERY_CLASS = "all"

#: A mean rank correlation from which on two orders of families are said to agree.
AGREES = 0.5
#: The same for attention of models that differ in their seed alone, which are to be alike.
STABLE = 0.8

#: With fewer families no rank correlation is computed: two can only be alike or opposite.
FEWEST_RANKED = 3
#: With fewer families nothing is said: of four, one order in 24 agrees perfectly by chance.
FEWEST_FAMILIES = 5
#: With fewer families a verdict says how few they are.
ENOUGH_FAMILIES = 10

#: Share of all orders of the families that may agree as well as those that were found.
LEVEL = 0.05
#: All orders of so many families are tried; of more, so many drawn ones.
_ALL_ORDERS_OF, _DRAWN_ORDERS = 8, 20_000

_EXPLAINS = ("attention explains the model", "attention does not explain the model")
_TELL_SAME = (
    "permuting and removing tell the same",
    "permuting and removing tell different things",
)
_IS_STABLE = ("attention is stable over seeds", "attention is not stable over seeds")
_IS_ALIKE = ("attention is alike in mouse and human", "attention is not alike in mouse and human")
_MATTER_ALIKE = (
    "families matter alike in mouse and human",
    "families do not matter alike in mouse and human",
)

#: What is compared, and what is said of it if it agrees and if it does not.
_SAID = {
    "attention and permuted": _EXPLAINS,
    "attention and removed": _EXPLAINS,
    "permuted and removed": _TELL_SAME,
    "attention between seeds": _IS_STABLE,
    "mouse and human, permuted": _MATTER_ALIKE,
    "mouse and human, removed": _MATTER_ALIKE,
    "mouse and human, attention": _IS_ALIKE,
}

# Measure to what it gives every family (columns) in every fold (rows), and the share of test cells.
_Measured = tuple[dict[str, pd.DataFrame], float]


def attends(model: object) -> bool:
    """Whether a model weighs families by attention.

    A sequence model without attention has weights too: one for the last family, zero for the rest.
    """
    network = getattr(model, "network", None)
    return hasattr(model, "attention") and (network is None or bool(network.attention))


def attention_by_class(
    weights: ArrayLike, y: NDArray[np.str_], classes: Sequence[str], families: Sequence[str]
) -> list[dict[str, object]]:
    """Mean attention of cells by their true class.

    The mean is over all cells of a class; a family that a cell lacks has its weight of zero in
    it. So the weights of a class sum to one, as in arXiv 2603.11000, and they weigh a family as
    its importance does, to which cells without it add nothing.

    The weights have shape (cells, families). One row for all cells and for every class that has
    cells, with every family: ``subclass``, ``family``, ``weight`` and ``cells``.
    """
    weights = np.asarray(weights, dtype=float)
    chosen = {EVERY_CLASS: np.ones(len(y), bool)} | {name: y == name for name in classes}
    return [
        {"subclass": name, "family": family, "weight": weight, "cells": int(rows.sum())}
        for name, rows in chosen.items()
        if rows.any()
        for family, weight in zip(families, weights[rows].mean(axis=0).tolist(), strict=True)
    ]


def attention_table(by_fold: pd.DataFrame) -> pd.DataFrame:
    """Mean attention by species, model, true class and family.

    `by_fold` has the columns species, features, model, run, fold, seed, subclass, family, weight
    and cells. In the table ``weight`` is the mean over folds of the models with the first seed,
    those whose importance is measured; ``sd`` its standard deviation over folds; ``cells`` the
    held-out cells of a run.
    """
    if not len(by_fold):
        return pd.DataFrame(columns=TABLE_COLUMNS["attention"])
    first = by_fold[by_fold["seed"] == 0]
    who = ["species", "features", "model", "subclass", "family"]
    of_family = first.groupby(who, sort=False)
    found = of_family["weight"].agg(weight="mean", sd="std")
    runs = first.groupby([*who, "run"], sort=False)["cells"].sum()
    found["cells"] = runs.groupby(who, sort=False).first()
    return found.reset_index()[TABLE_COLUMNS["attention"]]


@dataclass(frozen=True)
class Agreement:
    """How far two measures put families in the same order."""

    families: int
    folds: int
    #: Rank correlation and its 95 % interval; NaN where it is not defined.
    spearman: float = math.nan
    ci_low: float = math.nan
    ci_high: float = math.nan
    #: Share of all orders of the families in which the second measure agrees with the first as well
    #: or better: what chance can do with so few families. NaN where it is not asked.
    p_value: float = math.nan


def agreement_in_folds(a: ArrayLike, b: ArrayLike, test_share: float, seed: int = 0) -> Agreement:
    """Spearman's correlation over families in every fold, and its mean over folds.

    The interval is that of the corrected resampled t-test over folds, cut to -1 and 1. It speaks
    of other cells and donors with the same families; how little so few families can tell is in
    the p-value. Folds in which a measure is the same for all families are left out.

    Both have shape (folds, families); `test_share` is test cells divided by training cells of a
    fold; `seed` is of the orders that are drawn, where there are too many to try all.
    """
    first, second = _ranks(a), _ranks(b)
    folds, families = first.shape
    used = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
    if families < FEWEST_RANKED or not used.any():
        return Agreement(families, folds)
    first, second = first[used], second[used]
    interval = _interval((first * second).sum(axis=1), test_share)
    p_value = _share_of_orders(first.T @ second, seed)
    return Agreement(families, int(used.sum()), *interval, p_value)


def agreement_of_seeds(weights: ArrayLike, test_share: float) -> Agreement:
    """Spearman's correlation between models that differ in their seed alone.

    In every fold the mean over pairs of seeds, over classes and families; then as in
    `agreement_in_folds`. There is no p-value: it is asked how alike they are, not whether at all.
    The weights, mean attention of held-out cells, have shape (folds, seeds, classes, families).
    """
    weights = np.asarray(weights, dtype=float)
    n_folds, n_seeds, _, families = weights.shape
    if families < FEWEST_RANKED or n_seeds < 2:
        return Agreement(families, n_folds)
    ranks = [_ranks(fold.reshape(n_seeds, -1)) for fold in weights]
    pairs = list(combinations(range(n_seeds), 2))
    rho = np.array([np.mean([fold[i] @ fold[j] for i, j in pairs]) for fold in ranks])
    known = rho[np.isfinite(rho)]
    if not len(known):
        return Agreement(families, n_folds)
    return Agreement(families, len(known), *_interval(known, test_share))


def agreement_of_species(
    a: ArrayLike, b: ArrayLike, shares: tuple[float, float], seed: int = 0, resamples: int = 2000
) -> Agreement:
    """Spearman's correlation over families between the means of two species.

    The interval is a bootstrap: folds of each species are drawn with replacement, apart, and the
    correlation of the means is taken; the 2.5th and 97.5th percentile. As training sets of folds
    overlap, what a resampled mean differs from the mean is first enlarged by the factor by which
    the corrected resampled t-test enlarges an error, the root of 1 + folds × test cells / training
    cells. Few families give few values, and noise shifts them, so that the interval may lie to one
    side of the correlation.

    Both have shape (folds of the species, families); `shares` are test cells divided by training
    cells, of each species.
    """
    parts = [np.asarray(part, dtype=float) for part in (a, b)]
    families, folds = parts[0].shape[1], min(len(part) for part in parts)
    ranks = [_ranks(part.mean(axis=0)[None]) for part in parts]
    if families < FEWEST_RANKED or not np.isfinite(ranks).all():
        return Agreement(families, folds)
    rng = np.random.default_rng(seed)
    drawn = []
    for part, share in zip(parts, shares, strict=True):
        mean = part.mean(axis=0)
        rows = rng.integers(len(part), size=(resamples, len(part)))
        deviation = part[rows].mean(axis=1) - mean
        drawn.append(_ranks(mean + math.sqrt(1 + len(part) * share) * deviation))
    low, high = np.nanpercentile((drawn[0] * drawn[1]).sum(axis=1), [2.5, 97.5]).tolist()
    # Summed as the draws are, so that rounding puts it on neither side of them.
    rho = float((ranks[0] * ranks[1]).sum(axis=1)[0])
    p_value = _share_of_orders(ranks[0].T @ ranks[1], seed)
    return Agreement(families, folds, rho, low, high, p_value)


def verdict(what: str, found: Agreement) -> str:
    """An agreement in words.

    They agree if the mean is at least `AGREES` (`STABLE` between seeds), the interval lies above
    zero, and no more than `LEVEL` of all orders of the families agree as well. They do not if the
    whole interval lies below that bound. Anything else shows neither. `what` is compared, as in
    the table.
    """
    if found.families < FEWEST_FAMILIES:
        return f"cannot be told from {found.families} families"
    if not math.isfinite(found.spearman):
        return "cannot be told: no family stands out in any fold"
    agrees, differs = _SAID[what]
    bound = STABLE if what == "attention between seeds" else AGREES
    by_chance = found.p_value > LEVEL  # False where chance is not asked
    words = differs if found.ci_high < bound else f"not shown that {agrees}"
    if found.spearman >= bound and found.ci_low > 0 and not by_chance:
        words = agrees
    return words + in_brackets(remark(found.families, found.spearman))


def remark(families: int, spearman: float) -> str:
    """What a verdict on such an agreement remarks; empty where it remarks nothing."""
    weak = FEWEST_FAMILIES <= families < ENOUGH_FAMILIES and math.isfinite(spearman)
    return f"weak evidence: {families} families" if weak else ""


def in_brackets(remark: str) -> str:
    """A remark as it ends a verdict."""
    return f" ({remark})" if remark else ""


def agreement_table(results: pd.DataFrame, by_fold: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Attention against importance, seed against seed, mouse against human.

    The results have one row per species, model, run, fold, seed and condition; for attention by
    fold see `attention_table`; `seed` is of what is resampled.
    """
    rows = [
        {"what": what, "species": species, "model": model, "verdict": verdict(what, found)}
        | vars(found)
        for what, species, model, found in _agreements(results, by_fold, seed)
    ]
    return pd.DataFrame(rows, columns=TABLE_COLUMNS["agreement"])


def _agreements(
    results: pd.DataFrame, by_fold: pd.DataFrame, seed: int
) -> Iterator[tuple[str, str, str, Agreement]]:
    """What is compared, in which species, of which model, and how far it agrees."""
    measured: dict[str, dict[str, _Measured]] = {}
    for group, part in results.groupby(["model", "species"], sort=False):
        model, species = map(str, group)
        theirs = by_fold[(by_fold["model"] == model) & (by_fold["species"] == species)]
        measures, share = _measures(part, theirs), share_of_tests(part)
        measured.setdefault(model, {})[species] = (measures, share)
        for a, b in combinations(("attention", PERMUTED, REMOVED), 2):
            if a in measures and b in measures:
                same = measures[b].reindex_like(measures[a])
                found = agreement_in_folds(measures[a].to_numpy(), same.to_numpy(), share, seed)
                yield f"{a} and {b}", species, model, found
        if (theirs["seed"] > 0).any():
            found = agreement_of_seeds(_by_seed(theirs), share)
            yield "attention between seeds", species, model, found
    for model, of_species in measured.items():
        if MOUSE.name in of_species and HUMAN.name in of_species:
            for what, found in _between(of_species[MOUSE.name], of_species[HUMAN.name], seed):
                yield what, "both", model, found


def _between(a: _Measured, b: _Measured, seed: int) -> Iterator[tuple[str, Agreement]]:
    """Agreement of two species in what both have measured."""
    (mouse, mouse_share), (human, human_share) = a, b
    for name in (PERMUTED, REMOVED, "attention"):
        if name in mouse and name in human:
            first, second = mouse[name], human[name][mouse[name].columns]
            shares = mouse_share, human_share
            found = agreement_of_species(first.to_numpy(), second.to_numpy(), shares, seed)
            yield f"mouse and human, {name}", found


def _measures(results: pd.DataFrame, by_fold: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What a model's attention and scores give each family (columns) in each fold (rows)."""
    measures = {how: drops(results, how) for how in (PERMUTED, REMOVED)}
    if len(by_fold):
        first = by_fold[(by_fold["seed"] == 0) & (by_fold["subclass"] == EVERY_CLASS)]
        measures["attention"] = first.pivot_table(
            index=["run", "fold"], columns="family", values="weight", sort=False
        )
    return {name: frame for name, frame in measures.items() if frame.shape[1]}


def _by_seed(by_fold: pd.DataFrame) -> NDArray[np.float64]:
    """Weights by fold, seed, class and family."""
    of_class = by_fold[by_fold["subclass"] != EVERY_CLASS]
    levels = ["run", "fold", "seed", "subclass", "family"]
    wide = of_class.pivot_table(index=levels[:3], columns=levels[3:], values="weight", sort=True)
    folds = len(of_class[levels[:2]].drop_duplicates())
    return wide.to_numpy(dtype=float).reshape(folds, *(of_class[levels[2:]].nunique()))


def _ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks of each row, centred and of length one, so that products sum to Spearman's rho.

    NaN for a row that is the same throughout.
    """
    ranks = np.asarray(rankdata(np.asarray(values, dtype=float), axis=1), dtype=float)
    ranks -= ranks.mean(axis=1, keepdims=True)
    length = np.sqrt((ranks**2).sum(axis=1, keepdims=True))
    return ranks / np.where(length > 0, length, np.nan)


def _interval(rho: NDArray[np.float64], test_share: float) -> tuple[float, float, float]:
    if len(rho) < 2:
        return float(rho.mean()), math.nan, math.nan
    test = corrected_resampled_t(rho, np.zeros(len(rho)), test_share)
    return test.delta, max(test.ci_low, -1.0), min(test.ci_high, 1.0)


def _share_of_orders(products: NDArray[np.float64], seed: int) -> float:
    """Share of orders of the second measure's families that agree as well as the real one.

    The products, shape (families, families), are of the ranks of the first (rows) and second
    measure, summed over folds: the sum along the diagonal is their agreement, and along any other
    order that of this order.
    """
    n = len(products)
    if n <= _ALL_ORDERS_OF:
        orders, extra = np.array(list(permutations(range(n)))), 0
    else:
        rng = np.random.default_rng(seed)
        orders = rng.permuted(np.tile(np.arange(n), (_DRAWN_ORDERS, 1)), axis=1)
        extra = 1  # the order that was found is one of them
    sums = products[np.arange(n), orders].sum(axis=1)
    as_good = int((sums >= np.trace(products) - 1e-9).sum())
    return (as_good + extra) / (len(orders) + extra)
