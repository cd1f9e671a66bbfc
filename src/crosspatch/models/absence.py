"""Cells without some of their families: how models learn to do without them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from crosspatch.features.layouts import Layout
from crosspatch.models.classifier import ProbabilisticClassifier, fit_copy

#: A cell with less of its layout (`Layout.completeness`) is not given a class: with one family of
#: six, macro-F1 is little more than half of what it is with all (docs/choices.md).
MINIMUM_COMPLETENESS = 0.25


def random_masks(layout: Layout, n_cells: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which features cells keep when some are taken away at random.

    Every cell keeps each family with a probability of its own, drawn between 0.2 and 1; every
    second cell loses single features as well, as a table does that has but some columns. No mask
    leaves less than `MINIMUM_COMPLETENESS`.

    Parameters
    ----------
    layout : Layout
    n_cells : int
    rng : Generator

    Returns
    -------
    array of bool, shape (cells, features)
        True where a feature stays.
    """
    masks = np.ones((n_cells, len(layout.features)), dtype=bool)
    open_rows = np.arange(n_cells)
    while len(open_rows):
        draw = np.ones((len(open_rows), masks.shape[1]), dtype=bool)
        keep = rng.uniform(0.2, 1.0, size=len(draw))
        single = np.where(rng.random(len(draw)) < 0.5, rng.uniform(0.3, 1.0, size=len(draw)), 1.0)
        for family, columns in layout.columns.items():
            draw[:, columns] &= (rng.random(len(draw)) < keep)[:, None]
            if family not in layout.traces:
                draw[:, columns] &= rng.random((len(draw), len(columns))) < single[:, None]
        masks[open_rows] = draw
        present = np.where(draw, 0.0, np.nan)
        open_rows = open_rows[layout.completeness(present) < MINIMUM_COMPLETENESS]
    return masks


def without(
    X: NDArray[np.floating], layout: Layout, rng: np.random.Generator
) -> tuple[NDArray[np.floating], NDArray[np.intp]]:
    """Cells with features taken away at random; those left with too little are left out.

    Parameters
    ----------
    X : array, shape (cells, features)
    layout : Layout
    rng : Generator

    Returns
    -------
    X : array, shape (kept cells, features)
    kept : array of int
        Row numbers.
    """
    masked = np.where(random_masks(layout, len(X), rng), X, np.nan)
    kept = np.flatnonzero(layout.completeness(masked) >= MINIMUM_COMPLETENESS)
    return masked[kept], kept


class FamilyDropout(ProbabilisticClassifier):
    """A classifier that also learns from copies of its cells with features taken away.

    Parameters
    ----------
    model : classifier
    layout : Layout
    copies : int
        Copies of every cell, each with other features taken away; the cell itself stays.
    random_state : int, optional

    Attributes
    ----------
    classes_ : array
    model_ : classifier
        Fitted on cells and copies.
    """

    def __init__(
        self, model: Any, layout: Layout, *, copies: int = 6, random_state: int | None = None
    ):
        self.model = model
        self.layout = layout
        self.copies = copies
        self.random_state = random_state

    def fit(
        self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None, **source: Any
    ) -> FamilyDropout:
        """Fit on cells and copies.

        Parameters
        ----------
        X : array, shape (cells, features)
            NaN where missing.
        y : array, shape (cells,)
        groups : array, shape (cells,), optional
            Donors; copies have the donor of their cell.
        **source
            Passed on: ``X_source``, ``y_source`` and ``groups_source`` of transfer models.
        """
        X, y = np.asarray(X), np.asarray(y)
        rng = np.random.default_rng(self.random_state)
        rows = [np.arange(len(X))]
        parts = [X]
        for _ in range(self.copies):
            masked, kept = without(X, self.layout, rng)
            parts.append(masked)
            rows.append(kept)
        chosen = np.concatenate(rows)
        donors = None if groups is None else np.asarray(groups)[chosen]
        self.model_ = fit_copy(self.model, np.vstack(parts), y[chosen], donors, **source)
        self.classes_ = self.model_.classes_
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Class probabilities, shape (cells, classes)."""
        check_is_fitted(self, "model_")
        probabilities: NDArray[np.float64] = self.model_.predict_proba(np.asarray(X))
        return probabilities
