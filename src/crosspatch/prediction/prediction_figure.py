"""A picture of predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.drawing.style import new_figure, styled
from crosspatch.models.verdicts import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from crosspatch.prediction.prediction import Prediction


@styled
def prediction_figure(prediction: Prediction, n_all: int) -> Figure:
    """Probabilities of cells as stacked bars, one row per cell, with its set and verdict.

    There are `n_all` rows in all, if not all are drawn.
    """
    cells = list(prediction)
    names = list(cells[0].probabilities) if cells else []
    figure = new_figure(9, 1.3 + 0.28 * len(cells))
    axes = figure.add_subplot()
    rows = np.arange(len(cells))
    left = np.zeros(len(cells))
    for name in names:
        p = np.nan_to_num([cell.probabilities[name] for cell in cells])
        colour = load_taxonomy().colour(name)
        bars = axes.barh(rows, p, left=left, height=0.7, color=colour, label=name)
        for bar, cell in zip(bars, cells, strict=True):
            # Pale where the probabilities are those of a model that does not know such cells.
            bar.set_alpha(0.35 if cell.verdict is Verdict.OUTSIDE else 1.0)
        left += p
    for row, cell in enumerate(cells):
        said = ": ".join(filter(None, (cell.verdict, " or ".join(cell.prediction_set))))
        axes.text(1.02, float(row), said, va="center", fontsize=8)
    marks = [
        f"{'SIMULATED, ' * c.simulated}{c.species}{'?' * (not c.species_known)}" for c in cells
    ]
    names_of = [f"{cell.cell_id} ({mark})" for cell, mark in zip(cells, marks, strict=True)]
    axes.set_yticks(rows, names_of, fontsize=8)
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("probability")
    axes.spines[["top", "right"]].set_visible(False)
    shown = f" (first {len(cells)} of {n_all} rows)" if len(cells) < n_all else ""
    axes.set_title(f"Predicted subclass{shown}", fontsize=10, loc="left")
    if names:
        figure.legend(loc="outside lower center", ncols=len(names), frameon=False, fontsize=8)
    return figure
