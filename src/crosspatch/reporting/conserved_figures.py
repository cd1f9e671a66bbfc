"""What means the same in both species: a picture of the table ``conserved``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosspatch.cohorts.taxonomy import ordered
from crosspatch.drawing.labels import width_of, wrapped
from crosspatch.drawing.panels import in_rows, nothing
from crosspatch.drawing.style import LINE, MARGIN, SIDE_BY_SIDE, WIDE, styled
from crosspatch.reporting.feature_rows import ROW, FeatureRows, colour_bar, feature_rows, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

#: More rows than this no reader takes in: those that separate best are drawn.
MOST_FEATURES = 120

_LEAST_CELL, _MOST_CELL = 0.1, 0.48
_BETWEEN = 0.09
_LEAST_GROUP = 2 * _LEAST_CELL + _BETWEEN


@styled
def conserved_figure(
    conserved: pd.DataFrame, width: float = WIDE, level: str = "subclass"
) -> Figure:
    """How well each feature tells a group from the rest, mouse (left) beside human (right).

    Red is higher in the group than in the rest, blue lower. A full tile is one whose interval
    leaves 0.5 out; a small one could be chance. A frame with a cross marks where the species
    point opposite ways; a broken frame, where they do so either among the cells as they are or
    with every subclass of the rest counting the same, but not both ways.
    `level` is ``subclass`` or ``homologous type``.
    """
    table = conserved[conserved["level"] == level]
    if table.empty:
        return nothing(f"Nothing was compared by {level}.", width)
    groups = ordered(table["group"])
    table, chosen = _strongest(table)
    least = len(groups) * _LEAST_GROUP
    rows = feature_rows(table, width, ROW, 2 * MARGIN + least + 1.6)
    left = MARGIN + rows.label_width + 0.08
    blocks, cell = _blocks(groups, width - MARGIN - left)
    head = _Head.of(groups, cell)
    top = (1.02 if width >= SIDE_BY_SIDE else 1.84) + LINE * bool(chosen)
    pitch = head.height + rows.height + 0.12
    figure, axes = sheet(width, top + len(blocks) * pitch + 0.05)
    tiles = _Tiles()
    _draw_key(figure, axes, width, tiles, chosen)
    found = {str(g): part.to_dict("records") for g, part in table.groupby("group", sort=False)}
    for number, block in enumerate(blocks):
        first = top + number * pitch + head.height
        rows.write(axes, MARGIN, first)
        for position, group in enumerate(block):
            at = left + position * (2 * cell + _BETWEEN)
            head.write(axes, at, first, group, rows)
            for row in found.get(group, ()):
                _draw_pair(tiles, at, first, cell, row, rows)
    tiles.draw(axes)
    return figure


def _blocks(groups: list[str], room: float) -> tuple[list[list[str]], float]:
    """Groups in blocks that fit beside the names, and the width of a tile in inches."""
    most = max(1, min(len(groups), int(room / _LEAST_GROUP)))
    in_block = -(-len(groups) // -(-len(groups) // most))
    return in_rows(groups, in_block), min(_MOST_CELL, (room / in_block - _BETWEEN) / 2)


def _strongest(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The features that separate best, where there are too many, and a line that says so."""
    features = table["feature"].nunique()
    if features <= MOST_FEATURES:
        return table, ""
    strength = (table[["mouse_auc", "human_auc"]] - 0.5).abs().max(axis=1)
    best = strength.groupby(table["feature"]).max().nlargest(MOST_FEATURES).index
    return (
        table[table["feature"].isin(best)],
        f"The {MOST_FEATURES} of {features} features that separate best.",
    )


@dataclass(frozen=True)
class _Head:
    """Names of groups above their tiles, turned if they are too long."""

    cell: float
    turned: bool
    height: float  # Inches

    @classmethod
    def of(cls, groups: list[str], cell: float) -> _Head:
        """How these groups are written above tiles so many inches wide."""
        longest = max(width_of(name) for name in groups)
        turned = longest > 2 * cell + _BETWEEN - 0.03
        return cls(cell, turned, min(longest + 0.08 if turned else LINE + 0.04, 1.7) + 0.12)

    def write(self, axes: Axes, left: float, top: float, name: str, rows: FeatureRows) -> None:
        """Write a name and letters of the species, above and, where short, at every family."""
        first, *others = (top + middle for middle, _ in rows.headings.values())
        middle = left + self.cell
        if self.cell >= _LEAST_CELL:
            for x, letter in ((middle - self.cell / 2, "M"), (middle + self.cell / 2, "H")):
                axes.text(x, first, letter, ha="center", va="center", color="0.35")
        if self.turned:
            name = wrapped(name, 1.6)
            axes.text(middle, first - 0.11, name, ha="center", va="bottom", rotation=90)
            return
        axes.text(middle, first - 0.11, name, ha="center", va="bottom", color="black")
        for y in others:
            axes.text(middle, y, name, ha="center", va="center", color="0.35")


