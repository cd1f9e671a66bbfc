"""Other people's tables: text, workbooks, Parquet and h5ad, some thousand rows at a time."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as pa_csv

from crosspatch.errors import CohortError, CrosspatchError, in_words
from crosspatch.tables.endings import CHUNK, OF_WORKBOOKS, suffix_of
from crosspatch.tables.header import HEAD_ROWS, Header, HeadRow, find_header, understood_of
from crosspatch.tables.workbook import Workbook
from crosspatch.telling import Say

#: What of a chunk's ``attrs`` has, by place, why a row was not read in full.
PROBLEMS = "problems"

#: What of a chunk's ``attrs`` has the sheets of its workbook, the one that is read first.
SHEETS = "sheets"

# Characters; a table of a million columns has fewer.
_LONGEST_LINE = 50_000_000

# Characters that are read at a time, and so few that they are cut into fields one by one.
_BLOCK = 2**23
_ONE_BY_ONE = 2**16


def read_chunks(
    path: Path, say: Say, *, sheet: str | int | None = None, known: Collection[str] = ()
) -> Iterator[pd.DataFrame]:
    """The rows of a text file, workbook or Parquet file, some thousand at a time; not of a h5ad.

    They are text, or what the file says they are; see `PROBLEMS`. `sheet` is one of a workbook, by
    name or number from 1; `known` are names of columns that are no feature's, such as those of a
    mapping file. `say` is told what was decided about the file's form. A CohortError if the file
    cannot be read.
    """
    kind = suffix_of(path)
    if kind in OF_WORKBOOKS:
        return _workbook(path, say, sheet, known)
    if sheet is not None:
        raise CohortError(f"{path} has no sheets", "leave out {sheet}")
    return _parquet(path) if kind == ".parquet" else _text(path, say, known)


def _text(path: Path, say: Say, known: Collection[str]) -> Iterator[pd.DataFrame]:
    """A csv or tsv file, chunk by chunk as text."""
    try:
        opener = gzip.open if path.suffix.lower() == ".gz" else open
        with opener(path, "rb") as start:
            head = start.read(2**20)
        encoding = _encoding(head)
        text = head.decode(encoding, "replace")
        delimiter = _delimiter(path, text, known)
        rows = _first_rows(text, delimiter)
        header = find_header(rows, known)
        for line in header.said(rows, "line"):
            say(f"{path.name}: {line}")
        with opener(path, "rb") as raw:
            stream = io.TextIOWrapper(raw, encoding=encoding, errors="replace", newline="")
            yield from _TextRows(path, stream, delimiter, header, say).chunks()
    except (OSError, EOFError, csv.Error, zlib.error) as error:
        raise CohortError(f"{path} cannot be read as a table: {in_words(error)}") from error


class _TextRows:
    """The rows of a text file: Arrow cuts blocks into fields, the csv module what Arrow refuses.

    Both take quotes alike; but Arrow wants all rows of a block to have as many fields as the
    header, and every line to end outside of quotes.
    """

    def __init__(self, path: Path, stream: io.TextIOBase, delimiter: str, place: Header, say: Say):
        self.path, self.stream, self.delimiter, self.say = path, stream, delimiter, say
        self._place = place
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
        above = itertools.islice(filter(_filled, reader), self._place.end)
        self.header = self._place.columns([HeadRow(reader.line_num, fields) for fields in above])
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
    for encoding, zeros in (("utf-16-le", head[1:1000:2]), ("utf-16-be", head[:1000:2])):
        if head.strip(b"\0") and zeros.count(0) * 2 > len(zeros) > 0:
            return encoding
    try:
        head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # A character cut at the end of what was looked at does not mean another encoding.
        if error.start < len(head) - 4:
            return "cp1252"
    return "utf-8-sig"


def _first_rows(text: str, delimiter: str) -> list[HeadRow]:
    """The first rows that hold anything, as far as they can be cut into fields."""
    rows: list[HeadRow] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    with suppress(csv.Error):  # a long line is one field by a delimiter that is not its own
        for fields in reader:
            if len(rows) == HEAD_ROWS:
                break
            if _filled(fields):
                rows.append(HeadRow(reader.line_num, fields))
    return rows


def _delimiter(path: Path, text: str, known: Collection[str]) -> str:
    """The delimiter by which most names of columns mean something.

    Where none does, that which cuts most rows into the same number of fields, the most.
    """
    if ".tsv" in path.suffixes:
        return "\t"
    said = re.match('"?sep=([,;\t|])"?[\r\n]', text)
    if said:
        return said[1]

    def quality(delimiter: str) -> tuple[int, int, int]:
        rows = _first_rows(text, delimiter)
        counts = Counter(len(row.fields) for row in rows[:20])
        width, alike = max(counts.items(), key=lambda item: (item[1], item[0]), default=(1, 0))
        names = find_header(rows, known).columns(rows) if width > 1 else []
        return understood_of(names, known), (alike if width > 1 else 0), width

    return max(",;\t|", key=quality)


def _workbook(
    path: Path, say: Say, sheet: str | int | None, known: Collection[str]
) -> Iterator[pd.DataFrame]:
    """A sheet of a workbook; formulas by the values that were saved with them."""
    book = Workbook(path, known)
    head = book.chosen(sheet, say)
    for line in head.header.said(head.rows, "row"):
        say(f"{path.name}: {line}")
    book.say_missing(say)
    sheets = [head.name, *(name for name in book.names if name != head.name)]
    names = head.header.columns(head.rows)
    width = len(names)
    rows = (row for _, row in itertools.islice(book.rows(head.name), head.header.end, None))
    while part := list(itertools.islice(rows, CHUNK)):
        whole = [[*row[:width], *[None] * (width - len(row))] for row in part]
        frame = pd.DataFrame(whole, columns=names, dtype=object)
        frame.attrs[SHEETS] = sheets
        yield frame


def _parquet(path: Path) -> Iterator[pd.DataFrame]:
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=CHUNK):
                frame = batch.to_pandas()
                yield frame.reset_index(drop=frame.index.name is None)
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
