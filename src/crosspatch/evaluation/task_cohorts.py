"""What tasks run on: the Allen tables, simulated cohorts or the user's own, and their cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import anndata

from crosspatch.cohorts import table
from crosspatch.cohorts.cells import Cells, cells_of
from crosspatch.cohorts.dataset import collections, datasets
from crosspatch.cohorts.loading import AUTO, DEFAULT, SIMULATED, datasets_named, load_cohort
from crosspatch.cohorts.made_up import load_simulated
from crosspatch.errors import CohortError, EvaluationError
from crosspatch.evaluation.protocols import TASKS, Task, task_named
from crosspatch.telling import Stage


def load_cohorts(
    names: Sequence[str],
    features: str | None = None,
    tasks: Sequence[str] | None = None,
    data_dir: str | Path | None = None,
    *,
    verify: bool = True,
    taxonomy: str | None = None,
    simulate_in: str | Path = "simulated",
    seed: int = 0,
    jobs: int = 1,
    progress: Stage | None = None,
) -> dict[str, anndata.AnnData]:
    """Load the cohorts that some tasks need, by default all, by their species.

    The names are a collection of datasets, such as ``allen``; datasets, of which those of a species
    are joined; ``simulated``; or files of cohort tables, one per species. The taxonomy is that of
    human labels. The layout is by default ``shared``, ``gouwens`` for simulated cohorts,
    and whatever a cohort table has; a species whose dataset cannot give it is left out. Source
    files other than the pinned ones are refused if asked to `verify`; folder, seed, jobs and
    progress are those of the simulation.
    """
    needed = _species_of(tasks)
    if list(names) == [SIMULATED]:
        if taxonomy is not None:
            raise CohortError("simulated cells are of no taxonomy", hint="omit {taxonomy}")
        simulated = partial(load_simulated, seed=seed, jobs=jobs, progress=progress)
        return {each: simulated(each, features or "gouwens", simulate_in) for each in needed}
    chosen = _named(names)
    if chosen is not None:
        taxonomies = {"human": taxonomy}
        load = partial(load_cohort, layout=features, data_dir=data_dir, verify=verify)
        return {
            species: load("+".join(of_species), taxonomy=taxonomies.get(species))
            for species, of_species in _possible(chosen, needed, features).items()
        }
    _require_files(names)
    if data_dir is not None or not verify or taxonomy is not None:
        what = "{data_dir}, {unverified} and {taxonomy}"
        raise CohortError("", hint=f"{what} have no meaning for .h5ad files; omit them")
    return _load_files(names, features)


def _species_of(tasks: Sequence[str] | None) -> list[str]:
    chosen = map(task_named, tasks) if tasks else TASKS.values()
    return list(dict.fromkeys(species for task in chosen for species in task.needs))


def _named(names: Sequence[str]) -> Mapping[str, list[str]] | None:
    """The datasets of some names by species; None if there is another name among them."""
    if len(names) == 1 and names[0] in collections():
        chosen = list(chain.from_iterable(collections()[names[0]].values()))
    else:
        chosen = datasets_named("+".join(names)) or []
    found: dict[str, list[str]] = {}
    for each in chosen:
        found.setdefault(each.species, []).append(each.name)
    return found or None


def _require_files(names: Sequence[str]) -> None:
    odd = [name for name in names if Path(name).suffix != ".h5ad"]
    if odd:
        unknown = min(odd, key=datasets().__contains__)
        known = ", ".join((DEFAULT, SIMULATED, AUTO))
        raise CohortError(
            f"no cohort '{unknown}'; give {known} alone, names of datasets "
            f"({', '.join(datasets())}), or names of .h5ad files"
        )


def _possible(
    named: Mapping[str, list[str]], needed: Sequence[str], features: str | None
) -> Mapping[str, list[str]]:
    known = datasets()
    able = {
        species: chosen
        for species, chosen in named.items()
        if species in needed and all(features in (None, *known[each].layouts) for each in chosen)
    }
    return able or named  # whose loader then says which layouts there are


def _load_files(names: Sequence[str], features: str | None) -> dict[str, anndata.AnnData]:
    cohorts: dict[str, anndata.AnnData] = {}
    for name in names:
        cohort = table.read(name)
        if features is not None:
            cohort = table.in_layout(cohort, features)
        for species, part in table.by_species(cohort).items():
            if species in cohorts:
                raise CohortError(f"{name}: there is already a table of {species} cells; give one")
            cohorts[species] = part
    return cohorts


def require_cohorts(task: Task, cohorts: Mapping[str, anndata.AnnData]) -> None:
    """Check that the cohorts that a task needs are there."""
    for species in task.needs:
        if species not in cohorts:
            raise EvaluationError(
                f"task '{task.name}' needs a {species} cohort, and there is none in these features",
                hint="use {features} shared or give the cohort",
            )


def cells_for(
    task: Task, cohorts: Mapping[str, anndata.AnnData], alignment: str, *, layer: bool = False
) -> dict[str, Cells]:
    """Cells of the species that a task needs, by species; those that are predicted come first.

    Of these the cortical layer too, if that is wanted. Labels of a laboratory's own table stay as
    they stand.
    """
    cells = {}
    for species in task.needs:
        own = table.head_of(cohorts[species]).own is not None
        reading = alignment if task.aligned and not own else None
        wanted = layer and species == task.species
        cells[species] = cells_of(cohorts[species], reading, layer=wanted)
    both = " and ".join(cells)
    if len({part.measured.layout.features for part in cells.values()}) > 1:
        raise EvaluationError(
            f"{both} cohorts have different features", hint="build both with {layout} shared"
        )
    classes = [set(part.y) for part in cells.values()]
    odd = sorted(set.union(*classes) - set.intersection(*classes))
    if odd:
        raise EvaluationError(
            f"{both} cells must have the same classes; '{odd[0]}' is in one only",
            hint="use another {alignment} or leave the class out",
        )
    return cells
