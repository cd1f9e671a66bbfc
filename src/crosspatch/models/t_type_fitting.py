"""How far the t-types of a discriminant are to be trusted, learnt from cells held back."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from crosspatch.features.layouts import Layout
from crosspatch.models.absence import with_copies
from crosspatch.models.arrays import softmax
from crosspatch.models.calibration import donor_weights, group_of
from crosspatch.models.discriminant import LinearDiscriminant
from crosspatch.models.gaussian import types_of
from crosspatch.models.t_types import RIGHT, SHARES, TTypes
from crosspatch.models.validation import inner_folds

# Folds, copies of each held-back cell with features taken away, rounds in which sharpness and
# labels are estimated in turn, and within each of these rounds of the labels.
_FOLDS, _COPIES, _ROUNDS, _STEPS = 5, 4, 3, 15
# So many cells that are labelled as what they are by their features stand behind every type.
_PRIOR_CELLS = 4.0
# A limit that fewer held-back predictions reach is none.
_FEWEST = 50
# No t-type is named that is less probable, however many of the others are right.
_LOWEST = 0.8
# No probability is zero.
_LEAST = 1e-12


class TypeScores(NamedTuple):
    """What is known of the naming of t-types, from complete cells held back."""

    cells: int
    named: float  # share of them that reach the limit
    right: float  # share of these that are labelled so


def fit_t_types(
    layout: Layout,
    X: NDArray[np.floating],
    y: NDArray[np.str_],
    donors: NDArray[np.str_],
    types: NDArray[np.str_],
    *,
    taxonomy: str,
    seed: int,
) -> tuple[TTypes, TypeScores]:
    """Calibrate the types that `LinearDiscriminant` learns of these cells, donors held apart.

    The types come in its order. The limit is the lowest probability above which nine in ten are
    labelled so, of complete cells held back and of those with features taken away, whether cells or
    donors weigh the same, and at least 0.8; above 1 if there is none.
    """
    codes = np.unique(y, return_inverse=True)[1]
    of_type, class_of = types_of(codes, types)
    count = len(class_of)
    parts = []
    for number, (train, held) in enumerate(inner_folds(codes, donors, _FOLDS, seed)):
        fitted = LinearDiscriminant(layout).fit(X[train], y[train], types=types[train]).model_
        theirs = types_of(codes[train], types[train])[0]
        # A type of few cells is joined with others in a fold: these share its probability.
        within = np.zeros((theirs.max() + 1, count))
        np.add.at(within, (theirs, of_type[train]), 1)
        within /= within.sum(axis=1, keepdims=True)
        cells, rows = with_copies(X[held], layout, _COPIES, np.random.default_rng([seed, number]))
        log_p = np.log(
            softmax(fitted.type_scores(fitted.inputs.transform(cells))) @ within + _LEAST
        )
        whole = np.arange(len(rows)) < len(held)
        parts.append((log_p, np.isfinite(cells).mean(axis=1), held[rows], whole))
    log_p, share, rows, whole = (np.concatenate(each) for each in zip(*parts, strict=True))
    label = of_type[rows]
    shares = np.quantile(share, np.arange(SHARES) / SHARES)
    sharpness, labels = _calibrated(log_p, label, group_of(share, shares), count)
    names = np.array([_name(types[of_type == k]) for k in range(count)], dtype=str)
    found = TTypes(np.array(taxonomy), names, shares, sharpness, labels, np.array(2.0))
    p = found.probabilities(log_p, share)
    p[:, names == ""] = -1
    best, right = p.max(axis=1), p.argmax(axis=1) == label
    limit = max(
        _LOWEST,
        *(
            _limit(best[part], right[part], weights)
            for part in (whole, ~whole)
            for weights in (donor_weights(donors[rows[part]]), np.ones(part.sum()))
        ),
    )
    named = whole & (best >= limit)
    scores = TypeScores(
        int(whole.sum()),
        float(named.sum() / whole.sum()),
        float(right[named].mean()) if named.any() else float("nan"),
    )
    return replace(found, limit=np.array(limit)), scores


def _name(types: NDArray[np.str_]) -> str:
    """The t-type of cells; empty where they are of several."""
    there = np.unique(types)
    return str(there[0]) if len(there) == 1 else ""


def _calibrated(
    log_p: NDArray[np.float64], label: NDArray[np.intp], group: NDArray[np.intp], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sharpness of every group and the probabilities of labels, in turn, by log loss."""
    sharpness, labels = np.ones(SHARES), np.eye(count)
    for _ in range(_ROUNDS):
        labels = _labels(softmax(sharpness[group][:, None] * log_p), label, count)
        for k in range(SHARES - 1, -1, -1):
            here = group == k
            # Empty where cells have as much as those of the next group.
            sharpness[k] = (
                _sharpness(log_p[here], label[here], labels) if here.any() else sharpness[k + 1]
            )
    return sharpness, labels


def _labels(p: NDArray[np.float64], label: NDArray[np.intp], count: int) -> NDArray[np.float64]:
    """How cells of each type by their features are labelled, by expectation and maximisation.

    Dawid and Skene (1979), with one who labels and a prior for labels that agree. A copy of a cell
    counts as its share.
    """
    said, prior = np.eye(count)[label] / (1 + _COPIES), _PRIOR_CELLS * np.eye(count)
    labels = 0.9 * np.eye(count) + 0.1 / count
    for _ in range(_STEPS):
        share = p * labels[:, label].T
        share /= share.sum(axis=1, keepdims=True)
        counts = share.T @ said + prior
        labels = counts / counts.sum(axis=1, keepdims=True)
        labels = np.maximum(labels, _LEAST)
    return labels / labels.sum(axis=1, keepdims=True)


def _sharpness(
    log_p: NDArray[np.float64], label: NDArray[np.intp], labels: NDArray[np.float64]
) -> float:
    """The factor with the lowest log loss."""
    theirs = labels[:, label].T

    def loss(log_factor: float) -> float:
        p = softmax(np.exp(log_factor) * log_p)
        return -float(np.log((p * theirs).sum(axis=1) + _LEAST).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 1), method="bounded").x))


def _limit(p: NDArray[np.float64], right: NDArray[np.bool_], weights: NDArray[np.float64]) -> float:
    """The lowest probability above which this share is right; above 1 where there is none."""
    order = np.argsort(-p, kind="stable")
    share = np.cumsum((weights * right)[order]) / np.cumsum(weights[order])
    good = np.flatnonzero((share >= RIGHT) & (np.arange(1, len(p) + 1) >= _FEWEST))
    return float(p[order[good[-1]]]) if len(good) else 2.0
