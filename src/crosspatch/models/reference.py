"""What the cells of a reference look like, and how far a cell is from all of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosspatch.features.layouts import Layout
from crosspatch.models.arrays import Arrays, require_array
from crosspatch.models.missing import distinct_rows, over_rows

if TYPE_CHECKING:
    import pyarrow as pa

# What is stored of a reference, by the name of its attribute without the underscore.
_STORED = ("means", "covariance", "priors", "middle", "center", "scale")

# Patterns of measured coordinates for which numba, half a second to import, is faster than numpy.
_MANY = 100


class _Trace(NamedTuple):
    """How a family of traces becomes coordinates."""

    #: Shape (positions,). What stands in for missing values.
    median: NDArray[np.float64]
    #: Shapes (positions,) and (coordinates, positions). Of the principal components.
    mean: NDArray[np.float64]
    components: NDArray[np.float64]

    def coordinates(self, part: NDArray) -> NDArray[np.float64]:
        """Principal components of the family, shape (cells, coordinates)."""
        known = np.isfinite(part)
        filled = np.where(known, part, self.median)
        found = filled @ self.components.T - self.mean @ self.components.T
        found[~known.any(axis=1)] = np.nan
        return found


@dataclass(eq=False, repr=False)
class Reference:
    """Normal distributions of the classes, with one covariance.

    A missing value takes no part: the distribution of the other values is that of the classes
    without it, so that any set of features can be judged. Features enter in robust standard
    deviations; traces enter by the first principal components of each family.

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
        from sklearn.covariance import LedoitWolf  # to learn takes more than to judge

        X, y = np.asarray(X, dtype=np.float64), np.asarray(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        self.traces_: dict[str, _Trace] = {}
        for family, columns in self.layout.columns.items():
            if family in self.layout.traces:
                self._fit_trace(family, X[:, columns])
        raw = self._raw(X)
        low, middle, high = over_rows(partial(np.nanquantile, q=(0.25, 0.5, 0.75)), raw)
        self.center_ = np.nan_to_num(middle)
        spread = (high - low) / 1.349
        spread = np.where(spread > 0, spread, over_rows(np.nanstd, raw))
        self.scale_ = np.where(spread > 0, spread, np.nan)  # NaN: never measured, so never judged
        Z = self.coordinates(X)
        self.means_ = np.zeros((len(self.classes_), Z.shape[1]))
        self.middle_ = np.zeros((len(self.classes_), 2, Z.shape[1]))
        filled = np.zeros_like(Z)
        for code in range(len(self.classes_)):
            here = Z[codes == code]
            measured = np.isfinite(here)
            count = np.maximum(measured.sum(axis=0), 1)
            self.means_[code] = np.where(measured, here, 0).sum(axis=0) / count
            self.middle_[code] = over_rows(partial(np.nanquantile, q=(0.025, 0.975)), here, 0.0)
            filled[codes == code] = np.where(measured, here - self.means_[code], 0)
        self.covariance_ = LedoitWolf(assume_centered=True).fit(filled).covariance_
        # Filling with the mean makes the spread too small.
        share = np.maximum(np.isfinite(Z).mean(axis=0), 0.05)
        self.covariance_ = self.covariance_ / np.sqrt(np.outer(share, share))
        self.priors_ = np.bincount(codes) / len(codes)
        return self

    def _fit_trace(self, family: str, part: NDArray) -> None:
        from sklearn.decomposition import PCA

        part = part[np.isfinite(part).any(axis=1)]
        if len(part) < 2:
            return
        median = over_rows(np.nanmedian, part, 0.0)
        count = min(self.components, len(part) - 1)
        pca = PCA(count, svd_solver="full").fit(np.where(np.isfinite(part), part, median))
        self.traces_[family] = _Trace(median, pca.mean_, pca.components_)

    def _raw(self, X: NDArray) -> NDArray[np.float64]:
        parts = []
        for family, columns in self.layout.columns.items():
            part = X[:, columns]
            if family not in self.layout.traces:
                parts.append(part)
            elif family in self.traces_:
                parts.append(self.traces_[family].coordinates(part))
        return np.hstack(parts)

    def coordinates(self, X: ArrayLike) -> NDArray[np.float64]:
        """Cells in robust standard deviations, shape (cells, coordinates); NaN where missing."""
        raw = self._raw(np.asarray(X, dtype=np.float64))
        return np.clip((raw - self.center_) / self.scale_, -self.clip, self.clip)

    @property
    def columns(self) -> NDArray[np.intp]:
        """The feature that each coordinate is of, in a layout without traces."""
        return np.concatenate(list(self.layout.columns.values()))

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
        if self.traces_:
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
        numbers = pa.array(map("{:.3g}".format, X[row, self.columns[place]].tolist()), pa.string())
        kinds, kind = np.unique(place * len(self.classes_) + codes[row], return_inverse=True)
        around = [self._around(*divmod(each, len(self.classes_))) for each in kinds]
        before, after = (
            pa.array([each[k] for each in around], pa.string()).take(kind) for k in (0, 1)
        )
        texts = pc.binary_join_element_wise(before, numbers, after, "")
        return pa.ListArray.from_arrays(np.append(0, np.cumsum(there.sum(axis=1))), texts)

    def _around(self, place: int, code: int) -> tuple[str, str]:
        """What stands before and after the value of a coordinate that is unusual for a class."""
        feature = self.layout.features[self.columns[place]]
        low, high = self.center_[place] + self.scale_[place] * self.middle_[code, :, place]
        unit = "" if feature.unit == "ratio" else f" {feature.unit}"
        name = self.classes_[code]
        return f"{feature.name} ", f"{unit} ({name} {low:.3g} to {high:.3g})"

    def distance(self, X: ArrayLike) -> NDArray[np.float64]:
        """How far each cell is from the nearest class.

        The squared Mahalanobis distance over what was measured, as a standard normal score
        (Wilson and Hilferty 1931), so that cells with few and many values can be compared: shape
        (cells,), NaN where a cell has no value.
        """
        Z = self.coordinates(X)
        known = np.isfinite(Z)
        patterns, which = distinct_rows(known)
        order = np.argsort(which, kind="stable")
        ends = np.cumsum(np.bincount(which, minlength=len(patterns)))
        nearest = nearest_squared
        if len(patterns) > _MANY:
            from crosspatch.models import distances

            nearest = distances.compiled_nearest
        squared = np.empty(len(Z))
        squared[order] = nearest(Z[order], patterns, ends, self.means_, self.covariance_)
        count = np.where(known.any(axis=1), known.sum(axis=1), np.nan)
        width = 2 / (9 * count)
        return (np.cbrt(squared / count) - (1 - width)) / np.sqrt(width)

    def arrays(self) -> dict[str, NDArray]:
        """What was learnt, to be stored."""
        found = {name: getattr(self, f"{name}_") for name in _STORED}
        for number, family in enumerate(self.layout.families):
            if family in self.traces_:
                trace = self.traces_[family]._asdict()
                found |= {f"{number}.{name}": part for name, part in trace.items()}
        return found

    @classmethod
    def of_arrays(cls, layout: Layout, classes: NDArray[np.str_], arrays: Arrays) -> Reference:
        """What `arrays` gave, checked; a ModelError if it does not fit."""
        found = cls(layout)
        found.classes_, found.traces_ = classes, {}
        count = 0
        for number, (family, columns) in enumerate(layout.columns.items()):
            if family not in layout.traces:
                count += len(columns)
            elif f"{number}.components" in arrays:
                trace = _Trace(*(arrays[f"{number}.{name}"] for name in _Trace._fields))
                size = len(trace.components)
                for part, shape in zip(trace, ((), (), (size,)), strict=True):
                    require_array("reference", part, (*shape, len(columns)))
                found.traces_[family] = trace
                count += size
        n = len(classes)
        shapes = ((n, count), (count, count), (n,), (n, 2, count), (count,), (count,))
        for name, shape in zip(_STORED, shapes, strict=True):
            # A feature that was never measured has no scale.
            known = np.nan_to_num(arrays[name]) if name == "scale" else arrays[name]
            require_array("reference", known, shape)
            setattr(found, f"{name}_", arrays[name])
        return found


def nearest_squared(
    Z: NDArray[np.float64],
    patterns: NDArray[np.bool_],
    ends: NDArray[np.intp],
    means: NDArray[np.float64],
    covariance: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The squared Mahalanobis distance of cells from the nearest of the means, NaN without values.

    Cells, shape (cells, coordinates), are in order of which coordinates they have: those before the
    first of the ends have those of the first pattern, and so on.
    """
    nearest = np.full(len(Z), np.nan)
    for pattern, cells, here in zip(
        patterns, np.split(Z, ends), np.split(nearest, ends), strict=False
    ):
        if pattern.any():
            factor = np.linalg.cholesky(covariance[np.ix_(pattern, pattern)])
            centers = np.linalg.solve(factor, means[:, pattern].T)
            white = np.linalg.solve(factor, cells[:, pattern].T)
            squared = [((white - center[:, None]) ** 2).sum(axis=0) for center in centers.T]
            here[:] = np.min(squared, axis=0)
    return nearest
