"""The cohort table: one AnnData per cohort, built, checked, read and written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosspatch.cohorts.taxonomy import ONTOLOGY, load_taxonomy
from crosspatch.errors import CohortError
from crosspatch.features.layouts import Feature, Layout, load_layout
from crosspatch.species import SPECIES
from crosspatch.writing import replacing

if TYPE_CHECKING:
    import anndata

#: Version of the table's schema, kept in ``uns["crosspatch"]["schema_version"]``.
SCHEMA_VERSION = 1
#: Columns every cohort table has in ``obs``.
REQUIRED_OBS = ("species", "subclass", "t_type", "donor", "dataset")


@dataclass(frozen=True)
class OwnTable:
    """The labelled table of a laboratory that a cohort was made of."""

    file: str  #: its name
    label: str  #: column of the labels, which may be any
    group: str | None  #: column of the donors; None where every cell counts as one


@dataclass(frozen=True)
class Head:
    """Where a table comes from; empty where a table does not say."""

    sources: Mapping[str, str]  #: source file to its sha256
    verified: bool  #: whether every source file is the pinned version
    #: Subclass to the labelled cells before those without features were left out.
    joined: Mapping[str, int]
    dropped: Mapping[str, int]  #: reason to the cells left out
    taxonomy: str = ""  #: whose labels the subclasses are of
    own: OwnTable | None = None  #: where the cells are of a laboratory's own table


def build(
    X: NDArray[np.floating],
    cells: pd.DataFrame,
    layout: Layout,
    head: Head,
    extraction: str | None = None,
) -> anndata.AnnData:
    """Build a cohort table; `CohortError` if it is not a valid one.

    `X` has shape (cells, features), in the layout's units, NaN where missing. `cells` has
    `REQUIRED_OBS`, then whatever the source gives, by cell id. `extraction` are the settings and
    versions with which features were computed from recordings, as JSON.
    """
    import anndata

    if np.shape(X) != (len(cells), len(layout.features)):
        raise CohortError(
            f"the features have shape {np.shape(X)}, expected {len(cells)} cells and "
            f"{len(layout.features)} features of layout '{layout.name}'"
        )
    var = pd.DataFrame(
        [(feature.family, feature.unit) for feature in layout.features],
        index=pd.Index(layout.feature_names, name="feature"),
        columns=["family", "unit"],
    )
    terms = _terms(cells)
    if terms.notna().any():
        cells = cells.assign(**{ONTOLOGY: terms})
    # Text as categories: a column that is missing throughout could not be written otherwise.
    text = cells.select_dtypes("object").columns
    cells = cells.astype(dict.fromkeys(text, "category"))
    table = anndata.AnnData(X=np.asarray(X, dtype=np.float32), obs=cells, var=var)
    table.uns["crosspatch"] = {
        "schema_version": SCHEMA_VERSION,
        "layout": layout.name,
        # A "/" in a key would become a group in the file, so these are rows, not keys.
        "source_files": np.array(list(head.sources), dtype=object),
        "source_sha256": np.array(list(head.sources.values()), dtype=object),
        "verified": head.verified,
        "joined": {name: int(count) for name, count in head.joined.items()},
        "dropped": {reason: int(count) for reason, count in head.dropped.items()},
        "taxonomy": head.taxonomy,
    }
    if extraction is not None:
        table.uns["crosspatch"]["extraction"] = extraction
    if head.own is not None:
        table.var["column"] = [feature.column for feature in layout.features]
        table.uns["crosspatch"]["own"] = json.dumps(asdict(head.own))
    require_valid(table, "the table just built")
    return table


def _terms(cells: pd.DataFrame) -> pd.Series:
    """The Cell Ontology's term for the subclass of every cell, or else for its class."""
    known = cells["subclass"].astype(object)
    if "class" in cells:
        known = known.where(known.notna(), cells["class"])
    term = load_taxonomy().term
    return known.map(lambda name: None if pd.isna(name) else term(str(name)))


def problems_of(table: anndata.AnnData) -> list[str]:
    """What is wrong with a cohort table, one sentence per problem; empty if it is valid."""
    problems = _problems_of_head(table.uns.get("crosspatch"))
    if table.n_obs == 0:
        problems.append("there are no cells")
    if table.n_vars == 0:
        problems.append("there are no features")
    columns = (("obs", table.obs, REQUIRED_OBS), ("var", table.var, ("family", "unit")))
    for place, frame, needed in columns:
        problems += [f"{place} has no column '{name}'" for name in needed if name not in frame]
    unique = (("cell id", table.obs_names, "cell"), ("feature", table.var_names, "column"))
    for what, names, one in unique:
        if not names.is_unique:
            twice = names[names.duplicated()][0]
            problems.append(f"{what} '{twice}' stands for more than one {one}")
    if table.n_obs and table.n_vars:
        problems += _problems_of_values(table)
    own = isinstance(table.uns.get("crosspatch"), Mapping) and "own" in table.uns["crosspatch"]
    return problems + _problems_of_labels(table.obs, any_label=own)


