"""Distances from means, and values that are missing, over whatever was measured: compiled code.

One covariance, of which every set of measured coordinates takes its own part; among cells of a
dirty table nearly every cell has a set of its own. Cells, shape (cells, coordinates), are in order
of which coordinates they have: those before the first of the ends have those of the first pattern,
and so on.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def compiled_squared(Z, patterns, ends, means, covariance):  # type: ignore[no-untyped-def]
    """Squared Mahalanobis distances from means, shape (cells, classes), NaN without values."""
    n_classes, width = means.shape
    factor, centers = np.empty((width, width)), np.empty((n_classes, width))
    white = np.empty(width)
    squared = np.full((len(Z), n_classes), np.nan)
    first = 0
    for pattern in range(len(patterns)):
        columns = np.flatnonzero(patterns[pattern])
        if len(columns):
            _factorise(covariance, columns, factor)
            for code in range(n_classes):
                _whiten(factor, columns, means[code], centers[code])
            for row in range(first, ends[pattern]):
                _whiten(factor, columns, Z[row], white)
                for code in range(n_classes):
                    total = 0.0
                    for k in range(len(columns)):
                        total += (white[k] - centers[code, k]) ** 2
                    squared[row, code] = total
        first = ends[pattern]
    return squared


@njit(cache=True, nogil=True)
def compiled_filled(Z, patterns, ends, mean, covariance):  # type: ignore[no-untyped-def]
    """Cells with missing values as they are expected, given those that are there."""
    width = len(mean)
    factor, white = np.empty((width, width)), np.empty(width)
    filled = np.empty(Z.shape)
    first = 0
    for pattern in range(len(patterns)):
        columns = np.flatnonzero(patterns[pattern])
        missing = np.flatnonzero(~patterns[pattern])
        if len(missing):
            _factorise(covariance, columns, factor)
        for row in range(first, ends[pattern]):
            filled[row] = Z[row]
            if len(missing):
                _whiten(factor, columns, Z[row] - mean, white)
                _unwhiten(factor, len(columns), white)
            for gone in missing:
                expected = mean[gone]
                for k in range(len(columns)):
                    expected += covariance[gone, columns[k]] * white[k]
                filled[row, gone] = expected
        first = ends[pattern]
    return filled


@njit(cache=True, nogil=True)
def _factorise(covariance, columns, factor):  # type: ignore[no-untyped-def]
    """The lower Cholesky factor of a part of the covariance."""
    for i in range(len(columns)):
        for j in range(i + 1):
            rest = covariance[columns[i], columns[j]]
            for k in range(j):
                rest -= factor[i, k] * factor[j, k]
            factor[i, j] = np.sqrt(rest) if i == j else rest / factor[j, j]


@njit(cache=True, nogil=True)
def _whiten(factor, columns, values, white):  # type: ignore[no-untyped-def]
    """Solve for the coordinates in which the covariance is that of independent ones."""
    for i in range(len(columns)):
        rest = values[columns[i]]
        for k in range(i):
            rest -= factor[i, k] * white[k]
        white[i] = rest / factor[i, i]


@njit(cache=True, nogil=True)
def _unwhiten(factor, count, white):  # type: ignore[no-untyped-def]
    """Solve with the transposed factor, in place: the covariance is divided out."""
    for i in range(count - 1, -1, -1):
        rest = white[i]
        for k in range(i + 1, count):
            rest -= factor[k, i] * white[k]
        white[i] = rest / factor[i, i]
