"""Cohorts by name or file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import anndata

from crosspatch.cohorts import table
from crosspatch.cohorts.allen import LAYOUTS_OF, load_allen
from crosspatch.cohorts.sources import DATA_VARIABLE, data_directory, source_files
from crosspatch.errors import CohortError

#: Name of a set of cohorts to (species to dataset).
COHORTS = {"allen": {"mouse": "allen-mouse", "human": "allen-human"}}


SIMULATED = "simulated"


AUTO = "auto"


def choose_cohorts(names: Sequence[str], data_dir: str | Path | None = None) -> list[str]:
    """Turn ``auto`` into ``allen`` if the data directory has its files, else ``simulated``.

    Of a directory that the user has named one file is enough: what is missing there is an error.
    In the user's cache all must be there: a download may have been cut off.

    Parameters
    ----------
    names : sequence of str
    data_dir : path, optional
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
    there = [(directory / path).is_file() for path in source_files()]
    return ["allen" if all(there) or (named and any(there)) else SIMULATED]


def warning_about(cohorts: Mapping[str, anndata.AnnData]) -> str:
    """What must be said loudly of cohorts: that they are simulated. Empty for real data."""
    made_up = [species for species, cohort in cohorts.items() if table.is_simulated(cohort)]
    if not made_up:
        return ""
    return f"{' and '.join(made_up)}: SIMULATED recordings; results say nothing about real neurons"


def load_cohort_named(
    name: str,
    features: str | None = None,
    data_dir: str | Path | None = None,
    verify: bool = True,
) -> anndata.AnnData:
    """One cohort: an Allen dataset by name, or a cohort table.

    Parameters
    ----------
    name : str
        ``allen-mouse``, ``allen-human``, or a file.
    features : str, optional
        Layout; by default ``shared``, and whatever a cohort table has.
    data_dir : path, optional
    verify : bool

    Raises
    ------
    CohortError
        If there is none of this name, or it cannot give the features.
    """
    if name in LAYOUTS_OF:
        return load_allen(name, features or "shared", data_dir, verify=verify)
    if Path(name).suffix != ".h5ad":
        raise CohortError(f"no cohort '{name}'; give {', '.join(LAYOUTS_OF)}, or a .h5ad file")
    cohort = table.read(name)
    return cohort if features is None else table.in_layout(cohort, features)
