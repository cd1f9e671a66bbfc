"""The files of a data directory: where they lie, what they must contain, where they come from."""

from __future__ import annotations

import csv
import difflib
import hashlib
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import platformdirs

from crosspatch.errors import CohortError

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

    #: Where it lies in the data directory.
    path: str
    #: Checksum of the pinned version.
    sha256: str
    #: Bytes.
    size: int
    #: Where it lies on GitHub: ``owner/repository/raw/commit/path``.
    place: str

    @property
    def address(self) -> str:
        """Where it can be downloaded."""
        base = os.environ.get(TABLES_VARIABLE) or TABLES_ADDRESS
        return f"{base.rstrip('/')}/{self.place}"


def listed(folder: str) -> tuple[SourceFile, ...]:
    """The files of a folder of the data directory that ``data/sources.csv`` lists."""
    text = (files("crosspatch.cohorts") / "data" / "sources.csv").read_text(encoding="utf-8")
    found = []
    for row in csv.DictReader(text.splitlines()):
        place, name = row["path"].rsplit("/", 1)
        if place == folder:
            inside = "/".join(part for part in (row["folder"], name) if part)
            address = f"{row['repository']}/raw/{row['commit']}/{inside}"
            found.append(SourceFile(row["path"], row["sha256"], int(row["bytes"]), address))
    return tuple(found)


def named_directory(explicit: str | Path | None = None) -> tuple[Path, str]:
    """The data directory, there or not, and where its name is from.

    The one given, else ``CROSSPATCH_DATA``, else one in the user's cache.
    """
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
            hint="get the tables with `crosspatch fetch tables` (9 MB), or name the directory "
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
    file: Path, columns: Sequence[str], *, optional: Sequence[str] = (), encoding: str = "utf-8-sig"
) -> pd.DataFrame:
    """Columns of a csv file that must be there, and some that may be, as text, and `LINE`.

    Fields that are empty, ``NA`` or ``NULL`` are missing. `CohortError` if the file is not csv, has
    no rows, or lacks a column.
    """
    try:
        table = pd.read_csv(file, dtype=str, encoding=encoding, skip_blank_lines=False)
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
