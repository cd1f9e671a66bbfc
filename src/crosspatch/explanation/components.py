"""The space of sparse principal components: its loadings, and an example cell of every subclass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import anndata
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import pairwise_distances
from threadpoolctl import threadpool_limits

from crosspatch.cohorts.cells import Cells, cells_of
from crosspatch.cohorts.taxonomy import DEFAULT_ALIGNMENT
from crosspatch.errors import EvaluationError
from crosspatch.explanation.result_tables import table_of
from crosspatch.models.forest import build_spca_forest
from crosspatch.models.missing import over_rows
from crosspatch.models.sparse_pca import FamilyComponents, FamilySparsePCA, SparsePCASettings
from crosspatch.species import SPECIES

#: Scores beyond this many standard deviations are set to it: a failed fit (an input resistance of
#: -800 MΩ) must not outweigh every other component. The same as in the sequence models.
CLIP = 5.0


@dataclass(frozen=True)
class Space:
    """Cells of one species in the sparse principal components fitted on them.

    The components are those of the published baseline (`crosspatch.models.forest`). They are fitted
    on all cells: they describe, they see no labels, and nothing is predicted from them.
    """

    cells: Cells
    fit: FamilySparsePCA  # fitted on `cells`
    #: Shape (cells, components). In standard deviations, at most `CLIP`; NaN where a family is
    #: absent.
    scores: NDArray[np.float64]

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Which cells have every family that has components."""
        return np.asarray(np.isfinite(self.scores).all(axis=1), dtype=bool)


def cells_by_species(
    cohorts: Mapping[str, anndata.AnnData], alignment: str = DEFAULT_ALIGNMENT
) -> dict[str, Cells]:
    """The cells of every species, mouse first; they must all have the same features."""
    cells = {name: cells_of(cohorts[name], alignment) for name in SPECIES if name in cohorts}
    if not cells:
        raise EvaluationError("there is no cohort of mouse or human cells to explain")
    if len({part.layout.features for part in cells.values()}) > 1:
        raise EvaluationError(
            f"{' and '.join(cells)} cohorts have different features",
            hint="build both with {layout} shared",
        )
    return cells


def spaces_of(cells: Mapping[str, Cells]) -> dict[str, Space]:
    """Fit the space of every species on its own cells.

    Seconds for single numbers; minutes for traces of hundreds of cells.
    """
    spaces = {}
    for species, part in cells.items():
        # Regressions on a few hundred features lose time to threads.
        with threadpool_limits(1):
            fit = build_spca_forest(part.layout)["components"].fit(part.X)
        spaces[species] = Space(part, fit, scores_in(fit, part.X))
    return spaces


def scores_in(fit: FamilySparsePCA, X: ArrayLike) -> NDArray[np.float64]:
    """Scores of cells in fitted components, clipped; shape (cells, components)."""
    return np.clip(fit.transform(X), -CLIP, CLIP)


def loadings_table(spaces: Mapping[str, Space]) -> pd.DataFrame:
    """Loadings of the kept components beside the mean of the cells.

    One row per species, component and position of its family. ``component`` counts from 0 within
    the family and skips those that were not kept; ``loading`` is of unit length over the family,
    for features divided by their standard deviation where the family holds single numbers, and
    empty at positions that the published table leaves out; ``mean`` is over the cells that have the
    value, in ``unit``; ``variance`` is the adjusted share of the family's variance (Zou, Hastie and
    Tibshirani 2006).
    """
    parts = [
        part.assign(species=species, features=space.cells.features, family=family)
        for species, space in spaces.items()
        for family in space.fit.fits_
        for part in _loadings(space, family)
    ]
    return table_of("loadings", parts)


def _loadings(space: Space, family: str) -> list[pd.DataFrame]:
    """The components of one family, each in a table."""
    layout, fit = space.cells.layout, space.fit.fits_[family]
    settings = space.fit.settings or SparsePCASettings()
    given = settings.families.get(family, FamilyComponents())
    source = given.of or family
    columns = layout.columns[source]
    features = _features(space.cells, columns)
    if given.of:
        features["feature"] = [name.replace(source, family, 1) for name in features["feature"]]
        features["unit"] = "ratio"
    # Dividing by each step's maximum comes with the derived family, choosing positions not.
    values = replace(given, uses=()).take(space.cells.X[:, columns].astype(np.float64))
    features["mean"] = over_rows(np.nanmean, values)
    positions = replace(given, per_step=0).take(np.arange(len(columns))[None, :])[0]
    parts = []
    for component in np.flatnonzero(fit.kept):
        loading, used = np.full(len(columns), np.nan), np.zeros(len(positions))
        used[fit.use] = fit.pca.components_[component]
        loading[positions] = used
        variance = fit.pca.adjusted_variance_ratio_[component]
        parts.append(features.assign(component=component, loading=loading, variance=variance))
    return parts


def examples_table(spaces: Mapping[str, Space]) -> pd.DataFrame:
    """An example cell of every subclass beside the quartiles of its subclass.

    The example is the medoid: of the cells with the most components (all of them, where a subclass
    has such cells), the one with the smallest sum of distances to the others in the sparse-PCA
    space. It is a real cell in the middle of its subclass, not a typical member of every group
    within it. One row per species, subclass and feature: value of the example and quartiles over
    the cells of the subclass that have the value, in ``unit``.
    """
    of_quartiles = partial(np.nanpercentile, q=[25, 50, 75])
    parts = []
    for species, space in spaces.items():
        cells = space.cells
        for subclass in cells.classes:
            members = np.flatnonzero(cells.y == subclass)
            example = members[_medoid(space.scores[members])]
            whose = {"species": species, "features": cells.features, "subclass": subclass}
            whose["cell_id"] = cells.cell_ids[example]
            quartiles = over_rows(of_quartiles, cells.X[members].astype(np.float64))
            for family, columns in cells.layout.columns.items():
                part = _features(cells, columns).assign(family=family, **whose)
                part["example"] = cells.X[example, columns].astype(np.float64)
                part[["low", "median", "high"]] = quartiles[:, columns].T
                parts.append(part)
    return table_of("examples", parts)


def _features(cells: Cells, columns: NDArray[np.intp]) -> pd.DataFrame:
    """Name, position and unit of the features of a family."""
    features = pd.DataFrame([cells.layout.features[k] for k in columns])
    return features.rename(columns={"name": "feature"}).rename_axis("position").reset_index()


def _medoid(scores: NDArray[np.float64]) -> int:
    """Row of the cell nearest to all others, among those with the most components."""
    there = np.isfinite(scores).sum(axis=1)
    fullest = np.flatnonzero(there == there.max())
    # Where no cell is complete, 0 stands for an absent component: the average cell of the species.
    distances = pairwise_distances(np.nan_to_num(scores[fullest]))
    return int(fullest[distances.sum(axis=1).argmin()])
