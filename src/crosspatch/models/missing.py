"""Statistics of features that some cells lack."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def over_rows(
    statistic: Callable[..., NDArray], values: NDArray, otherwise: float = np.nan
) -> NDArray[np.float64]:
    """A statistic such as `numpy.nanmean` over rows; `otherwise` where no row has a value.

    The last dimensions are those of a row.
    """
    known = np.isfinite(values).any(axis=0)
    found = statistic(values[:, known], axis=0)
    spread = np.full((*found.shape[:-1], *known.shape), otherwise)
    spread[..., known] = found
    return spread


def distinct_rows(flags: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """The distinct rows of a table of flags, and which of them each row is."""
    packed = np.packbits(flags, axis=1)
    packed = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8)))
    keys = np.ascontiguousarray(packed).view(np.uint64)
    if not keys.shape[1]:
        return flags[:1], np.zeros(len(flags), dtype=np.intp)
    if keys.shape[1] == 1:
        keys = keys[:, 0]  # numbers are sorted many times faster than rows
    _, first, which = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return flags[first], np.ravel(which)
