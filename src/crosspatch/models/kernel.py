"""Linear and kernel classifiers on standardised features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC

from crosspatch.features.layouts import Layout
from crosspatch.models.classifier import ProbabilisticClassifier
from crosspatch.models.sequence_inputs import SequenceInputs
from crosspatch.models.validation import inner_folds


@dataclass(eq=False, repr=False)
class StandardInputs(TransformerMixin, BaseEstimator):
    """Standardised, clipped and imputed features, and which families are there."""

    layout: Layout

    def fit(self, X: ArrayLike, y: object = None) -> StandardInputs:
        """Learn the standardisation of training cells."""
        self.inputs_ = SequenceInputs(self.layout).fit(X)
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Values and presence, shape (cells, features + families)."""
        values, present = self.inputs_.transform(X)
        return np.hstack([values, present]).astype(np.float64)


@dataclass(eq=False, repr=False)
class CalibratedSVC(ProbabilisticClassifier):
    """Support vector machine with a radial kernel, class-balanced, with probabilities.

    Platt scaling is fitted on inner folds of the training cells, grouped by donor where donors
    are given.
    """

    layout: Layout
    C: float = 3.0
    random_state: int | None = None  # seed of the inner folds

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> CalibratedSVC:
        """Fit machine and scaling."""
        folds = list(inner_folds(y, groups, 5, self.random_state))
        all_held = sum(len(held) for _, held in folds) == len(np.asarray(y))
        machine = _on_standard_inputs(self.layout, SVC(C=self.C, class_weight="balanced"))
        # Scores of a single machine can be calibrated only if every cell was held back once.
        self.model_ = CalibratedClassifierCV(machine, cv=folds, ensemble=not all_held)
        self.model_.fit(self._inputs(X), np.asarray(y))
        self.classes_ = self.model_.classes_
        return self

    def _inputs(self, X: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(X, np.float64)


def build_logistic(layout: Layout, random_state: int | None = None) -> Pipeline:
    """Multinomial logistic regression, class-balanced."""
    logistic = LogisticRegression(
        C=0.1, class_weight="balanced", max_iter=2000, random_state=random_state
    )
    return _on_standard_inputs(layout, logistic)


def _on_standard_inputs(layout: Layout, classifier: ClassifierMixin) -> Pipeline:
    return Pipeline([("inputs", StandardInputs(layout)), ("classifier", classifier)])
