"""What means the same in both species: a picture of the table ``conserved``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosspatch.reporting.feature_rows import FeatureRows, feature_rows, place, sheet
from crosspatch.reporting.labels import (
    LINE,
    SIDE_BY_SIDE,
    TEXT,
    nothing,
    ordered,
    width_of,
    wrapped,
)
from crosspatch.reporting.style import WIDE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

#: More rows than this no reader takes in: those that separate best are drawn.
MOST_ROWS = 120

_MARGIN = 0.08
_LEAST_CELL, _MOST_CELL = 0.1, 0.48
_ROW = 0.175
_BETWEEN = 0.09


def conserved_figure(
    conserved: pd.DataFrame, width: float = WIDE, level: str = "subclass"
) -> Figure:
    """How well each feature tells a group from the rest, mouse (left) beside human (right).

    Red is higher in the group than in the rest, blue lower. A full tile is one whose interval
    leaves 0.5 out; a small one could be chance. A frame with a cross marks where the species
    point opposite ways; a broken frame, where they do so either among the cells as they are or
    with every subclass of the rest counting the same, but not both ways.

    Parameters
    ----------
    conserved : DataFrame
        Table ``conserved`` of a result folder of kind "explanation".
    width : float
        Inches.
    level : str
        ``subclass``, or ``homologous type``.
    """
    from matplotlib import colormaps

    table = conserved[conserved["level"] == level]
    if table.empty:
        return nothing(f"Nothing was compared by {level}.", width)
    groups = ordered(table["group"])
    table, chosen = _strongest(table)
    families = dict(zip(table["feature"], table["family"].astype(str), strict=True))
    least = len(groups) * (2 * _LEAST_CELL + _BETWEEN)
    rows = feature_rows(
        families, max(width * 0.36, min(2.7, width - 2 * _MARGIN - least - 1.6)), _ROW
    )
    room = width - 2 * _MARGIN - rows.label_width - 0.08
    each_block = max(1, min(len(groups), int(room / (2 * _LEAST_CELL + _BETWEEN))))
    n_blocks = -(-len(groups) // each_block)
    each_block = -(-len(groups) // n_blocks)
    cell = min(_MOST_CELL, (room / each_block - _BETWEEN) / 2)
    turned = max(width_of(name) for name in groups) > 2 * cell + _BETWEEN - 0.03
    names = [wrapped(name, 1.6) for name in groups] if turned else groups
    head = max(width_of(name) for name in groups) + 0.08 if turned else LINE + 0.04
    head = min(head, 1.7) + 0.12
    key_height = 1.02 if width >= SIDE_BY_SIDE else 1.84
    key_height += LINE * bool(chosen)
    block_height = head + rows.height + 0.12
    figure, axes = sheet(width, key_height + n_blocks * block_height + 0.05)
    colours = colormaps["RdBu_r"]
    tiles = _Tiles(colours)
    _draw_key(figure, axes, width, tiles, chosen)
    values = {
        (str(group), str(feature)): row
        for group, feature, row in zip(
            table["group"], table["feature"], table.to_dict("records"), strict=True
        )
    }
    left = _MARGIN + rows.label_width + 0.08
    for block in range(n_blocks):
        own = slice(block * each_block, (block + 1) * each_block)
        top = key_height + block * block_height + head
        rows.write(axes, _MARGIN, top)
        for number, (group, name) in enumerate(zip(groups[own], names[own], strict=True)):
            at = left + number * (2 * cell + _BETWEEN)
            _head(axes, at, top, cell, name, turned, rows)
            for feature in families:
                row = values.get((group, feature))
                if row is not None:
                    _draw_pair(tiles, at, top, cell, row, rows)
    tiles.draw(axes)
    return figure


def _strongest(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The features that separate best, where there are too many, and a line that says so."""
    features = table["feature"].nunique()
    if features <= MOST_ROWS:
        return table, ""
    strength = (table[["mouse_auc", "human_auc"]] - 0.5).abs().max(axis=1)
    best = strength.groupby(table["feature"]).max().nlargest(MOST_ROWS).index
    return (
        table[table["feature"].isin(best)],
        f"The {MOST_ROWS} of {features} features that separate best.",
    )


