"""The tables of a data directory: where they are from, reading them, joining rows by cell."""

from __future__ import annotations

import difflib
import hashlib
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import platformdirs

from crosspatch.errors import CohortError
from crosspatch.features.layouts import Layout
from crosspatch.texts import data_rows, is_number

#: Environment variable that names the data directory.
DATA_VARIABLE = "CROSSPATCH_DATA"
#: Environment variable with the address that the tables' places are relative to.
TABLES_VARIABLE = "CROSSPATCH_TABLES"
TABLES_ADDRESS = "https://github.com"
#: Column that `read_source` adds: the line of the file a row stands on.
LINE = "line of the file"
# What pandas and its decompressors raise for a file that is damaged or something else.
_UNREADABLE = (ValueError, OSError, EOFError, zlib.error)


@dataclass(frozen=True)
class SourceFile:
    """A public table that a cohort is built from."""

    path: str  #: where it lies in the data directory
    sha256: str  #: checksum of the pinned version
    size: int  #: bytes
    place: str  #: where it lies on GitHub: ``owner/repository/raw/commit/path``

    @property
    def address(self) -> str:
        """Where it can be downloaded."""
        base = os.environ.get(TABLES_VARIABLE) or TABLES_ADDRESS
        return f"{base.rstrip('/')}/{self.place}"


def pinned_files() -> tuple[SourceFile, ...]:
    """The public tables, which ``data/sources.csv`` lists."""
    found = []
    for row in data_rows("cohorts", "sources"):
        inside = "/".join(filter(None, (row["folder"], row["path"].rpartition("/")[2])))
        address = f"{row['repository']}/raw/{row['commit']}/{inside}"
        found.append(SourceFile(row["path"], row["sha256"], int(row["bytes"]), address))
    return tuple(found)


def listed(folder: str) -> tuple[SourceFile, ...]:
    """Those of a folder of the data directory."""
    return tuple(file for file in pinned_files() if file.path.rpartition("/")[0] == folder)


def named_directory(explicit: str | Path | None = None) -> tuple[Path, str]:
    """Data directory (given, else ``CROSSPATCH_DATA``, else the user's cache), and which it is."""
    if explicit is not None:
        return Path(explicit), "data_dir"
    if os.environ.get(DATA_VARIABLE):
        return Path(os.environ[DATA_VARIABLE]), DATA_VARIABLE
    return platformdirs.user_cache_path("crosspatch") / "data", "the user's cache"


def data_directory(explicit: str | Path | None = None) -> Path:
    """The data directory, see `named_directory`; `CohortError` if it does not exist."""
    directory, origin = named_directory(explicit)
    if not directory.is_dir():
        raise CohortError(
            f"data directory {directory} (from {origin}) does not exist",
            hint="get the tables with `crosspatch fetch tables` (15 MB), or name the directory "
            f"that has them with {{data_dir}} or {DATA_VARIABLE}",
        )
    return directory


def locate(directory: Path, source: SourceFile, *, verify: bool = True) -> tuple[Path, str]:
    """A source file in a data directory, and its checksum.

    `CohortError` if it is missing, cannot be read or, with `verify`, is not the pinned version.
    """
    file = directory / source.path
    if not file.is_file():
        raise CohortError(f"{file} is missing; get it with `crosspatch fetch tables`")
    try:
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CohortError(f"{file} cannot be read: {error.strerror}") from error
    if verify and found != source.sha256:
        raise CohortError(
            f"{file} is not the pinned version: sha256 {found[:12]}…, expected "
            f"{source.sha256[:12]}…",
            hint="move it away and get it again with `crosspatch fetch tables`, or use "
            "{unverified} to go on with the file as it is",
        )
    return file, found