def _draw_pair(
    tiles: _Tiles, left: float, top: float, cell: float, row: dict, rows: FeatureRows
) -> None:
    above, height, _ = rows.features[row["feature"]]
    tile = min(height, ROW) - 0.02
    middle = top + above + height / 2
    for position, name in enumerate(("mouse", "human")):
        tiles.add(
            (left + (position + 0.5) * cell, middle),
            (cell, tile),
            (row[f"{name}_auc"], row[f"{name}_low"], row[f"{name}_high"]),
        )
    verdicts = {row["verdict"], row.get("balanced_verdict", row["verdict"])}
    if "opposite" in verdicts:
        tiles.frame((left + cell, middle), (2 * cell, tile), both=len(verdicts) == 1)


class _Tiles:
    """Rectangles of a picture, gathered: thousands of single patches are slow."""

    def __init__(self) -> None:
        from matplotlib import colormaps

        self.colours = colormaps["RdBu_r"]
        self.rectangles: list[Rectangle] = []
        self.frames: list[Rectangle] = []
        self.crosses: list[tuple[float, float]] = []
        self.missing: list[tuple[float, float]] = []

    def add(
        self,
        middle: tuple[float, float],
        size: tuple[float, float],
        value: tuple[float, float, float],
    ) -> None:
        """Add a tile for an AUC and its interval: small if it includes 0.5."""
        from matplotlib.patches import Rectangle

        auc, low, high = value
        (x, y), (across, down) = middle, size
        if not np.isfinite(auc):
            self.missing.append(middle)
            return
        shares = (1.0,) if low > 0.5 or high < 0.5 else (1.0, 0.4)
        for share in shares:
            wide, tall = across * share, down * share
            colour = self.colours(auc) if share == shares[-1] else "0.96"
            edge = "none" if share == 1 else "0.75"
            tile = Rectangle(
                (x - wide / 2, y - tall / 2), wide, tall, facecolor=colour, edgecolor=edge
            )
            tile.set_linewidth(0.4)
            self.rectangles.append(tile)

    def frame(self, middle: tuple[float, float], size: tuple[float, float], both: bool) -> None:
        """Frame two tiles that point opposite ways, with a cross if they do so when balanced."""
        from matplotlib.patches import Rectangle

        corner = (middle[0] - size[0] / 2, middle[1] - size[1] / 2)
        dash = "-" if both else (0, (2, 1.5))
        self.frames.append(
            Rectangle(corner, *size, fill=False, edgecolor="black", linewidth=1, linestyle=dash)
        )
        if both:
            self.crosses.append(middle)

    def draw(self, axes: Axes) -> None:
        """Put all of it into axes."""
        from matplotlib.collections import PatchCollection

        for patches, over in ((self.rectangles, 1), (self.frames, 2)):
            gathered = PatchCollection(patches, match_original=True, zorder=over)
            axes.add_collection(gathered, autolim=False)
        x, y = np.reshape(self.crosses, (-1, 2)).T
        axes.plot(x, y, "x", markersize=4.5, markeredgewidth=1.2, color="black", zorder=3)
        x, y = np.reshape(self.missing, (-1, 2)).T
        axes.plot(x, y, "_", markersize=4, color="0.7")


def _draw_key(figure: Figure, axes: Axes, width: float, tiles: _Tiles, chosen: str) -> None:
    narrow = width < SIDE_BY_SIDE
    title = "AUC: lower in the group ← 0.5 → higher"
    colour_bar(figure, width - 0.6 if narrow else 2.9, 0, 1, 5, title)
    left, top = (0.3, 0.78) if narrow else (3.6, 0.16)
    for number, (text, value, mark) in enumerate(_KEY):
        y = top + 0.19 * number
        for position, each in enumerate((value, (0.15, 0.1, 0.3) if mark else value)):
            tiles.add((left + 0.1 + 0.2 * position, y), (0.2, 0.155), each)
        if mark:
            tiles.frame((left + 0.2, y), (0.4, 0.155), both=mark == "both")
        axes.text(left + 0.5, y, text, va="center")
    species = "M mouse, H human"
    if narrow:
        axes.text(0.3, top + 0.19 * 5, species, va="center")
        axes.text(0.3, top + 0.19 * 6, chosen, va="center")
    else:
        axes.text(0.3, 0.72, f"{species}. {chosen}" if chosen else species, va="center")


# What the key says, and an AUC with its interval; and in which sense the species are opposite.
_KEY = (
    ("full: the interval leaves 0.5 out", (0.85, 0.7, 1.0), ""),
    ("small: the interval includes 0.5", (0.65, 0.4, 0.9), ""),
    ("the species point opposite ways", (0.85, 0.7, 1.0), "both"),
    ("opposite by one measure, not both", (0.85, 0.7, 1.0), "one"),
    ("not measured", (np.nan, np.nan, np.nan), ""),
)
