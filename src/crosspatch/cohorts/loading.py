"""Cohorts by name or file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import anndata

from crosspatch.cohorts import table
from crosspatch.cohorts.dataset import collections, datasets
from crosspatch.cohorts.sources import DATA_VARIABLE, data_directory
from crosspatch.errors import CohortError

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
    files = [file for each in collections()[DEFAULT].values() for file in each.files]
    there = [(directory / file.path).is_file() for file in files]
    return [DEFAULT if all(there) or (named and any(there)) else SIMULATED]


def warning_about(cohorts: Mapping[str, anndata.AnnData]) -> str:
    """What must be said loudly of cohorts: that they are simulated. Empty for real data."""
    made_up = [species for species, cohort in cohorts.items() if table.is_simulated(cohort)]
    if not made_up:
        return ""
    return f"{' and '.join(made_up)}: SIMULATED recordings; results say nothing about real neurons"


def load_cohort(
    name: str | Path,
    layout: str | None = None,
    data_dir: str | Path | None = None,
    *,
    verify: bool = True,
) -> anndata.AnnData:
    """One cohort: that of a dataset by its name, or a cohort table.

    Of a dataset's cells those without a label, of a type outside the task, without a row in a
    feature file, or with a row that holds no value are left out and counted in
    ``uns["crosspatch"]["dropped"]``; ``uns["crosspatch"]["joined"]`` counts, by subclass, the
    labelled cells that have a row in a feature file.

    Parameters
    ----------
    name : str or path
        ``allen-mouse`` (Gouwens et al. 2020), ``allen-human`` (Lee, Dalley et al. 2023), another
        registered dataset, or an ``.h5ad`` file.
    layout : str, optional
        ``shared``: the 32 features both species have; ``full``: the 93 of the human table. By
        default ``shared`` for datasets by name, and whatever a cohort table has.
    data_dir : path, optional
        Data directory of a dataset; see `crosspatch.cohorts.sources.data_directory`.
    verify : bool
        Whether source files of a dataset other than the pinned ones are refused.

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
    known = datasets()
    if str(name) in known:
        return known[str(name)].load(layout, data_dir, verify=verify)
    if Path(name).suffix != ".h5ad":
        raise CohortError(f"no cohort '{name}'; give {', '.join(known)}, or a .h5ad file")
    cohort = table.read(name)
    return cohort if layout is None else table.in_layout(cohort, layout)
