"""Learn from the cells of two species together, in a classifier that knows nothing of species."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from crosspatch.errors import ModelError
from crosspatch.features.layouts import Layout
from crosspatch.models.sequence_inputs import SequenceInputs
from crosspatch.models.validation import inner_folds

#: What a cell of the target counts, in cells of the source; inner folds choose.
TARGET_WEIGHTS = (1.0, 10.0, 100.0)


class PooledClassifier(ClassifierMixin, BaseEstimator):
    """A classifier fitted on both species, each standardised by its own training cells.

    Classes are balanced within each species. How much a cell of the target counts against one of
    the source is chosen by the log loss on inner folds of the target, grouped by donor.

    Parameters
    ----------
    model : classifier
        Takes missing values and sample weights, and balances no classes itself.
    layout : Layout
    weights : tuple of float
        Weights to choose from.
    random_state : int, optional
        Seed of the inner folds.

    Attributes
    ----------
    classes_ : array
    weight_ : float
        The weight chosen.
    """

    def __init__(
        self,
        model: Any,
        layout: Layout,
        *,
        weights: tuple[float, ...] = TARGET_WEIGHTS,
        random_state: int | None = None,
    ):
        self.model = model
        self.layout = layout
        self.weights = weights
        self.random_state = random_state

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        X_source: ArrayLike,
        y_source: ArrayLike,
        groups: ArrayLike | None = None,
        groups_source: ArrayLike | None = None,
        unlabelled: ArrayLike | None = None,
    ) -> PooledClassifier:
        """Choose the weight and fit.

        Parameters
        ----------
        X : array, shape (cells, features)
            The species to predict, NaN where missing.
        y : array, shape (cells,)
        X_source : array, shape (source cells, features)
        y_source : array, shape (source cells,)
            In the same classes.
        groups, groups_source : array, optional
            Donors; those of the source are not used.
        unlabelled : array, shape (other cells, features), optional
            Cells of the target that standardise it in place of its training cells.

        Raises
        ------
        ModelError
            If source and target have other classes.
        """
        X, y, y_source = np.asarray(X, dtype=np.float64), np.asarray(y), np.asarray(y_source)
        if set(y) != set(y_source):
            odd = sorted(set(y) ^ set(y_source))
            raise ModelError(
                f"source and target must have the same classes; '{odd[0]}' is in one only"
            )
        source = _standardised(SequenceInputs(self.layout).fit(X_source), X_source)
        # A choice of one needs no folds.
        folds = list(inner_folds(y, groups, 3, self.random_state)) if len(self.weights) > 1 else []
        losses = np.zeros(len(self.weights))
        for train, held in folds:
            inputs = SequenceInputs(self.layout).fit(X[train] if unlabelled is None else unlabelled)
            inside = _standardised(inputs, X[train])
            outside = _standardised(inputs, X[held])
            for k, weight in enumerate(self.weights):
                model = self._fitted(inside, y[train], source, y_source, weight)
                losses[k] += log_loss(
                    y[held], model.predict_proba(outside), labels=model.classes_
                ) * len(held)
        self.weight_ = float(self.weights[int(losses.argmin())])
        self.inputs_ = SequenceInputs(self.layout).fit(X if unlabelled is None else unlabelled)
        self.model_ = self._fitted(
            _standardised(self.inputs_, X), y, source, y_source, self.weight_
        )
        self.classes_ = self.model_.classes_
        return self

    def without_labels(
        self, unlabelled: ArrayLike, X_source: ArrayLike, y_source: ArrayLike
    ) -> PooledClassifier:
        """Fit on the source alone; the target's cells only standardise.

        Parameters
        ----------
        unlabelled : array, shape (cells, features)
            Of the target.
        X_source : array, shape (source cells, features)
        y_source : array, shape (source cells,)
        """
        source = _standardised(SequenceInputs(self.layout).fit(X_source), X_source)
        self.inputs_ = SequenceInputs(self.layout).fit(unlabelled)
        self.weight_ = 0.0
        nothing = source[:0]
        self.model_ = self._fitted(
            nothing, np.asarray(y_source)[:0], source, np.asarray(y_source), 0.0
        )
        self.classes_ = self.model_.classes_
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Class probabilities of cells of the target, shape (cells, classes)."""
        check_is_fitted(self, "model_")
        probabilities: NDArray[np.float64] = self.model_.predict_proba(
            _standardised(self.inputs_, X)
        )
        return probabilities

    def predict(self, X: ArrayLike) -> NDArray:
        """The most probable class of each cell."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def _fitted(
        self, X: NDArray, y: NDArray, X_source: NDArray, y_source: NDArray, weight: float
    ) -> Any:
        model = clone(self.model)
        name = "sample_weight"
        if isinstance(model, Pipeline):
            name = f"{model.steps[-1][0]}__{name}"
        weights = np.concatenate([weight * _balanced(y), _balanced(y_source)])
        return model.fit(np.vstack([X, X_source]), np.concatenate([y, y_source]), **{name: weights})


def _standardised(inputs: SequenceInputs, X: ArrayLike) -> NDArray[np.float64]:
    """In standard deviations, clipped; missing values stay missing."""
    standard = (np.asarray(X, dtype=np.float64) - inputs.mean_) / inputs.scale_
    return np.clip(standard, -inputs.clip, inputs.clip)


def _balanced(y: NDArray) -> NDArray[np.float64]:
    """Weights with a mean of one that make classes count alike."""
    if not len(y):
        return np.zeros(0)
    _, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
    return len(y) / (len(counts) * counts[codes])
