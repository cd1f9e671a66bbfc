"""What the cells of a reference look like, and how far a cell is from all of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosspatch.features.layouts import Layout
from crosspatch.models.arrays import Arrays, require_array
from crosspatch.models.coordinates import Coordinates
from crosspatch.models.gaussian import Gaussians
from crosspatch.models.missing import distinct_rows, over_rows

if TYPE_CHECKING:
    import pyarrow as pa

# What is stored of a reference, by the name of its attribute without the underscore.
_STORED = ("means", "covariance", "priors", "middle", "center", "scale")


class Compared(NamedTuple):
    """Cells beside a reference: shape (cells,) each, NaN and 0 where a cell has no value."""

    #: How far each is from the nearest class: the squared Mahalanobis distance over what was
    #: measured, as a standard normal score (Wilson and Hilferty 1931), so that cells with few and
    #: many values can be compared.
    distance: NDArray[np.float64]
    #: How much of not knowing the class is resolved by the features that were measured, whatever
    #: their values, from 0 to 1: a lower bound of their mutual information with the class, over the
    #: entropy of the classes (Kolchinsky and Tracey, Entropy 19, 2017, with the Bhattacharyya
    #: distance). Of held-back cells a model resolves about as much (docs/choices.md).
    information: NDArray[np.float64]


@dataclass(eq=False, repr=False)
class Reference:
    """Normal distributions of the classes, with one covariance.

    A missing value takes no part: the distribution of the other values is that of the classes
    without it, so that any set of features can be judged. Features enter in robust standard
    deviations; traces enter by the first principal components of each family. Where a cell lies
    makes it neither usual nor unusual: location takes no part.

    Attributes
    ----------
    classes_ : array
    means_ : array, shape (classes, coordinates)
    covariance_ : array, shape (coordinates, coordinates)
        Of cells about the mean of their class, shrunk (Ledoit and Wolf 2004).
    priors_ : array, shape (classes,)
    middle_ : array, shape (classes, 2, coordinates)
        Ends of the middle 95 % of each class.
    """

    layout: Layout
    components: int = 5  # principal components of a family of traces
    clip: float = 8.0  # robust standard deviations beyond which a value counts as this far

    def fit(self, X: ArrayLike, y: ArrayLike) -> Reference:
        """Learn the distributions; ``X`` is NaN where missing."""
        X, y = np.asarray(X, dtype=np.float64), np.asarray(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        self.coordinates_ = Coordinates.fit(self.layout, X, self.components)
        raw = self.coordinates_.of(X)
        low, middle, high = over_rows(partial(np.nanquantile, q=(0.25, 0.5, 0.75)), raw)
        self.center_ = np.nan_to_num(middle)
        spread = (high - low) / 1.349
        spread = np.where(spread > 0, spread, over_rows(np.nanstd, raw))
        self.scale_ = np.where(spread > 0, spread, np.nan)  # NaN: never measured, so never judged
        Z = self.coordinates(X)
        found = Gaussians.fit(Z, codes)
        self.means_, self.covariance_ = found.means, found.covariance
        self.middle_ = np.zeros((len(self.classes_), 2, Z.shape[1]))
        for code in range(len(self.classes_)):
            ends = over_rows(partial(np.nanquantile, q=(0.025, 0.975)), Z[codes == code], 0.0)
            self.middle_[code] = ends
        self.priors_ = np.bincount(codes) / len(codes)
        return self

    def coordinates(self, X: ArrayLike) -> NDArray[np.float64]:
        """Cells in robust standard deviations, shape (cells, coordinates); NaN where missing."""
        raw = self.coordinates_.of(np.asarray(X))
        return np.clip((raw - self.center_) / self.scale_, -self.clip, self.clip)

    def unusual(self, X: ArrayLike, names: ArrayLike, most: int = 3) -> pa.ListArray:
        """What sets cells apart from the class they are given, in words: a list for every cell.

        Features more than 2.5 standard deviations from the class's mean and outside its middle
        95 %, farthest first and at most so many, with that range. Empty for traces, and where only
        the combination is unusual. `names` are the classes of the cells, whose features are of
        shape (cells, features).
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        X, names = np.asarray(X, dtype=np.float64), np.asarray(names)
        if self.coordinates_.traces:
            return pa.array([[]] * len(X), pa.list_(pa.string()))
        Z = self.coordinates(X)
        codes = np.searchsorted(self.classes_, names.astype(self.classes_.dtype))
        score = np.abs(Z - self.means_[codes]) / np.sqrt(np.diag(self.covariance_))
        low, high = self.middle_[codes, 0], self.middle_[codes, 1]
        score = np.where((score > 2.5) & ((low > Z) | (high < Z)), score, 0.0)
        rows, places = np.arange(len(X)), np.zeros((len(X), most), dtype=np.intp)
        there = np.zeros((len(X), most), dtype=bool)
        for k in range(most):
            places[:, k] = score.argmax(axis=1)
            there[:, k] = score[rows, places[:, k]] > 0
            score[rows, places[:, k]] = 0
        row, place = np.nonzero(there)[0], places[there]
        values = X[row, self.coordinates_.columns[place]].tolist()
        numbers = pa.array(map("{:.3g}".format, values), pa.string())
        kinds, kind = np.unique(place * len(self.classes_) + codes[row], return_inverse=True)
        around = [self._around(*divmod(each, len(self.classes_))) for each in kinds]
        before, after = (
            pa.array([each[k] for each in around], pa.string()).take(kind) for k in (0, 1)
        )
        texts = pc.binary_join_element_wise(before, numbers, after, "")
        return pa.ListArray.from_arrays(np.append(0, np.cumsum(there.sum(axis=1))), texts)

    def _around(self, place: int, code: int) -> tuple[str, str]:
        """What stands before and after the value of a coordinate that is unusual for a class."""
        feature = self.layout.features[self.coordinates_.columns[place]]
        low, high = self.center_[place] + self.scale_[place] * self.middle_[code, :, place]
        unit = "" if feature.unit == "ratio" else f" {feature.unit}"
        name = self.classes_[code]
        return f"{feature.name} ", f"{unit} ({name} {low:.3g} to {high:.3g})"

    def compare(self, X: ArrayLike) -> Compared:
        """How far cells are from the classes, and what their features tell of the class."""
        Z = self.coordinates(X)
        known = np.isfinite(Z)
        classes = Gaussians(self.means_, self.covariance_)
        squared = classes.squared_distances(Z).min(axis=1)
        count = np.where(known.any(axis=1), known.sum(axis=1), np.nan)
        width = 2 / (9 * count)
        distance = (np.cbrt(squared / count) - (1 - width)) / np.sqrt(width)
        patterns, which = distinct_rows(known)
        return Compared(distance, self._information(classes, patterns)[which])

    def _information(self, classes: Gaussians, patterns: NDArray[np.bool_]) -> NDArray[np.float64]:
        """What sets of coordinates tell of the class, shape (patterns,)."""
        p, size = self.priors_, self.means_.shape
        means = np.where(patterns[:, None], self.means_, np.nan).reshape(-1, size[1])
        apart = np.nan_to_num(classes.squared_distances(means)).reshape(-1, size[0], size[0])
        return (p * np.log(np.exp(-apart / 8) @ p)).sum(axis=1) / (p * np.log(p)).sum()

    def arrays(self) -> dict[str, NDArray]:
        """What was learnt, to be stored."""
        own = {name: getattr(self, f"{name}_") for name in _STORED}
        return own | self.coordinates_.arrays()

    @classmethod
    def of_arrays(cls, layout: Layout, classes: NDArray[np.str_], arrays: Arrays) -> Reference:
        """What `arrays` gave, checked; a ModelError if it does not fit."""
        found = cls(layout)
        found.classes_ = classes
        found.coordinates_ = Coordinates.of_arrays(layout, arrays)
        count = found.coordinates_.count
        n = len(classes)
        shapes = ((n, count), (count, count), (n,), (n, 2, count), (count,), (count,))
        for name, shape in zip(_STORED, shapes, strict=True):
            # A feature that was never measured has no scale.
            known = np.nan_to_num(arrays[name]) if name == "scale" else arrays[name]
            require_array("reference", known, shape)
            setattr(found, f"{name}_", arrays[name])
        return found
