"""Distances from means, and values that are missing, over whatever was measured: compiled code.

All coordinates of a cell are dealt with as matrix products first, a missing one as if it were at
the origin. What that gives is then put right for every cell: a missing coordinate moves to where
it costs least, which is the same as to leave it out. That takes a factor of the precision (the
inverse of the covariance) of the coordinates that are missing. Where these are most of them, the
covariance of those that are there is used directly.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


def squared_distances(
    Z: NDArray[np.float64],
    means: NDArray[np.float64],
    covariance: NDArray[np.float64],
    precision: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Squared Mahalanobis distances from means, shape (cells, classes), NaN without values."""
    middle = means.mean(axis=0)
    known = np.isfinite(Z)
    Z, means = np.where(known, Z - middle, 0.0), means - middle
    pull, pull_of_means = Z @ precision, means @ precision
    squared = -2 * (pull @ means.T) + (pull_of_means * means).sum(axis=1)
    squared += np.einsum("ij,ij->i", pull, Z)[:, None]
    matrices = covariance, precision
    _leave_out(known, Z, means, (pull, pull_of_means), matrices, squared)
    return squared


def filled_with_expected(
    Z: NDArray[np.float64],
    mean: NDArray[np.float64],
    covariance: NDArray[np.float64],
    precision: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Cells with missing values as they are expected, given those that are there."""
    known = np.isfinite(Z)
    rest = np.where(known, Z - mean, 0.0)
    _fill_in(known, rest, rest @ precision, covariance, precision)
    return np.where(known, Z, rest + mean)


@njit(cache=True, nogil=True)
def _leave_out(known, Z, means, pulls, matrices, squared):  # type: ignore[no-untyped-def]
    """Take what missing coordinates add to squared distances off again."""
    pull, pull_of_means = pulls
    covariance, precision = matrices
    n_classes, width = means.shape
    factor, centers = np.empty((width, width)), np.empty((n_classes, width))
    missing = there = np.empty(0, np.int64)
    for row in range(len(Z)):
        same = row > 0 and np.array_equal(known[row], known[row - 1])
        if not same:
            missing, there = np.flatnonzero(~known[row]), np.flatnonzero(known[row])
        if len(there) == 0:
            squared[row] = np.nan
        elif len(missing) <= len(there):
            if not same:
                _factorise(precision, missing, factor)
            _take_off(factor, missing, pull[row], pull_of_means, squared[row])
        else:
            if not same:
                _factorise(covariance, there, factor)
                for code in range(n_classes):
                    _whiten(factor, there, means[code], centers[code])
            _measure(factor, there, Z[row], centers, squared[row])


@njit(cache=True, nogil=True)
def _take_off(factor, missing, pull, pull_of_means, squared):  # type: ignore[no-untyped-def]
    """Take what missing coordinates add to the squared distances of a cell off again."""
    rest, white = np.empty(len(pull)), np.empty(len(missing))
    for code in range(len(squared) if len(missing) else 0):
        for k in missing:
            rest[k] = pull[k] - pull_of_means[code, k]
        _whiten(factor, missing, rest, white)
        for k in range(len(missing)):
            squared[code] -= white[k] ** 2


@njit(cache=True, nogil=True)
def _measure(factor, there, values, centers, squared):  # type: ignore[no-untyped-def]
    """Squared distances of a cell from the centers, over the coordinates that are there."""
    white = np.empty(len(there))
    _whiten(factor, there, values, white)
    for code in range(len(squared)):
        squared[code] = 0.0
        for k in range(len(there)):
            squared[code] += (white[k] - centers[code, k]) ** 2


@njit(cache=True, nogil=True)
def _fill_in(known, Z, pull, covariance, precision):  # type: ignore[no-untyped-def]
    """Put what is expected in the place of missing coordinates; the mean is the origin."""
    width = Z.shape[1]
    factor, white = np.empty((width, width)), np.empty(width)
    missing = there = np.empty(0, np.int64)
    for row in range(len(Z)):
        same = row > 0 and np.array_equal(known[row], known[row - 1])
        if not same:
            missing, there = np.flatnonzero(~known[row]), np.flatnonzero(known[row])
        few = len(missing) <= len(there)
        used = missing if few else there
        if not same:
            _factorise(precision if few else covariance, used, factor)
        _whiten(factor, used, pull[row] if few else Z[row], white)
        _unwhiten(factor, len(used), white)
        if few:
            for k in range(len(missing)):
                Z[row, missing[k]] = -white[k]
        else:
            for gone in missing:
                expected = 0.0
                for k in range(len(there)):
                    expected += covariance[gone, there[k]] * white[k]
                Z[row, gone] = expected


@njit(cache=True, nogil=True)
def _factorise(matrix, columns, factor):  # type: ignore[no-untyped-def]
    """The lower Cholesky factor of a part of a matrix."""
    for i in range(len(columns)):
        for j in range(i + 1):
            rest = matrix[columns[i], columns[j]]
            for k in range(j):
                rest -= factor[i, k] * factor[j, k]
            factor[i, j] = np.sqrt(rest) if i == j else rest / factor[j, j]


@njit(cache=True, nogil=True)
def _whiten(factor, columns, values, white):  # type: ignore[no-untyped-def]
    """Solve with the factor, for some of the values."""
    for i in range(len(columns)):
        rest = values[columns[i]]
        for k in range(i):
            rest -= factor[i, k] * white[k]
        white[i] = rest / factor[i, i]


@njit(cache=True, nogil=True)
def _unwhiten(factor, count, white):  # type: ignore[no-untyped-def]
    """Solve with the transposed factor, in place: the matrix is divided out."""
    for i in range(count - 1, -1, -1):
        rest = white[i]
        for k in range(i + 1, count):
            rest -= factor[k, i] * white[k]
        white[i] = rest / factor[i, i]