def _head(
    axes: Axes, left: float, top: float, cell: float, name: str, turned: bool, rows: FeatureRows
) -> None:
    """Name of a group and letters of the species, above and, where short, at every family."""
    for number, (middle, _) in enumerate(rows.headings.values()):
        if number and turned:
            break
        for letter, offset in (("M", 0.5), ("H", 1.5)):
            if number == 0 and cell >= 0.1:
                axes.text(
                    left + offset * cell,
                    top + middle,
                    letter,
                    ha="center",
                    va="center",
                    fontsize=TEXT,
                    color="0.35",
                )
        axes.text(
            left + cell,
            top + middle - (0.11 if number == 0 else 0),
            name,
            ha="center",
            va="bottom" if number == 0 else "center",
            rotation=90 if turned else 0,
            fontsize=TEXT,
            color="black" if number == 0 else "0.35",
        )


def _draw_pair(
    tiles: _Tiles, left: float, top: float, cell: float, row: dict, rows: FeatureRows
) -> None:
    above, height, _ = rows.features[row["feature"]]
    tile = min(height, _ROW) - 0.02
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

    def __init__(self, colours: Colormap) -> None:
        self.colours = colours
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
        certain = low > 0.5 or high < 0.5
        shares = (1.0,) if certain else (1.0, 0.4)
        for share in shares:
            last = share == shares[-1]
            corner = (x - across * share / 2, y - down * share / 2)
            self.rectangles.append(
                Rectangle(
                    corner,
                    across * share,
                    down * share,
                    facecolor=self.colours(auc) if last else "0.96",
                    edgecolor="none" if share == 1 else "0.75",
                    linewidth=0.4,
                )
            )

    def frame(self, middle: tuple[float, float], size: tuple[float, float], both: bool) -> None:
        """Frame two tiles that point opposite ways, with a cross if they do so when balanced."""
        from matplotlib.patches import Rectangle

        corner = (middle[0] - size[0] / 2, middle[1] - size[1] / 2)
        self.frames.append(
            Rectangle(
                corner,
                *size,
                facecolor="none",
                edgecolor="black",
                linewidth=1,
                linestyle="-" if both else (0, (2, 1.5)),
            )
        )
        if both:
            self.crosses.append(middle)

    def draw(self, axes: Axes) -> None:
        """Put all of it into axes."""
        from matplotlib.collections import PatchCollection

        for patches, over in ((self.rectangles, 1), (self.frames, 2)):
            axes.add_collection(
                PatchCollection(patches, match_original=True, zorder=over), autolim=False
            )
        x, y = np.reshape(self.crosses, (-1, 2)).T
        axes.plot(
            x,
            y,
            "x",
            markersize=4.5,
            markeredgewidth=1.2,
            color="black",
            linestyle="none",
            zorder=3,
        )
        x, y = np.reshape(self.missing, (-1, 2)).T
        axes.plot(x, y, "_", markersize=4, color="0.7", linestyle="none")


def _draw_key(figure: Figure, axes: Axes, width: float, tiles: _Tiles, chosen: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    narrow = width < SIDE_BY_SIDE
    bar_width = width - 0.6 if narrow else 2.9
    bar = place(figure, 0.3, 0.28, bar_width, 0.11)
    scale = figure.colorbar(
        ScalarMappable(Normalize(0, 1), tiles.colours), cax=bar, orientation="horizontal"
    )
    scale.outline.set_visible(False)
    scale.set_ticks([0, 0.25, 0.5, 0.75, 1])
    bar.tick_params(labelsize=TEXT, length=2)
    bar.set_title("AUC: lower in the group ← 0.5 → higher", fontsize=TEXT, pad=3)
    left, top = (0.3, 0.78) if narrow else (3.6, 0.16)
    entries = (
        ("full: the interval leaves 0.5 out", (0.85, 0.7, 1.0), ""),
        ("small: the interval includes 0.5", (0.65, 0.4, 0.9), ""),
        ("the species point opposite ways", (0.85, 0.7, 1.0), "both"),
        ("opposite by one measure, not both", (0.85, 0.7, 1.0), "one"),
        ("not measured", (np.nan, np.nan, np.nan), ""),
    )
    for number, (text, value, mark) in enumerate(entries):
        y = top + 0.19 * number
        for position, each in enumerate((value, (0.15, 0.1, 0.3) if mark else value)):
            tiles.add((left + 0.1 + 0.2 * position, y), (0.2, 0.155), each)
        if mark:
            tiles.frame((left + 0.2, y), (0.4, 0.155), both=mark == "both")
        axes.text(left + 0.5, y, text, va="center", fontsize=TEXT)
    axes.text(
        0.3,
        top + 0.19 * 5 if narrow else 0.72,
        "M mouse, H human" + (f". {chosen}" if chosen and not narrow else ""),
        va="center",
        fontsize=TEXT,
    )
    if chosen and narrow:
        axes.text(0.3, top + 0.19 * 6, chosen, va="center", fontsize=TEXT)
