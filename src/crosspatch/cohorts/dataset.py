"""What is known of a dataset, in one object: loading, fetching, labelling and citing ask it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import anndata
import numpy as np
import pandas as pd

from crosspatch.cohorts import sources, table
from crosspatch.cohorts.sources import SourceFile, SourceReader
from crosspatch.errors import CohortError, TaxonomyError
from crosspatch.features.layouts import Layout, load_layout
from crosspatch.species import SPECIES, SpeciesName


@dataclass(frozen=True)
class SourceCells:
    """The cells of a dataset and their features, as they stand in its tables."""

    #: Index: cell; columns ``label`` (missing where a cell has none), ``donor``, ``t_type`` and
    #: whatever else there is.
    cells: pd.DataFrame
    features: pd.DataFrame  #: index: cell; columns: the features of a layout
    labels_from: str  #: file and column of the labels, for messages


@dataclass(frozen=True)
class Dataset:
    """Cells whose features and labels are published as tables."""

    name: str
    species: SpeciesName
    layouts: tuple[str, ...]  #: those it can give, the one that is given by default first
    files: tuple[SourceFile, ...]  #: the tables that it is built from
    labels: Mapping[str, str]  #: label of the tables to subclass
    outside: Mapping[str, str]  # label of the tables to the reason why it is not part of the task
    read: Callable[[SourceReader, Layout], SourceCells]
    licence: str  #: of the tables
    #: Keys of ``data/references.bib``; author and year; and the work in a line, with what it gives.
    cite: tuple[str, ...]
    authors: str
    citation: str
    #: Name under which datasets of several species are loaded together; its own by default.
    collection: str = ""
    #: Dandisets whose recordings its tables have labels of, and the column of cells that names the
    #: session or cell of a recording there.
    dandisets: tuple[str, ...] = ()
    session: str = ""

    def load(
        self, layout: str | None = None, data_dir: str | Path | None = None, *, verify: bool = True
    ) -> anndata.AnnData:
        """Build the cohort table; see `crosspatch.cohorts.loading.load_cohort`."""
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
        cells["subclass"] = self.subclass_of(cells["label"], found.labels_from)
        labelled = cells["label"].notna()
        inside = cells["subclass"].notna()
        joined = inside & cells.index.isin(values.index)
        values = values.reindex(cells.index)
        keep = joined & values.notna().any(axis=1)
        dropped = {
            "without a label": int((~labelled).sum()),
            "of a type outside the task": int((labelled & ~inside).sum()),
            "not in a feature file": int((inside & ~joined).sum()),
            "without a single feature": int((joined & ~keep).sum()),
        }
        if not keep.any():
            raise CohortError(
                f"{self.name}: no cell has both a label and a feature; get the files again"
            )
        counts = cells.loc[joined, "subclass"].value_counts()
        by_subclass = {str(name): count for name, count in counts.items()}
        cells = cells.loc[keep].drop(columns="label")
        first = list(table.REQUIRED_OBS)
        return table.build(
            values.loc[keep].to_numpy(dtype=np.float32),
            cells[first + [name for name in cells.columns if name not in first]],
            columns,
            table.Head(reader.found, verify, by_subclass, dropped),
        )

    def subclass_of(self, labels: pd.Series, where: str) -> pd.Series:
        """Labels of the tables as subclasses, missing for types outside the task.

        `TaxonomyError` if a label is in neither list; `where` says the file and column it is from.
        """
        known = set(self.labels) | set(self.outside)
        unknown = labels[labels.notna() & ~labels.isin(known)]
        if len(unknown):
            raise TaxonomyError(
                f"{where}: label '{unknown.iloc[0]}' ({len(unknown)} cells with unknown labels) "
                f"is not in the {self.species} taxonomy; known: {', '.join(sorted(known))}. "
                f"Correct the label or add it to dataset {self.name}"
            )
        return labels.map(self.labels)

    def labels_of_recordings(self, data_dir: str | Path | None = None) -> pd.DataFrame:
        """Labels of its cells by the recording's session, with ``specimen``, the cell itself."""
        obs = self.load(data_dir=data_dir).obs
        frame = obs[[*table.REQUIRED_OBS, self.session]].astype(object).assign(specimen=obs.index)
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


def dataset_named(name: str) -> Dataset:
    """The dataset of this name; a `CohortError` if there is none."""
    known = datasets()
    if name not in known:
        raise CohortError(f"no dataset '{name}'; choose from: {', '.join(known)}")
    return known[name]


def collections() -> dict[str, dict[str, Dataset]]:
    """Name under which datasets are loaded together to (species to dataset)."""
    found: dict[str, dict[str, Dataset]] = {}
    for each in datasets().values():
        found.setdefault(each.collection or each.name, {})[each.species] = each
    return found


def source_files() -> dict[str, SourceFile]:
    """The tables of every dataset, by their paths in the data directory."""
    return {file.path: file for each in datasets().values() for file in each.files}
