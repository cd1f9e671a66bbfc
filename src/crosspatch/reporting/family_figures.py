"""Figures of example cells and of sparse principal components, family by family."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosspatch.cohorts.taxonomy import colour_of, ordered
from crosspatch.drawing.labels import in_milliseconds, width_of, with_unit, wrapped
from crosspatch.drawing.panels import limits_of, nothing, species_in
from crosspatch.drawing.style import (
    LARGE,
    LINE,
    MARGIN,
    OUTLINE,
    SIDE_BY_SIDE,
    SPECIES_MARKERS,
    SPECIES_SIGNS,
    WIDE,
    plain,
    styled,
)
from crosspatch.features.layouts import TRACE
from crosspatch.reporting.feature_rows import (
    ROW,
    FeatureRows,
    colour_bar,
    feature_rows,
    place,
    sheet,
    write_at,
)

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
    draw = _trace_loadings if _has_traces(loadings) else _scalar_loadings
    return draw(loadings, width)


def _has_traces(table: pd.DataFrame) -> bool:
    return bool((table.groupby("family", sort=False)["feature"].nunique() > TRACE).any())


def _titles(table: pd.DataFrame, room: float, *, bold: bool = False) -> tuple[dict[str, str], int]:
    """Names of families with their units, in lines that fit, and the most lines that one takes."""
    titles = {
        str(family): wrapped(with_unit(str(family), part), room, bold)
        for family, part in table.groupby("family", sort=False)
    }
    return titles, 1 + max(title.count("\n") for title in titles.values())


def _trace_loadings(loadings: pd.DataFrame, width: float) -> Figure:
    from matplotlib.figure import Figure

    loadings = in_milliseconds(loadings, ["mean"])
    species = species_in(loadings)
    count = loadings["family"].nunique()
    across = 2 if width >= SIDE_BY_SIDE and count > 1 else 1
    rows = -(-count // across)
    axis = 0.5
    block = (width - MARGIN) / across
    panel = block / len(species) - axis - 0.05
    titles, lines = _titles(loadings, block - 0.2, bold=True)
    title = LINE * lines
    strip, trace, head = 0.34, 0.72, title + 0.25
    pitch = head + trace + strip + 0.14
    key = 0.72 if width >= SIDE_BY_SIDE else 1.05
    figure = Figure(figsize=(width, key + rows * pitch + 0.05))
    what = "loading, as a share of the family's largest"
    colour_bar(figure, min(width - 0.6, 2.9), -1, 1, 3, what)
    left, top = (3.6, 0.22) if width >= SIDE_BY_SIDE else (0.1, 0.66)
    write_at(figure, left, top, "after a species: components (share of variance)")
    write_at(figure, left, top + 0.18, "trace: mean, coloured by the first; strip: all")
    for number, (family, title_of) in enumerate(titles.items()):
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
                write_at(figure, x, y, title_of, bold=True)
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
    rows = feature_rows(loadings, width, ROW)
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
        for _, part in own.groupby("family", sort=False):
            _draw_family_loadings(axes, part, rows, (left, top), cell)
        left += across + gap
    return figure


def _draw_family_loadings(
    axes: Axes, part: pd.DataFrame, rows: FeatureRows, corner: tuple[float, float], cell: float
) -> None:
    """Tiles so many inches wide, below and right of a corner, under the shares of the variance."""
    from matplotlib import colormaps
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    (left, top), colours = corner, colormaps["RdBu_r"]
    components = sorted(part["component"].unique())
    shares = part.groupby("component")["variance"].first()
    labels = [f"{shares[component] * 100:.0f}" for component in components]
    labels[0] += " %"
    if all(width_of(label) < cell for label in labels):
        y = top + rows.headings[str(part["family"].iloc[0])][0]
        for number, label in enumerate(labels):
            x = left + (number + 0.5) * cell
            axes.text(x, y, label, ha="center", va="center", color="0.35")
    tiles = []
    for feature, component, loading in zip(
        part["feature"], part["component"], part["loading"], strict=True
    ):
        above, height, _ = rows.features[feature]
        tile = min(height, ROW) - 0.02
        at = left + components.index(component) * cell, top + above + (height - tile) / 2
        colour = colours((loading + 1) / 2) if np.isfinite(loading) and loading else "0.95"
        tiles.append(Rectangle(at, cell - 0.02, tile, facecolor=colour, edgecolor="none"))
    axes.add_collection(PatchCollection(tiles, match_original=True), autolim=False)


@styled
def examples_figure(examples: pd.DataFrame, width: float = WIDE) -> Figure:
    """An example cell of each subclass among the quartiles of its subclass, family by family.

    For traces one panel per family and subclass, one species below the other. For single numbers
    one line per feature, standardised within its species: the dot is the example, the line the
    quartiles, and the stroke the median.
    """
    if examples.empty:
        return nothing("There are no example cells here.", width)
    draw = _trace_examples if _has_traces(examples) else _scalar_examples
    return draw(examples, width)


def _trace_examples(examples: pd.DataFrame, width: float) -> Figure:
    from matplotlib.figure import Figure

    examples = in_milliseconds(examples, ["example", "low", "median", "high"])
    species = species_in(examples)
    named = examples.dropna(subset="subclass")
    groups = {name: ordered(named.loc[named["species"] == name, "subclass"]) for name in species}
    most = max(len(each) for each in groups.values())
    axis, gap = 0.5, 0.06
    panel = (width - axis - MARGIN) / most - gap
    names, lines = _titles(examples, width - 2 * MARGIN)
    trace, head, title = 0.6, 0.06 + LINE * lines, 0.45
    pitch = trace + head + 0.06
    figure = Figure(figsize=(width, len(species) * (title + len(names) * pitch) + 0.05))
    top = 0.0
    for name in species:
        own = examples[examples["species"] == name]
        write_at(figure, MARGIN, top + 0.12, f"{name}: example cell, quartiles pale", bold=True)
        for number, group in enumerate(groups[name]):
            left = axis + number * (panel + gap)
            middle = left + max(panel - width_of(group), 0) / 2
            write_at(figure, middle, top + 0.32, group)
        for row, (family, title_of) in enumerate(names.items()):
            part = own[own["family"] == family]
            above = top + title + row * pitch
            write_at(figure, MARGIN, above + head / 2, title_of)
            limits = _value_limits(part)
            for number, group in enumerate(groups[name]):
                left = axis + number * (panel + gap)
                axes = place(figure, left, above + head, panel, trace)
                _draw_example(axes, part[part["subclass"] == group], group)
                axes.set_ylim(*limits)
                axes.locator_params(axis="y", nbins=3)
                axes.tick_params(axis="y", labelleft=number == 0, length=2)
        top += title + len(names) * pitch
    return figure


def _value_limits(part: pd.DataFrame) -> tuple[float, float]:
    values = part[["example", "low", "high"]].to_numpy(dtype=np.float64)
    values = values[np.isfinite(values)]
    return limits_of(values) if len(values) else (0.0, 1.0)


def _draw_example(axes: Axes, part: pd.DataFrame, group: str) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.patheffects import Normal, Stroke

    plain(axes, xticks=[])
    axes.spines["bottom"].set_visible(False)
    part = part.sort_values("position")
    values = part[["example", "low", "high"]].to_numpy(dtype=np.float64)
    if not np.isfinite(values).any():
        axes.text(0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes)
        return
    x, (own, low, high), colour = np.arange(len(values)), values.T, colour_of(group)
    red, green, blue = to_rgb(colour)
    pale = 0.3 * red + 0.6 * green + 0.1 * blue > 0.5
    outline = [Stroke(linewidth=1.6, foreground=OUTLINE), Normal()] if pale else []
    axes.fill_between(x, low, high, color=colour, alpha=0.35, linewidth=0, rasterized=True)
    axes.plot(x, own, color=colour, linewidth=1, path_effects=outline)
    axes.set_xlim(0, max(len(values) - 1, 1))


def _scalar_examples(examples: pd.DataFrame, width: float) -> Figure:
    species = species_in(examples)
    table = _standardised(examples)
    groups = ordered(table["subclass"].dropna())
    rows = feature_rows(table, width, 0.2)
    gap = 0.08
    left = MARGIN + rows.label_width + 0.08
    panel = (width - left - MARGIN) / len(groups) - gap
    marks = ", ".join(f"{SPECIES_SIGNS.get(name, '■')} {name}" for name in species)
    text = wrapped(f"{marks}: example cell; bar: quartiles; stroke: median", width - 2 * MARGIN)
    lines = 1 + text.count("\n")
    longest = max(map(width_of, groups))
    turned = longest > panel - 0.04
    head = longest + 0.1 if turned else 0.28
    key, foot = 0.12 + LINE * lines + head, 0.42
    figure, axes = sheet(width, key + rows.height + foot)
    write_at(figure, MARGIN, 0.05 + LINE * lines / 2, text)
    values = table[["example", "low", "high"]].to_numpy(dtype=np.float64)
    limit = float(np.ceil(np.nanmax(np.abs(values), initial=1.0)))
    rows.write(axes, MARGIN, key)
    roomy = panel > 0.75
    for above, height, _ in list(rows.features.values())[1::2]:
        axes.axhspan(key + above, key + above + height, left / width, color="0.96", zorder=0)
    angle, size = 90 if turned else 0, 3.6 if roomy else 2.6
    for number, group in enumerate(groups):
        at = left + number * (panel + gap)
        axes.text(at + panel / 2, key - 0.05, group, ha="center", va="bottom", rotation=angle)
        own = place(figure, at, key, panel, rows.height)
        _draw_profile(own, table[table["subclass"] == group], group, species, rows, size)
        ticks = [-limit, 0, limit] if roomy else [0]
        own.set(xlim=(-1.1 * limit, 1.1 * limit), xticks=ticks)
    what = "standardised value" + ("" if roomy else f" (to ±{limit:.0f})")
    middle = left + (width - left - MARGIN) / 2
    axes.text(middle, key + rows.height + 0.31, what, ha="center", va="center")
    return figure


def _standardised(examples: pd.DataFrame) -> pd.DataFrame:
    """Values in units of the spread within subclasses, from the mean of their medians.

    What lies more than 4 of them away is drawn there.
    """
    table = examples.copy()
    by = table.groupby(["species", "feature"], sort=False)
    centre = by["median"].transform("mean")
    spread = (table["high"] - table["low"]).groupby([table["species"], table["feature"]])
    # Quartiles of a normal distribution are 1.349 SD apart.
    scale = spread.transform("mean") / 1.349
    scale = scale.where(scale > 0)
    for name in ("example", "low", "median", "high"):
        table[name] = ((table[name] - centre) / scale).clip(-4, 4)
    return table


def _draw_profile(
    axes: Axes, table: pd.DataFrame, group: str, species: list[str], rows: FeatureRows, size: float
) -> None:
    colour = colour_of(group)
    axes.set_facecolor("none")
    axes.set_ylim(rows.height, 0)
    axes.axvline(0, color="0.8", linewidth=0.7)
    offsets = np.linspace(-0.045, 0.045, len(species)) if len(species) > 1 else [0.0]
    for name, offset in zip(species, offsets, strict=True):
        own = table[table["species"] == name]
        y = np.array([rows.middle(feature) for feature in own["feature"]]) + offset
        for shade, thick in ((OUTLINE, 2.2), (colour, 1.5)):
            axes.hlines(y, own["low"], own["high"], color=shade, linewidth=thick, zorder=2)
        axes.vlines(own["median"], y - 0.035, y + 0.035, color="black", linewidth=0.8, zorder=3)
        axes.plot(
            own["example"],
            y,
            SPECIES_MARKERS.get(name, "s"),
            color=colour,
            markeredgecolor=OUTLINE,
            markeredgewidth=0.5,
            markersize=size,
            zorder=4,
        )
    plain(axes, yticks=[])
    axes.spines["left"].set_visible(False)
