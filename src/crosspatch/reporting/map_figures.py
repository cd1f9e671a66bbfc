"""Figures of how the cells lie: how far subclasses are apart, and the map of all cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosspatch.cohorts.taxonomy import colour_of, ordered
from crosspatch.drawing.panels import across_zero, dot, limits_of, nothing, panelled, species_in
from crosspatch.drawing.style import (
    LARGE,
    OUTLINE,
    SIDE_BY_SIDE,
    SPECIES_COLOURS,
    SPECIES_MARKERS,
    WIDE,
    new_figure,
    plain,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIGNIFICANT = 0.05

# What is compared, its title, and what its axis says.
_METRICS = {
    "d_prime": ("d′", "distance in pooled SDs"),
    "silhouette": ("silhouette", "−1 mixed … 1 apart"),
}


@styled
def separation_figure(separation: pd.DataFrame, width: float = WIDE) -> Figure:
    """How far subclasses lie apart in the space of components: d′ of pairs and silhouettes.

    Filled marks have p < 0.05 against permuted labels; the p of open ones is written beside them.
    """
    if separation.empty:
        return nothing("No classes were compared here.", width)
    kinds = _kinds(separation)
    columns = 2 if width >= SIDE_BY_SIDE else 1
    rows = [_pair_names(part) for *_, part in kinds]
    heights = [0.4 * len(names) + 0.75 for names in rows]
    figure, drawn = panelled(width, heights, columns, 0.5)
    for axes, (metric, of, part), names in zip(drawn, kinds, rows, strict=True):
        title, what = _METRICS[metric]
        across_zero(axes, names)
        axes.set_title(title + of, fontsize=LARGE)
        present = species_in(part)
        for number, name in enumerate(present):
            offset = 0.36 * number - 0.18 * (len(present) - 1)
            _draw_separations(axes, part[part["species"] == name], names, offset, name)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.margins(x=0.16)
        axes.set_xlabel(what)
        axes.locator_params(axis="x", nbins=5)
    handles = [
        dot(name, SPECIES_MARKERS.get(name, "s"), SPECIES_COLOURS.get(name, "0.3"))
        for name in species_in(separation)
    ]
    handles.append(dot("p ≥ 0.05", "o", "0.3", fill="white"))
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


def _kinds(separation: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """What is drawn in panels: the metric, what its title adds, and the rows."""
    several = len(separation["features"].unique()) > 1
    return [
        (metric, f", {features}" if several else "", part)
        for features, table in separation.groupby("features", sort=False)
        for metric in _METRICS
        if len(part := table[table["metric"] == metric])
    ]


def _pair_names(part: pd.DataFrame) -> list[str]:
    order = ordered([*part["a"], *part["b"]])
    pairs = part[["a", "b"]].astype(str).drop_duplicates()
    pairs = pairs.sort_values(["a", "b"], key=lambda names: names.map(order.index))
    return list(dict.fromkeys(_pair_name(*pair) for pair in pairs.itertuples(index=False)))


def _pair_name(a: str, b: str) -> str:
    if a == b:
        return a
    return a if b == "rest" else f"{a}, {b}"


def _draw_separations(
    axes: Axes, part: pd.DataFrame, names: list[str], offset: float, species: str
) -> None:
    colour, marker = SPECIES_COLOURS.get(species, "0.3"), SPECIES_MARKERS.get(species, "s")
    for a, b, value, p in zip(part["a"], part["b"], part["value"], part["p_value"], strict=True):
        if not np.isfinite(value):
            continue
        y = names.index(_pair_name(str(a), str(b))) + offset
        known = p < _SIGNIFICANT
        fill = colour if known else "white"
        axes.plot([0, value], [y, y], color=colour, linewidth=1, alpha=0.5)
        axes.plot(value, y, marker, markersize=5, color=colour, markerfacecolor=fill)
        if not known:
            text = f"p = {p:.2f}" if np.isfinite(p) else "no p"
            # Left of a negative value stand the names of the classes.
            at = max(value, 0.0), y
            axes.annotate(text, at, (6, 0), textcoords="offset points", va="center", color="0.3")


@styled
def map_figure(map: pd.DataFrame, width: float = WIDE) -> Figure:  # noqa: A002
    """UMAP fitted on one species, the other laid over it: alone, then pale under the other."""
    cells = map[np.isfinite(map["x"].astype(float)) & np.isfinite(map["y"].astype(float))]
    if cells.empty:
        return nothing("No cell has a place on the map.", width)
    species = species_in(cells)
    columns = len(species) if width >= SIDE_BY_SIDE else 1
    rows = -(-len(species) // columns)
    side = min((width - 0.2) / columns, 4.2)
    groups = ordered(cells["subclass"].dropna())
    across = len(groups) if width >= SIDE_BY_SIDE or len(groups) == 4 else 3
    height = rows * (side + 0.2) + 0.1 + 0.2 * -(-len(groups) // across)
    figure = new_figure(width, height)
    xlim, ylim = (limits_of(cells[name].to_numpy(dtype=np.float64)) for name in ("x", "y"))
    for number, name in enumerate(species):
        axes = figure.add_subplot(rows, columns, number + 1)
        for under in species[:number]:
            _scatter(axes, cells[cells["species"] == under], under, pale=True)
        own = cells[cells["species"] == name]
        _scatter(axes, own, name, pale=False)
        over = f" over {' and '.join(species[:number])} (pale)" if number else ""
        axes.set_title(f"{name}{over}: {len(own):,} cells", fontsize=LARGE)
        axes.set(xlim=xlim, ylim=ylim, xticks=[], yticks=[], box_aspect=1)
        plain(axes, xlabel="UMAP 1", ylabel="UMAP 2")
    figure.legend(
        handles=[dot(group, "o", colour_of(group), 6, edge=OUTLINE) for group in groups],
        loc="outside lower center",
        ncols=across,
        columnspacing=1.2,
        handletextpad=0.2,
    )
    return figure


def _scatter(axes: Axes, cells: pd.DataFrame, species: str, pale: bool) -> None:
    from matplotlib.colors import to_rgb

    # In random order, so that no class lies over all others.
    shuffled = cells.sample(frac=1, random_state=0)
    groups = shuffled["subclass"].astype(str)
    known = {group: np.array(to_rgb(colour_of(group))) for group in set(groups)}
    colours = np.array([known[group] for group in groups]).reshape(-1, 3)
    if pale:
        colours = 1 - 0.28 * (1 - colours)
    few = len(cells) < 1500
    axes.scatter(
        shuffled["x"],
        shuffled["y"],
        s=10 if few else 6,
        c=colours,
        marker=SPECIES_MARKERS.get(species, "s"),
        linewidths=0 if pale else (0.4 if few else 0.2),
        edgecolors="none" if pale else OUTLINE,
        rasterized=True,
    )
