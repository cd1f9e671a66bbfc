"""Distances from the nearest of several means, over whatever was measured: compiled code.

One covariance, of which every set of measured coordinates takes its own part; among cells of a
dirty table nearly every cell has a set of its own.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def compiled_nearest(Z, patterns, ends, means, covariance):  # type: ignore[no-untyped-def]
    """As `crosspatch.models.reference.nearest_squared`, whatever the number of patterns."""
    n_classes, width = means.shape
    factor, centers = np.empty((width, width)), np.empty((n_classes, width))
    white = np.empty(width)
    nearest = np.full(len(Z), np.nan)
    first = 0
    for pattern in range(len(patterns)):
        columns = np.flatnonzero(patterns[pattern])
        if len(columns):
            _factorise(covariance, columns, factor)
            for code in range(n_classes):
                _whiten(factor, columns, means[code], centers[code])
            for row in range(first, ends[pattern]):
                _whiten(factor, columns, Z[row], white)
                nearest[row] = _least(white, centers, len(columns))
        first = ends[pattern]
    return nearest


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
def _least(white, centers, count):  # type: ignore[no-untyped-def]
    least = np.inf
    for code in range(len(centers)):
        squared = 0.0
        for k in range(count):
            squared += (white[k] - centers[code, k]) ** 2
        least = min(least, squared)
    return least
