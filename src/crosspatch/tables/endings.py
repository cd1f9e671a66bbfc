"""Which files are tables, and how much of one is in memory."""

from __future__ import annotations

from pathlib import Path

#: Rows of a table that are in memory at a time.
CHUNK = 20_000

#: Endings of tables as text, of workbooks, and of all that can be read.
OF_TEXT = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz")
OF_WORKBOOKS = (".xlsx", ".xlsm", ".xls", ".ods")
TABLE_SUFFIXES = (*OF_TEXT, *OF_WORKBOOKS, ".parquet", ".h5ad")


def suffix_of(path: Path) -> str:
    """The ending of a table's name, with that of its compression."""
    ending = path.suffix.lower()
    return "".join(path.suffixes[-2:]).lower() if ending == ".gz" else ending
