"""Normal distributions with one covariance, of cells of which any value may be missing.

A missing value takes no part: what is judged is the distribution of the values that are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosspatch.models.arrays import FEW, Arrays, require_array
from crosspatch.models.missing import distinct_rows

# Rounds in which missing values and the distributions are estimated in turn, and what is added to
# every variance, so that no combination of values is without spread.
_ROUNDS = 3
_RIDGE = 1e-3

# A type of fewer cells is joined with the other rare ones of its class.
_TYPE_CELLS = 8


@dataclass(frozen=True, eq=False)
class Gaussians:
    """Normal distributions of classes that share their covariance."""

    means: NDArray[np.float64]  # shape (classes, coordinates)
    covariance: NDArray[np.float64]  # shape (coordinates, coordinates)

    @classmethod
    def fit(cls, Z: NDArray[np.float64], codes: NDArray[np.intp]) -> Gaussians:
        """Learn them from cells, shape (cells, coordinates), NaN where missing, and their classes.

        By expectation and maximisation (Dempster, Laird, Rubin 1977), the covariance drawn towards
        a multiple of the identity by as much as Ledoit and Wolf (2004) find.
        """
        from sklearn.covariance import ledoit_wolf  # to learn takes more than to judge

        known, classes = np.isfinite(Z), range(int(codes.max()) + 1)
        means = np.zeros((len(classes), Z.shape[1]))
        for code in classes:
            here = known[codes == code]
            total = np.where(here, Z[codes == code], 0).sum(axis=0)
            means[code] = total / np.maximum(here.sum(axis=0), 1)
        rest = np.where(known, Z - means[codes], 0)
        covariance, shrinkage = ledoit_wolf(rest, assume_centered=True)
        freedom = max(len(Z) - len(classes), 1)
        # Filling with the mean makes the spread too small.
        share = np.maximum(known.mean(axis=0), 0.05)
        covariance = covariance * len(Z) / freedom / np.sqrt(np.outer(share, share))
        identity = np.eye(len(covariance))
        found = cls(means, covariance + _RIDGE * identity)
        for _ in range(0 if known.all() else _ROUNDS):
            filled, left_out = found.expected(Z, codes)
            means = np.array([filled[codes == code].mean(axis=0) for code in classes])
            rest = filled - means[codes]
            covariance = (rest.T @ rest + left_out) / freedom
            level = np.trace(covariance) / len(covariance)
            covariance = (1 - shrinkage) * covariance + shrinkage * level * identity
            found = cls(means, covariance + _RIDGE * identity)
        return found

    def expected(
        self, Z: NDArray[np.float64], codes: NDArray[np.intp]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Cells with their missing values as expected, and the scatter that this leaves out."""
        centers, left_out = self.means[codes], np.zeros_like(self.covariance)
        filled = np.where(np.isfinite(Z), Z, centers)
        for rows, there in _sets(Z):
            if there.all():
                continue
            gone = ~there
            weights = self._regression(there)
            filled[np.ix_(rows, gone)] += (Z[rows] - centers[rows])[:, there] @ weights
            explained = self.covariance[np.ix_(gone, there)] @ weights
            rest = self.covariance[np.ix_(gone, gone)] - explained
            left_out[np.ix_(gone, gone)] += len(rows) * rest
        return filled, left_out

    def _regression(self, there: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Weights that give missing values from measured ones, shape (measured, missing)."""
        measured = self.covariance[np.ix_(there, there)]
        weights = np.linalg.solve(measured, self.covariance[np.ix_(there, ~there)])
        return np.asarray(weights, dtype=np.float64)

    def filled(self, Z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Cells with missing values as the first class has them where measured ones are these.

        Shape (cells, coordinates). Meant for the distribution of all cells, the only class then.
        """
        if len(Z) > FEW:
            from crosspatch.models import distances

            return distances.filled_with_expected(
                Z, self.means[0], self.covariance, self._precision
            )
        filled = np.where(np.isfinite(Z), Z, self.means[0])
        for rows, there in _sets(Z):
            if there.all():
                continue
            rest = Z[np.ix_(rows, there)] - self.means[0, there]
            filled[np.ix_(rows, ~there)] += rest @ self._regression(there)
        return filled

    def squared_distances(self, Z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Squared Mahalanobis distances over what was measured, shape (cells, classes).

        NaN for a cell without any value.
        """
        if len(Z) > FEW:
            from crosspatch.models import distances

            return distances.squared_distances(Z, self.means, self.covariance, self._precision)
        found = np.full((len(Z), len(self.means)), np.nan)
        for rows, there in _sets(Z):
            if there.any():
                factor = np.linalg.cholesky(self.covariance[np.ix_(there, there)])
                centers = np.linalg.solve(factor, self.means[:, there].T)
                white = np.linalg.solve(factor, Z[np.ix_(rows, there)].T)
                for code, center in enumerate(centers.T):
                    found[rows, code] = ((white - center[:, None]) ** 2).sum(axis=0)
        return found

    @cached_property
    def _precision(self) -> NDArray[np.float64]:
        return np.asarray(np.linalg.inv(self.covariance), dtype=np.float64)

    def arrays(self) -> dict[str, NDArray]:
        """All of it, to be stored."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def of_arrays(cls, classes: int, coordinates: int, arrays: Arrays) -> Gaussians:
        """What `arrays` gave, checked; a ModelError if it does not fit."""
        require_array("distributions", arrays["means"], (classes, coordinates))
        require_array("distributions", arrays["covariance"], (coordinates, coordinates))
        return cls(arrays["means"], arrays["covariance"])


def _sets(Z: NDArray) -> Iterator[tuple[NDArray[np.intp], NDArray[np.bool_]]]:
    """Rows of cells that have the same values, and which these are, set by set."""
    patterns, which = distinct_rows(np.isfinite(Z))
    order = np.argsort(which, kind="stable")
    ends = np.cumsum(np.bincount(which, minlength=len(patterns)))
    return zip(np.split(order, ends), patterns, strict=False)


def types_of(
    codes: NDArray[np.intp], types: ArrayLike
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The type of every cell, and the class of every type; rare types of a class are one."""
    named = np.unique(types, return_inverse=True)[1] + 1
    both = np.stack([codes, named], axis=1)
    _, which, count = np.unique(both, axis=0, return_inverse=True, return_counts=True)
    both[count[np.ravel(which)] < _TYPE_CELLS, 1] = 0
    found, which = np.unique(both, axis=0, return_inverse=True)
    return np.ravel(which), found[:, 0]
