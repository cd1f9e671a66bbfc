"""Attention by class and family, and whether it agrees with what families are really worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from crosspatch.evaluation.comparison import corrected_resampled_t
from crosspatch.explanation.ablation import PERMUTED, REMOVED, drops, share_of_tests

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

ATTENTION_COLUMNS = (
    "species",
    "features",
    "model",
    "subclass",
    "family",
    "weight",
    "sd",
    "cells",
)

AGREEMENT_COLUMNS = (
    "what",
    "species",
    "model",
    "spearman",
    "ci_low",
    "ci_high",
    "families",
    "folds",
    "verdict",
    "p_value",
)

#: What is compared: the verdicts if it agrees, if it does not, and if neither is shown.
_VERDICTS = {
    "attention and permuted": (
        "attention explains the model",
        "attention does not explain the model",
        "not shown that attention explains the model",
    ),
    "attention and removed": (
        "attention explains the model",
        "attention does not explain the model",
        "not shown that attention explains the model",
    ),
    "permuted and removed": (
        "permuting and removing tell the same",
        "permuting and removing tell different things",
        "not shown that permuting and removing tell the same",
    ),
    "attention between seeds": (
        "attention is stable over seeds",
        "attention is not stable over seeds",
        "not shown that attention is stable over seeds",
    ),
    "mouse and human, permuted": (
        "families matter alike in mouse and human",
        "families do not matter alike in mouse and human",
        "not shown that families matter alike in mouse and human",
    ),
    "mouse and human, removed": (
        "families matter alike in mouse and human",
        "families do not matter alike in mouse and human",
        "not shown that families matter alike in mouse and human",
    ),
    "mouse and human, attention": (
        "attention is alike in mouse and human",
        "attention is not alike in mouse and human",
        "not shown that attention is alike in mouse and human",
    ),
}


def attends(model: Any) -> bool:
    """Whether a model weighs families by attention.

    A sequence model without attention has weights too: one for the last family, zero for the rest.
    """
    if not hasattr(model, "attention"):
        return False
    network = getattr(model, "network", None)
    return bool(network is None or network.attention)


def attention_by_class(
    weights: NDArray[np.floating], y: NDArray[np.str_], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Mean attention of cells by their true class.

    The mean is over all cells of a class; a family that a cell lacks has its weight of zero in
    it. So the weights of a class sum to one, as in arXiv 2603.11000, and they weigh a family as
    its importance does, to which cells without it add nothing.

    Parameters
    ----------
    weights : array, shape (cells, families)
    y : array of str, shape (cells,)
    classes : sequence of str

    Returns
    -------
    list of dict
        One for all cells and one a class that has cells: ``subclass``, ``cells`` and ``weights``,
        in the order of the families.
    """
    chosen = {EVERY_CLASS: np.ones(len(y), bool)} | {name: y == name for name in classes}
    return [
        {
            "subclass": name,
            "cells": int(rows.sum()),
            "weights": np.asarray(weights, dtype=float)[rows].mean(axis=0).tolist(),
        }
        for name, rows in chosen.items()
        if rows.any()
    ]


def attention_table(by_fold: pd.DataFrame) -> pd.DataFrame:
    """Mean attention by species, model, true class and family.

    Parameters
    ----------
    by_fold : DataFrame
        Columns: species, features, model, run, fold, seed, subclass, family, weight, cells.

    Returns
    -------
    DataFrame
        `weight` is the mean over folds of the models with the first seed, those whose importance
        is measured; `sd` its standard deviation over folds; `cells` the held-out cells of a run.
    """
    if not len(by_fold):
        return pd.DataFrame(columns=list(ATTENTION_COLUMNS))
    first = by_fold[by_fold["seed"] == 0]
    who = ["species", "features", "model", "subclass", "family"]
    of_family = first.groupby(who, sort=False)
    found = of_family["weight"].agg(weight="mean", sd="std")
    runs = first.groupby([*who, "run"], sort=False)["cells"].sum()
    found["cells"] = runs.groupby(who, sort=False).first()
    return found.reset_index()[list(ATTENTION_COLUMNS)]


@dataclass(frozen=True)
class Agreement:
    """How far two measures put families in the same order."""

    #: Rank correlation and its 95 % interval; NaN where it is not defined.
    spearman: float
    ci_low: float
    ci_high: float
    #: Share of all orders of the families in which the second measure agrees with the first as well
    #: or better: what chance can do with so few families. NaN where it is not asked.
    p_value: float
    families: int
    folds: int