def _problems_of_head(head: object) -> list[str]:
    if not isinstance(head, Mapping):
        return ['uns has no "crosspatch" entry: build the table with `crosspatch cohort`']
    problems = []
    found = head.get("schema_version")
    if str(found) != str(SCHEMA_VERSION):
        problems.append(f"schema version is {found}, this program reads {SCHEMA_VERSION}")
    if not isinstance(head.get("layout"), str):
        problems.append('uns["crosspatch"] does not name its layout')
    return problems


def _problems_of_labels(obs: pd.DataFrame, *, any_label: bool) -> list[str]:
    problems = []
    if "species" in obs:
        for name in sorted(set(obs["species"].astype(str)) - set(SPECIES)):
            problems.append(f"species '{name}' is unknown; use {' or '.join(SPECIES)}")
    if "subclass" in obs and not any_label:
        known = load_taxonomy().subclasses
        for name in sorted(set(obs["subclass"].dropna().astype(str)) - set(known)):
            problems.append(f"subclass '{name}' is unknown; use {', '.join(known)}")
    return problems


def _problems_of_values(table: anndata.AnnData) -> list[str]:
    values = table.X
    if not isinstance(values, np.ndarray) or not np.issubdtype(values.dtype, np.floating):
        kind = f"{type(values).__name__} of {getattr(values, 'dtype', 'unknown type')}"
        return [
            f"X must be a dense array of floats with NaN where a value is missing, it is {kind}"
        ]
    problems = []
    infinite = np.argwhere(np.isinf(values))
    if len(infinite):
        cell, feature = infinite[0]
        problems.append(
            f"cell '{table.obs_names[cell]}' has an infinite '{table.var_names[feature]}'; "
            "write NaN where a value is missing"
        )
    empty = np.flatnonzero(np.isnan(values).all(axis=1))
    if len(empty):
        problems.append(
            f"{len(empty)} cells have no feature at all, the first is "
            f"'{table.obs_names[empty[0]]}'; leave them out"
        )
    return problems


def require_valid(table: anndata.AnnData, name: str) -> None:
    """Raise what `problems_of` finds, every problem in one `CohortError`."""
    problems = problems_of(table)
    if problems:
        raise CohortError(f"{name} is not a valid cohort table: {'; '.join(problems)}")


def head_of(table: anndata.AnnData) -> Head:
    """What ``uns["crosspatch"]`` says of a table's origin."""
    head = table.uns["crosspatch"]
    files, hashes = (
        [str(item) for item in head.get(name, ())] for name in ("source_files", "source_sha256")
    )
    joined, dropped = (
        {str(key): int(count) for key, count in dict(head.get(name, {})).items()}
        for name in ("joined", "dropped")
    )
    verified = bool(head.get("verified", False))
    taxonomy = str(head.get("taxonomy", ""))
    own = OwnTable(**json.loads(head["own"])) if "own" in head else None
    return Head(dict(zip(files, hashes, strict=False)), verified, joined, dropped, taxonomy, own)


def layout_of(table: anndata.AnnData) -> Layout:
    """The layout of a table's columns, from its ``var``."""
    features = tuple(
        Feature(str(name), str(row["family"]), str(row["unit"]), str(row.get("column", "")))
        for name, row in table.var.iterrows()
    )
    return Layout(str(table.uns["crosspatch"]["layout"]), features)


def numbered(ids: list[str]) -> list[str]:
    """Cell ids; where two are the same, a number tells them apart."""
    nth = pd.Series(ids, dtype=object).groupby(ids).cumcount() + 1
    return [name if n == 1 else f"{name}#{n}" for name, n in zip(ids, nth, strict=True)]


def by_species(table: anndata.AnnData) -> dict[str, anndata.AnnData]:
    """The cells of every species in a table of their own."""
    there = sorted(set(table.obs["species"].astype(str)))
    parts = {name: table[(table.obs["species"] == name).to_numpy()].copy() for name in there}
    for part in parts.values() if len(parts) > 1 else ():
        # Counts of what was joined and left out are of all together.
        part.uns["crosspatch"] = {**part.uns["crosspatch"], "joined": {}, "dropped": {}}
    return parts


def is_simulated(table: anndata.AnnData) -> bool:
    """Whether any cell of a table was simulated."""
    return "simulated" in table.obs and bool(table.obs["simulated"].astype(bool).any())


