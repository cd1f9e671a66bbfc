"""Learning curves in a report: their section, and its figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd
from markupsafe import Markup

from crosspatch.cohorts.taxonomy import ordered
from crosspatch.drawing.labels import wrapped
from crosspatch.drawing.panels import columns_for, ends_of, grid, intervals, legend_of_all
from crosspatch.drawing.style import ACCENT, GREY, SECOND, THIRD, WIDE, ZERO, plain, styled
from crosspatch.reporting.numbers import ResultSource, TableRow, enumerated, say
from crosspatch.reporting.page import Block, Points
from crosspatch.reporting.source_blocks import source_picture, source_table, wording
from crosspatch.species import HUMAN, MOUSE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def curve_blocks(source: ResultSource) -> Iterator[Block]:
    """Macro-F1 against labelled human cells, with and without mouse."""
    if not len(source.table("summary")):
        return
    if len(source.table("gains")):
        yield from _gain_blocks(source)
    yield source_table(source, "learning_curve")


def _gain_blocks(source: ResultSource) -> Iterator[Block]:
    summary, gains = source.table("summary"), source.table("gains")
    told = _without_digits(gains)
    draw = partial(learning_curve_figure, summary, gains)
    yield source_picture(source, "learning_curve", draw, told=told)
    draw = partial(gains_figure, gains)
    yield source_picture(source, "gains_by_labelled_cells", draw, told=told)
    if sentences := gains_in_words(source):
        yield Points(sentences)
    for cut, part in gains.groupby("cut", sort=False):
        yield source_table(source, "gains", part, folded=cut != "all", cut=wording("cut", cut))


def _pairs(gains: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Models with and without mouse, and their gains over all test cells."""
    of_all = gains[gains["cut"] == "all"]
    for (model, without), part in of_all.groupby(["model", "without"], sort=False):
        yield str(model), str(without), part


def gains_in_words(source: ResultSource) -> list[Markup]:
    """Where mouse helps and where it harms, in one sentence per pair of models; all test cells."""
    sentences = []
    for model, without, part in _pairs(source.table("gains")):
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
                model=model,
                without=without,
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
    sentences = []
    for model, without, part in _pairs(gains):
        clear = part["ci_low"] > 0
        word = "is clearly better at no point"
        if clear.any():
            word = "is better at every point" if clear.all() else "is clearly better at some points"
        sentences.append(f"With mouse, {model} {word} than {without}.")
    return " ".join(sentences)


@styled
def learning_curve_figure(
    summary: pd.DataFrame, gains: pd.DataFrame, width: float = WIDE
) -> Figure:
    """Macro-F1 on all test cells by the number of labelled human cells, with and without mouse."""
    pairs = gains[["features", "model", "without"]].drop_duplicates()
    counts = _counts(summary)
    figure, panels = grid(len(pairs), width, height=2.4, sharey=True)
    several = len(set(summary["features"])) > 1
    for axes, (features, model, without) in zip(panels, pairs.itertuples(index=False), strict=True):
        here = summary[(summary["features"] == features) & (summary["cut"] == "all")]
        for name, mouse, colour, marker, label, shift in (
            (without, "false", HUMAN.colour, "o-", "human cells alone", -0.06),
            (model, "true", MOUSE.colour, "s-", "mouse and human cells", 0.06),
        ):
            flags = here["mouse"].astype(str).str.lower()
            part = here[(here["model"] == name) & (flags == mouse)]
            part = part.assign(place=part["cells_per_class"].astype(str).map(counts.index))
            part = part.sort_values("place")
            at, f1 = part["place"] + shift, part["macro_f1_mean"]
            ends = ends_of(part, "macro_f1_mean")
            intervals(axes, at, f1, marker, colour, label, yerr=ends)
        _by_count(axes, counts)
        title = f"{model}\nover {without}" + (f", {features}" if several else "")
        title = wrapped(title, width / columns_for(len(pairs), width) - 0.4)
        axes.set(title=title, ylabel="macro-F1")
    legend_of_all(figure, panels)
    return figure


@styled
def gains_figure(gains: pd.DataFrame, width: float = WIDE) -> Figure:
    """Gain in macro-F1 from mouse against the number of labelled human cells, by cut."""
    who = gains["model"] + " over " + gains["without"]
    several = len(set(gains["features"])) > 1
    gains = gains.assign(who=who + ", " + gains["features"] if several else who)
    counts = _counts(gains)
    whos = list(dict.fromkeys(gains["who"]))
    cuts = ordered(gains["cut"])
    figure, panels = grid(len(cuts), width, height=2.2, sharey=True)
    for axes, cut in zip(panels, cuts, strict=True):
        axes.axhline(0, color=ZERO, linewidth=1, zorder=0)
        for number, who in enumerate(whos):
            part = gains[(gains["cut"] == cut) & (gains["who"] == who)]
            shift = (number - (len(whos) - 1) / 2) * min(0.14, 0.6 / len(whos))
            at = part["cells_per_class"].astype(str).map(counts.index) + shift
            colour, marker = _LOOKS[number % len(_LOOKS)]
            delta, ends = part["delta_macro_f1"], ends_of(part)
            intervals(axes, at, delta, marker, colour, who, yerr=ends)
        _by_count(axes, counts)
        axes.set(title=wording("cut", cut), ylabel="gain in macro-F1")
    legend_of_all(figure, panels)
    return figure


_LOOKS = [(ACCENT, "o"), (SECOND, "s"), (THIRD, "^"), ("#cc79a7", "D"), ("#56b4e9", "v")]
_LOOKS += [("0.2", "P"), ("#e69f00", "X"), (GREY, "<")]


def _counts(frame: pd.DataFrame) -> list[str]:
    """Labelled cells per class, from few to all."""
    found = set(frame["cells_per_class"].astype(str))
    return sorted(found, key=lambda text: float("inf") if text == "all" else float(text))


def _by_count(axes: Axes, counts: Sequence[str]) -> None:
    axes.set_xticks(range(len(counts)), counts)
    plain(axes, xlim=(-0.5, len(counts) - 0.5), xlabel="labelled human cells a class")
