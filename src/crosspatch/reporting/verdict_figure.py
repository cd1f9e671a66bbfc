"""How many cells of each subclass have each verdict, and a figure of that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from crosspatch.cohorts.taxonomy import colour_of, ordered
from crosspatch.drawing.labels import clean
from crosspatch.drawing.panels import name_from_top, swatch
from crosspatch.drawing.style import GREY, LINE, OUTLINE, SIDE_BY_SIDE, new_figure, styled
from crosspatch.models.verdicts import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: What stands for a subclass where none is given.
NO_CLASS = "no subclass"

_FOREIGN = "another species"
_HATCHES = {
    Verdict.NOT_INTERNEURON: "xxxxx",
    Verdict.OUTSIDE: "/////",
    Verdict.INSUFFICIENT: ".....",
}
# Colours in the legend of what has no hatch.
_SHADES = {Verdict.CONFIDENT: "0.35", Verdict.AMBIGUOUS: "0.75"}


@dataclass(frozen=True)
class Group:
    """How many rows of a species and subclass have each verdict."""

    species: str
    subclass: str
    rows: Mapping[Verdict, int]

    @property
    def total(self) -> int:
        """Rows of all verdicts."""
        return sum(self.rows.values())


def groups_of(cells: pd.DataFrame, models: Mapping[str, Sequence[str]]) -> list[Group]:
    """Rows of a prediction by species that a model judged, then of all other species as one.

    `models` gives the classes of each species' model; of these all are there.
    """
    species = cells["species"].astype(str)
    species = species.where(species.isin(list(models)), _FOREIGN)
    subclass = cells["subclass"].astype(str).replace("", NO_CLASS)
    counts = Counter(zip(species, subclass, cells["verdict"].astype(str), strict=True))
    groups = []
    for each in (*models, _FOREIGN):
        there = {name for of, name, _ in counts if of == each}
        names = [*ordered(models.get(each, ())), *({NO_CLASS} & there)] if there else []
        for name in names:
            rows = {verdict: counts[each, name, verdict] for verdict in Verdict}
            groups.append(Group(each, name, rows))
    return groups


@styled
def verdicts_figure(groups: Sequence[Group], width: float) -> Figure:
    """Bars of the rows of each subclass by verdict, one panel per species."""
    from matplotlib import rc_context

    species = {group.species: [g for g in groups if g.species == group.species] for group in groups}
    heights = [0.6 + 0.2 * len(each) for each in species.values()]
    figure = new_figure(width, sum(heights) + 3 * LINE)
    with rc_context({"text.parse_math": False}):  # a "$" in a name begins no formula
        places = figure.subplots(len(species), 1, height_ratios=heights, squeeze=False)
        for (name, each), axes in zip(species.items(), places[:, 0], strict=True):
            _draw_groups(each, axes)
            axes.set_title(clean(name, 40), loc="left", fontweight="bold")
    places[-1, 0].set_xlabel("cells")
    handles = [
        swatch(verdict, _SHADES.get(verdict, "white"), _HATCHES.get(verdict))
        for verdict in Verdict
        if any(group.rows[verdict] for group in groups)
    ]
    ncols = 5 if width > SIDE_BY_SIDE else 2
    figure.legend(handles=handles, loc="outside lower center", ncols=ncols)
    return figure


def _draw_groups(groups: Sequence[Group], axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    for row, group in enumerate(groups):
        colour = GREY if group.subclass == NO_CLASS else colour_of(group.subclass)
        left = 0
        for verdict, count in group.rows.items():
            hatch = _HATCHES.get(verdict)
            pale = 0.45 if verdict == Verdict.AMBIGUOUS else 1.0
            axes.barh(
                row,
                count,
                0.66,
                left=left,
                facecolor="white" if hatch else (colour, pale),
                edgecolor=colour if hatch else OUTLINE,
                hatch=hatch,
                linewidth=0.6 if count else 0,
            )
            left += count
        axes.annotate(f"{left:,}", (left, row), (3, 0), textcoords="offset points", va="center")
    name_from_top(axes, [clean(group.subclass, 30) for group in groups])
    axes.set_xlim(0, 1.08 * max(group.total for group in groups))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
