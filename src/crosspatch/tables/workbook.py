"""Workbooks (xlsx, xlsm, xls, ods): which sheet holds the cells, and its rows."""

from __future__ import annotations

import math
import os
import re
import sys
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import reduce
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from crosspatch.errors import CohortError, in_words
from crosspatch.processes import Child, ChildError, Tell, answer_requests, may_die
from crosspatch.tables.header import HEAD_ROWS, Header, HeadRow, find_header, understood_of
from crosspatch.telling import Say

if TYPE_CHECKING:
    from python_calamine import CalamineSheet, CalamineWorkbook

# A sheet is held as a rectangle around its cells, each some 30 bytes.
_MOST_FIELDS = 2**26
#: Bytes and s that the sheets of an xls take at most: they have 65,536 rows of 256 columns.
_MOST_MEMORY, _LONGEST = 2**31, 60.0
_BLOCK = 2**20

# Of a sheet of xlsx: where a row or a cell is, if it says so.
_PLACE = re.compile(rb"""\sr\s*=\s*["']([A-Za-z]{0,3})(\d{1,9})["']""")
_ERROR = re.compile(
    rb"""\st\s*=\s*["']e["']|(?:</f>|<f\b[^>]*/>)\s*(?:<v\s*/>|<v>\s*</v>)?\s*</c>"""
)
# Of ods: rows and cells, how often they are repeated, and whether a cell is empty.
_OF_ODS = re.compile(rb"<table:(table-row|table-cell|covered-table-cell|table(?=[\s>]))([^>]*)>")
_REPEATED = re.compile(rb"""number-(?:rows|columns)-repeated\s*=\s*["'](\d{1,12})["']""")


class SheetHead(NamedTuple):
    """A sheet of a workbook and its first rows."""

    name: str
    rows: list[HeadRow]
    header: Header
    understood: int  # names of columns that mean something


