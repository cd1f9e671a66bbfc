"""The section of a report on learning curves."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pandas as pd
from markupsafe import Markup

from crosspatch.reporting import curve_figures
from crosspatch.reporting.numbers import ResultSource, TableRow, enumerated, say
from crosspatch.reporting.page import Block, Picture, Points, TableBlock


def curve_blocks(source: ResultSource) -> Iterator[Block]:
    """Macro-F1 against labelled human cells, with and without mouse."""
    if not len(source.table("summary")):
        return
    if len(source.table("gains")):
        yield from _gain_blocks(source)
    yield TableBlock(
        "Learning curve, every point",
        ("Model", "Mouse", "Test cells", "Cells a class", "Labelled", "Macro-F1", "95 % interval"),
        [
            (
                row.name("model"),
                row.cell("mouse"),
                _cut(row.name("cut")),
                row.cell("cells_per_class", "count"),
                row.cell("n_labelled", "count", 0),
                row.cell("macro_f1_mean"),
                row.interval(form="plain"),
            )
            for row in source.rows("summary")
        ],
        texts=3,
        folded=True,
    )


def _gain_blocks(source: ResultSource) -> Iterator[Block]:
    summary, gains = source.table("summary"), source.table("gains")
    seen = _without_digits(gains)
    yield Picture(
        f"learning_curve_{source.name}",
        partial(curve_figures.learning_curve_figure, summary, gains),
        "Lines: macro-F1 against labelled human cells a class, with and without mouse cells, a "
        f"panel a model. {seen}",
        say(
            "Macro-F1 on human cells against the number of labelled human cells a class that the "
            "model learns from, with and without mouse cells, with intervals of 95 % confidence. "
            "The donors of the test cells are always apart."
        ),
    )
    yield Picture(
        f"gains_by_labelled_cells_{source.name}",
        partial(curve_figures.gains_figure, gains),
        "Dots with intervals: gain in macro-F1 from mouse against labelled human cells a class, a "
        f"panel a group of test cells. {seen}",
        say(
            "Gain in macro-F1 from mouse cells, paired on the same draws, with intervals of 95 % "
            "confidence: above zero, mouse helps. One panel for all test cells, and one for each "
            "condition and disease with enough cells."
        ),
    )
    if told := gains_in_words(source):
        yield Points(told)
    for cut, part in gains.groupby("cut", sort=False):
        yield TableBlock(
            f"Gain from mouse, {_cut(str(cut))}",
            ("With mouse", "Without", "Labelled cells a class", "Gain", "95 % interval", "p"),
            [
                (
                    row.name("model"),
                    row.name("without"),
                    row.cell("cells_per_class", "count"),
                    *row.tested("delta_macro_f1"),
                )
                for row in source.rows("gains", part)
            ],
            texts=2,
            folded=cut != "all",
        )


def _cut(cut: str) -> str:
    return "all test cells" if cut == "all" else cut


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
