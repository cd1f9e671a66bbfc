"""Features as rows under the headings of their families, placed in inches.

Dozens of rows with long names overlap or get lost if axes stretch them to a given height: here
the height of a row follows from the lines of its name, and the height of the figure from that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosspatch.drawing.labels import readable, width_of, wrapped
from crosspatch.drawing.style import LINE, TEXT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Least height of a row, inches.
ROW = 0.175

_GAP = 0.06


@dataclass(frozen=True)
class FeatureRows:
    """Where each feature and each family's heading is, in inches from the top of the rows."""

    features: dict[str, tuple[float, float, str]]  # feature to top, height and label
    headings: dict[str, tuple[float, str]]  # family to the middle of its heading, and its lines
    label_width: float  # Inches
    height: float

    def middle(self, feature: str) -> float:
        """Middle of a feature's row."""
        top, height, _ = self.features[feature]
        return top + height / 2

    def write(self, axes: Axes, left: float, top: float) -> None:
        """Write names and headings into axes whose units are inches, y downwards."""
        x = left + self.label_width
        for above, height, label in self.features.values():
            y = top + above + height / 2
            axes.text(x, y, label, ha="right", va="center", linespacing=1.0)
        for middle, heading in self.headings.values():
            axes.text(left, top + middle, heading, linespacing=1.0, va="center", fontweight="bold")


def feature_rows(
    table: pd.DataFrame, width: float, least: float, beside: float = 2.2
) -> FeatureRows:
    """Place the features of a table under their families, in the table's order.

    Longer names are broken into lines, so that of the `width` of a figure so many inches are left
    `beside` them; a row is at least `least` inches high.
    """
    widest = max(width * 0.36, min(2.7, width - beside))
    families = dict(zip(table["feature"], table["family"].astype(str), strict=True))
    labels = {feature: wrapped(readable(feature), widest) for feature in families}
    features: dict[str, tuple[float, float, str]] = {}
    headings: dict[str, tuple[float, str]] = {}
    longest = max(
        (width_of(line) for label in labels.values() for line in label.split("\n")), default=0.0
    )
    longest = max(longest + 0.02, min(widest, 1.3))
    at = 0.0
    for family in dict.fromkeys(families.values()):
        at += _GAP if headings else 0.0
        heading = wrapped(readable(family), longest, bold=True)
        tall = LINE * (1 + heading.count("\n"))
        headings[family] = (at + tall / 2 + 0.02, heading)
        at += tall + 0.05
        for feature in (name for name, its in families.items() if its == family):
            height = max(least, LINE * (1 + labels[feature].count("\n")) + 0.03)
            features[feature] = (at, height, labels[feature])
            at += height
    return FeatureRows(features, headings, longest, at)


def sheet(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure and axes over all of it, in inches from its upper left corner."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    return figure, axes


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes at so many inches from the upper left corner."""
    across, down = figure.get_size_inches()
    return figure.add_axes(
        (left / across, 1 - (top + height) / down, width / across, height / down)
    )


def write_at(figure: Figure, left: float, top: float, text: str, *, bold: bool = False) -> None:
    """Write text whose middle is so many inches below the upper edge."""
    across, down = figure.get_size_inches()
    weight = "bold" if bold else "normal"
    x, y = left / across, 1 - top / down
    figure.text(x, y, text, va="center", fontweight=weight, linespacing=1.0)


def colour_bar(
    figure: Figure, across: float, low: float, high: float, ticks: int, title: str
) -> None:
    """A scale from blue to red at the upper left, so many inches wide, under its title."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = place(figure, 0.3, 0.28, across, 0.11)
    shades = ScalarMappable(Normalize(low, high), "RdBu_r")
    scale = figure.colorbar(shades, cax=bar, orientation="horizontal")
    scale.outline.set_visible(False)
    scale.set_ticks(np.linspace(low, high, ticks).tolist())
    bar.tick_params(labelsize=TEXT, length=2)
    bar.set_title(title, pad=3)
