"""A picture of predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.models.verdicts import OUTSIDE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def prediction_figure(cells: pd.DataFrame, n_all: int) -> Figure:
    """Probabilities of cells as stacked bars, a row a cell, with its set and verdict.

    Parameters
    ----------
    cells : DataFrame
        As `crosspatch.prediction.prediction.Prediction.to_table` gives it.
    n_all : int
        Rows there are in all, if not all are drawn.
    """
    from matplotlib.figure import Figure

    columns = [name for name in cells if str(name).startswith("probability_")]
    figure = Figure(figsize=(9, 1.3 + 0.28 * len(cells)), layout="constrained")
    axes = figure.add_subplot()
    rows = np.arange(len(cells))
    left = np.zeros(len(cells))
    # Pale where the probabilities are those of a model that does not know such cells.
    outside = (cells["verdict"] == OUTSIDE).to_numpy()
    for column in columns:
        name = str(column).removeprefix("probability_")
        p = cells[column].to_numpy(dtype=float)
        bars = axes.barh(
            rows,
            np.nan_to_num(p),
            left=left,
            height=0.7,
            color=load_taxonomy().colours.get(name, "0.6"),
            label=name,
        )
        for bar, stranger in zip(bars, outside, strict=True):
            bar.set_alpha(0.35 if stranger else 1.0)
        left += np.nan_to_num(p)
    for row, (_, cell) in zip(rows, cells.iterrows(), strict=True):
        chosen = str(cell["prediction_set"]).replace("|", " or ")
        axes.text(
            1.02,
            float(row),
            f"{cell['verdict']}{': ' + chosen if chosen else ''}",
            va="center",
            fontsize=8,
        )
    names = [
        f"{cell['cell_id']} ({cell['species']}{'' if cell['species_known'] else '?'})"
        for _, cell in cells.iterrows()
    ]
    axes.set_yticks(rows, names, fontsize=8)
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("probability")
    axes.spines[["top", "right"]].set_visible(False)
    shown = f" (first {len(cells)} of {n_all} rows)" if len(cells) < n_all else ""
    axes.set_title(f"Predicted subclass{shown}", fontsize=10, loc="left")
    if columns:
        figure.legend(loc="outside lower center", ncols=len(columns), frameon=False, fontsize=8)
    return figure
