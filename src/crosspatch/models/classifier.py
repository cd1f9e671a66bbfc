"""What the classifiers have in common: their arguments, donors where wanted, and `predict`."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from crosspatch.errors import ModelError
from crosspatch.models.estimator import CellEstimator

#: An argument of `fit` that may be left out.
MaybeArray = ArrayLike | None

#: What scikit-learn is to hand to `fit`, where its metadata are routed: the donors.
DONORS = {"groups": True}


class ProbabilisticClassifier(ClassifierMixin, CellEstimator):
    """A classifier that is known by its probabilities.

    Subclasses have `fit`, which sets ``classes_``, and `predict_proba`; those that stand around one
    other model set ``model_``. What `fit` takes has one meaning in all of them:

    X : array or table, shape (cells, features)
        The species to predict, NaN where missing.
    y : array, shape (cells,)
        Classes.
    groups : array, shape (cells,), optional
        Donors; cells of one donor are not split between what is fitted and what is held back.
        Without them every cell counts as a donor of its own.
    types : array, shape (cells,), optional
        Types within the classes.
    X_source, y_source, groups_source
        The same of a second species with the same classes, for models that learn from it.
    types_source : array, shape (cells of the source,), optional
    unlabelled : array, shape (other cells, features), optional
        Cells of the species to predict that standardise it in place of its training cells; those
        among them that have a label count once.
    """

    def predict(self, X: ArrayLike) -> NDArray:
        """The most probable class of each cell, shape (cells,)."""
        codes = self.predict_proba(X).argmax(axis=1)
        return self.classes_[codes]

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Class probabilities, shape (cells, classes)."""
        check_is_fitted(self, "model_")
        return self.model_.predict_proba(self._checked(X))


def fit_copy(
    model: BaseEstimator,
    X: NDArray,
    y: NDArray,
    groups: MaybeArray = None,
    types: MaybeArray = None,
    **source: object,
) -> BaseEstimator:
    """Fit a copy of a classifier, with the cells' donors if it asks for them.

    Parameters
    ----------
    model : classifier
        It is not changed.
    X, y, groups
        As in `ProbabilisticClassifier`.
    **source
        Cells of a second species, or what was learned from them, for models that use it.
    """
    for name, given in (("groups", groups), ("types", types)):
        if given is not None and has_fit_parameter(model, name):
            source[name] = given
    return clone(model).fit(X, y, **source)


def require_same_classes(of_target: NDArray, of_source: NDArray) -> None:
    """Refuse a source with other classes than the target has."""
    odd = sorted(set(of_target) ^ set(of_source))
    if odd:
        raise ModelError(f"source and target must have the same classes; '{odd[0]}' is in one only")


def warn_without_source(model: BaseEstimator) -> None:
    """Warn that a model which learns from a second species was given none."""
    warnings.warn(
        f"{type(model).__name__} was given no X_source and y_source, cells of a second species: it "
        "learns from X and y alone",
        stacklevel=3,
    )
