"""What the classifiers have in common: donors given where they are wanted, and `predict`."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import has_fit_parameter


class ProbabilisticClassifier(ClassifierMixin, BaseEstimator):
    """A classifier that is known by its probabilities.

    Subclasses set ``classes_`` in ``fit`` and have ``predict_proba``.
    """

    def predict(self, X: ArrayLike) -> NDArray:
        """The most probable class of each cell.

        Parameters
        ----------
        X : array, shape (cells, features)
            NaN where missing.

        Returns
        -------
        array, shape (cells,)
            The first class where a cell has too little for probabilities.
        """
        # NaN in all classes of a cell: argmax takes the first.
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def fit_copy(
    model: Any, X: NDArray, y: NDArray, groups: ArrayLike | None = None, **source: Any
) -> Any:
    """Fit a copy of a classifier, with the cells' donors if it asks for them.

    Parameters
    ----------
    model : classifier
        It is not changed.
    X : array, shape (cells, features)
    y : array, shape (cells,)
    groups : array, shape (cells,), optional
        Donors.
    **source
        Cells of a second species, for models that learn from it.
    """
    if groups is not None and has_fit_parameter(model, "groups"):
        source["groups"] = groups
    return clone(model).fit(X, y, **source)
