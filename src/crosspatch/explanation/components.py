"""The space of sparse principal components: its loadings, and an example cell of every subclass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import anndata
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import pairwise_distances
from threadpoolctl import threadpool_limits

from crosspatch.cohorts.cells import Cells, cells_of
from crosspatch.cohorts.taxonomy import DEFAULT_ALIGNMENT
from crosspatch.models.forest import build_spca_forest
from crosspatch.models.sparse_pca import FamilyComponents, FamilySparsePCA, SparsePCASettings

#: Scores beyond this many standard deviations are set to it: a failed fit (an input resistance of
#: -800 MΩ) must not outweigh every other component. The same as in the sequence models.
CLIP = 5.0

#: Columns of `loadings_table`.
LOADINGS = (
    "species",
    "features",
    "family",
    "component",
    "feature",
    "position",
    "unit",
    "loading",
    "mean",
    "variance",
)

#: Columns of `examples_table`.
EXAMPLES = (
    "species",
    "features",
    "subclass",
    "family",
    "feature",
    "position",
    "unit",
    "example",
    "low",
    "median",
    "high",
    "cell_id",
)


@dataclass(frozen=True)
class Space:
    """Cells of one species in the sparse principal components fitted on them.

    The components are those of the published baseline (`crosspatch.models.forest`). They are fitted
    on all cells: they describe, they see no labels, and nothing is predicted from them.
    """

    cells: Cells
    #: Fitted on `cells`.
    fit: FamilySparsePCA
    #: Shape (cells, components). In standard deviations, at most `CLIP`; NaN where a family is
    #: absent.
    scores: NDArray[np.float64]

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Which cells have every family that has components."""
        return np.asarray(np.isfinite(self.scores).all(axis=1), dtype=bool)

    def place(self, X: ArrayLike) -> NDArray[np.float64]:
        """Scores of any cells with these features, as in `scores`.

        Parameters
        ----------
        X : array, shape (cells, features)

        Returns
        -------
        array, shape (cells, components)
        """
        return np.clip(self.fit.transform(X), -CLIP, CLIP)


def spaces_of(
    cohorts: Mapping[str, anndata.AnnData], *, alignment: str = DEFAULT_ALIGNMENT
) -> dict[str, Space]:
    """Fit the space of every species on its own cells.

    Seconds for single numbers; minutes for traces of hundreds of cells, so tables that need the
    spaces take them ready-made.

    Parameters
    ----------
    cohorts : mapping
        Species to cohort table.
    alignment : str
        Reading of which mouse subclass counts as which shared one.

    Raises
    ------
    EvaluationError
        If a cell has no subclass or no donor.
    ModelError
        If there are too few cells to find components.
    """
    spaces = {}
    for species, cohort in cohorts.items():
        cells = cells_of(cohort, alignment)
        # Regressions on a few hundred features lose time to threads.
        with threadpool_limits(1):
            fit = build_spca_forest(cells.layout)["components"].fit(cells.X)
        scores = np.clip(fit.transform(cells.X), -CLIP, CLIP)
        spaces[species] = Space(cells, fit, scores)
    return spaces


