"""Figures of sparse principal components: what they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosspatch.features.layouts import TRACE
from crosspatch.reporting.feature_rows import (
    FeatureRows,
    colour_bar,
    feature_rows,
    place,
    sheet,
    write_at,
)
from crosspatch.reporting.labels import in_milliseconds, width_of, with_unit, wrapped
from crosspatch.reporting.panels import nothing, species_in
from crosspatch.reporting.style import LARGE, LINE, MARGIN, SIDE_BY_SIDE, WIDE, plain, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def loadings_figure(loadings: pd.DataFrame, width: float = WIDE) -> Figure:
    """What the sparse components are made of, by family and species.

    For traces, the mean trace with the loading of the first component along it, and below it a
    strip with one line per component, the first on top. For single numbers, loadings by feature.
    """
    if loadings.empty:
        return nothing("No components were computed here.", width)
    positions = loadings.groupby("family", sort=False)["feature"].nunique()
    if (positions > TRACE).any():
        return _trace_loadings(loadings, width)
    return _scalar_loadings(loadings, width)


def _trace_loadings(loadings: pd.DataFrame, width: float) -> Figure:
    from matplotlib.figure import Figure

    loadings = in_milliseconds(loadings, ["mean"])
    species = species_in(loadings)
    families = list(dict.fromkeys(loadings["family"]))
    across = 2 if width >= SIDE_BY_SIDE and len(families) > 1 else 1
    rows = -(-len(families) // across)
    axis = 0.5
    block = (width - MARGIN) / across
    panel = block / len(species) - axis - 0.05
    titles = {
        str(family): wrapped(with_unit(str(family), part), block - 0.2, bold=True)
        for family, part in loadings.groupby("family", sort=False)
    }
    title = LINE * (1 + max(text.count("\n") for text in titles.values()))
    strip, trace, head = 0.34, 0.72, title + 0.25
    pitch = head + trace + strip + 0.14
    key = 0.72 if width >= SIDE_BY_SIDE else 1.05
    figure = Figure(figsize=(width, key + rows * pitch + 0.05))
    what = "loading, as a share of the family's largest"
    colour_bar(figure, min(width - 0.6, 2.9), -1, 1, 3, what)
    left, top = (3.6, 0.22) if width >= SIDE_BY_SIDE else (0.1, 0.66)
    write_at(figure, left, top, "after a species: components (share of variance)")
    write_at(figure, left, top + 0.18, "trace: mean, coloured by the first; strip: all")
    for number, family in enumerate(families):
        row, column = divmod(number, across)
        top = key + row * pitch
        own = loadings[loadings["family"] == family]
        for place_of, name in enumerate(species):
            part = own[own["species"] == name]
            left = column * block + axis + place_of * (panel + axis + 0.05)
            above = place(figure, left, top + head, panel, trace)
            below = place(figure, left, top + head + trace + 0.03, panel, strip)
            _draw_trace(above, below, part)
            if place_of == 0:
                x, y = left - axis + 0.06, top + 0.02 + title / 2
                write_at(figure, x, y, titles[family], bold=True)
            write_at(figure, left, top + title + 0.12, _parts_title(name, part))
    return figure


def _parts_title(name: str, part: pd.DataFrame) -> str:
    if part.empty:
        return f"{name}: none"
    shares = part.groupby("component")["variance"].first()
    return f"{name}: {len(shares)} ({shares.sum() * 100:.0f} %)"


def _draw_trace(above: Axes, below: Axes, part: pd.DataFrame) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    below.set(xticks=[], yticks=[])
    below.spines[:].set_visible(False)
    plain(above, xticks=[])
    above.spines["bottom"].set_visible(False)
    above.locator_params(axis="y", nbins=3)
    if part.empty:
        above.set_axis_off()
        return
    table = part.pivot_table(index="component", columns="position", values="loading", dropna=False)
    table = table.sort_index().sort_index(axis=1)
    mean = part.groupby("position")["mean"].first().reindex(table.columns).to_numpy(dtype=float)
    values = table.to_numpy(dtype=np.float64)
    largest = max(float(np.nanmax(np.abs(values), initial=0.0)), 1e-12)
    shares = values / largest
    x = np.arange(len(mean))
    above.plot(x, mean, color="0.75", linewidth=0.9)
    used = np.abs(np.nan_to_num(shares[0])) > 0
    colours = colormaps["RdBu_r"](Normalize(-1, 1)(shares[0][used]))
    above.scatter(x[used], mean[used], 5, colours, linewidths=0, rasterized=True, zorder=3)
    below.imshow(shares, "RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    below.set_facecolor("0.9")
    above.set_xlim(-0.5, len(mean) - 0.5)


def _scalar_loadings(loadings: pd.DataFrame, width: float) -> Figure:
    species = species_in(loadings)
    rows = feature_rows(loadings, max(width * 0.36, min(2.7, width - 2.2)), 0.175)
    counts = {
        name: loadings[loadings["species"] == name].groupby("family")["component"].nunique().max()
        for name in species
    }
    gap = 0.25
    room = width - 2 * MARGIN - rows.label_width - 0.08 - gap * (len(species) - 1)
    cell = min(room / max(sum(counts.values()), 1), 0.4)
    key, head = 0.62, 0.3
    figure, axes = sheet(width, key + head + rows.height + 0.1)
    colour_bar(figure, min(width - 0.6, 2.9), -1, 1, 3, "loading")
    top = key + head
    rows.write(axes, MARGIN, top)
    left = MARGIN + rows.label_width + 0.08
    for name in species:
        across = cell * counts[name]
        axes.text(left + across / 2, key + 0.12, name, ha="center", va="center", fontsize=LARGE)
        own = loadings[loadings["species"] == name]
        for family, part in own.groupby("family", sort=False):
            _draw_family_loadings(axes, part, str(family), rows, left, top, cell)
        left += across + gap
    return figure


def _draw_family_loadings(
    axes: Axes,
    part: pd.DataFrame,
    family: str,
    rows: FeatureRows,
    left: float,
    top: float,
    cell: float,
) -> None:
    from matplotlib import colormaps
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    colours = colormaps["RdBu_r"]
    components = sorted(part["component"].unique())
    shares = part.groupby("component")["variance"].first()
    labels = [f"{shares[component] * 100:.0f}" for component in components]
    labels[0] += " %"
    if all(width_of(label) < cell for label in labels):
        for number, label in enumerate(labels):
            x, y = left + (number + 0.5) * cell, top + rows.headings[family][0]
            axes.text(x, y, label, ha="center", va="center", color="0.35")
    tiles = []
    for feature, component, loading in zip(
        part["feature"], part["component"], part["loading"], strict=True
    ):
        above, height, _ = rows.features[feature]
        tile = min(height, 0.175) - 0.02
        corner = left + components.index(component) * cell, top + above + (height - tile) / 2
        colour = colours((loading + 1) / 2) if np.isfinite(loading) and loading else "0.95"
        tiles.append(Rectangle(corner, cell - 0.02, tile, facecolor=colour, edgecolor="none"))
    axes.add_collection(PatchCollection(tiles, match_original=True), autolim=False)
