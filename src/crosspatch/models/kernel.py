"""Linear and kernel classifiers on standardised features: other kinds for the ensemble."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC

from crosspatch.features.layouts import Layout
from crosspatch.models.inputs import SequenceInputs


class StandardInputs(TransformerMixin, BaseEstimator):
    """Standardised, clipped and imputed features, and which families are there.

    Parameters
    ----------
    layout : Layout
    """

    def __init__(self, layout: Layout):
        self.layout = layout

    def fit(self, X: ArrayLike, y: object = None) -> StandardInputs:
        """Learn the standardisation of training cells, shape (cells, features)."""
        self.inputs_ = SequenceInputs(self.layout).fit(X)
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Values and presence, shape (cells, features + families)."""
        values, present = self.inputs_.transform(X)
        return np.hstack([values, present]).astype(np.float64)


def build_logistic(layout: Layout, random_state: int | None = None) -> Pipeline:
    """Multinomial logistic regression, class-balanced."""
    return _on_standard_inputs(
        layout,
        LogisticRegression(
            C=0.1, class_weight="balanced", max_iter=2000, random_state=random_state
        ),
    )


def build_svm(layout: Layout, random_state: int | None = None) -> Pipeline:
    """Support vector machine with a radial kernel, class-balanced.

    Probabilities by Platt scaling, fitted on inner folds of the training cells.
    """
    machine = SVC(C=3.0, class_weight="balanced", random_state=random_state)
    return _on_standard_inputs(layout, CalibratedClassifierCV(machine, ensemble=False))


def _on_standard_inputs(layout: Layout, classifier: Any) -> Pipeline:
    return Pipeline([("inputs", StandardInputs(layout)), ("classifier", classifier)])
