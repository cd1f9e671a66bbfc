"""What all figures share: sizes, colours, text, and how they are saved."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

from crosspatch.errors import CrosspatchError
from crosspatch.species import SPECIES
from crosspatch.writing import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Width of a figure in inches: on a page or screen, and on a phone. Text is `TEXT` in both.
WIDE, NARROW = 7.2, 3.5
#: Figures at least this wide have panels side by side, inches.
SIDE_BY_SIDE = 5.0
#: Size of text in figures, points; of headings, and of what is written into a panel.
TEXT, LARGE, SMALL = 8, 9, 7
#: Height of a line of such text, and what is left free at the edges of a figure, inches.
LINE, MARGIN = 0.145, 0.08

#: Colours of what is not a subclass (Okabe and Ito, safe for colour-blind readers).
ACCENT, SECOND, THIRD, GREY = "#0072b2", "#d55e00", "#009e73", "#8c8c8c"
#: Outline that keeps pale colours visible on white; lines at zero; light grids.
OUTLINE, ZERO, GRID = "0.25", "0.6", "0.92"
#: Colours of the species, their marks, and the same as letters.
SPECIES_COLOURS = {name: each.colour for name, each in SPECIES.items()}
SPECIES_MARKERS = {name: each.marker for name, each in SPECIES.items()}
SPECIES_SIGNS = {name: each.sign for name, each in SPECIES.items()}

_P = ParamSpec("_P")

# What matplotlib is to do unless it is told otherwise; sizes of ticks are read later, by `plain`.
_STYLE = {
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "axes.labelsize": TEXT,
    "figure.titlesize": TEXT,
    "legend.fontsize": TEXT,
    "legend.frameon": False,
    "text.parse_math": False,  # names of cells may have dollar signs
}


def styled(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """Let a function draw with text of `TEXT` points and legends without a frame."""

    @wraps(draw)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        from matplotlib import RcParams, rc_context

        with rc_context(RcParams(_STYLE)):
            return draw(*args, **kwargs)

    return drawn


def save_figure(figure: Figure, file: str | Path, dpi: float = 150) -> None:
    """Write a figure in the format of its ending, under a temporary name first.

    Pictures made of points have `dpi` to the inch. A CrosspatchError if it cannot be written.
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


def new_figure(
    width: float, height: float, *, h_pad: float | None = None, wspace: float | None = None
) -> Figure:
    """A figure of so many inches that makes room for all labels, with these pads."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from crosspatch.drawing.shown_figure import ShownFigure

    return ShownFigure(
        figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=h_pad, wspace=wspace)
    )


def plain(axes: Axes, **properties: object) -> None:
    """Axes without a frame, with small labels and these properties, as ``axes.set`` takes them."""
    axes.set(**properties)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=TEXT)