def agreement_in_folds(a: ArrayLike, b: ArrayLike, test_share: float, seed: int = 0) -> Agreement:
    """Spearman's correlation over families in every fold, and its mean over folds.

    The interval is that of the corrected resampled t-test over folds, cut to -1 and 1. It speaks
    of other cells and donors with the same families; how little so few families can tell is in
    the p-value. Folds in which a measure is the same for all families are left out.

    Parameters
    ----------
    a, b : array, shape (folds, families)
    test_share : float
        Test cells divided by training cells of a fold.
    seed : int
        Of the orders that are drawn, where there are too many to try all.
    """
    first, second = _ranks(a), _ranks(b)
    folds, families = first.shape
    used = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
    if families < FEWEST_RANKED or not used.any():
        return _nothing(families, folds)
    first, second = first[used], second[used]
    mean, low, high = _interval((first * second).sum(axis=1), test_share)
    p_value = _share_of_orders(first.T @ second, seed)
    return Agreement(mean, low, high, p_value, families, int(used.sum()))


def agreement_of_seeds(weights: ArrayLike, test_share: float) -> Agreement:
    """Spearman's correlation between models that differ in their seed alone.

    In every fold the mean over pairs of seeds, over classes and families; then as in
    `agreement_in_folds`. There is no p-value: it is asked how alike they are, not whether at all.

    Parameters
    ----------
    weights : array, shape (folds, seeds, classes, families)
        Mean attention of held-out cells.
    test_share : float
    """
    weights = np.asarray(weights, dtype=float)
    n_folds, n_seeds, _, families = weights.shape
    if families < FEWEST_RANKED or n_seeds < 2:
        return _nothing(families, n_folds)
    ranks = [_ranks(fold.reshape(n_seeds, -1)) for fold in weights]
    rho = [
        float(np.mean([fold[i] @ fold[j] for i, j in combinations(range(n_seeds), 2)]))
        for fold in ranks
    ]
    known = [value for value in rho if math.isfinite(value)]
    if not known:
        return _nothing(families, n_folds)
    return Agreement(*_interval(np.array(known), test_share), math.nan, families, len(known))


def agreement_of_species(
    a: ArrayLike,
    b: ArrayLike,
    shares: tuple[float, float],
    seed: int = 0,
    resamples: int = 2000,
) -> Agreement:
    """Spearman's correlation over families between the means of two species.

    The interval is a bootstrap: folds of each species are drawn with replacement, apart, and the
    correlation of the means is taken; the 2.5th and 97.5th percentile. As training sets of folds
    overlap, what a resampled mean differs from the mean is first enlarged by the factor by which
    the corrected resampled t-test enlarges an error, the root of 1 + folds × test cells / training
    cells. Few families give few values, and noise shifts them, so that the interval may lie to one
    side of the correlation.

    Parameters
    ----------
    a, b : array, shape (folds of the species, families)
    shares : tuple of float
        Test cells divided by training cells, of each species.
    seed : int
    resamples : int
    """
    parts = [np.asarray(part, dtype=float) for part in (a, b)]
    families, folds = parts[0].shape[1], min(len(part) for part in parts)
    ranks = [_ranks(part.mean(axis=0)[None]) for part in parts]
    if families < FEWEST_RANKED or not np.isfinite(ranks).all():
        return _nothing(families, folds)
    rng = np.random.default_rng(seed)
    drawn = []
    for part, share in zip(parts, shares, strict=True):
        mean = part.mean(axis=0)
        rows = rng.integers(len(part), size=(resamples, len(part)))
        deviation = part[rows].mean(axis=1) - mean
        drawn.append(_ranks(mean + math.sqrt(1 + len(part) * share) * deviation))
    rho = (drawn[0] * drawn[1]).sum(axis=1)
    low, high = np.nanpercentile(rho, [2.5, 97.5])
    return Agreement(
        # Summed as the draws are, so that rounding puts it on neither side of them.
        float((ranks[0] * ranks[1]).sum(axis=1)[0]),
        float(low),
        float(high),
        _share_of_orders(ranks[0].T @ ranks[1], seed),
        families,
        folds,
    )


def verdict(what: str, found: Agreement) -> str:
    """An agreement in words.

    They agree if the mean is at least `AGREES` (`STABLE` between seeds), the interval lies above
    zero, and no more than `LEVEL` of all orders of the families agree as well. They do not if the
    whole interval lies below that bound. Anything else shows neither.

    Parameters
    ----------
    what : str
        What is compared, as in the table.
    found : Agreement
    """
    if found.families < FEWEST_FAMILIES:
        return f"cannot be told from {found.families} families"
    agrees, differs, neither = _VERDICTS[what]
    if not math.isfinite(found.spearman):
        return "cannot be told: no family stands out in any fold"
    bound = STABLE if what == "attention between seeds" else AGREES
    by_chance = found.p_value > LEVEL  # False where chance is not asked
    if found.spearman >= bound and found.ci_low > 0 and not by_chance:
        words = agrees
    elif found.ci_high < bound:
        words = differs
    else:
        words = neither
    if found.families < ENOUGH_FAMILIES:
        words += f" (weak evidence: {found.families} families)"
    return words


