"""Figures of what a model attends to and what it needs, of `crosspatch explain-models`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosspatch.reporting.labels import ordered, readable, width_of, wrapped
from crosspatch.reporting.panels import (
    Panel,
    across_zero,
    add_panels,
    in_rows,
    nothing,
    panelled,
    panels,
)
from crosspatch.reporting.style import (
    ACCENT,
    LARGE,
    LINE,
    SECOND,
    SIDE_BY_SIDE,
    TEXT,
    WIDE,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colour and mark of each way to take a family away.
HOW = {"permuted": (ACCENT, "o"), "removed": (SECOND, "s")}


@styled
def attention_figure(attention: pd.DataFrame, width: float = WIDE) -> Figure:
    """Mean attention by family and class of held-out cells, one panel per species and model.

    All panels have one colour scale; a line in its bar is the weight that even attention gives.
    """
    if attention.empty:
        return nothing("No model here has attention weights.", width)
    parts = panels(attention)
    side_by_side = width >= SIDE_BY_SIDE
    columns = 2 if side_by_side and len(parts) > 1 else 1
    room = width * (0.28 if columns == 2 else 0.36)
    highest = max(float(np.nan_to_num(attention["weight"]).max()), 1e-9)
    tables = [_attention_table(part) for part in parts]
    named = _named([list(table.index) for table in tables], columns)
    taken = _longest_line(tables, room) * (1 + (columns == 2 and any(named[1::2])))
    cell = (width - taken - (0.75 if side_by_side else 0.1) - 0.1 * columns) / columns
    heights = [_rows_height(list(table.index), room, 0.26) + 0.2 for table in tables]
    tall = sum(max(row) + 0.65 for row in in_rows(heights, columns))
    height = max(tall + (0.1 if side_by_side else 0.6), 1.6)
    figure = new_figure(width, height)
    drawn = add_panels(figure, heights, columns)
    for axes, part, table, labelled in zip(drawn, parts, tables, named, strict=True):
        _draw_attention(axes, table, cell / table.shape[1], highest)
        axes.set_yticks(range(len(table)), [wrapped(readable(name), room) for name in table.index])
        axes.tick_params(length=0, labelsize=TEXT, labelleft=labelled)
        axes.set_title(wrapped(part.title, cell), fontsize=LARGE)
    _attention_bar(figure, drawn, 1 / max(map(len, tables)), upright=side_by_side)
    return figure


def _attention_bar(figure: Figure, drawn: list[Axes], even: float, *, upright: bool) -> None:
    """The scale, beside the panels or below them, with a line at even weights."""
    from matplotlib.ticker import MaxNLocator

    image, (width, height) = drawn[-1].images[0], figure.get_size_inches()
    if upright:
        bar = figure.colorbar(image, ax=drawn, aspect=40, pad=0.02, fraction=0.05)
        bar.ax.axhline(even, color="white", linewidth=2)
    else:
        share, pad = 0.12 / height, 0.1 / height
        bar = figure.colorbar(
            image, ax=drawn, location="bottom", aspect=30, fraction=share, pad=pad
        )
        bar.ax.axvline(even, color="white", linewidth=2)
    label = "mean attention weight (line: even)"
    bar.set_label(wrapped(label, (height if upright else width) - 0.6))
    bar.ax.tick_params(labelsize=TEXT)
    bar.locator = MaxNLocator(5)
    bar.update_ticks()
    bar.outline.set_visible(False)


def _named(rows: list[list[str]], columns: int) -> list[bool]:
    """Whether each panel needs names: not where the panel left of it has the same."""
    return [not number % columns or names != rows[number - 1] for number, names in enumerate(rows)]


def _attention_table(part: Panel) -> pd.DataFrame:
    table = part.table.pivot_table(
        index="family", columns="subclass", values="weight", sort=False, dropna=False
    )
    return table[ordered(table.columns)]


def _rows_height(names: Sequence[str], room: float, least: float) -> float:
    """Height of rows in inches, as many as there are names, for the name with the most lines."""
    lines = max((wrapped(readable(name), room).count("\n") + 1 for name in names), default=1)
    return max(least, LINE * lines + 0.06) * len(names)


def _longest_line(tables: list[pd.DataFrame], room: float) -> float:
    names = {name for table in tables for name in table.index}
    return max(
        width_of(line) for name in names for line in wrapped(readable(name), room).split("\n")
    )


def _draw_attention(axes: Axes, table: pd.DataFrame, across: float, highest: float) -> None:
    """Tiles so many inches wide, with their values where these fit."""
    from matplotlib import colormaps

    colours = colormaps["viridis"].with_extremes(bad="0.92")
    axes.imshow(table, cmap=colours, vmin=0, vmax=highest, aspect="auto")
    axes.spines[:].set_visible(False)
    turned = max(map(width_of, table.columns)) > across - 0.04
    axes.set_xticks(range(table.shape[1]), list(table.columns), rotation=90 if turned else 0)
    if across <= width_of("0.00") + 0.02:
        return
    for (row, column), value in np.ndenumerate(table.to_numpy(dtype=np.float64)):
        text = f"{value:.2f}" if np.isfinite(value) else "–"
        # Viridis is dark in its lower part.
        colour = "white" if value <= 0.6 * highest else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour)


@styled
def importance_figure(importance: pd.DataFrame, width: float = WIDE) -> Figure:
    """Fall in macro-F1 without a family, permuted and removed, one panel per species and model.

    Families come by their mean fall over all panels. Bars are the table's intervals.
    """
    overall = importance[importance["scope"] == "macro_f1"]
    if overall.empty:
        return nothing("No family was left out here.", width)
    parts = panels(overall)
    columns = 2 if width >= SIDE_BY_SIDE and len(parts) > 1 else 1
    room = width * (0.3 if columns == 2 else 0.36)
    families = [_by_fall(overall, part) for part in parts]
    heights = [0.6 + _rows_height(names, room, 0.34) for names in families]
    figure, drawn = panelled(width, heights, columns, 0.4, sharex=True)
    named = _named(families, columns)
    for axes, part, names, labelled in zip(drawn, parts, families, named, strict=True):
        across_zero(axes, [wrapped(readable(name), room) for name in names])
        axes.set_ylim(-0.6, len(names) - 0.4)
        _draw_falls(axes, part.table, names)
        axes.set_title(wrapped(part.title, (width - room) / columns), fontsize=LARGE)
        axes.tick_params(axis="y", labelleft=labelled)
        axes.locator_params(axis="x", nbins=4)
    for axes in drawn[-columns:]:
        axes.set_xlabel("fall in macro-F1")
    handles, labels = drawn[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


def _by_fall(overall: pd.DataFrame, part: Panel) -> list[str]:
    """A panel's families by their mean fall over all panels, largest last."""
    own = list(dict.fromkeys(part.table["family"]))
    falls = overall[overall["family"].isin(own)].groupby("family", sort=False)["drop"].mean()
    return list(falls.sort_values(na_position="first").index)


def _draw_falls(axes: Axes, table: pd.DataFrame, names: list[str]) -> None:
    """Marks with intervals for each way to take a family away, where there are any."""
    for how, offset in (("permuted", 0.17), ("removed", -0.17)):
        part = table[table["how"] == how].set_index("family").reindex(names)
        drop, low, high = part[["drop", "ci_low", "ci_high"]].to_numpy(dtype=np.float64).T
        if np.isfinite(drop).any():
            y, (colour, marker) = np.arange(len(names)) + offset, HOW[how]
            axes.hlines(y, low, high, color=colour, linewidth=1.3)
            axes.plot(drop, y, marker, color=colour, markersize=4, label=how)
