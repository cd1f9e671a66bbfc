"""What a notebook shows of an object."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

#: Rows that are shown of a table, and lines of notes, where there are more.
MOST_ROWS, MOST_LINES = 40, 10


def as_html(
    title: str, table: pd.DataFrame, rows: int | None = None, notes: Iterable[str] = ()
) -> str:
    """HTML of a title, the first rows of a table, which has so many in all, and notes.

    Names and notes come from files of others: all text is escaped, and none of it is cut.
    """
    import pandas as pd

    first, lines = table.head(MOST_ROWS), list(notes)
    with pd.option_context("display.max_colwidth", None):
        cells = first.to_html(index=False, na_rep="", border=0, escape=True)
    said = [html.escape(line) for line in lines[:MOST_LINES]]
    said += [f"{len(lines) - MOST_LINES:,} notes more"] if len(lines) > MOST_LINES else []
    listed = f"<ul>{''.join(f'<li>{line}</li>' for line in said)}</ul>" if said else ""
    more = (rows or len(table)) - len(first)
    rest = f"<p>and {more:,} rows more</p>" if more else ""
    return f"<p>{html.escape(title)}</p>{cells}{rest}{listed}"
