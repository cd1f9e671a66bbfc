"""What a calibrated model says of cells: probabilities, sets, a test of the reference."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosspatch.features.layouts import Layout
from crosspatch.models.calibration import Calibration
from crosspatch.models.reference import Reference
from crosspatch.models.verdicts import MINIMUM_COMPLETENESS, Judgement


@runtime_checkable
class Probabilistic(Protocol):
    """What gives class probabilities."""

    def predict_proba(self, X: NDArray, /) -> NDArray[np.float64]:
        """Shape (cells, classes), of features of shape (cells, features), NaN where missing."""


class Judging:
    """A fitted model with all it takes to judge cells."""

    layout: Layout
    classes_: NDArray[np.str_]
    model_: Probabilistic
    calibration_: Calibration
    reference_: Reference
    #: Shape (features,). Median and half the range of the middle two thirds of the training cells.
    feature_center_: NDArray[np.float64]
    feature_scale_: NDArray[np.float64]

    def judge(self, X: ArrayLike) -> Judgement:
        """Everything there is to say of cells; ``X`` is NaN where missing."""
        X = np.asarray(X)
        completeness = self.layout.completeness(X)
        enough = completeness >= MINIMUM_COMPLETENESS
        n, calibration = (len(X), len(self.classes_)), self.calibration_
        found = Judgement(
            probabilities=np.full(n, np.nan),
            sets=np.zeros(n, dtype=bool),
            class_sets=np.zeros(n, dtype=bool),
            p_reference=np.full(len(X), np.nan),
            enough=enough,
        )
        if enough.any():
            X, completeness = X[enough], completeness[enough]
            log_p = log_probabilities(self.model_.predict_proba(X))
            p = calibration.probabilities(log_p, completeness)
            found.probabilities[enough] = p
            found.sets[enough] = calibration.sets(p, completeness)
            found.class_sets[enough] = calibration.sets(p, completeness, by_class=True)
            distance = self.reference_.distance(X)
            found.p_reference[enough] = calibration.p_values(distance, completeness)
        return found

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Calibrated class probabilities, shape (cells, classes); NaN for cells with too little."""
        return self.judge(X).probabilities


def log_probabilities(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of probabilities, none of them zero."""
    return np.log(np.clip(p, 1e-9, None))
