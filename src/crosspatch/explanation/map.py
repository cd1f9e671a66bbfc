"""A map of both species: UMAP of the mouse cells, and the human cells laid over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosspatch.cohorts.cells import Cells, cells_of
from crosspatch.cohorts.taxonomy import DEFAULT_ALIGNMENT
from crosspatch.errors import EvaluationError
from crosspatch.explanation.components import Space, spaces_of
from crosspatch.species import SPECIES

#: Columns of `map_table`.
MAP_COLUMNS = ("cell_id", "species", "subclass", "x", "y")

#: Cells with fewer of the components are left out of the map.
MIN_SHARE = 0.5

#: UMAP's own default (McInnes, Healy and Melville 2018), as is the distance.
NEIGHBORS = 15
_MIN_DIST = 0.1
#: Fewer cells than this have no neighbourhoods to speak of.
_MIN_CELLS = 10


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of every feature over the cells of a species that have it."""

    #: Shape (features,). In the units of the features; 0 where no cell has the feature.
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    @classmethod
    def of(cls, X: NDArray[np.floating]) -> Moments:
        """The moments of cells, shape (cells, features), NaN where missing."""
        known = np.isfinite(X).any(axis=0)
        mean, deviation = np.zeros(X.shape[1]), np.zeros(X.shape[1])
        values = X[:, known].astype(np.float64)
        mean[known], deviation[known] = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
        return cls(mean, deviation)

    def moved(self, X: NDArray[np.floating], onto: Moments) -> NDArray[np.float64]:
        """Features with the mean and standard deviation that they have in another species.

        Parameters
        ----------
        X : array, shape (cells, features)
            Cells of the species that these are the moments of.
        onto : Moments
            Of the other species.

        Returns
        -------
        array, shape (cells, features)
        """
        scale = np.divide(
            onto.deviation, self.deviation, out=np.zeros(len(self.mean)), where=self.deviation > 0
        )
        return (X.astype(np.float64) - self.mean) * scale + onto.mean


@dataclass(frozen=True, eq=False)
class LaidOut:
    """A map, and what it was made with."""

    #: As `map_table` gives it.
    table: pd.DataFrame
    #: Shape (rows of the table, components). In the components of `space`, after moving; NaN where
    #: a family is absent.
    scores: NDArray[np.float64]
    #: Shape (rows of the table,). The cells that UMAP was fitted on; the others were laid over.
    fitted: NDArray[np.bool_]
    #: Of the species that the map is fitted on.
    space: Space
    #: Species to its moments.
    moments: Mapping[str, Moments]
    #: Fitted.
    mapper: Any


def map_table(
    cohorts: Mapping[str, anndata.AnnData],
    *,
    alignment: str = DEFAULT_ALIGNMENT,
    seed: int = 0,
    spaces: Mapping[str, Space] | None = None,
) -> pd.DataFrame:
    """Two coordinates for every cell of both species.

    Sparse principal components and UMAP are fitted on mouse. Every feature of the human cells is
    moved and scaled to the mean and standard deviation it has in mouse, so that each species is
    standardised by its own cells, and the human cells are then laid over by UMAP's transform. What
    sets the species apart as a whole is therefore not in the map, nor is the part of it that comes
    from unlike shares of the subclasses. With one species only, everything is fitted on it.

    UMAP is fitted on cells that have every family, if these are half of the cells or more, and the
    others are laid over like those of the other species. There an absent family counts as average
    (its components are 0), which draws such cells to the middle; cells with less than half of the
    components are left out. Distances between groups far apart in
    a UMAP mean little; `crosspatch.explanation.separation` measures them.

    Parameters
    ----------
    cohorts : mapping
        Species to cohort table, all in one layout.
    alignment : str
    seed : int
        The same gives the same map.
    spaces : mapping, optional
        What `spaces_of` gives for the same cohorts and alignment, to save the time.

    Returns
    -------
    DataFrame
        A row a cell, with the columns `MAP_COLUMNS`.

    Raises
    ------
    EvaluationError
        If the species have different features, or there are fewer than 10 cells to fit on.

    References
    ----------
    McInnes L, Healy J, Melville J (2018) UMAP: uniform manifold approximation and projection for
    dimension reduction. arXiv 1802.03426.
    """
    return lay_out(cohorts, alignment=alignment, seed=seed, spaces=spaces).table


def lay_out(
    cohorts: Mapping[str, anndata.AnnData],
    *,
    alignment: str = DEFAULT_ALIGNMENT,
    seed: int = 0,
    spaces: Mapping[str, Space] | None = None,
) -> LaidOut:
    """Make a map, and keep what it was made with; the parameters are those of `map_table`.

    Raises
    ------
    EvaluationError
        If the species have different features, or there are fewer than 10 cells to fit on.
    """
    from umap import UMAP

    order = [name for name in SPECIES if name in cohorts]
    first = {order[0]: cohorts[order[0]]}
    base = (spaces or spaces_of(first, alignment=alignment))[order[0]]
    kept = enough(base.scores)
    if kept.sum() < _MIN_CELLS:
        raise EvaluationError(
            f"a map needs at least {_MIN_CELLS} {order[0]} cells with half of their families, "
            f"there are {int(kept.sum())}"
        )
    whole = kept & base.complete
    if whole.sum() < max(_MIN_CELLS, kept.sum() / 2):
        whole = kept
    mapper = UMAP(
        n_neighbors=min(NEIGHBORS, int(whole.sum()) - 1),
        min_dist=_MIN_DIST,
        random_state=seed,
        n_jobs=1,
    )
    places = np.empty((len(kept), 2))
    places[whole] = mapper.fit_transform(np.nan_to_num(base.scores[whole]))
    rest = kept & ~whole
    if rest.any():
        places[rest] = mapper.transform(np.nan_to_num(base.scores[rest]))
    parts = [_rows(order[0], base.cells, kept, places[kept])]
    scores, fitted = [base.scores[kept]], [whole[kept]]
    moments = {order[0]: Moments.of(base.cells.X)}
    for species in order[1:]:
        if spaces is not None and species in spaces:
            cells = spaces[species].cells
        else:
            cells = cells_of(cohorts[species], alignment)
        if cells.layout.features != base.cells.layout.features:
            raise EvaluationError(
                f"{order[0]} and {species} cohorts have different features; build both with "
                "--layout shared"
            )
        moments[species] = Moments.of(cells.X)
        moved = base.place(moments[species].moved(cells.X, moments[order[0]]))
        kept = enough(moved)
        if kept.any():
            places = mapper.transform(np.nan_to_num(moved[kept]))
            parts.append(_rows(species, cells, kept, places))
            scores.append(moved[kept])
            fitted.append(np.zeros(int(kept.sum()), dtype=bool))
    return LaidOut(
        pd.concat(parts, ignore_index=True),
        np.concatenate(scores),
        np.concatenate(fitted),
        base,
        moments,
        mapper,
    )


def enough(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which cells have enough of the components to be on a map, shape (cells,).

    Parameters
    ----------
    scores : array, shape (cells, components)
        NaN where a family is absent.
    """
    return np.isfinite(scores).mean(axis=1) >= MIN_SHARE


def _rows(
    species: str, cells: Cells, kept: NDArray[np.bool_], places: NDArray[np.floating]
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "cell_id": cells.cell_ids[kept],
            "species": species,
            "subclass": cells.y[kept],
            "x": places[:, 0].astype(np.float64),
            "y": places[:, 1].astype(np.float64),
        }
    )[list(MAP_COLUMNS)]
