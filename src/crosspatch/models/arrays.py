"""Fitted numbers as they are stored: arrays by name, checked before they are used."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import DTypeLike, NDArray

from crosspatch.errors import ModelError

#: Up to so many cells are left to numpy; for more, numba (half a second to import) is faster.
FEW = 256

#: Arrays by name; a dot parts the name of a part from the names in it.
Arrays = Mapping[str, NDArray]


def require_array(
    what: str,
    found: NDArray,
    shape: tuple[int, ...],
    dtype: DTypeLike = np.float64,
    below: int | None = None,
) -> None:
    """Refuse an array of another shape or type, or with values that are not finite or in range.

    Parameters
    ----------
    what : str
        What it belongs to, for the message.
    found : array
    shape : tuple of int
    dtype : dtype
    below : int, optional
        Values are indices: at least 0, and below this.

    Raises
    ------
    ModelError
    """
    if found.shape != shape or found.dtype != dtype:
        raise ModelError(f"its {what} are of shape {found.shape} and type {found.dtype}")
    if not np.isfinite(found).all():
        raise ModelError(f"its {what} hold a number that is not finite")
    if below is not None and found.size and not 0 <= found.min() <= found.max() < below:
        raise ModelError(f"its {what} point at what is not there")


def under(part: str, arrays: Arrays) -> dict[str, NDArray]:
    """Arrays under the name of the part that they belong to."""
    return {f"{part}.{name}": array for name, array in arrays.items()}


def part_of(part: str, arrays: Arrays) -> dict[str, NDArray]:
    """The arrays of a part, by their names in it."""
    head = f"{part}."
    return {
        name.removeprefix(head): array for name, array in arrays.items() if name.startswith(head)
    }


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities from scores, along the last axis."""
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def class_probabilities(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shape (cells, classes), from one score per class, or from one for two classes."""
    if scores.shape[1] > 1:
        return softmax(scores)
    p = 1 / (1 + np.exp(-scores))
    return np.hstack([1 - p, p])


def score_count(classes: int) -> int:
    """Scores from which `class_probabilities` makes those of so many classes."""
    return 1 if classes == 2 else classes
