"""Honest uncertainty around a classifier: calibration, prediction sets, a test for strangers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from crosspatch.errors import ModelError
from crosspatch.features.layouts import Layout
from crosspatch.models.absence import MINIMUM_COMPLETENESS, without
from crosspatch.models.calibration import Calibration, Held, donor_weights
from crosspatch.models.classifier import ProbabilisticClassifier, fit_copy
from crosspatch.models.reference import Reference
from crosspatch.models.validation import inner_folds
from crosspatch.models.verdicts import COVERAGE, Judgement
from crosspatch.telling import Progress

# Copies of each held-back cell, with features taken away.
_COPIES = 4


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
    progress_: Progress | None = None

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
