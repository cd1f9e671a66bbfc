"""Panels of figures: which there are, how they are laid out, and what several share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from crosspatch.drawing.labels import width_of, wrapped
from crosspatch.drawing.style import GRID, LINE, OUTLINE, ZERO, new_figure, plain, styled
from crosspatch.species import SPECIES

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.typing import ColorType

#: The smallest panel that can be read, inches.
LEAST = 2.3

_T = TypeVar("_T")


class Panel(NamedTuple):
    """A part of a table that is drawn in axes of its own."""

    title: str
    species: str
    table: pd.DataFrame


def species_in(table: pd.DataFrame) -> list[str]:
    """Species of a table, mouse first."""
    present = list(dict.fromkeys(table["species"].astype(str)))
    return [name for name in SPECIES if name in present] + [
        name for name in present if name not in SPECIES
    ]


def panels(table: pd.DataFrame, by: Sequence[str] = ("features", "model")) -> list[Panel]:
    """Parts of a table, one per species and value of some columns.

    Titles name the species, and of the columns only those with several values.
    """
    columns = [name for name in by if name in table]
    told = [name for name in columns if len(table[name].unique()) > 1]
    parts = []
    grouped = table.groupby(columns, sort=False, dropna=False) if columns else [((), table)]
    for keys, part in grouped:
        kept = [str(key) for name, key in zip(columns, keys, strict=True) if name in told]
        parts += [
            Panel(", ".join([name, *kept]), name, part[part["species"] == name])
            for name in species_in(part)
        ]
    return parts


def parts_of(table: pd.DataFrame, keys: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    """Parts of a table with a title: the task and model, and what else there are several of."""
    keys = [key for key in keys if key in table]
    told = [
        k for k in keys if k in ("task", "model") or table.groupby("task")[k].nunique().max() > 1
    ]
    return [
        (", ".join(str(v) for key, v in zip(keys, values, strict=True) if key in told), part)
        for values, part in table.groupby(keys, sort=False)
    ]


def in_rows(each: Sequence[_T], columns: int) -> list[list[_T]]:
    """Things in rows of so many; the last may have fewer."""
    return [list(each[first : first + columns]) for first in range(0, len(each), columns)]


def columns_for(count: int, width: float) -> int:
    """In how many columns panels of equal size stand: four in two rows of two, not 3 and 1."""
    most = max(1, int(width // LEAST))
    return -(-max(count, 1) // -(-max(count, 1) // most))


def grid(
    count: int, width: float, height: float, *, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Panels of equal size, in as many columns as fit."""
    columns = columns_for(count, width)
    rows = max(1, -(-count // columns))
    # Few panels are not blown up to the width of the page.
    across = min(width, columns * (height + 0.6))
    figure = new_figure(across, rows * height + 0.3)
    places = figure.subplots(rows, columns, squeeze=False, sharey=sharey).ravel()
    for axes in places[count:]:
        axes.remove()
    for axes in places[:count]:
        axes.tick_params(labelleft=True)
    return figure, list(places[:count])


def add_panels(
    place: Figure | SubFigure, heights: Sequence[float], columns: int, *, sharex: bool = False
) -> list[Axes]:
    """Panels in rows, each as high as the highest that stands in it."""
    rows = [max(row) for row in in_rows(heights, columns)]
    places = place.add_gridspec(len(rows), columns, height_ratios=rows)
    found: list[Axes] = []
    for number in range(len(heights)):
        first = found[0] if found and sharex else None
        found.append(place.add_subplot(places[divmod(number, columns)], sharex=first))
    return found


def panelled(
    width: float, heights: Sequence[float], columns: int, more: float, *, sharex: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of `add_panels`, with so many inches more for what stands beside them."""
    tall = sum(max(row) for row in in_rows(heights, columns)) + more
    figure = new_figure(width, tall)
    return figure, add_panels(figure, heights, columns, sharex=sharex)


def stacked(rows: Sequence[int], width: float) -> tuple[Figure, list[Axes]]:
    """Panels one below the other on one scale, each as high as its rows need."""
    from matplotlib.ticker import MaxNLocator

    # Each panel goes 0.1 rows beyond its first and last; so rows are equally high in all.
    heights = [max(n, 1) + 0.2 for n in rows]
    tall = (LINE + 0.05) * sum(heights) + 0.57 * len(rows) + 0.35
    figure = new_figure(width, tall)
    places = figure.subplots(len(rows), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axes in places:
        axes.tick_params(labelbottom=True)
        # Numbers such as 0.6725 must fit beside each other.
        axes.xaxis.set_major_locator(MaxNLocator(max(3, int(width)), min_n_ticks=2))
    return figure, list(places)


def name_rows(axes: Axes, names: Iterable[str], title: str = "") -> None:
    """Names of the rows, on a light grid."""
    names = list(names)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(axis="y", color="0.93", linewidth=0.8)
    axes.set_axisbelow(True)
    if title:
        axes.set_title(title, fontweight="bold", loc="left")
    plain(axes)


def name_from_top(axes: Axes, names: Sequence[str]) -> None:
    """Names of the rows, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    plain(axes)


def across_zero(axes: Axes, names: Sequence[str]) -> None:
    """Rows by name on both sides of zero, on a light grid."""
    axes.axvline(0, color=ZERO, linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    plain(axes)
    axes.tick_params(axis="y", length=0)


def intervals(
    axes: Axes,
    x: ArrayLike,
    y: ArrayLike,
    fmt: str,
    colour: str,
    label: str,
    *,
    xerr: ArrayLike | None = None,
    yerr: ArrayLike | None = None,
    fill: str | None = None,
) -> None:
    """Draw marks with intervals, filled with their colour unless another is given."""
    axes.errorbar(
        x,
        y,
        xerr=xerr,
        yerr=yerr,
        fmt=fmt,
        color=colour,
        markerfacecolor=fill or colour,
        markersize=5,
        linewidth=1.2,
        label=label,
    )


def ends_of(part: pd.DataFrame, column: str = "delta_macro_f1") -> NDArray[np.float64]:
    """How far the intervals of a table reach below and above a value, shape (2, rows)."""
    value = part[column]
    return np.clip([value - part["ci_low"], part["ci_high"] - value], 0, None)


def legend_of_all(figure: Figure, drawn: Iterable[Axes]) -> None:
    """One legend below, with everything that is in any panel."""
    found: dict[str, Artist] = {}
    for axes in drawn:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if len(found) < 2:
        return
    room = max(width_of(label) for label in found) + 0.7
    ncols = max(1, int(figure.get_figwidth() // room))
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=ncols)


def limits_of(values: NDArray[np.float64]) -> tuple[float, float]:
    """Ends of an axis for some values, with some room."""
    low, high = float(values.min()), float(values.max())
    edge = 0.04 * (high - low) or 1.0
    return low - edge, high + edge


def dot(
    label: str, marker: str, colour: str, size: float = 5, fill: str = "", edge: str = ""
) -> Line2D:
    """An entry of a legend: a mark, filled and outlined with its colour unless told otherwise."""
    from matplotlib.lines import Line2D

    return Line2D(
        [],
        [],
        linestyle="none",
        marker=marker,
        markersize=size,
        color=colour,
        markerfacecolor=fill or colour,
        markeredgecolor=edge or colour,
        markeredgewidth=0.4 if edge else None,
        label=label,
    )


def swatch(label: str, colour: ColorType, hatch: str | None = None) -> Patch:
    """An entry of a legend: a square of a colour."""
    from matplotlib.patches import Patch

    return Patch(facecolor=colour, edgecolor=OUTLINE, linewidth=0.6, hatch=hatch, label=label)


@styled
def nothing(text: str, width: float) -> Figure:
    """A figure that says why it is empty."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 0.8))
    figure.text(0.5, 0.5, wrapped(text, width - 0.3), ha="center", va="center")
    return figure
