"""The panels of a cell's page that show what the model says of it, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from crosspatch.cohorts.taxonomy import colour_of, ordered
from crosspatch.drawing.labels import readable, wrapped
from crosspatch.drawing.panels import name_from_top, swatch
from crosspatch.drawing.style import OUTLINE, SMALL, TEXT, plain
from crosspatch.explanation.discriminants import Plane
from crosspatch.models.verdicts import Verdict
from crosspatch.reporting.cell_view import CellView, Contribution, Contributions, FeatureValue

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

# Robust standard deviations from the reference's median beyond which a value is an arrow.
_FAR = 6.0


def draw_probabilities(view: CellView, place: SubFigure) -> None:
    """Probabilities of the classes as bars, and what each needs to be in the set."""
    axes = place.subplots()
    names = [each.class_ for each in view.probabilities]
    p = [each.probability for each in view.probabilities]
    pale = 0.4 if view.cell.verdict == Verdict.OUTSIDE else 1.0
    rows = range(len(names))
    colours = [colour_of(name) for name in names]
    axes.barh(rows, p, 0.62, color=colours, alpha=pale)
    axes.barh(rows, p, 0.62, facecolor="none", edgecolor=OUTLINE, linewidth=0.6)
    for row, each in enumerate(view.probabilities):
        axes.plot([each.needed] * 2, [row - 0.42, row + 0.42], color="black", linewidth=1.2)
        text = f"{each.probability:.2f}{' in set' if each.in_set else ''}"
        _beside(axes, row, text, bold=each.in_set)
    name_from_top(axes, names)
    said = "probability; black: needed to be in the set"
    axes.set(xlim=(0, 1), xlabel=said, title="subclass")


def draw_contributions(view: CellView, shares: Contributions, place: SubFigure) -> None:
    """What each family speaks for and against, of the two most probable classes."""
    axes = place.subplots()
    shown, handles = shares.classes[:2], []
    measured = [(row, each.classes) for row, each in enumerate(shares.families) if each.measured]
    reach = max(0.02, *(abs(of[name].contribution) for _, of in measured for name in shown))
    for name, shift in zip(shown, (-0.2, 0.2), strict=False):
        at = [row + shift for row, _ in measured]
        _draw_shares(axes, at, [of[name] for _, of in measured], colour_of(name), 0.03 * reach)
        label = f"{name}: from {shares.base[name]:.2f} to {view.cell.probabilities[name]:.2f}"
        handles.append(swatch(label, colour_of(name)))
    for row in (row for row, each in enumerate(shares.families) if not each.measured):
        axes.text(0.03 * reach, row, "not measured", va="center", color="0.45")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlim(-1.35 * reach, 1.35 * reach)
    name_from_top(axes, [wrapped(readable(each.family), 1.5) for each in shares.families])
    place.suptitle("what speaks against (left) and for (right)")
    axes.set_xlabel("added to the probability by each family")
    ncols = 2 if inches(place)[0] > 3.8 else 1
    place.legend(handles=handles, loc="outside lower center", ncols=ncols)


def _draw_shares(
    axes: Axes, at: list[float], shares: list[Contribution], colour: str, gap: float
) -> None:
    """Bars of what families add to a class, each with its error and its number at the end."""
    values = [each.contribution for each in shares]
    errors = [each.error for each in shares]
    axes.barh(at, values, 0.36, color=colour, edgecolor=OUTLINE, linewidth=0.6)
    if any(errors):
        axes.errorbar(values, at, xerr=errors, fmt="none", ecolor="black", elinewidth=0.8)
    for y, value, error in zip(at, values, errors, strict=True):
        side, ha = (1, "left") if value >= 0 else (-1, "right")
        x = value + (error + gap) * side
        axes.text(x, y, _signed(value), va="center", ha=ha, fontsize=SMALL)


def _signed(value: float) -> str:
    rounded = round(value, 2)
    return f"{rounded:+.2f}".replace("-", "−") if rounded else "0.00"


def draw_values(values: Sequence[FeatureValue], place: SubFigure) -> None:
    """Single numbers of the cell among the middle 95 % of every class."""
    axes = place.subplots()
    rows = np.arange(len(values))
    names = [each.class_ for each in values[0].classes]
    step = 0.76 / len(names)
    for number, name in enumerate(names):
        at = rows - 0.38 + step * (number + 0.5)
        ends = np.clip([each.classes[number].z for each in values], -_FAR, _FAR)
        low, means, high = ends.T
        wide, tall, colour = high - low, step * 0.85, colour_of(name)
        axes.barh(at, wide, tall, left=low, color=colour, edgecolor=OUTLINE, linewidth=0.3)
        axes.plot(means, at, "|", color="black", markersize=2.5, markeredgewidth=0.8)
    for row, each in enumerate(values):
        x = min(max(each.z, -_FAR), _FAR)
        axes.plot([x, x], [row - 0.45, row + 0.45], color="white", linewidth=2.6)
        axes.plot([x, x], [row - 0.45, row + 0.45], color="black", linewidth=1.3)
        if x != each.z:
            axes.plot(x, row, ">" if x > 0 else "<", color="black", markersize=5)
        _beside(axes, row, f"{each.value:.3g} {each.unit}".rstrip(), SMALL)
    name_from_top(axes, [each.label for each in values])
    axes.margins(x=0.03)
    axes.set_title("the cell (line) among the reference")
    axes.set_xlabel(
        "robust SD from the reference's median;\nbars: middle 95 % of each subclass", fontsize=TEXT
    )
    axes.tick_params(axis="y", labelsize=SMALL)
    _class_legend(place, names)


def draw_plane(view: CellView, plane: Plane, place: SubFigure) -> None:
    """Where the cell lies in the plane in which the classes lie farthest apart."""
    from matplotlib.patches import Circle
    from matplotlib.patheffects import AbstractPathEffect, withStroke
    from scipy.stats import chi2

    axes = place.subplots()
    half, most = np.sqrt(chi2.ppf([0.5, 0.9], 2))
    outline: list[AbstractPathEffect] = [withStroke(linewidth=2.2, foreground=OUTLINE)]
    for name, centre in zip(plane.classes, plane.centres, strict=True):
        colour = colour_of(name)
        axes.add_patch(Circle(tuple(centre), most, color=colour, alpha=0.18, linewidth=0))
        for radius, dash in ((half, "-"), (most, "--")):
            ring = Circle(tuple(centre), radius, fill=False, edgecolor=colour, linestyle=dash)
            ring.set_linewidth(1.3)
            if dash == "-":
                ring.set_path_effects(outline)
            axes.add_patch(ring)
    low = plane.centres.min(axis=0) - most - 0.4
    high = plane.centres.max(axis=0) + most + 0.4
    room = 0.6 * (high - low).max()
    at = np.clip(plane.cell, low - room, high + room)
    beyond = not np.array_equal(at, plane.cell)
    axes.plot(
        *at,
        "*",
        markersize=14,
        color="black",
        markeredgecolor="white",
        markeredgewidth=0.9,
        zorder=5,
        clip_on=False,
    )
    low, high = np.minimum(low, at - 0.6), np.maximum(high, at + 0.6)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    axes.set_xlabel(f"discriminant 1 ({plane.shares[0]:.0%} of what separates them)")
    axes.set_ylabel(f"discriminant 2 ({plane.shares[1]:.0%})")
    far = f"{100 * view.cell.p_reference:.2g} % of its cells lie as far out"
    said = (
        f"the cell (star), and 50 and 90 % of each subclass of the reference; over all "
        f"{plane.measured} values {far}"
    )
    if beyond:
        said += "; the cell lies beyond the edge"
    place.suptitle(wrapped(said, inches(place)[0] - 0.2))
    plain(axes)
    if not view.values:  # of traces; beside values the legend is theirs
        _class_legend(place, ordered(plane.classes))


def _class_legend(place: SubFigure, names: Sequence[str]) -> None:
    place.legend(
        handles=[swatch(name, colour_of(name)) for name in names],
        loc="outside lower center",
        ncols=len(names),
        columnspacing=1.0,
        handlelength=1.2,
    )


def _beside(axes: Axes, row: int, text: str, size: float = TEXT, *, bold: bool = False) -> None:
    """Text to the right of a row."""
    weight = "bold" if bold else "normal"
    where = axes.get_yaxis_transform()
    axes.text(1.02, row, text, va="center", fontsize=size, fontweight=weight, transform=where)


def inches(place: SubFigure) -> tuple[float, float]:
    """Width and height of a part of a figure."""
    return place.bbox.width / place.figure.dpi, place.bbox.height / place.figure.dpi
