"""From a 2-D feature array to what the sequence models eat, fitted on training cells only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosspatch.features.layouts import Layout
from crosspatch.models.arrays import Arrays, require_array
from crosspatch.models.missing import over_rows

# What is stored of them, by the name of its attribute without the underscore.
_STORED = ("mean", "scale", "median")


@dataclass(eq=False, repr=False)
class SequenceInputs:
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
        values = np.where(np.isfinite(X), X, np.nan)
        self.mean_ = over_rows(np.nanmean, values, 0.0)
        deviation = over_rows(np.nanstd, values, 0.0)
        self.scale_ = np.where(deviation > 0, deviation, 1.0)
        self.median_ = over_rows(np.nanmedian, self.standardised(values), 0.0)
        return self

    def standardised(self, X: ArrayLike) -> NDArray[np.float64]:
        """Features in standard deviations, clipped; missing values stay missing."""
        standard = (np.asarray(X, dtype=np.float64) - self.mean_) / self.scale_
        return np.clip(standard, -self.clip, self.clip)

    def transform(self, X: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Standardise and impute: values, shape (cells, features), and which families are there.

        Values are zero in the features of an absent family; presence has shape (cells, families).
        """
        X = np.asarray(X, dtype=np.float64)
        values, present = self.standardised(X), self.layout.present(X)
        values = np.where(np.isfinite(X), values, self.median_)
        for family, columns in enumerate(self.layout.columns.values()):
            values[np.ix_(~present[:, family], columns)] = 0.0
        return values.astype(np.float32), present

    def sequences(self, X: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Cells as sequences of families, shape (cells, families, width), and which are there.

        Values are zero where a family is absent and in the padding behind a narrow family.
        """
        values, present = self.transform(X)
        shape = len(values), len(self.layout.families), self.layout.width
        laid_out = np.zeros(shape, dtype=np.float32)
        for family, columns in enumerate(self.layout.columns.values()):
            laid_out[:, family, : len(columns)] = values[:, columns]
        return laid_out, present

    def arrays(self) -> dict[str, NDArray]:
        """What was learnt, to be stored."""
        return {name: getattr(self, f"{name}_") for name in _STORED}

    @classmethod
    def of_arrays(cls, layout: Layout, arrays: Arrays) -> SequenceInputs:
        """What `arrays` gave, checked; a ModelError if it does not fit."""
        found = cls(layout)
        for name in _STORED:
            require_array("scaling", arrays[name], (len(layout.features),))
            setattr(found, f"{name}_", arrays[name])
        return found
