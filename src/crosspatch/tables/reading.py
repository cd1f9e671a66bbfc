"""Other people's tables: csv, Excel, Parquet and h5ad, some thousand rows at a time."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as pa_csv

from crosspatch.errors import CohortError, CrosspatchError, in_words
from crosspatch.tables.endings import CHUNK, OF_EXCEL, suffix_of
from crosspatch.tables.units import parse_unit
from crosspatch.telling import Say

if TYPE_CHECKING:
    from openpyxl.worksheet.worksheet import Worksheet

_Field = TypeVar("_Field")

#: What of a chunk's ``attrs`` has, by place, why a row was not read in full.
PROBLEMS = "problems"

# Characters; a table of a million columns has fewer.
_LONGEST_LINE = 50_000_000

# Characters that are read at a time, and so few that they are cut into fields one by one.
_BLOCK = 2**23
_ONE_BY_ONE = 2**16


def read_chunks(path: Path, say: Say) -> Iterator[pd.DataFrame]:
    """The rows of a csv, Excel or Parquet file, some thousand at a time; not those of a h5ad.

    They are text, or what the file says they are; see `PROBLEMS`. `say` is told what was decided
    about the file's form. A CohortError if the file cannot be read.
    """
    kind = suffix_of(path)
    if kind in OF_EXCEL:
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
            yield from _TextRows(path, stream, delimiter, say).chunks()
    except (OSError, EOFError, csv.Error, zlib.error) as error:
        raise CohortError(f"{path} cannot be read as a table: {in_words(error)}") from error


class _TextRows:
    """The rows of a text file: Arrow cuts blocks into fields, the csv module what Arrow refuses.

    Both take quotes alike; but Arrow wants all rows of a block to have as many fields as the
    header, and every line to end outside of quotes.
    """

    def __init__(self, path: Path, stream: io.TextIOBase, delimiter: str, say: Say):
        self.path, self.stream, self.delimiter, self.say = path, stream, delimiter, say
        quoted = r'"[^"]*(?:""[^"]*)*"'
        edge = rf"[^{re.escape(delimiter)}\r\n]"
        self._quoted = re.compile(rf"(?<!{edge}){quoted}(?!{edge})")
        self.header: list[str] = []
        #: Lines read, rows read, and by row why it is not whole.
        self.line = self.rows = 0
        self.problems: dict[int, str] = {}

    def chunks(self) -> Iterator[pd.DataFrame]:
        """Rows below the header, as many at a time as are in memory."""
        before, told = 0, 0
        for table in _of_size(self._tables(), CHUNK):
            frame = table.to_pandas(types_mapper=pd.ArrowDtype)
            frame.columns = pd.Index(self.header)
            here = {k - before: why for k, why in self.problems.items() if k < before + len(frame)}
            if here and not told:
                self.say(
                    f"{self.path.name}: {next(iter(here.values()))}; this row is not predicted"
                )
            frame.attrs.update({PROBLEMS: {k: f"{why}; not read" for k, why in here.items()}})
            self.problems = {k: why for k, why in self.problems.items() if k - before not in here}
            told += len(here)
            before += len(frame)
            if len(frame) < CHUNK:
                self._say_total(told)
                told = 0
            yield frame
        self._say_total(told)

    def _say_total(self, problems: int) -> None:
        if problems > 1:
            self.say(f"{self.path.name}: {problems} rows in all have more fields than the header")

    def _tables(self) -> Iterator[pa.Table]:
        reader = csv.reader(self._lines(), delimiter=self.delimiter)
        rows = filter(_filled, reader)
        header, first = _csv_header(rows)
        below = itertools.chain(first, rows)
        self.header, row = _below_header(self.path, header, below, self.say)
        if row is not None:
            yield self._table([self._whole(row, reader.line_num)])
        self.line = reader.line_num
        while text := self.stream.read(_BLOCK):
            yield from self._parsed(text + next(self._lines(), ""))

    def _lines(self) -> Iterator[str]:
        """Further lines; one without an end is refused before it fills the memory."""
        while line := self.stream.readline(_LONGEST_LINE + 1):
            if len(line) > _LONGEST_LINE:
                raise CohortError(
                    f"{self.path} cannot be read as a table: a line has more than "
                    f"{_LONGEST_LINE // 10**6} million characters"
                )
            yield line

    def _parsed(self, text: str) -> Iterator[pa.Table]:
        """The rows of some lines; where Arrow refuses them, in parts."""
        table = self._by_arrow(text)
        if table is not None:
            self.line += text.count("\n") + text.count("\r") - text.count("\r\n")
            self.rows += len(table)
            yield table
            return
        half = text.find("\n", len(text) // 2) + 1
        if len(text) > _ONE_BY_ONE and 0 < half < len(text) and self._regular(text[:half]):
            yield from self._parsed(text[:half])
            yield from self._parsed(text[half:])
            return
        own = io.StringIO(text, newline="")
        reader = csv.reader(itertools.chain(own, self._lines()), delimiter=self.delimiter)
        rows = []
        for row in reader:
            if _filled(row):
                rows.append(self._whole(row, self.line + reader.line_num))
            # A field in quotes may go on behind the block.
            if own.tell() == len(text):
                break
        self.line += reader.line_num
        yield self._table(rows)

    def _regular(self, text: str) -> bool:
        """Whether all quotes are around whole fields, so that every line ends outside of them."""
        return '"' not in text or '"' not in self._quoted.sub("", text)

    def _by_arrow(self, text: str) -> pa.Table | None:
        """Rows as Arrow reads them; None where the csv module would, or might, do otherwise."""
        if not self._regular(text):
            return None
        names = [str(k) for k in range(len(self.header))]
        block = text.encode()
        try:
            table = pa_csv.read_csv(
                pa.py_buffer(block),
                pa_csv.ReadOptions(column_names=names, block_size=len(block) + 1),
                pa_csv.ParseOptions(delimiter=self.delimiter, newlines_in_values='"' in text),
                pa_csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    null_values=[""],
                    strings_can_be_null=True,
                ),
            )
        except pa.ArrowInvalid:
            return None
        longest = (pc.max(pc.binary_length(column)).as_py() or 0 for column in table.columns)
        if max(longest, default=0) > csv.field_size_limit():
            return None
        blank = np.arange(len(table))
        for column in table.columns:
            part = pc.utf8_trim_whitespace(column.take(blank))
            blank = blank[pc.equal(part, "").fill_null(True).to_numpy(zero_copy_only=False)]
        return table.take(np.delete(np.arange(len(table)), blank)) if len(blank) else table

    def _whole(self, row: list[str], line: int) -> list[str]:
        """A row with as many fields as the header; what it has too much is noted.

        A trailing delimiter or left-out empty fields at the end are harmless.
        """
        width = len(self.header)
        if any(field.strip() for field in row[width:]):
            self.problems[self.rows] = f"line {line} has {len(row)} fields, the header {width}"
        self.rows += 1
        return [*row[:width], *[""] * (width - len(row))]

    def _table(self, rows: list[list[str]]) -> pa.Table:
        columns = zip(*rows, strict=True) if rows else [()] * len(self.header)
        fields = [pa.array([field or None for field in each], pa.string()) for each in columns]
        return pa.table(fields, names=[str(k) for k in range(len(self.header))])


def _of_size(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """The same rows, so many at a time."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= size:
            whole = pa.concat_tables(waiting)
            full = len(whole) - len(whole) % size
            yield from (whole.slice(start, size) for start in range(0, full, size))
            waiting = [whole.slice(full)]
    last = pa.concat_tables(waiting) if waiting else ()
    if len(last):
        yield last


