"""What is printed: text and tables as wide as the terminal, plain where they go into a pipe."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from shutil import get_terminal_size
from string import Formatter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TextIO

if TYPE_CHECKING:
    import pandas as pd

# Between two columns of a table.
_GAP = 2


class PrintedColumn(NamedTuple):
    """A column of a printed table; made by `text_column` and `number_column`."""

    header: str  # broken between its words where room is short
    parts: tuple[str, ...]  # of its format, which name the columns of a frame
    number: bool  # stands at the right
    #: 0 is always shown; of the others the highest is left out first where there is no room, and
    #: all that are empty.
    rank: int
    fold: int | None  # may be broken into lines of so many characters and more


def text_column(header: str, *parts: str, rank: int = 0, fold: int | None = None) -> PrintedColumn:
    """A column of words; without parts it is the frame's column of the header's name."""
    return PrintedColumn(header, parts or (f"{{{header}}}",), False, rank, fold)


def number_column(header: str, *parts: str, rank: int = 0) -> PrintedColumn:
    """A column of numbers; see `text_column`."""
    return PrintedColumn(header, parts or (f"{{{header}}}",), True, rank, None)


def terminal_width() -> int:
    """Columns of the terminal, or what COLUMNS says; 80 in a pipe."""
    return get_terminal_size((80, 24)).columns


def print_text(text: str, hanging: int = 0, file: TextIO | None = None) -> None:
    """Text, its lines broken between words; the next ones are indented by so many characters.

    Paths and addresses are never broken.
    """
    for line in text.split("\n"):
        found = textwrap.fill(
            line,
            terminal_width(),
            subsequent_indent=" " * hanging,
            break_long_words=False,
            break_on_hyphens=False,
        )
        print(found, file=file)


def number_text(value: float, digits: int = 1) -> str:
    """Empty where it is missing."""
    return "" if value != value else f"{value:.{digits}f}"


def print_frame(title: str, frame: pd.DataFrame, columns: Sequence[PrintedColumn]) -> None:
    """A table of a DataFrame; see `print_records`."""
    print_records(title, frame.to_dict("records"), columns)


def print_records(
    title: str, records: Iterable[Mapping[Any, object]], columns: Sequence[PrintedColumn]
) -> None:
    """A table of rows by name; a part of a format is left out where a value of it is missing."""

    def text(row: Mapping[Any, object], part: str) -> str:
        values = [row[name] for _, name, _, _ in Formatter().parse(part) if name]
        missing = any(value is None or value != value for value in values)
        return "" if missing else part.format_map(row)

    rows = [
        ["".join(text(row, part) for part in column.parts) for column in columns] for row in records
    ]
    print_rows(title, columns, rows)


def print_rows(title: str, columns: Sequence[PrintedColumn], rows: Iterable[Sequence[str]]) -> None:
    """A table that fits the terminal: columns are broken into lines, and the least are left out.

    Which were left out is said below it.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells, at_terminal = list(rows), sys.stdout.isatty()
    there = [
        number
        for number, column in enumerate(columns)
        if not column.rank or any(row[number] for row in cells)
    ]
    widths = _widths(columns, cells, there)
    table = Table(
        box=box.SIMPLE_HEAD if at_terminal else None,
        show_edge=False,
        pad_edge=False,
        padding=(0, _GAP - at_terminal, 0, 0),  # a box has a character between columns
    )
    for number, width in widths.items():
        side: Literal["left", "right"] = "right" if columns[number].number else "left"
        table.add_column(columns[number].header, justify=side, width=width, overflow="fold")
    for row in cells:
        table.add_row(*(Text(row[number]) for number in widths))  # not markup: it may be [/x]
    whole = sum(widths.values()) + _GAP * len(widths)
    console = Console(width=max(whole, terminal_width()), highlight=False)
    with console.capture() as shown:
        console.print(Text(title, style="bold"))
        console.print(table)
    print("\n".join(line.rstrip() for line in shown.get().splitlines()))
    if left_out := [columns[number].header for number in there if number not in widths]:
        names = ", ".join(name.replace("-\n", "") for name in left_out)
        print_text(f"(left out at {terminal_width()} columns: {names})", 1)
    print()


def _widths(
    columns: Sequence[PrintedColumn], cells: Sequence[Sequence[str]], there: Sequence[int]
) -> dict[int, int]:
    """Number of a column that is shown to its width; `there` are those that may be shown."""
    least, full = {}, {}
    for number in there:
        column, of = columns[number], [row[number] for row in cells]
        narrow = min(_longest(of, "\n"), column.fold or sys.maxsize)
        least[number] = max(narrow, _longest([column.header], None))
        full[number] = max(_longest([*of, column.header], "\n"), least[number])
    shown = list(there)

    def room() -> int:
        return terminal_width() - sum(least[n] for n in shown) - _GAP * (len(shown) - 1)

    while room() < 0 and (optional := [n for n in shown if columns[n].rank]):
        shown.remove(max(optional, key=lambda n: (columns[n].rank, n)))
    spare = max(room(), 0)
    widths = {number: least[number] for number in shown}
    for number in sorted(shown, key=lambda n: full[n] - least[n]):
        more = min(full[number] - least[number], spare)
        widths[number] += more
        spare -= more
    return widths


def _longest(texts: Iterable[str], mark: str | None) -> int:
    """The longest part of texts, between marks or blanks, in characters of the terminal."""
    from rich.cells import cell_len

    return max((cell_len(part) for text in texts for part in text.split(mark)), default=0)
