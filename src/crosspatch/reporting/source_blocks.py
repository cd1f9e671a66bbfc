"""Figures, tables and paragraphs of a report, as ``data/blocks.toml`` describes them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd
from markupsafe import Markup

from crosspatch.reporting.numbers import Content, ResultSource, TableRow, report_data, say
from crosspatch.reporting.page import Paragraph, Picture, TableBlock

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def source_picture(
    source: ResultSource,
    key: str,
    draw: Callable[[float], Figure],
    *,
    name: str = "",
    **parts: Content,
) -> Picture:
    """A figure of a folder, under a name of both unless one is given; `parts` go into its texts."""
    texts = report_data("blocks")["pictures"][key]
    # The texts for those who do not see it have no markup.
    bare = {k: part.striptags() if isinstance(part, Markup) else part for k, part in parts.items()}
    name = name or f"{key}_{source.name}"
    return Picture(name, draw, texts["alt"].format(**bare), say(texts["caption"], **parts))


def source_table(
    source: ResultSource,
    key: str,
    part: pd.DataFrame | None = None,
    *,
    without: Collection[str] = (),
    folded: bool = False,
    **parts: Content,
) -> TableBlock:
    """A table of a folder, or of a `part` of it; `parts` go into its caption and header."""
    about = report_data("blocks")["tables"][key]
    names = set(source.table(about["of"]))
    absent = {
        column
        for column in about.get("optional", ())
        if not names & {column, f"{column}_mean", f"{column}_auc", f"{column}_low"}
    }
    columns = [column for column in about["columns"] if column[1] not in {*absent, *without}]
    return TableBlock(
        say(about["caption"], **parts),
        [str(header).format(**parts) for header, *_ in columns],
        [
            [FORMS[form[0] if form else "cell"](row, name) for _, name, *form in columns]
            for row in source.rows(about["of"], part)
        ],
        texts=about.get("texts", 1),
        last_text=about.get("last_text", False),
        folded=folded or about.get("folded", False),
    )


def paragraph(key: str, style: str = "plain", **parts: Content) -> Paragraph:
    """A paragraph in the words of the file; `parts` go into it."""
    text = report_data("blocks")["texts"][key]
    return Paragraph(say(text, **parts) if parts else text, style)


def wording(kind: str, name: object) -> str:
    """What a name in a table is in words: of a ``task``, a ``cut``, a ``metric`` and so on."""
    found: str = report_data("blocks")["words"][kind].get(str(name), str(name))
    return found


def _auc(row: TableRow, kind: str) -> Content:
    value, ends = row.cell(f"{kind}_auc", digits=2), row.interval(kind, "plain", 2)
    return say("{value} {ends}", value=value, ends=ends)


#: How what stands in a column can be written; without a form, as numbers are.
FORMS: dict[str, Callable[[TableRow, str], Content]] = {
    "name": TableRow.name,
    "cell": TableRow.cell,
    "count": partial(TableRow.cell, form="count"),
    "whole": partial(TableRow.cell, form="count", digits=0),
    "signed": partial(TableRow.cell, form="signed"),
    "p": partial(TableRow.cell, form="p"),
    "spread": TableRow.spread,
    "interval": TableRow.interval,
    "plain interval": partial(TableRow.interval, form="plain"),
    "auc": _auc,
    "cut": lambda row, column: wording("cut", row.name(column)),
    "scored": lambda row, column: row.cell(column) or row.cell("reason"),
    "difference": lambda row, column: f"{row.name(f'{column}_a')} − {row.name(f'{column}_b')}",
}
