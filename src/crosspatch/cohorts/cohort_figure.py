"""What the cells of cohorts are, drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from crosspatch.cohorts.taxonomy import colour_of
from crosspatch.drawing.labels import width_of
from crosspatch.drawing.panels import LEAST, add_panels, in_rows
from crosspatch.drawing.style import GREY, SPECIES_COLOURS, WIDE, new_figure, plain, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def cohorts_figure(cohorts: pd.DataFrame, width: float = WIDE) -> Figure:
    """Cells by subclass, condition and disease, and how often a family is missing."""
    parts = [
        (f"{species}: {_GROUPS[str(group)]}", part)
        for (species, group), part in cohorts.groupby(["species", "group"], sort=False)
        if group in _GROUPS
    ]
    columns = 2 if width >= 2 * LEAST else 1
    lines = in_rows([len(part) for _, part in parts], columns)
    heights = [max(line) + 0.2 for line in lines for _ in line]
    tall = 0.2 * sum(heights[::columns]) + 0.38 * len(lines)
    figure = new_figure(width, tall, wspace=0.04)
    panels = add_panels(figure, heights, columns)
    for axes, height, (title, part) in zip(panels, heights, parts, strict=True):
        _draw_cohort(axes, part, 0.38 * width / columns)
        axes.set_title(title, loc="left")
        axes.set_ylim(height - 0.6, -0.6)
    return figure


_GROUPS = {
    "subclass": "cells by subclass",
    "condition": "cells by condition",
    "disease": "cells by disease of the donor",
    "missing family": "cells without a family",
}


def _draw_cohort(axes: Axes, part: pd.DataFrame, room: float) -> None:
    """Bars for one group of a species, with their numbers."""
    group, species = (str(part[name].iloc[0]) for name in ("group", "species"))
    missing = group == "missing family"
    values = part["share"] if missing else part["cells"]
    plainly = SPECIES_COLOURS.get(species, GREY)
    colours = [colour_of(n) if group == "subclass" else plainly for n in part["name"]]
    rows = range(len(part))
    bars = axes.barh(rows, values, color=colours, height=0.7)
    shown = [f"{100 * value:.1f} %" if missing else f"{value:,.0f}" for value in values]
    axes.bar_label(bars, shown, padding=3)
    axes.set_xlim(0, max(float(values.max()), 1e-9) * 1.3)
    names = part["name"].astype(str).str.replace("_", " ")
    axes.set_yticks(rows, [_fitted(name, room) for name in names])
    plain(axes, xticks=[])
    axes.spines["bottom"].set_visible(False)
    axes.spines["left"].set_bounds(-0.5, len(part) - 0.5)
    axes.tick_params(length=0)


def _fitted(text: str, room: float) -> str:
    """A name cut to the room there is; in full it is in the table."""
    if width_of(text) <= room:
        return text
    while len(text) > 3 and width_of(text + "…") > room:
        text = text[:-1]
    return text.rstrip() + "…"
