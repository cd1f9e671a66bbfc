"""Reads the published tables of a dataset and joins their rows by cell."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

import pandas as pd

from crosspatch.cohorts import sources
from crosspatch.cohorts.sources import SourceFile
from crosspatch.errors import CohortError
from crosspatch.features.layouts import Layout


@dataclass(frozen=True)
class FeatureColumn:
    """How a feature is computed from a column of a source file."""

    feature: str
    file: str
    column: str
    #: ``multiply``, ``subtract``, ``reciprocal``, or nothing.
    operation: str = ""
    #: A number or, to subtract, another column.
    operand: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it needs."""
        other = self.operation == "subtract" and not _is_number(self.operand)
        return (self.column, self.operand) if other else (self.column,)

    def compute(self, source: pd.DataFrame, file: Path) -> pd.Series:
        """The feature's values, in the order of the source's rows."""
        values = sources.numeric(source, self.column, file)
        if self.operation == "multiply":
            return values * float(self.operand)
        if self.operation == "reciprocal":
            return 1 / values.where(values != 0)
        if self.operation == "subtract" and _is_number(self.operand):
            return values - float(self.operand)
        if self.operation == "subtract":
            return values - sources.numeric(source, self.operand, file)
        return values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@cache
def feature_columns(dataset: str) -> tuple[FeatureColumn, ...]:
    """The columns that give a dataset's features, from ``data/feature_columns.csv``."""
    text = (files("crosspatch.cohorts") / "data" / "feature_columns.csv").read_text("utf-8")
    rows = csv.DictReader(text.splitlines())
    return tuple(FeatureColumn(**row) for row in rows if row.pop("dataset") == dataset)


@dataclass(frozen=True)
class Key:
    """The column of a file that says which cell a row is about, and how to read the id in it."""

    column: str
    pattern: str = r"^(\d+)$"
    translate: Mapping[str, str] | None = None
    encoding: str = "utf-8-sig"

    def of(self, source: pd.DataFrame, file: Path) -> pd.Index:
        """The cell of every row."""
        ids = source[self.column].str.extract(self.pattern, expand=False)
        if ids.isna().any():
            row = source[ids.isna()].iloc[0]
            raise CohortError(
                f"{file}, line {row[sources.LINE]}, column '{self.column}': '{row[self.column]}' "
                "holds no cell id; correct it or get the file again"
            )
        if self.translate is not None:
            ids = ids.map(self.translate).fillna("unknown id " + ids)
        if ids.duplicated().any():
            twice = ids[ids.duplicated()].iloc[0]
            raise CohortError(f"{file}: cell {twice} has more than one row; keep one of them")
        return pd.Index(ids)


@dataclass
class SourceReader:
    """Reads source files of one data directory and remembers their checksums."""

    directory: Path
    #: Those that may be read, by their paths in the directory.
    files: Mapping[str, SourceFile]
    #: Whether other versions than the pinned ones are refused.
    verify: bool = True
    #: Path to checksum of what was read.
    found: dict[str, str] = field(default_factory=dict)

    def read(
        self, path: str, columns: Iterable[str], encoding: str = "utf-8-sig"
    ) -> tuple[pd.DataFrame, Path]:
        """Columns of a file as text, see `sources.read_source`."""
        file, self.found[path] = sources.locate(
            self.directory, self.files[path], verify=self.verify
        )
        return sources.read_source(file, list(columns), encoding=encoding), file

    def features(
        self, columns: Iterable[FeatureColumn], layout: Layout, keys: Mapping[str, Key]
    ) -> pd.DataFrame:
        """The layout's features, indexed by cell; `keys` has the key of every file."""
        wanted = [column for column in columns if column.feature in layout.feature_names]
        parts: dict[str, pd.Series] = {}
        for path in dict.fromkeys(column.file for column in wanted):
            here = [column for column in wanted if column.file == path]
            key = keys[path]
            names = [name for column in here for name in column.columns]
            source, file = self.read(path, [key.column, *names], key.encoding)
            index = key.of(source, file)
            for column in here:
                values = column.compute(source, file).to_numpy()
                parts[column.feature] = pd.Series(values, index=index)
        return pd.DataFrame({name: parts[name] for name in layout.feature_names})


def unique_cells(rows: pd.DataFrame, file: Path, column: str) -> pd.DataFrame:
    """Index rows by cell; identical rows of one cell count once, contradicting ones are refused."""
    content = [name for name in rows.columns if name != sources.LINE]
    rows = rows.drop_duplicates(content).set_index(column)
    if rows.index.hasnans:
        raise CohortError(f"{file}: a row has no '{column}'; remove it or get the file again")
    if rows.index.duplicated().any():
        cell = rows.index[rows.index.duplicated()][0]
        raise CohortError(f"{file}: cell {cell} has rows that contradict each other; keep one")
    return rows


def cells_in(
    rows: pd.DataFrame, file: Path, columns: Mapping[str, str], donors: pd.Series
) -> pd.DataFrame:
    """Rows of `unique_cells` under our names for their columns, every cell with its donor."""
    cells = pd.DataFrame({ours: rows[theirs] for ours, theirs in columns.items()})
    cells.index = cells.index.astype(str).rename("cell_id")
    cells["donor"] = donors.to_numpy()
    without = cells.index[cells["donor"].isna()]
    if len(without):
        raise CohortError(
            f"{file}: cell {without[0]} has no donor ({len(without)} such cells); folds are "
            "grouped by donor, so give each cell one"
        )
    return cells
