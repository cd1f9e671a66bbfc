"""Other people's tables: csv, Excel, Parquet and h5ad, some thousand rows at a time."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from crosspatch.errors import CohortError, CrosspatchError, in_words
from crosspatch.tables.units import parse_unit
from crosspatch.telling import Say

if TYPE_CHECKING:
    from openpyxl.worksheet.worksheet import Worksheet

#: Rows of a table that are in memory at a time.
CHUNK = 20_000

# Characters; a table of a million columns has fewer.
_LONGEST_LINE = 50_000_000

_OF_TEXT = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz")
_OF_EXCEL = (".xlsx", ".xlsm")

#: Endings of tables that can be read.
TABLE_SUFFIXES = (*_OF_TEXT, *_OF_EXCEL, ".parquet", ".h5ad")


def suffix_of(path: Path) -> str:
    """The ending of a table's name, with that of its compression."""
    ending = path.suffix.lower()
    return "".join(path.suffixes[-2:]).lower() if ending == ".gz" else ending


def read_chunks(path: Path, say: Say) -> Iterator[pd.DataFrame]:
    """The rows of a csv, Excel or Parquet file, some thousand at a time.

    Parameters
    ----------
    path : Path
        Its ending is one of `TABLE_SUFFIXES` other than that of h5ad.
    say : callable
        Told what was decided about the file's form.

    Yields
    ------
    DataFrame
        Rows as text or as what the file says they are. ``attrs["__problem__"]`` has, by place, why
        a row was not read in full.

    Raises
    ------
    CohortError
        If the file cannot be read.
    """
    kind = suffix_of(path)
    if kind in _OF_EXCEL:
        return _excel(path, say)
    return _parquet(path) if kind == ".parquet" else _text(path, say)


def _text(path: Path, say: Say) -> Iterator[pd.DataFrame]:
    """A csv or tsv file, chunk by chunk as text."""
    try:
        opener = gzip.open if path.suffix.lower() == ".gz" else open
        with opener(path, "rb") as start:
            head = start.read(2**20)
        encoding = _encoding(head)
        with opener(path, "rb") as raw:
            stream = io.TextIOWrapper(raw, encoding=encoding, errors="replace", newline="")
            delimiter = _delimiter(path, head.decode(encoding, "replace"))
            reader = csv.reader(_lines(path, stream), delimiter=delimiter)
            rows = (row for row in reader if any(field.strip() for field in row))
            header, first = _csv_header(rows)
            every = itertools.chain(first, rows)
            yield from _frames(path, header, every, say, lambda: reader.line_num)
    except (OSError, EOFError, csv.Error, zlib.error) as error:
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
        # A character cut at the end of what was looked at does not mean another encoding.
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


def _csv_header(rows: Iterator[list[str]]) -> tuple[list[str], list[list[str]]]:
    """The header, and the row that was read to find it, if one was."""
    comment: list[str] = []
    for row in rows:
        # A "#" may begin a comment, or be the name of the first column.
        if len(comment) == len(row) > 1:
            return comment, [row]
        if not row[0].startswith("#"):
            return row, []
        comment = row
    return [], []


def _frames(
    path: Path,
    header: list[str],
    rows: Iterable[list[str]] | Iterable[list[object]],
    say: Say,
    line: Callable[[], int] | None = None,
) -> Iterator[pd.DataFrame]:
    """Chunks of rows; `line` says where the last one stands, if what it has too much is told."""
    header = [name.strip() for name in header]
    chunk: list[list[object]] = []
    problems: dict[int, str] = {}
    ragged = 0
    for row in rows:
        if not chunk and not ragged and _are_units(row):
            header = [_with_unit(n, u) for n, u in zip(header, row, strict=False)]
            say(f"{path.name}: the row under the header is taken for the columns' units")
            continue
        # A trailing delimiter or left-out empty fields at the end are harmless.
        if line is not None and any(str(field).strip() for field in row[len(header) :]):
            ragged += 1
            problem = f"line {line()} has {len(row)} fields, the header {len(header)}"
            problems[len(chunk)] = f"{problem}; not read"
            if ragged == 1:
                say(f"{path.name}: {problem}; this row is not predicted")
        empty = [None if line is None else ""] * (len(header) - len(row))
        chunk.append([*row[: len(header)], *empty])
        if len(chunk) == CHUNK:
            yield _frame(header, chunk, problems)
            chunk, problems = [], {}
    if ragged > 1:
        say(f"{path.name}: {ragged} rows in all have more fields than the header")
    if chunk:
        yield _frame(header, chunk, problems)


def _are_units(row: Sequence[object]) -> bool:
    """Whether a row has units in place of values: no number, and three units or more."""
    texts = [str(field).strip() for field in row if field is not None and str(field).strip()]
    if any(re.search(r"\d", text) for text in texts):
        return False
    return sum(parse_unit(text.strip("()[]")) is not None for text in texts) >= 3


def _with_unit(name: str, said: object) -> str:
    """A header with its unit, if it is one and the header has none yet."""
    unit = "" if said is None else str(said).strip().strip("()[]")
    if parse_unit(unit) is None or "(" in name or "[" in name:
        return name
    return f"{name} ({unit})"


def _frame(header: list[str], rows: list[list[object]], problems: dict[int, str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=header, dtype=object)
    if problems:
        frame.attrs["__problem__"] = problems
    return frame


def _excel(path: Path, say: Say) -> Iterator[pd.DataFrame]:
    """The first sheet of a workbook; formulas by the values that were saved with them."""
    import openpyxl

    try:
        books = [openpyxl.load_workbook(path, read_only=True, data_only=v) for v in (True, False)]
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
        rows = _sheet_rows(*sheets)
        header = ["" if name is None else str(name) for name in next(rows, [])]
        yield from _frames(path, header, rows, say)
    except (KeyError, ValueError, OSError, SyntaxError) as error:
        raise CohortError(f"{path} cannot be read as Excel: {in_words(error)}") from error
    finally:
        for book in books:
            book.close()


def _sheet_rows(values: Worksheet, written: Worksheet) -> Iterator[list[object]]:
    """The rows of a sheet that hold anything."""
    both = (sheet.iter_rows(values_only=True) for sheet in (values, written))
    for saved, formulas in zip(*both, strict=True):
        # A formula without a saved value stays as it is written, to be counted as no number.
        row = [w if v is None else v for v, w in zip(saved, formulas, strict=True)]
        if any(value is not None for value in row):
            yield row


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
def reading_h5ad(path: Path) -> Iterator[None]:
    """Turns what anndata raises within it into an error that names the file."""
    try:
        yield
    except CrosspatchError:
        raise
    except Exception as error:  # anndata raises many kinds for files that are not its own
        raise CohortError(f"{path} cannot be read as h5ad: {in_words(error)}") from error
