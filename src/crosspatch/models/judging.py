"""What a calibrated model says of cells: probabilities, sets, a test of the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosspatch.features.layouts import Layout
from crosspatch.models.arrays import softmax
from crosspatch.models.calibration import Calibration
from crosspatch.models.laboratory import Laboratory
from crosspatch.models.reference import Reference
from crosspatch.models.verdicts import Judgement


@runtime_checkable
class Probabilistic(Protocol):
    """What gives class probabilities."""

    def predict_proba(self, X: NDArray, /) -> NDArray[np.float64]:
        """Shape (cells, classes), of features of shape (cells, features), NaN where missing."""


class Judging:
    """A fitted model with all it takes to judge cells."""

    if TYPE_CHECKING:

        @property
        def layout_(self) -> Layout:
            """What the columns of cells are."""

    classes_: NDArray[np.str_]
    model_: Probabilistic
    calibration_: Calibration
    reference_: Reference
    laboratory_: Laboratory | None  # None where features are not single numbers
    #: Shape (features,). Median and half the range of the middle two thirds of the training cells.
    feature_center_: NDArray[np.float64]
    feature_scale_: NDArray[np.float64]

    def judge(self, X: ArrayLike, evidence: NDArray[np.float64] | None = None) -> Judgement:
        """Everything there is to say of cells; ``X`` is NaN where missing.

        Evidence from elsewhere, shape (cells, classes), is added to logarithms of probabilities.
        """
        X = self._checked(X)
        distance, information = self.reference_.compare(X)
        enough = information >= self.calibration_.least
        n, calibration = (len(X), len(self.classes_)), self.calibration_
        found = Judgement(
            probabilities=np.full(n, np.nan),
            sets=np.zeros(n, dtype=bool),
            class_sets=np.zeros(n, dtype=bool),
            p_reference=np.full(len(X), np.nan),
            enough=enough,
        )
        if enough.any():
            distance, information = distance[enough], information[enough]
            p = self._calibrated(X[enough], information)
            if evidence is not None:
                p = softmax(log_probabilities(p) + evidence[enough])
            found.probabilities[enough] = p
            found.sets[enough] = p >= calibration.limits(information)
            found.class_sets[enough] = p >= calibration.limits(information, by_class=True)
            found.p_reference[enough] = calibration.p_values(distance, information)
        return found

    def _calibrated(self, X: NDArray, information: NDArray[np.float64]) -> NDArray[np.float64]:
        log_p = log_probabilities(self.model_.predict_proba(X))
        return self.calibration_.probabilities(log_p, information)

    def enough(self, X: ArrayLike) -> NDArray[np.bool_]:
        """Whether the features of cells tell enough of the class for one to be given."""
        return self.reference_.compare(self._checked(X)).information >= self.calibration_.least

    def calibrated(self, X: ArrayLike) -> NDArray[np.float64]:
        """Calibrated class probabilities, also of cells that are given no class."""
        X = self._checked(X)
        return self._calibrated(X, self.reference_.compare(X).information)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Calibrated class probabilities, shape (cells, classes); NaN for cells with too little."""
        return self.judge(X).probabilities

    def _checked(self, X: ArrayLike) -> NDArray:
        return np.asarray(X)


def log_probabilities(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of probabilities, none of them zero."""
    return np.log(np.clip(p, 1e-9, None))
