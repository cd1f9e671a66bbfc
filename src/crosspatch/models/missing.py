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
