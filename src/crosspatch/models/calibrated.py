"""Honest uncertainty around a classifier, learnt from cells held back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.validation import check_is_fitted

from crosspatch.errors import ModelError
from crosspatch.models.absence import with_copies
from crosspatch.models.calibration import Calibration, Held, donor_weights
from crosspatch.models.classifier import DONORS, MaybeArray, ProbabilisticClassifier, fit_copy
from crosspatch.models.estimator import CellEstimator, MaybeLayout
from crosspatch.models.judging import Judging, log_probabilities
from crosspatch.models.laboratory import Laboratory
from crosspatch.models.reference import Reference
from crosspatch.models.validation import Split, inner_folds
from crosspatch.models.verdicts import COVERAGE, MINIMUM_INFORMATION
from crosspatch.telling import Progress

# Copies of each held-back cell, with features taken away.
_COPIES = 4


class _Cells(NamedTuple):
    """The training cells, as `fit` was given them."""

    X: NDArray
    y: NDArray
    codes: NDArray[np.intp]
    groups: ArrayLike | None
    types: ArrayLike | None
    donors: NDArray[np.intp]
    source: Mapping[str, ArrayLike | None]


@dataclass(eq=False, repr=False)
class CalibratedClassifier(Judging, ProbabilisticClassifier, _BaseComposition):
    """A classifier that also says which cells are unlike its reference, and how sure it is.

    Candidates are fitted on inner folds, stratified and grouped by donor; the one with the lowest
    log loss on the cells held back, complete and with features taken away, is fitted on all
    cells. What the folds' models said of the cells held back calibrates it.

    Attributes
    ----------
    chosen_ : str
        Name of the candidate.
    log_loss_ : dict
        Candidate to its log loss on the cells held back.
    calibration_ : Calibration
    reference_ : Reference
    laboratory_ : Laboratory, or None
        None where features are not single numbers.
    feature_center_, feature_scale_ : array, shape (features,)
        Median and half the range of the middle two thirds of the training cells.
    held_ : Held
        Predictions of the chosen candidate for cells held back.
    """

    __metadata_request__fit = DONORS

    #: Name and classifier: the same model with other settings.
    candidates: Sequence[tuple[str, BaseEstimator]]
    layout: MaybeLayout = None
    _: KW_ONLY
    n_folds: int = 5
    coverage: float = COVERAGE  # of the prediction sets
    #: Cells whose features tell less of the class are not learnt from, and given none.
    minimum_information: float = MINIMUM_INFORMATION
    random_state: int | None = None  # seed of the inner folds and of what is taken away
    jobs: int = 1  # fits at a time

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        groups: MaybeArray = None,
        types: MaybeArray = None,
        *,
        progress: Progress | None = None,
        **source: MaybeArray,
    ) -> CalibratedClassifier:
        """Choose, fit and calibrate.

        ``progress`` is told of every fit.

        Raises
        ------
        ModelError
            If the cells cannot be split by donor with every class on the training side.
        """
        tell = progress or (lambda done, total: None)
        X, y = self._learnable(X, y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ModelError(f"a classifier needs two classes, there is only '{y[0]}'")
        donors = np.arange(len(y)) if groups is None else np.unique(groups, return_inverse=True)[1]
        cells = _Cells(X, y, codes, groups, types, donors, source)
        folds = list(enumerate(inner_folds(codes, groups, self.n_folds, self.random_state)))
        work = [(model, cells, *fold) for _, model in self.candidates for fold in folds]
        tried: list[Held] = []
        for part in Parallel(n_jobs=self.jobs, return_as="generator")(
            delayed(self._hold_back)(*each) for each in work
        ):
            tried.append(part)
            tell(len(tried), len(work) + 1)
        found: dict[str, Held] = {}
        for first, (name, _) in zip(range(0, len(work), len(folds)), self.candidates, strict=True):
            found[name] = Held.joined(tried[first : first + len(folds)])
        self.log_loss_ = {name: _log_loss(held) for name, held in found.items()}
        self.chosen_ = min(self.log_loss_, key=self.log_loss_.__getitem__)
        self.held_ = found[self.chosen_]
        if not len(self.held_.rows):
            raise ModelError("the features of the cells say next to nothing of their classes")
        self.calibration_ = Calibration.fit(self.held_, self.coverage)
        self.reference_ = Reference(self.layout_.measured).fit(X, y)
        self.laboratory_ = (
            None
            if self.layout_.traces
            else Laboratory.fit(self.layout_.measured, X, y, y if types is None else types)
        )
        self.feature_center_, self.feature_scale_ = _spread(X)
        self.model_ = fit_copy(dict(self.candidates)[self.chosen_], X, y, groups, types, **source)
        tell(len(work) + 1, len(work) + 1)
        return self

    def _hold_back(self, model: BaseEstimator, cells: _Cells, number: int, split: Split) -> Held:
        """What a copy of a model, fitted without a fold, says of the cells of the fold."""
        train, held = split
        X, y = cells.X[train], cells.y[train]
        inner = (
            None if each is None else np.asarray(each)[train]
            for each in (cells.groups, cells.types)
        )
        fitted = fit_copy(model, X, y, *inner, **cells.source)
        reference = Reference(self.layout_.measured).fit(X, y)
        seed = 0 if self.random_state is None else self.random_state
        rng = np.random.default_rng([seed, number])
        tested, which = with_copies(cells.X[held], self.layout_, _COPIES, rng)
        row = held[which]
        distance, information = reference.compare(tested)
        found = Held(
            rows=row,
            fold=np.full(len(row), number),
            whole=np.arange(len(row)) < len(held),
            information=information,
            codes=cells.codes[row],
            donors=cells.donors[row],
            log_p=log_probabilities(fitted.predict_proba(tested)),
            distance=distance,
        )
        return found.where(information >= self.minimum_information)

    def predict(self, X: ArrayLike) -> NDArray:
        """The most probable class of each cell, also of those with too little to be given one."""
        codes = self.calibrated(X).argmax(axis=1)
        return self.classes_[codes]

    def _checked(self, X: ArrayLike, *, fitting: bool = False) -> NDArray:
        if not fitting:
            check_is_fitted(self, "model_")
        return CellEstimator._checked(self, X, fitting=fitting)

    def get_params(self, deep: bool = True) -> dict[str, object]:
        """The parameters and, if deep, the candidates by name and theirs."""
        return self._get_params("candidates", deep=deep)

    def set_params(self, **params: object) -> CalibratedClassifier:
        """Set parameters, also those of candidates: ``default__model__C``."""
        return self._set_params("candidates", **params)


def _spread(X: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    center, scale = np.zeros(X.shape[1]), np.ones(X.shape[1])
    known = np.isfinite(X).any(axis=0)
    low, center[known], high = np.nanquantile(X[:, known], (1 / 6, 0.5, 5 / 6), axis=0)
    scale[known] = (high - low) / 2
    return center, scale


def _log_loss(held: Held) -> float:
    weights = donor_weights(held.donors)
    return float(-(weights * held.log_p[np.arange(len(held.codes)), held.codes]).sum())
