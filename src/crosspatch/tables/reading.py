"""Other people's tables: csv, Excel, Parquet and h5ad, some thousand rows at a time."""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from crosspatch.errors import CohortError, CrosspatchError, in_words
from crosspatch.tables.units import parse_unit
from crosspatch.telling import Say

#: Rows of a table that are in memory at a time.
CHUNK = 20_000


# Characters; a table of a million columns has fewer.
_LONGEST_LINE = 50_000_000


#: Endings of tables that can be read.
TABLE_SUFFIXES = (
    ".csv",
    ".tsv",
    ".txt",
    ".csv.gz",
    ".tsv.gz",
    ".xlsx",
    ".xlsm",
    ".parquet",
    ".h5ad",
)


def suffix_of(path: Path) -> str:
    """The ending of a table's name, with that of its compression."""
    ending = path.suffix.lower()
    return "".join(path.suffixes[-2:]).lower() if ending == ".gz" else ending


def _text(path: Path, say: Say) -> Iterator[pd.DataFrame]:
    """A csv or tsv file, chunk by chunk as text."""
    stream: Any
    try:
        opener = gzip.open if path.suffix.lower() == ".gz" else open
        with opener(path, "rb") as start:
            head = start.read(2**20)
        encoding = _encoding(head)
        with opener(path, "rb") as raw:
            stream = io.TextIOWrapper(raw, encoding=encoding, errors="replace", newline="")
            delimiter = _delimiter(path, head.decode(encoding, "replace"))
            yield from _rows(path, _lines(path, stream), delimiter, say)
    except (OSError, EOFError, csv.Error, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        raise CohortError(f"{path} cannot be read as a table: {in_words(error)}") from error


def _lines(path: Path, stream: io.TextIOBase) -> Iterator[str]:
    """The lines of a file; one without an end is refused before it fills the memory."""
    while line := stream.readline(_LONGEST_LINE + 1):
        if len(line) > _LONGEST_LINE:
            raise CohortError(
                f"{path} cannot be read as a table: a line has more than "
                f"{_LONGEST_LINE // 10**6} million characters"
            )
        yield line


def _encoding(head: bytes) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    try:
        head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # A character cut at the end of what was looked at is no sign of another encoding.
        if error.start < len(head) - 4:
            return "cp1252"
    return "utf-8-sig"


def _delimiter(path: Path, text: str) -> str:
    """The delimiter that cuts the first lines into the same number of fields, the most."""
    if ".tsv" in path.suffixes:
        return "\t"
    lines = [line for line in text.splitlines()[:20] if line.strip()]

    def quality(delimiter: str) -> tuple[int, int]:
        try:
            counts = Counter(len(row) for row in csv.reader(lines, delimiter=delimiter))
        except csv.Error:  # a long line is one field by a delimiter that is not its own
            return 0, 1
        width, alike = max(counts.items(), key=lambda item: (item[1], item[0]), default=(1, 0))
        return (alike if width > 1 else 0), width

    return max(",;\t|", key=quality)


def _rows(path: Path, stream: Iterable[str], delimiter: str, say: Say) -> Iterator[pd.DataFrame]:
    reader = csv.reader(stream, delimiter=delimiter)
    header: list[str] | None = None
    comment: list[str] | None = None
    rows: list[list[str]] = []
    problems: dict[int, str] = {}
    ragged = 0
    for row in reader:
        if not any(field.strip() for field in row):
            continue
        if header is None:
            # A "#" may begin a comment, or be the name of the first column.
            if row[0].startswith("#") and comment is None:
                comment = row
                continue
            if comment is not None and len(comment) == len(row) > 1:
                header = _header(comment)
            elif row[0].startswith("#"):
                comment = row
                continue
            else:
                header = _header(row)
                continue
        if not rows and not ragged and _are_units(row):
            header = [_with_unit(n, u) for n, u in zip(header, row, strict=False)]
            say(f"{path.name}: the row under the header is taken for the columns' units")
            continue
        if len(row) != len(header):
            # A trailing delimiter or left-out empty fields at the end are harmless.
            surplus = row[len(header) :]
            if any(field.strip() for field in surplus):
                ragged += 1
                problem = f"line {reader.line_num} has {len(row)} fields, the header {len(header)}"
                problems[len(rows)] = f"{problem}; not read"
                if ragged == 1:
                    say(f"{path.name}: {problem}; this row is not predicted")
            row = (row + [""] * len(header))[: len(header)]
        rows.append(row)
        if len(rows) == CHUNK:
            yield _frame(header, rows, problems)
            rows, problems = [], {}
    if ragged > 1:
        say(f"{path.name}: {ragged} rows in all have more fields than the header")
    if header is not None and rows:
        yield _frame(header, rows, problems)


def _header(row: list[str]) -> list[str]:
    return [field.strip() for field in row]


def _are_units(row: list[Any]) -> bool:
    """Whether a row has units in place of values: no number, and three units or more."""
    texts = [str(field).strip() for field in row if field is not None and str(field).strip()]
    if any(re.search(r"\d", text) for text in texts):
        return False
    return sum(parse_unit(text.strip("()[]")) is not None for text in texts) >= 3


def _with_unit(name: str, unit: str) -> str:
    """A header with its unit, if the unit is one and the header has none yet."""
    unit = unit.strip().strip("()[]")
    if parse_unit(unit) is None or "(" in name or "[" in name:
        return name
    return f"{name} ({unit})"


def _frame(header: list[str], rows: list[list[Any]], problems: dict[int, str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=header, dtype=object)
    if problems:
        frame.attrs["__problem__"] = problems
    return frame


def _excel(path: Path, say: Say) -> Iterator[pd.DataFrame]:
    """The first sheet of a workbook; formulas by the values that were saved with them."""
    import openpyxl

    try:
        books = [
            openpyxl.load_workbook(path, read_only=True, data_only=values)
            for values in (True, False)
        ]
    except Exception as error:  # openpyxl raises many kinds for files that are not its own
        raise CohortError(f"{path} cannot be read as Excel: {in_words(error)}") from error
    try:
        if not books[0].worksheets:
            raise CohortError(f"{path}: the workbook has no sheet")
        sheets = [book.worksheets[0] for book in books]
        if len(books[0].worksheets) > 1:
            say(
                f"{path.name}: the first of {len(books[0].worksheets)} sheets is read, "
                f"'{sheets[0].title}'"
            )
        header: list[str] | None = None
        rows: list[list[Any]] = []
        for values, written in zip(*(s.iter_rows(values_only=True) for s in sheets), strict=True):
            # A formula without a saved value stays as it is written, to be counted as no number.
            row = [w if v is None else v for v, w in zip(values, written, strict=True)]
            if all(value is None for value in row):
                continue
            if header is None:
                header = ["" if value is None else str(value).strip() for value in row]
                continue
            if not rows and _are_units(row):
                units = ["" if value is None else str(value) for value in row]
                header = [_with_unit(n, u) for n, u in zip(header, units, strict=False)]
                say(f"{path.name}: the row under the header is taken for the columns' units")
                continue
            rows.append((row + [None] * len(header))[: len(header)])
            if len(rows) == CHUNK:
                yield _frame(header, rows, {})
                rows = []
        if header is not None and rows:
            yield _frame(header, rows, {})
    except (KeyError, ValueError, OSError, SyntaxError) as error:
        raise CohortError(f"{path} cannot be read as Excel: {in_words(error)}") from error
    finally:
        for book in books:
            book.close()


def _parquet(path: Path) -> Iterator[pd.DataFrame]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=CHUNK):
                frame = batch.to_pandas()
                if frame.index.name is not None:
                    frame = frame.reset_index()
                yield frame
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CohortError(f"{path} cannot be read as parquet: {in_words(error)}") from error


@contextmanager
def _as_h5ad(path: Path) -> Iterator[None]:
    try:
        yield
    except CrosspatchError:
        raise
    except Exception as error:  # anndata raises many kinds for files that are not its own
        raise CohortError(f"{path} cannot be read as h5ad: {in_words(error)}") from error
