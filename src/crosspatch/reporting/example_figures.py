"""Figures of example cells among the quartiles of their subclasses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosspatch.features.layouts import TRACE
from crosspatch.reporting.feature_rows import FeatureRows, feature_rows, place, sheet, write_at
from crosspatch.reporting.labels import (
    colour_of,
    in_milliseconds,
    ordered,
    width_of,
    with_unit,
    wrapped,
)
from crosspatch.reporting.panels import limits_of, nothing, species_in
from crosspatch.reporting.style import (
    LINE,
    MARGIN,
    OUTLINE,
    SPECIES_MARKERS,
    SPECIES_SIGNS,
    WIDE,
    plain,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def examples_figure(examples: pd.DataFrame, width: float = WIDE) -> Figure:
    """An example cell of each subclass among the quartiles of its subclass, family by family.

    For traces one panel per family and subclass, one species below the other. For single numbers
    one line per feature, standardised within its species: the dot is the example, the line the
    quartiles, and the stroke the median.
    """
    if examples.empty:
        return nothing("There are no example cells here.", width)
    positions = examples.groupby("family", sort=False)["feature"].nunique()
    if (positions > TRACE).any():
        return _trace_examples(examples, width)
    return _scalar_examples(examples, width)


def _trace_examples(examples: pd.DataFrame, width: float) -> Figure:
    from matplotlib.figure import Figure

    examples = in_milliseconds(examples, ["example", "low", "median", "high"])
    species = species_in(examples)
    groups = {name: _groups_of(examples, name) for name in species}
    most = max(len(each) for each in groups.values())
    axis, gap = 0.5, 0.06
    panel = (width - axis - MARGIN) / most - gap
    names = {
        str(family): wrapped(with_unit(str(family), part), width - 2 * MARGIN)
        for family, part in examples.groupby("family", sort=False)
    }
    lines = 1 + max(name.count("\n") for name in names.values())
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


def _groups_of(examples: pd.DataFrame, species: str) -> list[str]:
    return ordered(examples.loc[examples["species"] == species, "subclass"].dropna())


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
    rows = feature_rows(table, max(width * 0.36, min(2.7, width - 2.2)), 0.2)
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
