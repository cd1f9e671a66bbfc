"""Simulated cohorts: recordings made up, then read and measured like real ones."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import anndata

from crosspatch.cohorts.extracted import cohort_of
from crosspatch.errors import CohortError
from crosspatch.features.extraction import ExtractionSettings
from crosspatch.features.finding import find_recordings
from crosspatch.features.many import extract_many, store_beside
from crosspatch.simulation.cells import simulate_cells
from crosspatch.species import SPECIES
from crosspatch.telling import Stage

#: Cells of each species: enough to train on, few enough to wait for.
CELLS = {name: each.simulated_cells for name, each in SPECIES.items()}


def load_simulated(
    species: str,
    layout: str,
    folder: str | Path,
    *,
    cells: int | None = None,
    seed: int = 0,
    jobs: int = 1,
    progress: Stage | None = None,
) -> anndata.AnnData:
    """Simulate recordings of a species, `CELLS` by default, and extract their features.

    Recordings go to a folder of their own in `folder`. They and finished cells stay, and what is
    there is not made again. A `CohortError` if no recording gave features, a `RecordingError` if
    the folder cannot be written.
    """
    count = cells or CELLS[species]
    place = Path(folder) / f"{species}-seed{seed}-{count}"
    tell: Stage = progress or (lambda what, done, total: None)
    told = partial(tell, f"simulate {species} cells")
    simulate_cells(place, count, species, seed=seed, jobs=jobs, progress=told)
    settings = ExtractionSettings(layout)
    store = store_beside(place.with_suffix(".h5ad"))
    told = partial(tell, f"measure {species} cells")
    extract_many(
        [place], store, settings, jobs=jobs, progress=lambda state: told(state.done, state.total)
    )
    extracted = cohort_of(find_recordings([place]), store, settings)
    if extracted.cohort is None:
        raise CohortError(f"{place}: no recording gave features of layout '{layout}'")
    return extracted.cohort
