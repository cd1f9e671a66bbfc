"""Which cohorts a benchmark runs on: the Allen tables, simulated ones, or the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anndata

from crosspatch.cohorts import table
from crosspatch.cohorts.allen import LAYOUTS_OF, load_allen
from crosspatch.cohorts.loading import AUTO, COHORTS, SIMULATED
from crosspatch.cohorts.made_up import load_simulated
from crosspatch.errors import CohortError
from crosspatch.evaluation.protocols import TASKS, task_named
from crosspatch.telling import Stage


def load_cohorts(
    names: Sequence[str],
    features: str | None = None,
    tasks: Sequence[str] | None = None,
    data_dir: str | Path | None = None,
    *,
    verify: bool = True,
    simulate_in: str | Path = "simulated",
    seed: int = 0,
    jobs: int = 1,
    progress: Stage | None = None,
) -> dict[str, anndata.AnnData]:
    """Load the cohorts that some tasks need.

    Parameters
    ----------
    names : sequence of str
        ``allen``; ``simulated``; or files of cohort tables, one a species.
    features : str, optional
        Layout; by default ``shared``, ``gouwens`` for simulated cohorts, and whatever a cohort
        table has.
    tasks : sequence of str, optional
        All by default.
    data_dir : path, optional
    verify : bool
        Whether source files other than the pinned ones are refused.
    simulate_in : path
        Folder for simulated recordings.
    seed, jobs : int
        Of the simulation.
    progress : callable, optional
        Stage of the simulation.

    Returns
    -------
    dict
        Species to cohort table. A species whose dataset cannot give the features is left out.

    Raises
    ------
    CohortError
        If a name is unknown, two tables are of one species, or nothing can give the features.
    """
    if list(names) == [SIMULATED]:
        layout = features or "gouwens"
        return {
            species: load_simulated(
                species, layout, simulate_in, seed=seed, jobs=jobs, progress=progress
            )
            for species in _needed(tasks)
        }
    if len(names) == 1 and names[0] in COHORTS:
        return _load_named(names[0], features, tasks, data_dir, verify)
    if data_dir is not None or not verify:
        raise CohortError("--data-dir and --unverified have no meaning for .h5ad files; omit them")
    return _load_files(names, features)


def _needed(tasks: Sequence[str] | None) -> list[str]:
    """Species that some tasks need, or all."""
    wanted = map(task_named, tasks) if tasks else TASKS.values()
    species = [name for task in wanted for name in (task.species, task.source) if name]
    return list(dict.fromkeys(species))


def _load_named(
    name: str,
    features: str | None,
    tasks: Sequence[str] | None,
    data_dir: str | Path | None,
    verify: bool,
) -> dict[str, anndata.AnnData]:
    datasets = COHORTS[name]
    needed = _needed(tasks)
    layout = features or "shared"
    cohorts = {
        species: load_allen(dataset, layout, data_dir, verify=verify)
        for species, dataset in datasets.items()
        if species in needed and layout in LAYOUTS_OF[dataset]
    }
    if not cohorts:
        # Let the loader say which layouts there are.
        load_allen(next(iter(datasets.values())), layout, data_dir, verify=verify)
    return cohorts


def _load_files(names: Sequence[str], features: str | None) -> dict[str, anndata.AnnData]:
    cohorts: dict[str, anndata.AnnData] = {}
    for name in names:
        if Path(name).suffix != ".h5ad":
            raise CohortError(
                f"no cohort '{name}'; give {', '.join((*COHORTS, SIMULATED, AUTO))} alone, or "
                "names of .h5ad files"
            )
        cohort = table.read(name)
        if features is not None:
            cohort = table.in_layout(cohort, features)
        there = sorted(set(cohort.obs["species"].astype(str)))
        if len(there) > 1:  # counts of what was joined and left out are of both together
            head = {**cohort.uns["crosspatch"], "joined": {}, "dropped": {}}
            cohort.uns["crosspatch"] = head
        for species in there:
            if species in cohorts:
                raise CohortError(f"{name}: there is already a table of {species} cells; give one")
            cohorts[species] = cohort[(cohort.obs["species"] == species).to_numpy()].copy()
    return cohorts
