"""A map of both species: UMAP of the mouse cells, and the human cells laid over it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
import platformdirs
from numpy.typing import NDArray

from crosspatch.cohorts.cells import Cells
from crosspatch.cohorts.dataset import source_files
from crosspatch.cohorts.taxonomy import DEFAULT_ALIGNMENT
from crosspatch.errors import EvaluationError
from crosspatch.explanation.components import cells_by_species, scores_in, spaces_of
from crosspatch.explanation.reference_map import (
    MAP_FILE,
    NEIGHBORS,
    Moments,
    ReferenceMap,
    enough,
    load_map,
)
from crosspatch.explanation.result_tables import table_of
from crosspatch.telling import Say
from crosspatch.versions import code_digest, library_versions

if TYPE_CHECKING:
    from umap import UMAP

#: UMAP's own default (McInnes, Healy and Melville 2018), as are the neighbours and the distance.
_MIN_DIST = 0.1
#: Fewer cells than this have no neighbourhoods to speak of.
_MIN_CELLS = 10


def lay_out(cells: Mapping[str, Cells], seed: int = 0) -> tuple[ReferenceMap, UMAP]:
    """Two coordinates for every cell of both species.

    Sparse principal components and UMAP are fitted on mouse. Every feature of the human cells is
    moved and scaled to the mean and standard deviation it has in mouse, so that each species is
    standardised by its own cells, and the human cells are then laid over by UMAP's transform. What
    sets the species apart as a whole is therefore not in the map, nor is the part of it that comes
    from unlike shares of the subclasses. With one species only, everything is fitted on it.

    UMAP is fitted on cells that have every family, if these are half of the cells or more, and the
    others are laid over like those of the other species. There an absent family counts as average
    (its components are 0), which draws such cells to the middle; cells with less than half of the
    components are left out. Distances between groups far apart in a UMAP mean little;
    `crosspatch.explanation.separation` measures them.

    The cells are as `crosspatch.explanation.components.cells_by_species` gives them, at least 10 to
    fit on; given are the map, the same for the same seed, and the fitted UMAP. See McInnes, Healy
    and Melville (2018) UMAP: uniform manifold approximation and projection for dimension reduction.
    arXiv 1802.03426.
    """
    from umap import UMAP

    base, *others = cells
    space = spaces_of({base: cells[base]})[base]
    kept = enough(space.scores)
    if kept.sum() < _MIN_CELLS:
        raise EvaluationError(
            f"a map needs at least {_MIN_CELLS} {base} cells with half of their families, "
            f"there are {int(kept.sum())}"
        )
    fitted = kept & space.complete
    if fitted.sum() < max(_MIN_CELLS, kept.sum() / 2):
        fitted = kept
    neighbours = min(NEIGHBORS, int(fitted.sum()) - 1)
    mapper = UMAP(n_neighbors=neighbours, min_dist=_MIN_DIST, random_state=seed, n_jobs=1)
    places = np.empty((len(kept), 2))
    places[fitted] = mapper.fit_transform(np.nan_to_num(space.scores[fitted]))
    places[kept & ~fitted] = _over(mapper, space.scores[kept & ~fitted])
    tables = [_table(base, cells[base], kept, places[kept])]
    scores = [space.scores[kept]]
    moments = {species: Moments.of(part.X) for species, part in cells.items()}
    for species in others:
        moved = scores_in(space.fit, moments[species].moved(cells[species].X, moments[base]))
        there = enough(moved)
        scores.append(moved[there])
        tables.append(_table(species, cells[species], there, _over(mapper, moved[there])))
    by_umap = np.concatenate([fitted[kept], np.zeros(sum(map(len, scores[1:])), dtype=bool)])
    table = table_of("map", tables)
    return ReferenceMap(table, np.concatenate(scores), by_umap, space.fit, moments), mapper


def _over(mapper: UMAP, scores: NDArray[np.float64]) -> NDArray[np.floating]:
    """Where UMAP's transform lays cells that it was not fitted on, shape (cells, 2)."""
    return mapper.transform(np.nan_to_num(scores)) if len(scores) else np.empty((0, 2))


def _table(species: str, cells: Cells, kept: NDArray, places: NDArray) -> pd.DataFrame:
    x, y = places.T.astype(np.float64)
    named = {"cell_id": cells.cell_ids[kept], "species": species, "subclass": cells.y[kept]}
    return pd.DataFrame(named | {"x": x, "y": y})


def build_map(cohorts: Mapping[str, anndata.AnnData]) -> ReferenceMap:
    """The map of cohorts on which new cells can be placed; see `lay_out`."""
    return lay_out(cells_by_species(cohorts))[0]


def kept_in(layout_name: str) -> Path:
    """The folder of the user's cache in which the map of this version and these tables is kept."""
    pinned = {name: source.sha256 for name, source in source_files().items()}
    code = code_digest("features", "cohorts", "models", "evaluation", "explanation")
    libraries = {**library_versions(), "umap-learn": version("umap-learn")}
    parts = (layout_name, DEFAULT_ALIGNMENT, pinned, code, libraries)
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
    return platformdirs.user_cache_path("crosspatch") / "maps" / f"{layout_name}-{key}"


def reference_map(
    layout_name: str = "shared", *, data_dir: str | Path | None = None, say: Say
) -> ReferenceMap:
    """The map of the Allen cells, from the user's cache or made now, which takes a minute.

    Another version of crosspatch, of its libraries or of the tables means another map. Species
    whose tables lack the layout are not on it. The user is told when making begins, and why a map
    in the cache is not used or not kept. CohortError if it must be made and tables are missing.
    """
    folder = kept_in(layout_name)
    if (folder / MAP_FILE).exists():
        try:
            return load_map(folder)
        except EvaluationError as error:
            say(f"{error}; making it again")
    # Simulated cohorts bring numba, which whoever only loads a map need not wait for.
    from crosspatch.evaluation.task_cohorts import load_cohorts

    cohorts = load_cohorts(["allen"], layout_name, data_dir=data_dir)
    cells = sum(cohort.n_obs for cohort in cohorts.values())
    say(f"making the map of {cells:,} Allen cells, once; it is kept in {folder}")
    made = build_map(cohorts)
    try:
        made.save(folder)
    except EvaluationError as error:
        say(f"the map could not be kept: {error}")
    return made