def _filled(row: Iterable[str]) -> bool:
    return any(field.strip() for field in row)


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


def _below_header(
    path: Path, header: list[str], rows: Iterator[list[_Field]], say: Say
) -> tuple[list[str], list[_Field] | None]:
    """The names of the columns, with units that stand in rows of their own, and the next row."""
    header = [name.strip() for name in header]
    for row in rows:
        if not _are_units(row):
            return header, row
        header = [_with_unit(n, u) for n, u in zip(header, row, strict=False)]
        say(f"{path.name}: the row under the header is taken for the columns' units")
    return header, None


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
        yield from _sheet_frames(path, _sheet_rows(*sheets), say)
    except (KeyError, ValueError, OSError, SyntaxError) as error:
        raise CohortError(f"{path} cannot be read as Excel: {in_words(error)}") from error
    finally:
        for book in books:
            book.close()


def _sheet_frames(path: Path, rows: Iterator[list[object]], say: Say) -> Iterator[pd.DataFrame]:
    names = ["" if name is None else str(name) for name in next(rows, [])]
    header, row = _below_header(path, names, rows, say)
    rows = itertools.chain(() if row is None else [row], rows)
    width = len(header)
    while part := list(itertools.islice(rows, CHUNK)):
        whole = [[*row[:width], *[None] * (width - len(row))] for row in part]
        yield pd.DataFrame(whole, columns=header, dtype=object)


def _sheet_rows(values: Worksheet, written: Worksheet) -> Iterator[list[object]]:
    """The rows of a sheet that hold anything."""
    both = (sheet.iter_rows(values_only=True) for sheet in (values, written))
    for saved, formulas in zip(*both, strict=True):
        # A formula without a saved value stays as it is written, to be counted as no number.
        row = [w if v is None else v for v, w in zip(saved, formulas, strict=True)]
        if any(value is not None for value in row):
            yield row


def _parquet(path: Path) -> Iterator[pd.DataFrame]:
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