def agreement_table(results: pd.DataFrame, by_fold: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Attention against importance, seed against seed, mouse against human.

    Parameters
    ----------
    results : DataFrame
        A row a species, model, run, fold, seed and condition.
    by_fold : DataFrame
        Attention, see `attention_table`.
    seed : int
        Of what is resampled.

    Returns
    -------
    DataFrame
    """
    rows: list[tuple[Any, ...]] = []

    def add(what: str, species: str, model: str, found: Agreement) -> None:
        interval = (found.spearman, found.ci_low, found.ci_high)
        size = (found.families, found.folds)
        rows.append((what, species, model, *interval, *size, verdict(what, found), found.p_value))

    measured: dict[str, dict[str, tuple[dict[str, pd.DataFrame], float]]] = {}
    for (model, species), part in results.groupby(["model", "species"], sort=False):
        share = share_of_tests(part)
        measures = {how: drops(part, how) for how in (PERMUTED, REMOVED)}
        theirs = by_fold[(by_fold["model"] == model) & (by_fold["species"] == species)]
        if len(theirs):
            first = theirs[(theirs["seed"] == 0) & (theirs["subclass"] == EVERY_CLASS)]
            measures["attention"] = first.pivot_table(
                index=["run", "fold"], columns="family", values="weight", sort=False
            )
        measures = {name: frame for name, frame in measures.items() if frame.shape[1]}
        measured.setdefault(str(model), {})[str(species)] = (measures, share)
        for a, b in (("attention", PERMUTED), ("attention", REMOVED), (PERMUTED, REMOVED)):
            if a in measures and b in measures:
                same = measures[b].reindex_like(measures[a])
                found = agreement_in_folds(measures[a].to_numpy(), same.to_numpy(), share, seed)
                add(f"{a} and {b}", str(species), str(model), found)
        if (theirs["seed"] > 0).any():
            found = agreement_of_seeds(_by_seed(theirs), share)
            add("attention between seeds", str(species), str(model), found)
    for model, of_species in measured.items():
        if not {"mouse", "human"} <= set(of_species):
            continue
        (mouse, mouse_share), (human, human_share) = of_species["mouse"], of_species["human"]
        for name in (PERMUTED, REMOVED, "attention"):
            if name in mouse and name in human:
                found = agreement_of_species(
                    mouse[name].to_numpy(),
                    human[name][mouse[name].columns].to_numpy(),
                    (mouse_share, human_share),
                    seed,
                )
                add(f"mouse and human, {name}", "both", model, found)
    return pd.DataFrame(rows, columns=list(AGREEMENT_COLUMNS))


def _by_seed(by_fold: pd.DataFrame) -> NDArray[np.float64]:
    """Weights by fold, seed, class and family."""
    levels = [["run", "fold"], ["seed"], ["subclass"], ["family"]]
    of_class = by_fold[by_fold["subclass"] != EVERY_CLASS]
    wide = of_class.pivot_table(
        index=levels[0] + levels[1], columns=levels[2] + levels[3], values="weight", sort=True
    )
    sizes = (
        len(of_class[levels[0]].drop_duplicates()),
        *(of_class[level].nunique().iloc[0] for level in levels[1:]),
    )
    return wide.to_numpy(dtype=float).reshape(sizes)


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

    Parameters
    ----------
    products : array, shape (families, families)
        Of the ranks of the first (rows) and second measure, summed over folds: the sum along the
        diagonal is their agreement, and along any other order that of this order.
    seed : int
    """
    n = len(products)
    if n <= _ALL_ORDERS_OF:
        orders = np.array(list(permutations(range(n))))
        extra = 0
    else:
        rng = np.random.default_rng(seed)
        orders = rng.permuted(np.tile(np.arange(n), (_DRAWN_ORDERS, 1)), axis=1)
        extra = 1  # the order that was found is one of them
    sums = products[np.arange(n), orders].sum(axis=1)
    as_good = int((sums >= np.trace(products) - 1e-9).sum())
    return (as_good + extra) / (len(orders) + extra)


def _nothing(families: int, folds: int) -> Agreement:
    return Agreement(math.nan, math.nan, math.nan, math.nan, families, folds)
