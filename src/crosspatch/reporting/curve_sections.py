"""The section of a report on learning curves."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pandas as pd
from markupsafe import Markup

from crosspatch.reporting import curve_figures
from crosspatch.reporting.numbers import ResultSource, TableRow, enumerated, say
from crosspatch.reporting.page import Block, Points
from crosspatch.reporting.source_blocks import cut_in_words, picture_of, table_of


def curve_blocks(source: ResultSource) -> Iterator[Block]:
    """Macro-F1 against labelled human cells, with and without mouse."""
    if not len(source.table("summary")):
        return
    if len(source.table("gains")):
        yield from _gain_blocks(source)
    yield table_of(source, "learning_curve")


def _gain_blocks(source: ResultSource) -> Iterator[Block]:
    summary, gains = source.table("summary"), source.table("gains")
    told = _without_digits(gains)
    draw = partial(curve_figures.learning_curve_figure, summary, gains)
    yield picture_of(source, "learning_curve", draw, told=told)
    draw = partial(curve_figures.gains_figure, gains)
    yield picture_of(source, "gains_by_labelled_cells", draw, told=told)
    if sentences := gains_in_words(source):
        yield Points(sentences)
    for cut, part in gains.groupby("cut", sort=False):
        folded, shown = cut != "all", cut_in_words(str(cut))
        yield table_of(source, "gains", part, folded=folded, cut=shown)


def gains_in_words(source: ResultSource) -> list[Markup]:
    """Where mouse helps and where it harms, in one sentence per pair of models; all test cells."""
    gains = source.table("gains")
    of_all = gains[gains["cut"] == "all"]
    sentences = []
    for (model, without), part in of_all.groupby(["model", "without"], sort=False):
        better, worse = part["ci_low"] > 0, part["ci_high"] < 0
        told = [
            say("{word} {points}", word=word, points=enumerated([_point(row) for row in rows]))
            for rows, word in (
                (source.rows("gains", part[better]), "gains"),
                (source.rows("gains", part[worse]), "loses"),
            )
            if rows
        ]
        rest = "; with other numbers there is no clear difference"
        if not told:
            rest = "there is no clear difference at any number of labelled cells"
        elif (better | worse).all():
            rest = ""
        sentences.append(
            say(
                "{model} against {without}: {told}{rest}.",
                model=str(model),
                without=str(without),
                told=enumerated(told),
                rest=rest,
            )
        )
    return sentences


def _point(row: TableRow) -> Markup:
    return say(
        "{delta} {ends} with {count} labelled cells a class",
        delta=row.cell("delta_macro_f1", "signed"),
        ends=row.interval(),
        count=row.cell("cells_per_class", "count"),
    )


def _without_digits(gains: pd.DataFrame) -> str:
    """Where mouse helps, for those who do not see the figure."""
    of_all = gains[gains["cut"] == "all"]
    sentences = []
    for (model, without), part in of_all.groupby(["model", "without"], sort=False):
        clear = part["ci_low"] > 0
        word = "is clearly better at no point"
        if clear.any():
            word = "is better at every point" if clear.all() else "is clearly better at some points"
        sentences.append(f"With mouse, {model} {word} than {without}.")
    return " ".join(sentences)
