"""From a 2-D feature array to what the sequence models eat, fitted on training cells only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from crosspatch.features.layouts import Layout


@dataclass(eq=False, repr=False)
class SequenceInputs(BaseEstimator):
    """Standardise, impute single missing features, and lay families out as a sequence.

    Attributes
    ----------
    mean_, scale_, median_ : array, shape (features,)
        Of the finite values of the training cells; `median_` is in standard deviations.
    """

    layout: Layout
    #: Standardised values beyond this are set to it: a failed fit (an input resistance of -800 MΩ)
    #: must not outweigh every other feature.
    clip: float = 5.0

    def fit(self, X: ArrayLike) -> SequenceInputs:
        """Learn mean, scale and median of every feature; ``X`` is NaN where missing."""
        X = np.asarray(X, dtype=np.float64)
        finite = np.isfinite(X)
        known = finite.any(axis=0)
        self.mean_ = np.zeros(X.shape[1])
        self.scale_ = np.ones(X.shape[1])
        self.median_ = np.zeros(X.shape[1])
        values = np.where(finite, X, np.nan)[:, known]
        self.mean_[known] = np.nanmean(values, axis=0)
        deviation = np.nanstd(values, axis=0)
        self.scale_[known] = np.where(deviation > 0, deviation, 1.0)
        standard = np.clip((values - self.mean_[known]) / self.scale_[known], -self.clip, self.clip)
        self.median_[known] = np.nanmedian(standard, axis=0)
        return self

    def standardised(self, X: ArrayLike) -> NDArray[np.float64]:
        """Features in standard deviations, clipped; missing values stay missing."""
        check_is_fitted(self, "mean_")
        standard = (np.asarray(X, dtype=np.float64) - self.mean_) / self.scale_
        return np.clip(standard, -self.clip, self.clip)

    def transform(self, X: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Standardise and impute.

        Returns
        -------
        values : array of float32, shape (cells, features)
            Zero in the features of an absent family.
        present : array of bool, shape (cells, families)
        """
        X = np.asarray(X, dtype=np.float64)
        values, present = self.standardised(X), self.layout.present(X)
        values = np.where(np.isfinite(X), values, self.median_)
        for family, columns in enumerate(self.layout.columns.values()):
            values[np.ix_(~present[:, family], columns)] = 0.0
        return values.astype(np.float32), present

    def sequences(self, X: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Cells as sequences of families.

        Returns
        -------
        values : array of float32, shape (cells, families, width)
            Zero where a family is absent and in the padding behind a narrow family.
        present : array of bool, shape (cells, families)
        """
        values, present = self.transform(X)
        shape = len(values), len(self.layout.families), self.layout.width
        laid_out = np.zeros(shape, dtype=np.float32)
        for family, columns in enumerate(self.layout.columns.values()):
            laid_out[:, family, : len(columns)] = values[:, columns]
        return laid_out, present
