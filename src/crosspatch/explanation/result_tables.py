"""The tables of an explanation and their columns."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files

import pandas as pd

_FILE = files("crosspatch.explanation") / "data" / "tables.toml"

#: Name of every table, in the order in which they are written, to its columns.
TABLE_COLUMNS: Mapping[str, list[str]] = tomllib.loads(_FILE.read_text(encoding="utf-8"))


def table_of(name: str, parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The table of this name, of parts that have its columns; empty without parts."""
    columns = TABLE_COLUMNS[name]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