def in_layout(table: anndata.AnnData, name: str) -> anndata.AnnData:
    """The table with the features of a named layout only.

    Cells that have none of these features are left out. A `CohortError` if the table lacks features
    of the layout or has them in other units.
    """
    layout = load_layout(name)
    if layout_of(table).features == layout.features:
        return table
    lacking = [feature for feature in layout.feature_names if feature not in table.var_names]
    if lacking:
        raise CohortError(
            f"the table has layout '{table.uns['crosspatch']['layout']}' and lacks "
            f"{len(lacking)} features of '{name}', the first is '{lacking[0]}'",
            hint=f"build it again with {{layout}} {name}",
        )
    chosen = table[:, list(layout.feature_names)]
    for feature, unit in zip(layout.features, chosen.var["unit"], strict=True):
        if unit != feature.unit:
            raise CohortError(
                f"feature '{feature.name}' is in {unit}, layout '{name}' has it in {feature.unit}; "
                "convert it"
            )
    measured = np.isfinite(chosen.X).any(axis=1)
    chosen = chosen[measured].copy()
    chosen.var["family"] = [feature.family for feature in layout.features]
    left_out = {f"without a feature of {name}": int(np.sum(~measured))}
    dropped = {**head_of(table).dropped, **left_out}
    chosen.uns["crosspatch"] = {**table.uns["crosspatch"], "layout": name, "dropped": dropped}
    return chosen


def require_name(file: str | Path) -> None:
    """Refuse a name of a table to be written that does not end in ``.h5ad``."""
    if Path(file).suffix != ".h5ad":
        raise CohortError(f"{file}: a cohort table is written as .h5ad; change the file name")


def write(table: anndata.AnnData, file: str | Path) -> None:
    """Write a table as ``.h5ad``; a `CohortError` if it is not valid or cannot be written."""
    file = Path(file)
    require_valid(table, str(file))
    require_name(file)
    with replacing(file, CohortError) as temporary:
        table.write_h5ad(temporary)


def read(file: str | Path) -> anndata.AnnData:
    """Read a table; a `CohortError` if the file is missing or does not hold a valid one."""
    file = Path(file)
    if not file.is_file():
        raise CohortError(f"{file} is missing; build it with `crosspatch cohort build`")
    import anndata

    try:
        is_hdf5 = h5py.is_hdf5(file)
        table = anndata.read_h5ad(file) if is_hdf5 else None
    except Exception as error:  # anndata raises many kinds for files that are not its own
        raise CohortError(f"{file} cannot be read as h5ad: {error}") from error
    if table is None:
        raise CohortError(f"{file} is not an h5ad file; build it with `crosspatch cohort build`")
    require_valid(table, str(file))
    return table


def subclasses_in(table: anndata.AnnData) -> list[str]:
    """The subclasses of a table's cells, in the order of the taxonomy."""
    return list(load_taxonomy().ordered(table.obs["subclass"].dropna()))


#: Columns of obs that say how tissue was treated and what the donor had, where a source has them.
CONDITIONS = ("condition", "disease")


def composition(cohorts: Mapping[str, anndata.AnnData]) -> pd.DataFrame:
    """What the cells of some cohorts, by species, are.

    One row per species, ``group`` and ``name``, with ``cells``, ``donors`` and ``share`` of the
    cells. Groups: ``all``; ``subclass``; ``condition`` and ``disease`` where obs has them;
    ``missing family`` (cells without it); ``left out`` (cells of the source that are not in the
    cohort, by reason; no donors, no share).
    """
    rows: list[tuple[str, str, str, int, float, float]] = []
    for species, cohort in cohorts.items():
        donors = cohort.obs["donor"].astype(str)
        layout = layout_of(cohort)
        groups = {("all", "all"): np.ones(cohort.n_obs, dtype=bool)}
        for column in ("subclass", *CONDITIONS):
            if column in cohort.obs:
                values = cohort.obs[column].astype(str)
                ordered = subclasses_in(cohort) if column == "subclass" else None
                for name in ordered or values.value_counts().index:
                    groups[column, name] = (values == name).to_numpy()
        present = layout.present(np.asarray(cohort.X))
        for number, family in enumerate(layout.families):
            groups["missing family", family] = ~present[:, number]
        for (group, name), chosen in groups.items():
            n_donors = donors[chosen].nunique()
            rows.append((species, group, name, int(chosen.sum()), n_donors, float(chosen.mean())))
        for reason, count in head_of(cohort).dropped.items():
            rows.append((species, "left out", reason, count, np.nan, np.nan))
    columns = ["species", "group", "name", "cells", "donors", "share"]
    return pd.DataFrame(rows, columns=columns).astype({"donors": "Int64"})
