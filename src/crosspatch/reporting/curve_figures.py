"""Figures of a learning curve, from the tables of its result folder that parameters name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from crosspatch.reporting.labels import ordered, wrapped
from crosspatch.reporting.panels import columns_for, ends_of, grid, intervals, legend_of_all
from crosspatch.reporting.style import ACCENT, GREY, SECOND, THIRD, WIDE, ZERO, plain, styled
from crosspatch.species import HUMAN, MOUSE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def learning_curve_figure(
    summary: pd.DataFrame, gains: pd.DataFrame, width: float = WIDE, cut: str = "all"
) -> Figure:
    """Macro-F1 against the number of labelled human cells, with and without mouse.

    Of the test cells that `cut` names.
    """
    pairs = gains[["features", "model", "without"]].drop_duplicates()
    counts = _counts(summary)
    figure, panels = grid(len(pairs), width, height=2.4, sharey=True)
    several = len(set(summary["features"])) > 1
    for axes, (features, model, without) in zip(panels, pairs.itertuples(index=False), strict=True):
        here = summary[(summary["features"] == features) & (summary["cut"] == cut)]
        for name, mouse, colour, marker, label, shift in (
            (without, "false", HUMAN.colour, "o-", "human cells alone", -0.06),
            (model, "true", MOUSE.colour, "s-", "mouse and human cells", 0.06),
        ):
            flags = here["mouse"].astype(str).str.lower()
            part = here[(here["model"] == name) & (flags == mouse)]
            part = part.assign(place=part["cells_per_class"].astype(str).map(counts.index))
            part = part.sort_values("place")
            at, f1 = part["place"] + shift, part["macro_f1_mean"]
            ends = ends_of(part, "macro_f1_mean")
            intervals(axes, at, f1, marker, colour, label, yerr=ends)
        _by_count(axes, counts)
        title = f"{model}\nover {without}" + (f", {features}" if several else "")
        title = wrapped(title, width / columns_for(len(pairs), width) - 0.4)
        axes.set(title=title, ylabel="macro-F1")
    legend_of_all(figure, panels)
    return figure


@styled
def gains_figure(gains: pd.DataFrame, width: float = WIDE) -> Figure:
    """Gain in macro-F1 from mouse against the number of labelled human cells, by cut."""
    who = gains["model"] + " over " + gains["without"]
    several = len(set(gains["features"])) > 1
    gains = gains.assign(who=who + ", " + gains["features"] if several else who)
    counts = _counts(gains)
    whos = list(dict.fromkeys(gains["who"]))
    cuts = ordered(gains["cut"])
    figure, panels = grid(len(cuts), width, height=2.2, sharey=True)
    for axes, cut in zip(panels, cuts, strict=True):
        axes.axhline(0, color=ZERO, linewidth=1, zorder=0)
        for number, who in enumerate(whos):
            part = gains[(gains["cut"] == cut) & (gains["who"] == who)]
            shift = (number - (len(whos) - 1) / 2) * min(0.14, 0.6 / len(whos))
            at = part["cells_per_class"].astype(str).map(counts.index) + shift
            colour, marker = _LOOKS[number % len(_LOOKS)]
            delta, ends = part["delta_macro_f1"], ends_of(part)
            intervals(axes, at, delta, marker, colour, who, yerr=ends)
        _by_count(axes, counts)
        title = "all test cells" if cut == "all" else cut
        axes.set(title=title, ylabel="gain in macro-F1")
    legend_of_all(figure, panels)
    return figure


_LOOKS = [(ACCENT, "o"), (SECOND, "s"), (THIRD, "^"), ("#cc79a7", "D"), ("#56b4e9", "v")]
_LOOKS += [("0.2", "P"), ("#e69f00", "X"), (GREY, "<")]


def _counts(frame: pd.DataFrame) -> list[str]:
    """Labelled cells per class, from few to all."""
    found = set(frame["cells_per_class"].astype(str))
    return sorted(found, key=lambda text: float("inf") if text == "all" else float(text))


def _by_count(axes: Axes, counts: Sequence[str]) -> None:
    axes.set_xticks(range(len(counts)), counts)
    plain(axes, xlim=(-0.5, len(counts) - 0.5), xlabel="labelled human cells a class")