def read_source(
    file: Path,
    columns: Sequence[str],
    *,
    optional: Sequence[str] = (),
    encoding: str = "utf-8-sig",
    separator: str = ",",
) -> pd.DataFrame:
    """Columns of a csv file that must be there, and some that may be, as text, and `LINE`.

    Fields that are empty, ``NA`` or ``NULL`` are missing. `CohortError` if the file is not csv, has
    no rows, or lacks a column.
    """
    try:
        table = pd.read_csv(
            file, dtype=str, encoding=encoding, sep=separator, skip_blank_lines=False
        )
    except _UNREADABLE as error:
        raise CohortError(f"{file}: cannot be read as csv ({error})") from error
    missing = [column for column in columns if column not in table.columns]
    if missing:
        near = difflib.get_close_matches(missing[0], map(str, table.columns), n=1)
        nearest = f"; the nearest is '{near[0]}'" if near else ""
        more = f" ({len(missing)} columns are missing)" if len(missing) > 1 else ""
        raise CohortError(
            f"{file}: column '{missing[0]}' is missing{nearest}{more}; rename it back or get the "
            "file again"
        )
    if table.empty:
        raise CohortError(f"{file}: the table has no rows; get the file again")
    columns = [*columns, *(column for column in optional if column in table.columns)]
    table = table[list(dict.fromkeys(columns))].assign(**{LINE: np.arange(len(table)) + 2})
    return table.dropna(how="all", subset=list(dict.fromkeys(columns)))


def numeric(table: pd.DataFrame, column: str, file: Path) -> pd.Series:
    """A column of text as numbers; refused, with its line, where it is neither empty nor one."""
    values = pd.to_numeric(table[column], errors="coerce")
    bad = table.index[values.isna() & table[column].notna()]
    if len(bad):
        cell = table.loc[bad[0]]
        raise CohortError(
            f"{file}, line {cell[LINE]}, column '{column}': '{cell[column]}' is not a number; "
            "correct it or leave it empty"
        )
    return values


@dataclass(frozen=True)
class FeatureColumn:
    """How a feature is computed from a column of a source file."""

    feature: str
    file: str
    column: str
    operation: str = ""  #: ``multiply``, ``subtract``, ``reciprocal``, or nothing
    operand: str = ""  #: a number or, to subtract, another column

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it needs."""
        other = self.operation == "subtract" and not is_number(self.operand)
        return (self.column, self.operand) if other else (self.column,)

    def compute(self, source: pd.DataFrame, file: Path) -> pd.Series:
        """The feature's values, in the order of the source's rows."""
        values = numeric(source, self.column, file)
        if self.operation == "multiply":
            return values * float(self.operand)
        if self.operation == "reciprocal":
            return 1 / values.where(values != 0)
        if self.operation == "subtract" and is_number(self.operand):
            return values - float(self.operand)
        if self.operation == "subtract":
            return values - numeric(source, self.operand, file)
        return values


@cache
def feature_columns(dataset: str) -> tuple[FeatureColumn, ...]:
    """The columns that give a dataset's features, from ``data/feature_columns.csv``."""
    rows = data_rows("cohorts", "feature_columns")
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
                f"{file}, line {row[LINE]}, column '{self.column}': '{row[self.column]}' "
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
    files: Mapping[str, SourceFile]  #: those that may be read, by their paths in the directory
    verify: bool = True  #: whether other versions than the pinned ones are refused
    found: dict[str, str] = field(default_factory=dict)  #: path to checksum of what was read

    def read(
        self, path: str, columns: Iterable[str], encoding: str = "utf-8-sig", separator: str = ","
    ) -> tuple[pd.DataFrame, Path]:
        """Columns of a file as text, see `read_source`."""
        file, self.found[path] = locate(self.directory, self.files[path], verify=self.verify)
        source = read_source(file, list(columns), encoding=encoding, separator=separator)
        return source, file

    def features(
        self, columns: Iterable[FeatureColumn], layout: Layout, keys: Mapping[str, Key]
    ) -> pd.DataFrame:
        """The layout's features, indexed by cell; `keys` has the key of every file.

        A feature without a column is missing.
        """
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
        return pd.DataFrame(parts).reindex(columns=list(layout.feature_names))


def unique_cells(rows: pd.DataFrame, file: Path, column: str) -> pd.DataFrame:
    """Index rows by cell; identical rows of one cell count once, contradicting ones are refused."""
    content = [name for name in rows.columns if name != LINE]
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
