"""Inner splits: what a model may hold back from its own training cells."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from crosspatch.errors import ModelError

Split = tuple[NDArray[np.intp], NDArray[np.intp]]


def inner_folds(
    y: ArrayLike, groups: ArrayLike | None, n_folds: int, random_state: int | None
) -> Iterator[Split]:
    """Stratified folds of training cells; no group stands on both sides.

    Folds in which a class would be missing from the training side are left out.

    Parameters
    ----------
    y : array, shape (cells,)
    groups : array, shape (cells,), optional
        Donors. Without them, cells are split freely.
    n_folds : int
    random_state : int, optional

    Yields
    ------
    train, held : arrays of int

    Raises
    ------
    ModelError
        If no fold has every class on its training side.
    """
    y = np.asarray(y)
    classes, counts = np.unique(y, return_counts=True)
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    most = int(counts.min()) if groups is None else len(np.unique(np.asarray(groups)))
    splitter = kind(max(2, min(n_folds, most)), shuffle=True, random_state=random_state)
    found = False
    try:
        for train, held in splitter.split(np.zeros(len(y)), y, groups):
            if len(np.unique(y[train])) == len(classes):
                found = True
                yield train, held
    except ValueError as error:
        raise ModelError(f"the training cells cannot be split for validation: {error}") from error
    if not found:
        rarest = classes[counts.argmin()]
        raise ModelError(
            f"the training cells cannot be split for validation: class '{rarest}' has "
            f"{counts.min()} cells, all of one donor; it needs cells of at least two donors"
        )


def validation_split(
    y: ArrayLike, groups: ArrayLike | None, fraction: float, random_state: int | None
) -> Split:
    """Hold back about this fraction of the training cells, stratified and by group."""
    return next(inner_folds(y, groups, round(1 / fraction), random_state))
