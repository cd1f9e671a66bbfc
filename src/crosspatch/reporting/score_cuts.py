"""Where a score comes from, in a report: the best models' scores by cut of the tested cells."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from crosspatch.drawing.panels import intervals, legend_of_all, name_rows, parts_of, stacked
from crosspatch.drawing.style import ACCENT, WIDE, ZERO, styled
from crosspatch.evaluation.cell_cuts import AGREE, ALL_CELLS, DISAGREE
from crosspatch.evaluation.results import of_best_models
from crosspatch.reporting.numbers import ResultSource, TableRow
from crosspatch.reporting.page import Block, Paragraph
from crosspatch.reporting.source_blocks import paragraph, source_picture, source_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def cuts_blocks(source: ResultSource) -> Iterator[Block]:
    """Scores of each task's best model on cells cut by labels, nucleus, layer, dataset, tissue."""
    cuts = source.table("cuts")
    if not len(cuts):
        return
    best = of_best_models(cuts, source.table("summary"))
    scored = best.groupby("task")["macro_f1_mean"].transform("count") > 1
    best = best[scored]
    if not len(best):
        return
    draw = partial(cuts_figure, best)
    names = [f"{model} ({task})" for task, model in _pairs(best)]
    yield source_picture(source, "cuts", draw, names=", ".join(names))
    for _, part in best.groupby("task", sort=False):
        rows = {row.name("cut"): row for row in source.rows("cuts", part)}
        yield from _of_labels(rows)
        every = rows[ALL_CELLS]
        task, model = every.name("task"), every.name("model")
        yield source_table(source, "cuts", part, task=task, model=model)
    yield paragraph("cuts")
    if len(best) < len(cuts):
        yield source_table(source, "all_cuts")


def _pairs(best: pd.DataFrame) -> Iterator[tuple[str, str]]:
    for task, model in best[["task", "model"]].drop_duplicates().itertuples(index=False):
        yield str(task), str(model)


def _of_labels(rows: dict[str, TableRow]) -> Iterator[Paragraph]:
    """What the model says where labels by two taxonomies agree, and where they do not."""
    told = {"task": rows[ALL_CELLS].name("task"), "model": rows[ALL_CELLS].name("model")}
    if AGREE in rows:
        yield paragraph(
            "labels_agree",
            **told,
            cells=rows[AGREE].cell("cells", "count"),
            score=rows[AGREE].spread("macro_f1"),
            every=rows[ALL_CELLS].cell("cells", "count"),
            whole=rows[ALL_CELLS].spread("macro_f1"),
        )
    if DISAGREE in rows:
        yield paragraph(
            "labels_disagree",
            **told,
            cells=rows[DISAGREE].cell("cells", "count"),
            ours=rows[DISAGREE].spread("as_lee2023"),
            theirs=rows[DISAGREE].spread("as_sea_ad"),
        )


@styled
def cuts_figure(cuts: pd.DataFrame, width: float = WIDE) -> Figure:
    """Macro-F1 by cut, mean and SD over runs; a line at that of all cells.

    Hollow: over fewer classes than all cells are scored on.
    """
    parts = parts_of(cuts.dropna(subset="macro_f1_mean"), ["task", "features", "protocol", "model"])
    figure, panels = stacked([len(part) for _, part in parts], width)
    for axes, (title, part) in zip(panels, parts, strict=True):
        every = part[part["cut"] == ALL_CELLS].iloc[0]
        axes.axvline(every["macro_f1_mean"], color=ZERO, linewidth=1, linestyle="--", zorder=0)
        places = pd.Series(range(len(part)), index=part.index)
        alike = part["classes"] == every["classes"]
        for chosen, fill, label in (
            (alike, ACCENT, "over all classes"),
            (~alike, "white", "over fewer classes"),
        ):
            if chosen.any():
                mean, sd = (part.loc[chosen, f"macro_f1_{kind}"] for kind in ("mean", "sd"))
                sd = sd.to_numpy(dtype=float)
                intervals(axes, mean, places[chosen], "o", ACCENT, label, xerr=sd, fill=fill)
        cells = part["cells"].map("{:,}".format)
        name_rows(axes, part["cut"] + "  (" + cells + ")", title)
        axes.invert_yaxis()
        axes.set_xlabel("macro-F1")
    legend_of_all(figure, panels)
    return figure
