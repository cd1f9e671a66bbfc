"""Linear and kernel classifiers on standardised features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from crosspatch.models.classifier import DONORS, ProbabilisticClassifier
from crosspatch.models.estimator import CellEstimator, CellPipeline, MaybeLayout
from crosspatch.models.sequence_inputs import SequenceInputs
from crosspatch.models.validation import inner_folds


@dataclass(eq=False, repr=False)
class StandardInputs(TransformerMixin, CellEstimator):
    """Standardised, clipped and imputed features, and which families are there."""

    layout: MaybeLayout = None

    def fit(self, X: ArrayLike, y: object = None) -> StandardInputs:
        """Learn the standardisation of training cells."""
        X = self._checked(X, fitting=True)
        self.inputs_ = SequenceInputs(self.layout_).fit(X)
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Values and presence, shape (cells, features + families)."""
        check_is_fitted(self, "inputs_")
        values, present = self.inputs_.transform(self._checked(X))
        return np.hstack([values, present]).astype(np.float64)

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray[np.object_]:
        """Names of what `transform` gives: those of the features, and of the families."""
        check_is_fitted(self, "inputs_")
        _check_feature_names_in(self, input_features)
        names = getattr(self, "feature_names_in_", self.layout_.feature_names)
        families = (f"has {family}" for family in self.layout_.families)
        return np.array([*names, *families], dtype=object)


@dataclass(eq=False, repr=False)
class CalibratedSVC(ProbabilisticClassifier):
    """Support vector machine with a radial kernel, class-balanced, with probabilities.

    Platt scaling is fitted on inner folds of the training cells, grouped by donor where donors
    are given.
    """

    __metadata_request__fit = DONORS

    layout: MaybeLayout = None
    C: float = 3.0
    random_state: int | None = None  # seed of the inner folds

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> CalibratedSVC:
        """Fit machine and scaling."""
        X, y = self._learnable(X, y)
        folds = list(inner_folds(y, groups, 5, self.random_state))
        all_held = sum(len(held) for _, held in folds) == len(y)
        machine = _on_standard_inputs(self.layout, SVC(C=self.C, class_weight="balanced"))
        # Scores of a single machine can be calibrated only if every cell was held back once.
        self.model_ = CalibratedClassifierCV(machine, cv=folds, ensemble=not all_held)
        self.model_.fit(X.astype(np.float64), y)
        self.classes_ = self.model_.classes_
        return self


def build_logistic(layout: MaybeLayout = None, random_state: int | None = None) -> CellPipeline:
    """Multinomial logistic regression, class-balanced."""
    logistic = LogisticRegression(
        C=0.1, class_weight="balanced", max_iter=2000, random_state=random_state
    )
    return _on_standard_inputs(layout, logistic)


def _on_standard_inputs(layout: MaybeLayout, classifier: ClassifierMixin) -> CellPipeline:
    return CellPipeline([("inputs", StandardInputs(layout)), ("classifier", classifier)])
