"""Learn from the cells of two species together, in a classifier that knows nothing of species."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline

from crosspatch.features.layouts import Layout
from crosspatch.models.boosting import build_boosting
from crosspatch.models.classifier import MaybeArray, ProbabilisticClassifier, require_same_classes
from crosspatch.models.kernel import build_logistic
from crosspatch.models.sequence_inputs import SequenceInputs
from crosspatch.models.validation import inner_folds

#: What a cell of the target counts, in cells of the source; inner folds choose.
TARGET_WEIGHTS = (1.0, 10.0, 100.0)


@dataclass(eq=False, repr=False)
class PooledClassifier(ProbabilisticClassifier):
    """A classifier fitted on both species, each standardised by its own training cells.

    Classes are balanced within each species. How much a cell of the target counts against one of
    the source is chosen by the log loss on inner folds of the target, grouped by donor.
    """

    #: Takes missing values and sample weights, and does not balance classes itself.
    model: BaseEstimator
    layout: Layout
    _: KW_ONLY
    #: Weights to choose from; ``weight_`` is the one chosen.
    weights: tuple[float, ...] = TARGET_WEIGHTS
    random_state: int | None = None  # seed of the inner folds

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        X_source: ArrayLike,
        y_source: ArrayLike,
        groups: MaybeArray = None,
        groups_source: MaybeArray = None,
        unlabelled: MaybeArray = None,
    ) -> PooledClassifier:
        """Choose the weight and fit; donors of the source are not used."""
        X, y, y_source = np.asarray(X, dtype=np.float64), np.asarray(y), np.asarray(y_source)
        require_same_classes(y, y_source)
        source = SequenceInputs(self.layout).fit(X_source).standardised(X_source)
        # A choice of one needs no folds.
        folds = list(inner_folds(y, groups, 3, self.random_state)) if len(self.weights) > 1 else []
        losses = np.zeros(len(self.weights))
        for train, held in folds:
            inputs = SequenceInputs(self.layout).fit(X[train] if unlabelled is None else unlabelled)
            inside, outside = inputs.standardised(X[train]), inputs.standardised(X[held])
            for k, weight in enumerate(self.weights):
                model = self._fitted(inside, y[train], source, y_source, weight)
                p = model.predict_proba(outside)
                losses[k] += log_loss(y[held], p, labels=model.classes_) * len(held)
        self.weight_ = float(self.weights[int(losses.argmin())])
        self.inputs_ = SequenceInputs(self.layout).fit(X if unlabelled is None else unlabelled)
        target = self.inputs_.standardised(X)
        self.model_ = self._fitted(target, y, source, y_source, self.weight_)
        self.classes_ = self.model_.classes_
        return self

    def without_labels(
        self, unlabelled: ArrayLike, X_source: ArrayLike, y_source: ArrayLike
    ) -> PooledClassifier:
        """Fit on the source alone; the target's cells only standardise."""
        source = SequenceInputs(self.layout).fit(X_source).standardised(X_source)
        y_source = np.asarray(y_source)
        self.inputs_ = SequenceInputs(self.layout).fit(unlabelled)
        self.weight_ = 0.0
        self.model_ = self._fitted(source[:0], y_source[:0], source, y_source, 0.0)
        self.classes_ = self.model_.classes_
        return self

    def _inputs(self, X: ArrayLike) -> NDArray[np.float64]:
        return self.inputs_.standardised(X)

    def _fitted(
        self, X: NDArray, y: NDArray, X_source: NDArray, y_source: NDArray, weight: float
    ) -> BaseEstimator:
        model = clone(self.model)
        step = f"{model.steps[-1][0]}__" if isinstance(model, Pipeline) else ""
        weights = np.concatenate([weight * _balanced(y), _balanced(y_source)])
        cells, classes = np.vstack([X, X_source]), np.concatenate([y, y_source])
        return model.fit(cells, classes, **{f"{step}sample_weight": weights})


def build_boosting_pooled(layout: Layout, random_state: int | None) -> PooledClassifier:
    """Boosted trees with one weight: thousands of mouse cells make inner folds ten times longer."""
    unweighted = build_boosting(random_state, class_weight=None)
    return PooledClassifier(unweighted, layout, weights=(10.0,), random_state=random_state)


def build_logistic_pooled(layout: Layout, random_state: int | None) -> PooledClassifier:
    """Logistic regression, its weight chosen on inner folds."""
    unweighted = build_logistic(layout, random_state, class_weight=None)
    return PooledClassifier(unweighted, layout, random_state=random_state)


def _balanced(y: NDArray) -> NDArray[np.float64]:
    """Weights with a mean of one that make classes count alike."""
    if not len(y):
        return np.zeros(0)
    _, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
    return len(y) / (len(counts) * counts[codes])
