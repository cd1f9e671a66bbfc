"""What all figures share: widths, colours, and how they are saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from crosspatch.errors import CrosspatchError
from crosspatch.species import SPECIES
from crosspatch.writing import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Width of a figure in inches: on a page or screen, and on a phone. Text is 8 points in both.
WIDE, NARROW = 7.2, 3.5

#: Colours of what is not a subclass (Okabe and Ito, safe for colour-blind readers).
ACCENT, SECOND, THIRD, GREY = "#0072b2", "#d55e00", "#009e73", "#8c8c8c"

#: Colours of the species.
SPECIES_COLOURS = {name: each.colour for name, each in SPECIES.items()}


def save_figure(figure: Figure, file: str | Path, dpi: float = 150) -> None:
    """Write a figure, under a temporary name first.

    Parameters
    ----------
    figure : Figure
    file : path
        Its ending is the format: ``.png``, ``.svg``, ``.pdf``.
    dpi : float
        Points of an inch, for pictures made of points.

    Raises
    ------
    CrosspatchError
        If it cannot be written.
    """
    from matplotlib import rc_context

    file = Path(file)
    kind = file.suffix.lstrip(".").lower() or "png"
    # The same figure is the same file: no date, and names within it that do not change.
    same = {"Date": None} if kind == "svg" else None
    try:
        with (
            replacing(file, CrosspatchError) as temporary,
            rc_context({"svg.hashsalt": "crosspatch"}),
        ):
            figure.savefig(temporary, dpi=dpi, format=kind, metadata=same)
    except ValueError as error:
        raise CrosspatchError(f"{file} cannot be written: {error}") from error


def plain(axes: Axes) -> None:
    """Axes without a frame, with small labels."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