def loadings_table(
    cohorts: Mapping[str, anndata.AnnData],
    *,
    alignment: str = DEFAULT_ALIGNMENT,
    spaces: Mapping[str, Space] | None = None,
) -> pd.DataFrame:
    """Loadings of the kept components beside the mean of the cells.

    Parameters
    ----------
    cohorts : mapping
        Species to cohort table.
    alignment : str
    spaces : mapping, optional
        What `spaces_of` gives for the same cohorts and alignment, to save the time.

    Returns
    -------
    DataFrame
        A row a species, component and position of its family, with the columns `LOADINGS`.
        ``component`` counts from 0 within the family and skips those that were not kept;
        ``loading`` is of unit length over the family, for features divided by their standard
        deviation where the family holds single numbers, and empty at positions that the published
        table leaves out; ``mean`` is over the cells that have the value, in ``unit``; ``variance``
        is the adjusted share of the family's variance (Zou, Hastie and Tibshirani 2006).
    """
    rows: list[pd.DataFrame] = []
    for species, space in (spaces or spaces_of(cohorts, alignment=alignment)).items():
        cells = space.cells
        settings = space.fit.settings or SparsePCASettings()
        for family, fit in space.fit.fits_.items():
            given = settings.families.get(family, FamilyComponents())
            source = given.of or family
            features = [cells.layout.features[k] for k in cells.layout.columns[source]]
            part = cells.X[:, cells.layout.columns[source]].astype(np.float64)
            # Dividing by each step's maximum comes with the derived family, choosing positions not.
            values = replace(given, uses=()).take(part)
            positions = replace(given, per_step=0).take(np.arange(len(features))[None, :])[0]
            mean = _mean(values)
            for component in np.flatnonzero(fit.kept):
                loading = np.full(len(features), np.nan)
                used = np.zeros(len(positions))
                used[fit.use] = fit.pca.components_[component]
                loading[positions] = used
                rows.append(
                    pd.DataFrame(
                        {
                            "species": species,
                            "features": cells.features,
                            "family": family,
                            "component": int(component),
                            "feature": [
                                item.name.replace(source, family, 1) if given.of else item.name
                                for item in features
                            ],
                            "position": np.arange(len(features)),
                            "unit": ["ratio" if given.of else item.unit for item in features],
                            "loading": loading,
                            "mean": mean,
                            "variance": fit.pca.adjusted_variance_ratio_[component],
                        }
                    )
                )
    return _joined(rows, LOADINGS)


def examples_table(
    cohorts: Mapping[str, anndata.AnnData],
    *,
    alignment: str = DEFAULT_ALIGNMENT,
    spaces: Mapping[str, Space] | None = None,
) -> pd.DataFrame:
    """An example cell of every subclass beside the quartiles of its subclass.

    The example is the medoid: of the cells with the most components (all of them, where a subclass
    has such cells), the one with the smallest sum of distances to the others in the sparse-PCA
    space. It is a real cell in the middle of its subclass, not a typical member of every group
    within it.

    Parameters
    ----------
    cohorts : mapping
        Species to cohort table.
    alignment : str
    spaces : mapping, optional
        What `spaces_of` gives for the same cohorts and alignment, to save the time.

    Returns
    -------
    DataFrame
        A row a species, subclass and feature, with the columns `EXAMPLES`: value of the example and
        quartiles over the cells of the subclass that have the value, in ``unit``.
    """
    rows: list[pd.DataFrame] = []
    for species, space in (spaces or spaces_of(cohorts, alignment=alignment)).items():
        cells = space.cells
        for subclass in cells.classes:
            members = np.flatnonzero(cells.y == subclass)
            example = members[_medoid(space.scores[members])]
            values = cells.X[members].astype(np.float64)
            low, median, high = _quartiles(values)
            for family, columns in cells.layout.columns.items():
                features = [cells.layout.features[k] for k in columns]
                rows.append(
                    pd.DataFrame(
                        {
                            "species": species,
                            "features": cells.features,
                            "subclass": subclass,
                            "family": family,
                            "feature": [item.name for item in features],
                            "position": np.arange(len(columns)),
                            "unit": [item.unit for item in features],
                            "example": cells.X[example, columns].astype(np.float64),
                            "low": low[columns],
                            "median": median[columns],
                            "high": high[columns],
                            "cell_id": cells.cell_ids[example],
                        }
                    )
                )
    return _joined(rows, EXAMPLES)


def _medoid(scores: NDArray[np.float64]) -> int:
    """Row of the cell nearest to all others, among those with the most components."""
    there = np.isfinite(scores).sum(axis=1)
    fullest = np.flatnonzero(there == there.max())
    # Where no cell is complete, 0 stands for an absent component: the average cell of the species.
    distances = pairwise_distances(np.nan_to_num(scores[fullest]))
    return int(fullest[distances.sum(axis=1).argmin()])


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.isfinite(values).any(axis=0)
    mean = np.full(values.shape[1], np.nan)
    mean[known] = np.nanmean(values[:, known], axis=0)
    return mean


def _quartiles(values: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.isfinite(values).any(axis=0)
    quartiles = np.full((3, values.shape[1]), np.nan)
    quartiles[:, known] = np.nanpercentile(values[:, known], [25, 50, 75], axis=0)
    return quartiles


def _joined(rows: list[pd.DataFrame], columns: tuple[str, ...]) -> pd.DataFrame:
    table: Any = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)
    return table[list(columns)]
