"""Figures of a benchmark's results; every one is made from tables of a result folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from crosspatch.reporting.style import ACCENT, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def reliability_figure(reliability: pd.DataFrame) -> Figure:
    """Accuracy against confidence of the predicted class, a panel a task and model.

    Parameters
    ----------
    reliability : DataFrame
        From `crosspatch.evaluation.calibration.reliability_table`.
    """
    from matplotlib.figure import Figure

    groups = list(reliability.groupby(["task", "model"], sort=False))
    columns = min(3, max(len(groups), 1))
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.6 * rows), layout="constrained")
    for number, ((task, model), part) in enumerate(groups, 1):
        axes = figure.add_subplot(rows, columns, number)
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
        width = (part["bin_high"] - part["bin_low"]).to_numpy()
        share = (part["cells"] / part["cells"].sum()).to_numpy()
        axes.bar(part["bin_low"], share, width, align="edge", color="0.88", label="share of cells")
        axes.plot(
            part["confidence"],
            part["accuracy"],
            "o-",
            color=ACCENT,
            markersize=4,
            label="accuracy",
        )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_aspect("equal")
        axes.set_title(f"{task}, {model}", fontsize=9)
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
        if number == 1:
            axes.legend(frameon=False, fontsize=8, loc="upper left")
        plain(axes)
    return figure
