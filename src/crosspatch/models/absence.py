"""Cells without some of their families: how models learn to do without them."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from crosspatch.features.layouts import Layout
from crosspatch.models.classifier import DONORS, MaybeArray, ProbabilisticClassifier, fit_copy
from crosspatch.models.estimator import MaybeLayout


def random_masks(layout: Layout, n_cells: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which features cells keep when some are taken away at random.

    Every cell keeps each family with a probability of its own, drawn between 0.2 and 1; every
    second cell loses single features as well, as a table does that has but some columns: from
    nearly all to none. Every mask leaves a feature. Shape (cells, features), True where one stays.
    """
    masks = np.ones((n_cells, len(layout.features)), dtype=bool)
    open_rows = np.arange(n_cells)
    while len(open_rows):
        draw = np.ones((len(open_rows), masks.shape[1]), dtype=bool)
        keep = rng.uniform(0.2, 1.0, size=len(draw))
        single = np.where(rng.random(len(draw)) < 0.5, rng.uniform(0.05, 1.0, size=len(draw)), 1.0)
        for family, columns in layout.columns.items():
            draw[:, columns] &= (rng.random(len(draw)) < keep)[:, None]
            if family not in layout.traces:
                draw[:, columns] &= rng.random((len(draw), len(columns))) < single[:, None]
        masks[open_rows] = draw
        open_rows = open_rows[~draw.any(axis=1)]
    return masks


def without(X: NDArray, layout: Layout, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Cells with features taken away, and their rows; those left with none are left out."""
    masked = np.where(random_masks(layout, len(X), rng), X, np.nan)
    kept = np.flatnonzero(np.isfinite(masked).any(axis=1))
    return masked[kept], kept


def with_copies(
    X: NDArray[np.floating], layout: Layout, copies: int, rng: np.random.Generator
) -> tuple[NDArray[np.floating], NDArray[np.intp]]:
    """Cells, and below them copies `without` features; with the row that each is a copy of."""
    parts = [(X, np.arange(len(X))), *(without(X, layout, rng) for _ in range(copies))]
    cells, rows = zip(*parts, strict=True)
    return np.vstack(cells), np.concatenate(rows)


@dataclass(eq=False, repr=False)
class FamilyDropout(ProbabilisticClassifier):
    """A classifier that also learns from copies of its cells with features taken away."""

    __metadata_request__fit = DONORS

    model: BaseEstimator
    layout: MaybeLayout = None
    _: KW_ONLY
    #: Copies of every cell, each with other features taken away; the cell itself stays.
    copies: int = 6
    random_state: int | None = None

    def fit(
        self, X: ArrayLike, y: ArrayLike, groups: MaybeArray = None, **source: MaybeArray
    ) -> FamilyDropout:
        """Fit on cells and copies; copies have the donor of their cell, the source has none."""
        X, y = self._learnable(X, y)
        rng = np.random.default_rng(self.random_state)
        cells, rows = with_copies(X, self.layout_, self.copies, rng)
        donors = None if groups is None else np.asarray(groups)[rows]
        self.model_ = fit_copy(self.model, cells, y[rows], donors, **source)
        self.classes_ = self.model_.classes_
        return self
