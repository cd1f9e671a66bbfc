"""Cohorts by name or file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import anndata

from crosspatch.cohorts import table
from crosspatch.cohorts.dataset import Dataset, collections, datasets
from crosspatch.cohorts.joining import join
from crosspatch.cohorts.sources import DATA_VARIABLE, data_directory
from crosspatch.errors import CohortError
from crosspatch.features.layouts import load_layout
from crosspatch.species import SPECIES

#: The collection of datasets that is used unless another is named.
DEFAULT = "allen"
SIMULATED = "simulated"
AUTO = "auto"


def choose_cohorts(names: Sequence[str], data_dir: str | Path | None = None) -> list[str]:
    """Turn ``auto`` into ``allen`` if the data directory has its files, else ``simulated``.

    Of a directory that the user has named one file is enough: what is missing there is an error.
    In the user's cache all must be there: a download may have been cut off.
    """
    if list(names) != [AUTO]:
        return list(names)
    named = data_dir is not None or bool(os.environ.get(DATA_VARIABLE))
    try:
        directory = data_directory(data_dir)
    except CohortError:
        if named:
            raise  # a directory that was named must be there
        return [SIMULATED]
    default = chain.from_iterable(collections()[DEFAULT].values())
    files = chain.from_iterable(each.files for each in default)
    there = [(directory / file.path).is_file() for file in files]
    return [DEFAULT if all(there) or (named and any(there)) else SIMULATED]


def warning_about(cohorts: Mapping[str, anndata.AnnData]) -> str:
    """What must be said loudly of cohorts: that they are simulated. Empty for real data."""
    made_up = [species for species, cohort in cohorts.items() if table.is_simulated(cohort)]
    if not made_up:
        return ""
    return f"{' and '.join(made_up)}: SIMULATED recordings; results say nothing about real neurons"


def datasets_named(name: str) -> list[Dataset] | None:
    """The datasets of a name: its own; several, joined by ``+``; or a species, for its default.

    None if one of them is unknown.
    """
    known, default = datasets(), collections()[DEFAULT]
    found: list[Dataset] = []
    for part in name.split("+"):
        if part not in known and part not in default:
            return None
        found += [known[part]] if part in known else default[part]
    return list({each.name: each for each in found}.values())


def default_layout(name: str) -> str | None:
    """The layout in which models of a cohort are trained unless another is asked for.

    That of the default model of its species where all its datasets have it; else None, for the
    first that they have, or that of a file.
    """
    chosen = datasets_named(name)
    if not chosen:
        return None
    wanted = SPECIES[chosen[0].species].default_layout
    return wanted if all(wanted in each.layouts for each in chosen) else None


def load_cohort(
    name: str | Path,
    layout: str | None = None,
    data_dir: str | Path | None = None,
    *,
    verify: bool = True,
    taxonomy: str | None = None,
    every_cell: bool = False,
) -> anndata.AnnData:
    """One cohort: that of a dataset by its name, of several together, or a cohort table.

    Of a dataset's cells those without a label, of a type outside the task, without a row in a
    feature file, or with a row that holds no value are left out and counted in
    ``uns["crosspatch"]["dropped"]``; ``uns["crosspatch"]["joined"]`` counts, by subclass, the
    labelled cells that have a row in a feature file. A cell that stands in several datasets counts
    once.

    Parameters
    ----------
    name : str or path
        ``mouse`` or ``human``, the cells that models are trained on by default; a registered
        dataset, such as ``allen-mouse`` (Gouwens et al. 2020) or ``allen-human`` (Lee, Dalley et
        al. 2023); several of one species, joined by ``+``; or an ``.h5ad`` file.
    layout : str, optional
        ``shared``: the 32 features both species have; ``full``: the 93 of the human table. By
        default ``shared`` for datasets by name, and whatever a cohort table has.
    data_dir : path, optional
        Data directory of a dataset; see `crosspatch.cohorts.sources.data_directory`.
    verify : bool
        Whether source files of a dataset other than the pinned ones are refused.
    taxonomy : str, optional
        Whose labels of human cells are used: ``lee2023`` (default) or ``sea-ad``.
    every_cell : bool
        Whether measured cells of no subclass are kept too, which have none in ``obs``: excitatory
        ones (``class`` Glutamatergic) and those without a label. A dataset that has no other
        always gives them.

    Returns
    -------
    AnnData, shape (cells, features)

    Raises
    ------
    CohortError
        If there is none of this name, it cannot give the layout, or a source file is not as
        expected.

    Examples
    --------
    >>> import crosspatch
    >>> crosspatch.load_cohort("human.h5ad").shape
    (360, 32)
    """
    if Path(name).suffix == ".h5ad":
        if taxonomy is not None or every_cell:
            what = "{taxonomy} and {every_cell}"
            raise CohortError("", hint=f"{what} have no meaning for .h5ad files; omit them")
        cohort = table.read(name)
        return cohort if layout is None else table.in_layout(cohort, layout)
    chosen = datasets_named(str(name))
    if chosen is None:
        known = (*datasets(), *collections()[DEFAULT])
        raise CohortError(f"no cohort '{name}'; give {', '.join(known)}, or a .h5ad file")
    how = partial(
        Dataset.load,
        layout=layout or chosen[0].layouts[0],
        data_dir=data_dir,
        verify=verify,
        every_cell=every_cell,
    )
    return join([how(each, taxonomy=by) for each, by in _with_taxonomy(chosen, taxonomy)])


def _with_taxonomy(
    chosen: Sequence[Dataset], taxonomy: str | None
) -> list[tuple[Dataset, str | None]]:
    """Datasets of one species, and by which taxonomy each is labelled; None for its own."""
    species = sorted({each.species for each in chosen})
    if len(species) > 1:
        raise CohortError(f"{' and '.join(species)} cells cannot be joined; load each species")
    # Datasets of excitatory cells have no labels but their own.
    known = set[str]().union(*(each.labellings for each in chosen))
    if taxonomy is not None and taxonomy not in known:
        raise CohortError(
            f"there are no {species[0]} labels of taxonomy '{taxonomy}'; "
            f"choose from: {', '.join(sorted(known - {''}))}"
        )
    return [(each, taxonomy if taxonomy in each.labellings else None) for each in chosen]


def load_every_cell(name: str, data_dir: str | Path | None = None) -> anndata.AnnData:
    """All measured cells of a cohort, of a subclass or not, in the layout with most features."""
    if Path(name).suffix == ".h5ad":
        return load_cohort(name)
    chosen = datasets_named(name)
    common = set.intersection(*(set(each.layouts) for each in chosen)) if chosen else set()
    layout = max(common, key=lambda each: len(load_layout(each).features), default=None)
    return load_cohort(name, layout, data_dir, every_cell=True)