class Workbook:
    """The sheets of a file; a CohortError if it cannot be read."""

    def __init__(self, path: Path, known: Collection[str] = ()):
        self.path, self.known = path, known
        self._missing = _examined(path) if zipfile.is_zipfile(path) else _tried(path)
        with self.reading():
            from python_calamine import CalamineWorkbook, SheetTypeEnum

            self._book: CalamineWorkbook = CalamineWorkbook.from_path(path)
            self.names = [
                each.name
                for each in self._book.sheets_metadata
                if each.typ == SheetTypeEnum.WorkSheet
            ]
        if not self.names:
            raise CohortError(f"{path}: the workbook has no sheet")

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turns what the reader raises within it into an error that names the file."""
        try:
            yield
        except CohortError:
            raise
        except Exception as error:  # the reader raises many kinds for files that are not its own
            raise CohortError(
                f"{self.path} cannot be read as a workbook: {in_words(error)}"
            ) from error

    def chosen(self, sheet: str | int | None, say: Say) -> SheetHead:
        """The sheet that is named, by name or number from 1; else that with the most features."""
        if sheet is not None:
            return self._head(self._named(sheet))
        heads = [self._head(name) for name in self.names]
        best = max(heads, key=lambda head: head.understood)
        if len(heads) > 1:
            others = [
                f"'{head.name}'" for head in heads if head is not best and head.understood > 1
            ]
            also = f"; {' and '.join(others[:3])} may hold cells too" if others else ""
            say(
                f"{self.path.name}: of {len(heads)} sheets '{best.name}' is read"
                f"{', which has the most features' if best.understood > 1 else ''}{also}"
            )
        return best

    def _named(self, sheet: str | int) -> str:
        wanted = str(sheet).strip()
        for name in self.names:
            if wanted.casefold() == name.strip().casefold():
                return name
        if wanted.isdecimal() and 1 <= int(wanted) <= len(self.names):
            return self.names[int(wanted) - 1]
        listed = ", ".join(f"'{name}'" for name in self.names[:12])
        raise CohortError(
            f"{self.path}: there is no sheet '{wanted}' among its {len(self.names)}",
            f"give {{sheet}} one of {listed.replace('{', '{{').replace('}', '}}')}, or its number",
        )

    def _head(self, name: str) -> SheetHead:
        rows = [
            HeadRow(k, list(map(_text, each))) for k, each in islice(self.rows(name), HEAD_ROWS)
        ]
        header = find_header(rows, self.known)
        return SheetHead(name, rows, header, understood_of(header.columns(rows), self.known))

    def rows(self, name: str) -> Iterator[tuple[int, list[object]]]:
        """The rows of a sheet that hold anything, with their numbers; an empty cell is None."""
        with self.reading():
            sheet: CalamineSheet = self._book.get_sheet_by_name(name)
            for number, row in enumerate(sheet.iter_rows(), 1):
                if any(value != "" for value in row):
                    yield number, [None if value == "" else value for value in row]

    def say_missing(self, say: Say) -> None:
        """Say how many values cannot be known."""
        if self._missing:
            say(
                f"{self.path.name}: {self._missing} cells hold an error, or a formula without its "
                "value (save the workbook in Excel); they are missing"
            )


def _text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def _examined(path: Path) -> int:
    """How many cells of an xlsx file hold an error or no value.

    A CohortError if the rectangle around a sheet's cells is more than a table needs.
    """
    missing = 0
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name == "content.xml":
                    with archive.open(name) as part:
                        _require_table(path, *_extent_of_ods(part))
                elif re.fullmatch(r"xl/worksheets/[^/]+\.xml", name, re.IGNORECASE):
                    with archive.open(name) as part:
                        rows, columns, here = _extent(part)
                    _require_table(path, rows, columns)
                    missing += here
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError):
        return 0  # damaged: its reader says why
    return missing


def _tried(path: Path) -> int:
    """Have another process read an xls, which says nowhere how much memory its sheets take.

    Too much ends the reader's process with no word. A CohortError then; 0 if it can be read.
    """
    if may_die():
        return 0
    child = Child(__name__, memory=_MOST_MEMORY)
    try:
        child.wait_ready()
        child.ask(path, _LONGEST)
    except ChildError as error:
        raise CohortError(
            f"{path} cannot be read as a workbook: it takes its reader too much memory or time",
            "save it as xlsx or csv",
        ) from error
    finally:
        child.close()
    return 0


def _read_all(path: Path, tell: Tell) -> None:
    """Read every sheet, and keep nothing."""
    with suppress(Exception):  # whoever reads it next says why it cannot be read
        from python_calamine import CalamineWorkbook

        book = CalamineWorkbook.from_path(path)
        for name in book.sheet_names:
            book.get_sheet_by_name(name)


def _require_table(path: Path, rows: int, columns: int) -> None:
    if rows * columns > _MOST_FIELDS:
        raise CohortError(
            f"{path}: a sheet spans {rows:,} rows and {columns:,} columns, more than a table of "
            "cells has",
            "delete what stands apart from the table, or save it as csv",
        )


def _extent(part: IO[bytes]) -> tuple[int, int, int]:
    """Rows and columns that hold a sheet of xlsx, at most, and values that are missing in it."""
    rows = columns = here = missing = unnumbered = 0
    for text in _by_tags(part):
        first, *others = text.split(b"<row")
        counts = [here + first.count(b"<c"), *(row.count(b"<c") for row in others)]
        here, unnumbered = counts[-1], unnumbered + len(others)
        places = _PLACE.findall(text)
        letters = {column for column, _ in places}
        columns = max(columns, *counts, *map(_column_number, letters))
        rows = max(rows, unnumbered, *(int(row) for row in {row for _, row in places}))
        missing += len(_ERROR.findall(text))
    return rows, columns, missing


def _column_number(letters: bytes) -> int:
    return reduce(lambda number, letter: 26 * number + letter - 64, letters.upper(), 0)


def _extent_of_ods(part: IO[bytes]) -> tuple[int, int]:
    """Rows and columns that hold the largest sheet of ods."""
    largest = 0, 0
    rows = columns = waiting = place = 0
    for text in _by_tags(part):
        for tag, attributes in _OF_ODS.findall(text):
            repeated = _REPEATED.search(attributes)
            times = int(repeated[1]) if repeated else 1
            if tag == b"table":
                rows = columns = waiting = 0
            elif tag == b"table-row":
                waiting, place = waiting + times, 0
            else:
                place += times
                if not attributes.endswith(b"/") or b"office:" in attributes:
                    rows, waiting, columns = rows + waiting, 0, max(columns, place)
                    largest = max(largest, (rows, columns), key=math.prod)
    return largest


def _by_tags(part: IO[bytes]) -> Iterator[bytes]:
    """A part of an archive in blocks that end between its tags."""
    rest = b""
    while block := part.read(_BLOCK):
        text = rest + block
        cut = text.rfind(b"<row") if b"<row" in text else text.rfind(b"<")
        cut = len(text) if cut <= 0 else cut
        rest = text[cut:]
        if len(rest) > 64 * _BLOCK:
            raise ValueError("a tag without an end")
        yield text[:cut]
    yield rest


if __name__ == "__main__":
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the reader's last words tell a user nothing
    answer_requests(_read_all, sys.argv[1:])
