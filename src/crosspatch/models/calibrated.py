"""Honest uncertainty around a classifier: calibration, prediction sets, a test for strangers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.utils.validation import check_is_fitted

from crosspatch.errors import ModelError
from crosspatch.features.layouts import Layout
from crosspatch.models.absence import MINIMUM_COMPLETENESS, without
from crosspatch.models.classifier import ProbabilisticClassifier, fit_copy
from crosspatch.models.reference import Reference
from crosspatch.models.validation import inner_folds

#: Cells are calibrated apart by how much of the layout they have: lower ends of the groups.
COMPLETENESS = (MINIMUM_COMPLETENESS, 0.5, 0.8)

#: Share of new cells whose true class is to be in their prediction set.
COVERAGE = 0.9

# Copies of each held-back cell, with features taken away.
_COPIES = 4
# Distances kept of each group.
_GRID = 1000
# A group with fewer donors takes the calibration of the next fuller one.
_DONORS = 20


class Held(NamedTuple):
    """What models said of cells held back from them, complete and with features taken away.

    Attributes
    ----------
    rows : array of int, shape (predictions,)
        Row of the cell.
    fold : array of int, shape (predictions,)
    whole : array of bool, shape (predictions,)
        Whether the cell had all that was measured.
    completeness : array, shape (predictions,)
    codes : array of int, shape (predictions,)
        True class.
    donors : array of int, shape (predictions,)
    log_p : array, shape (predictions, classes)
        Logarithm of the probabilities, not calibrated.
    distance : array, shape (predictions,)
        From the reference.
    """

    rows: NDArray[np.intp]
    fold: NDArray[np.intp]
    whole: NDArray[np.bool_]
    completeness: NDArray[np.float64]
    codes: NDArray[np.intp]
    donors: NDArray[np.intp]
    log_p: NDArray[np.float64]
    distance: NDArray[np.float64]

    def where(self, chosen: NDArray[np.bool_]) -> Held:
        """Some of them."""
        return Held._make(part[chosen] for part in self)


@dataclass
class Calibration:
    """From the probabilities of a model to calibrated ones, sets, and p-values.

    Fitted on cells held back from the model. Every donor has the same weight, so that what holds
    on average holds for a cell of a new donor.

    Attributes
    ----------
    temperature : array, shape (groups,)
        Groups are those of `COMPLETENESS`.
    bias : array, shape (groups, classes)
    limit : array, shape (groups, classes)
        A class whose calibrated probability is at least this is in the set. So chosen that the
        coverage holds over all cells: rare classes can be covered less.
    class_limit : array, shape (groups, classes)
        The same, so chosen that the coverage holds for the cells of every class, whatever the
        composition of a batch; sets are larger.
    distances : array, shape (groups, quantiles)
        Quantiles of the distance of the reference's own cells.
    size : array, shape (groups,)
        Effective number of these cells, given the weights of their donors (Kish 1965).
    """

    temperature: NDArray[np.float64]
    bias: NDArray[np.float64]
    limit: NDArray[np.float64]
    class_limit: NDArray[np.float64]
    distances: NDArray[np.float64]
    size: NDArray[np.float64]

    @classmethod
    def fit(cls, held: Held, coverage: float = COVERAGE) -> Calibration:
        """Learn all of it.

        Parameters
        ----------
        held : Held
        coverage : float
            Share of cells whose class is to be in their set.
        """
        n_groups, n_classes = len(COMPLETENESS), held.log_p.shape[1]
        calibration = cls(
            np.ones(n_groups),
            np.zeros((n_groups, n_classes)),
            np.zeros((n_groups, n_classes)),
            np.zeros((n_groups, n_classes)),
            np.zeros((n_groups, _GRID)),
            np.zeros(n_groups),
        )
        groups = group_of(held.completeness)
        # From the fullest: a group with few donors takes over what the fuller one has.
        for group in reversed(range(n_groups)):
            here = held.where(groups == group)
            if len(np.unique(here.donors)) >= _DONORS or group == n_groups - 1:
                calibration._fit_group(group, here if len(here.rows) else held, coverage)
            else:
                for part in vars(calibration).values():
                    part[group] = part[group + 1]
        return calibration

    def _fit_group(self, group: int, held: Held, coverage: float) -> None:
        weights = donor_weights(held.donors)
        self.temperature[group], self.bias[group] = _scaling(held.log_p, held.codes, weights)
        p = softmax(held.log_p / self.temperature[group] + self.bias[group], axis=1)
        true = p[np.arange(len(p)), held.codes]
        self.limit[group] = conformal_limit(true, held.donors, coverage)
        for code in range(p.shape[1]):
            of_class = held.codes == code
            self.class_limit[group, code] = conformal_limit(
                true[of_class], held.donors[of_class], coverage
            )
        known = np.isfinite(held.distance)
        of_donor = donor_weights(held.donors[known])
        self.distances[group] = _weighted_quantiles(held.distance[known], of_donor, _GRID)
        # Copies of a cell are not cells more.
        cells = np.unique(held.rows[known], return_index=True)[1]
        self.size[group] = 1 / np.sum(donor_weights(held.donors[known][cells]) ** 2)

    def probabilities(
        self, log_p: NDArray[np.float64], completeness: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Calibrated probabilities, shape (cells, classes)."""
        group = group_of(completeness)
        scaled = log_p / self.temperature[group][:, None] + self.bias[group]
        calibrated: NDArray[np.float64] = softmax(scaled, axis=1)
        return calibrated

    def sets(
        self,
        probabilities: NDArray[np.float64],
        completeness: NDArray[np.float64],
        *,
        by_class: bool = False,
    ) -> NDArray[np.bool_]:
        """Which classes are in each cell's prediction set, shape (cells, classes)."""
        limit = self.class_limit if by_class else self.limit
        return probabilities >= limit[group_of(completeness)]

    def p_values(
        self, distance: NDArray[np.float64], completeness: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Share of the reference's own cells that are as far from it, shape (cells,).

        The cell itself counts as one more that is as far; so p is at least 1 / (n + 1).
        """
        p = np.full(len(distance), np.nan)
        groups = group_of(completeness)
        for group, grid in enumerate(self.distances):
            here = (groups == group) & np.isfinite(distance)
            farther = 1 - np.searchsorted(grid, distance[here], side="left") / len(grid)
            p[here] = (1 + self.size[group] * farther) / (1 + self.size[group])
        return p


def group_of(completeness: NDArray[np.float64]) -> NDArray[np.intp]:
    """Number of the group of `COMPLETENESS` that each cell is in."""
    return np.maximum(np.searchsorted(COMPLETENESS, completeness, side="right") - 1, 0)


def donor_weights(donors: NDArray) -> NDArray[np.float64]:
    """Weights of cells that give every donor the same; they sum to one."""
    _, number, count = np.unique(donors, return_inverse=True, return_counts=True)
    return 1 / (count[number] * len(count))


def conformal_limit(p: NDArray[np.float64], donors: NDArray, coverage: float) -> float:
    """The probability that this share of cells of a new donor reach in their own class.

    Donors are exchangeable, their cells are not: the distribution is that of a cell drawn from a
    donor drawn at random, and the new donor counts as one more who may lie anywhere.

    Parameters
    ----------
    p : array, shape (cells,)
        Probability of the true class.
    donors : array, shape (cells,)
    coverage : float

    Returns
    -------
    float
        Zero (every cell reaches it) where there are too few donors to say.

    References
    ----------
    Dunn, Wasserman, Ramdas: Distribution-free prediction sets for two-layer hierarchical models.
    J. Am. Stat. Assoc. 118 (2023), pooling of distributions.
    """
    if not len(p):
        return 0.0
    n_donors = len(np.unique(donors))
    weights = donor_weights(donors) * n_donors / (n_donors + 1)
    order = np.argsort(-p, kind="stable")
    reached = np.cumsum(weights[order]) >= coverage - 1e-12
    return float(p[order][np.argmax(reached)]) if reached.any() else 0.0


def _weighted_quantiles(
    values: NDArray[np.float64], weights: NDArray[np.float64], n: int
) -> NDArray[np.float64]:
    order = np.argsort(values)
    share = np.cumsum(weights[order])
    wanted = (np.arange(n) + 0.5) / n
    return values[order][np.minimum(np.searchsorted(share, wanted), len(values) - 1)]


def _scaling(
    log_p: NDArray[np.float64], codes: NDArray[np.intp], weights: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Temperature and a bias for every class, by weighted log loss.

    References
    ----------
    Guo et al.: On calibration of modern neural networks. ICML 2017.
    """
    n_classes = log_p.shape[1]
    true = np.eye(n_classes)[codes]

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        slope, bias = np.exp(parameters[0]), parameters[1:]
        log_q = log_softmax(slope * log_p + bias, axis=1)
        wrong = (np.exp(log_q) - true) * weights[:, None]
        # A weak pull to no bias: it decides only where a class has next to no cells.
        value = -(weights[:, None] * true * log_q).sum() + 1e-4 * (bias**2).sum()
        gradient = np.concatenate(
            [[slope * (wrong * log_p).sum()], wrong.sum(axis=0) + 2e-4 * bias]
        )
        return float(value), gradient

    found = minimize(loss, np.zeros(1 + n_classes), jac=True, method="L-BFGS-B")
    return float(np.exp(-found.x[0])), found.x[1:] - found.x[1:].mean()


class Judgement(NamedTuple):
    """What a calibrated model says of cells; NaN and False where a cell has too little.

    Attributes
    ----------
    probabilities : array, shape (cells, classes)
    sets : array of bool, shape (cells, classes)
        Prediction sets whose coverage holds over all cells.
    class_sets : array of bool, shape (cells, classes)
        Prediction sets whose coverage holds for the cells of every class.
    p_reference : array, shape (cells,)
        p-value of the test that the cell is one of the reference's.
    enough : array of bool, shape (cells,)
        Whether it has at least `MINIMUM_COMPLETENESS` of the layout.
    """

    probabilities: NDArray[np.float64]
    sets: NDArray[np.bool_]
    class_sets: NDArray[np.bool_]
    p_reference: NDArray[np.float64]
    enough: NDArray[np.bool_]


class CalibratedClassifier(ProbabilisticClassifier):
    """A classifier with calibrated probabilities, prediction sets and a test for strangers.

    Candidates are fitted on inner folds, stratified and grouped by donor; the one with the lowest
    log loss on the cells held back, complete and with features taken away, is fitted on all
    cells. What the folds' models said of the cells held back calibrates it.

    Parameters
    ----------
    candidates : sequence of (name, classifier)
        The same model with other settings.
    layout : Layout
    n_folds : int
    coverage : float
        Of the prediction sets.
    random_state : int, optional
        Seed of the inner folds and of what is taken away.
    jobs : int
        Fits at a time.

    Attributes
    ----------
    classes_ : array
    chosen_ : str
        Name of the candidate.
    log_loss_ : dict
        Candidate to its log loss on the cells held back.
    calibration_ : Calibration
    reference_ : Reference
    feature_center_, feature_scale_ : array, shape (features,)
        Median and half the range of the middle two thirds of the training cells.
    held_ : Held
        Predictions of the chosen candidate for cells held back.
    """

    #: Told of every fit; set it before `fit`. It is not kept.
    progress_: Callable[[int, int], None] | None = None

    def __init__(
        self,
        candidates: Sequence[tuple[str, Any]],
        layout: Layout,
        *,
        n_folds: int = 5,
        coverage: float = COVERAGE,
        random_state: int | None = None,
        jobs: int = 1,
    ):
        self.candidates = candidates
        self.layout = layout
        self.n_folds = n_folds
        self.coverage = coverage
        self.random_state = random_state
        self.jobs = jobs

    def fit(
        self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None, **source: Any
    ) -> CalibratedClassifier:
        """Choose, fit and calibrate.

        Parameters
        ----------
        X : array, shape (cells, features)
            NaN where missing.
        y : array, shape (cells,)
        groups : array, shape (cells,), optional
            Donors. Without them every cell counts as a donor of its own.
        **source
            Cells of a second species, for models that learn from it.

        Raises
        ------
        ModelError
            If the cells cannot be split by donor with every class on the training side.
        """
        X, y = np.asarray(X), np.asarray(y)
        if len(np.unique(y)) < 2:
            raise ModelError(f"a classifier needs two classes, there is only '{y[0]}'")
        self.classes_, codes = np.unique(y, return_inverse=True)
        donors = np.arange(len(y)) if groups is None else np.unique(groups, return_inverse=True)[1]
        folds = list(inner_folds(codes, groups, self.n_folds, self.random_state))
        work = [
            (name, number, train, held)
            for name, _ in self.candidates
            for number, (train, held) in enumerate(folds)
        ]
        models = dict(self.candidates)
        progress, self.progress_ = self.progress_, None  # a callback cannot go to the workers
        tried = []
        for part in Parallel(n_jobs=self.jobs, return_as="generator")(
            delayed(self._hold_back)(
                models[name], X, y, codes, groups, donors, number, *split, source
            )
            for name, number, *split in work
        ):
            tried.append(part)
            if progress is not None:
                progress(len(tried), len(work) + 1)
        found: dict[str, Held] = {}
        for name, _ in self.candidates:
            parts = [part for (of, *_), part in zip(work, tried, strict=True) if of == name]
            found[name] = Held._make(np.concatenate(each) for each in zip(*parts, strict=True))
        self.log_loss_ = {name: _log_loss(held) for name, held in found.items()}
        self.chosen_ = min(self.log_loss_, key=self.log_loss_.__getitem__)
        self.held_ = found[self.chosen_]
        self.calibration_ = Calibration.fit(self.held_, self.coverage)
        self.reference_ = Reference(self.layout).fit(X, y)
        self.feature_center_, self.feature_scale_ = _spread(X)
        self.model_ = fit_copy(models[self.chosen_], X, y, groups, **source)
        if progress is not None:
            progress(len(work) + 1, len(work) + 1)
        return self

    def _hold_back(
        self,
        model: Any,
        X: NDArray,
        y: NDArray,
        codes: NDArray,
        groups: ArrayLike | None,
        donors: NDArray,
        number: int,
        train: NDArray[np.intp],
        held: NDArray[np.intp],
        source: dict[str, Any],
    ) -> Held:
        inner = None if groups is None else np.asarray(groups)[train]
        fitted = fit_copy(model, X[train], y[train], inner, **source)
        reference = Reference(self.layout).fit(X[train], y[train])
        seed = 0 if self.random_state is None else self.random_state
        rng = np.random.default_rng([seed, number])
        parts, rows = [X[held]], [held]
        for _ in range(_COPIES):
            masked, kept = without(X[held], self.layout, rng)
            parts.append(masked)
            rows.append(held[kept])
        cells, row = np.vstack(parts), np.concatenate(rows)
        whole = np.arange(len(row)) < len(held)
        completeness = self.layout.completeness(cells)
        log_p = _log(fitted.predict_proba(cells))
        distance = reference.distance(cells)
        fold = np.full(len(row), number)
        found = Held(row, fold, whole, completeness, codes[row], donors[row], log_p, distance)
        return found.where(completeness >= MINIMUM_COMPLETENESS)

    def judge(self, X: ArrayLike) -> Judgement:
        """Everything there is to say of cells.

        Parameters
        ----------
        X : array, shape (cells, features)
            NaN where missing.
        """
        check_is_fitted(self, "model_")
        X = np.asarray(X)
        completeness = self.layout.completeness(X)
        enough = completeness >= MINIMUM_COMPLETENESS
        n = len(X), len(self.classes_)
        probabilities = np.full(n, np.nan)
        sets, class_sets = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        p_reference = np.full(len(X), np.nan)
        if enough.any():
            X, completeness = X[enough], completeness[enough]
            found = self.calibration_.probabilities(
                _log(self.model_.predict_proba(X)), completeness
            )
            probabilities[enough] = found
            sets[enough] = self.calibration_.sets(found, completeness)
            class_sets[enough] = self.calibration_.sets(found, completeness, by_class=True)
            distance = self.reference_.distance(X)
            p_reference[enough] = self.calibration_.p_values(distance, completeness)
        return Judgement(probabilities, sets, class_sets, p_reference, enough)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Calibrated class probabilities, shape (cells, classes); NaN for cells with too little."""
        return self.judge(X).probabilities


def _spread(X: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    center, scale = np.zeros(X.shape[1]), np.ones(X.shape[1])
    known = np.isfinite(X).any(axis=0)
    low, center[known], high = np.nanquantile(X[:, known], (1 / 6, 0.5, 5 / 6), axis=0)
    scale[known] = (high - low) / 2
    return center, scale


def _log(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(np.clip(p, 1e-9, None))


def _log_loss(held: Held) -> float:
    weights = donor_weights(held.donors)
    return float(-(weights * held.log_p[np.arange(len(held.codes)), held.codes]).sum())
