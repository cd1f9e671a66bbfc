"""What is known of a dataset, in one object: loading, fetching, labelling and citing ask it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosspatch.cohorts import sources, table
from crosspatch.cohorts.sources import SourceFile, SourceReader
from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.errors import CohortError, TaxonomyError
from crosspatch.features.layouts import Layout, load_layout
from crosspatch.species import SPECIES, SpeciesName

if TYPE_CHECKING:
    import anndata


@dataclass(frozen=True)
class SourceCells:
    """The cells of a dataset and their features, as they stand in its tables."""

    #: Index: cell; columns ``label`` (missing where a cell has none), ``donor``, ``t_type``, where
    #: it is known without a label ``class``, and whatever else there is.
    cells: pd.DataFrame
    features: pd.DataFrame  #: index: cell; columns: the features of a layout
    labels_from: str  #: file and column of the labels, for messages


@dataclass(frozen=True)
class Labelling:
    """What the labels of a dataset mean, by one taxonomy."""

    column: str  #: column of `SourceCells.cells` with the labels
    #: Label to subclass, or to the class of cells that are of none.
    labels: Mapping[str, str]
    outside: Mapping[str, str]  #: label to the reason why it is not part of the task


@dataclass(frozen=True)
class Dataset:
    """Cells whose features and labels are published as tables."""

    name: str
    species: SpeciesName
    layouts: tuple[str, ...]  #: those it can give, the one that is given by default first
    files: tuple[SourceFile, ...]  #: the tables that it is built from
    #: Label of the tables to subclass, or to the class of cells that are of none.
    labels: Mapping[str, str]
    outside: Mapping[str, str]  #: label of the tables to the reason why it is not part of the task
    read: Callable[[SourceReader, Layout], SourceCells]
    licence: str  #: of the tables
    #: Keys of ``data/references.bib``; author and year; and the work in a line, with what it gives.
    cite: tuple[str, ...]
    authors: str
    citation: str
    #: Datasets of one rig and code, of a species: measured alike; its own name by default.
    rig: str = ""
    #: Name under which datasets of several species are loaded together; its own by default.
    collection: str = ""
    #: Dandisets whose recordings its tables have labels of, and the column of cells that names the
    #: session or cell of a recording there.
    dandisets: tuple[str, ...] = ()
    session: str = ""
    #: Whose labels those are, and those of others, by taxonomy.
    taxonomy: str = ""
    others: Mapping[str, Labelling] = field(default_factory=dict)

    def load(
        self,
        layout: str | None = None,
        data_dir: str | Path | None = None,
        *,
        verify: bool = True,
        taxonomy: str | None = None,
        every_cell: bool = False,
    ) -> anndata.AnnData:
        """Build the cohort table; see `crosspatch.cohorts.loading.load_cohort`.

        A dataset none of whose labels is a subclass always gives every cell.
        """
        layout = layout or self.layouts[0]
        columns = load_layout(layout)
        if layout not in self.layouts:
            raise CohortError(
                f"{self.name} cannot give layout '{layout}'; it has: {', '.join(self.layouts)}"
            )
        files = {file.path: file for file in self.files}
        reader = SourceReader(sources.data_directory(data_dir), files, verify)
        found = self.read(reader, columns)
        cells, values = found.cells, found.features
        cells["species"], cells["dataset"] = self.species, self.name
        label = self._label(cells, found.labels_from, taxonomy)
        inside = cells["subclass"].notna()
        every_cell = every_cell or not set(self.labels.values()) & set(load_taxonomy().subclasses)
        wanted = inside | every_cell
        joined = cells.index.isin(values.index)
        values = values.reindex(cells.index)
        measured = joined & values.notna().any(axis=1)
        keep = wanted & measured
        outside = label.notna() & ~wanted
        excitatory = cells["class"].eq("Glutamatergic")
        dropped = {
            "without a label": int((label.isna() & ~wanted).sum()),
            "of a type outside the task": int((outside & ~excitatory).sum()),
            "excitatory": int((outside & excitatory).sum()),
            "not in a feature file": int((wanted & ~joined).sum()),
            "without a single feature": int((wanted & joined & ~measured).sum()),
        }
        if not keep.any():
            raise CohortError(
                f"{self.name}: no cell has both a label and a feature; get the files again"
            )
        counts = cells.loc[joined, "subclass"].value_counts()
        by_subclass = {str(name): count for name, count in counts.items()}
        cells = cells.loc[keep].drop(columns="label")
        first = [*table.REQUIRED_OBS, "class"]
        return table.build(
            values.loc[keep].to_numpy(dtype=np.float32),
            cells[first + [name for name in cells.columns if name not in first]],
            columns,
            table.Head(reader.found, verify, by_subclass, dropped, taxonomy or self.taxonomy),
        )

    @property
    def labellings(self) -> dict[str, Labelling]:
        """Taxonomy to the labels by it, its own first."""
        return {self.taxonomy: Labelling("label", self.labels, self.outside), **self.others}

    def _label(self, cells: pd.DataFrame, where: str, taxonomy: str | None) -> pd.Series:
        """Give cells their subclass and class; returned is the label that they are from."""
        known = load_taxonomy()
        chosen = self.taxonomy if taxonomy is None else taxonomy
        if chosen not in self.labellings:
            has = ", ".join(filter(None, self.labellings)) or "those of its tables"
            raise CohortError(f"{self.name} has no labels of taxonomy '{chosen}', only {has}")
        for name, labelling in self.labellings.items():
            meant = self.meaning_of(cells[labelling.column], where, name)
            subclass = meant.where(meant.isin(known.subclasses))
            if self.others:
                cells[f"subclass_{name.replace('-', '_')}"] = subclass
            if name == chosen:
                cells["subclass"] = subclass
                classes = meant.where(meant.isin(known.classes))
        given = cells.get("class")
        classes = classes.where(classes.notna(), given)
        cells["class"] = classes.mask(cells["subclass"].notna(), "GABAergic")
        return cells[self.labellings[chosen].column]

    def at_hand(self, directory: Path) -> bool:
        """Whether all its tables are in a data directory."""
        return all((directory / file.path).is_file() for file in self.files)

    @property
    def kinds(self) -> set[str]:
        """The classes that its cells are of."""
        known, named = load_taxonomy(), set(self.labels.values())
        inside = {"GABAergic"} if named & {*known.subclasses} else set()
        return inside | (named & {*known.classes})

    def meaning_of(self, labels: pd.Series, where: str, taxonomy: str | None = None) -> pd.Series:
        """Labels as subclasses or classes, missing for types outside the task.

        `TaxonomyError` if the taxonomy does not know a label; `where` says the file and column.
        """
        labelling = self.labellings[self.taxonomy if taxonomy is None else taxonomy]
        known = set(labelling.labels) | set(labelling.outside)
        unknown = labels[labels.notna() & ~labels.isin(known)]
        if len(unknown):
            raise TaxonomyError(
                f"{where}: label '{unknown.iloc[0]}' ({len(unknown)} cells with unknown labels) "
                f"is not in the {self.species} taxonomy; known: {', '.join(sorted(known))}. "
                f"Correct the label or add it to dataset {self.name}"
            )
        return labels.map(labelling.labels)

    def labels_of_recordings(self, data_dir: str | Path | None = None) -> pd.DataFrame:
        """Labels of its cells by the recording's session, with ``specimen``, the cell itself."""
        obs = self.load(data_dir=data_dir).obs
        frame = obs.reindex(columns=[*table.REQUIRED_OBS, "layer", self.session])
        frame = frame.astype(object).assign(specimen=obs.index)
        frame = frame[frame[self.session].notna()]
        keys = frame[self.session].astype(str).str.replace(r"\.0$", "", regex=True)
        return frame.drop(columns=self.session).set_index(keys)


REGISTERED: dict[str, Dataset] = {}  #: those registered so far, by name; see `datasets`


def register(dataset: Dataset) -> None:
    """Make a dataset known by its name."""
    REGISTERED[dataset.name] = dataset


@cache
def _find() -> None:
    """Import what is in ``datasets/``: every file there registers its own."""
    package = import_module("crosspatch.cohorts.datasets")
    for module in iter_modules(package.__path__):
        import_module(f"{package.__name__}.{module.name}")


def datasets() -> dict[str, Dataset]:
    """Every dataset by its name, in the order of their species."""
    _find()
    order = list(SPECIES)
    known = sorted(REGISTERED.values(), key=lambda each: order.index(each.species))
    return {each.name: each for each in known}


def collections() -> dict[str, dict[str, list[Dataset]]]:
    """Name under which datasets are loaded together to (species to datasets)."""
    found: dict[str, dict[str, list[Dataset]]] = {}
    for each in datasets().values():
        of_species = found.setdefault(each.collection or each.name, {})
        of_species.setdefault(each.species, []).append(each)
    return found


def source_files() -> dict[str, SourceFile]:
    """The tables of every dataset, by their paths in the data directory."""
    return {file.path: file for each in datasets().values() for file in each.files}
