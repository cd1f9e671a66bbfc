"""The section of a report on labelled cells: what answers are worth on them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosspatch.drawing.panels import intervals, legend_of_all, name_rows, stacked
from crosspatch.drawing.style import ACCENT, WIDE, ZERO, styled
from crosspatch.evaluation.benchmark_figures import confusion_figure, reliability_figure
from crosspatch.evaluation.validation_tables import cautions, promise_kept
from crosspatch.models.verdicts import COVERAGE, Verdict
from crosspatch.reporting.numbers import Content, ResultSource, Setting, code, enumerated, say
from crosspatch.reporting.page import Block, Paragraph
from crosspatch.reporting.source_blocks import paragraph, source_picture, source_table
from crosspatch.reporting.verdict_figure import Group, verdicts_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Labels that the model does not know, of a species, that are drawn.
_MOST_LABELS = 12


def validation_blocks(source: ResultSource) -> Iterator[Block]:
    """Cautions, scores, verdicts, cells of unknown labels, confusion and calibration."""
    for each in cautions(source.settings):
        yield Paragraph(each, "warning")
    yield paragraph("validation", label=code(str(source.settings["label"])))
    scores = source.table("scores")
    if len(scores):
        whole = scores[scores["class"] == "all"].to_dict("records")
        told = " ".join(
            f"Of {row['species']} cells the sets "
            f"{promise_kept(row['covered_low'], row['covered_high'])}."
            for row in whole
        )
        draw = partial(right_and_covered_figure, scores)
        yield source_picture(source, "right_and_covered", draw, told=told)
        yield source_table(source, "validation")
    draw = partial(verdicts_figure, _groups(source.table("answers")))
    yield source_picture(source, "verdicts_by_label", draw)
    if len(scores):
        yield source_table(source, "validation_verdicts")
    if len(source.table("unknown")):
        yield source_table(source, "unknown_labels")
    for name, key, figure in (
        ("confusion", "validation_confusion", confusion_figure),
        ("reliability", "reliability", reliability_figure),
    ):
        if len(table := source.table(name)):
            draw = partial(figure, _as_of_a_run(source, table))
            yield source_picture(source, key, draw, told="")
    yield from _labels(source)


def _labels(source: ResultSource) -> Iterator[Block]:
    """What every label was taken for."""
    for species, labels in source.settings["labels"].items():
        taken: list[Content] = [
            say("{label}: {what}", label=label, what=meant or "not known")
            for label, meant in labels.items()
        ]
        yield paragraph("taken_for", species=species, taken=enumerated(taken))
    if source.settings["without_label"]:
        yield paragraph("without_label", cells=Setting(source, ("without_label",)))


def _as_of_a_run(source: ResultSource, table: pd.DataFrame) -> pd.DataFrame:
    """A table by species as figures of benchmarks take it."""
    models = {name: each["model"] for name, each in source.settings["judged_by"].items()}
    return table.assign(task=table["species"] + " cells", model=table["species"].map(models), run=0)


def _groups(answers: pd.DataFrame) -> list[Group]:
    """Cells by true class, then by label that the model does not know, with their verdicts."""
    labelled = answers[answers["label"].fillna("") != ""]
    found = []
    for species, part in labelled.groupby("species", sort=False):
        known = part[part["class"].notna()]
        others = part[part["class"].isna()]
        frequent = others["label"].value_counts().index[:_MOST_LABELS]
        for table, column, names in (
            (known, "class", sorted(set(known["class"]))),
            (others, "label", [str(name) for name in frequent]),
        ):
            for name in names:
                verdicts = table.loc[table[column] == name, "verdict"].value_counts()
                rows = {verdict: int(verdicts.get(verdict.value, 0)) for verdict in Verdict}
                found.append(Group(str(species), name, rows))
    return found


@styled
def right_and_covered_figure(scores: pd.DataFrame, width: float = WIDE) -> Figure:
    """How many cells of each class are answered rightly, and have their class in the set."""
    parts = list(scores.groupby("species", sort=False))
    figure, panels = stacked([2 * len(part) for _, part in parts], width)
    for axes, (species, part) in zip(panels, parts, strict=True):
        name_rows(axes, part["class"], f"{species} cells")
        for name, label, marker, fill, shift in (
            ("right", "right", "o", ACCENT, -0.15),
            ("covered", "label in the prediction set", "s", "white", 0.15),
        ):
            share = part[name].to_numpy(dtype=float)
            low, high = (part[f"{name}_{end}"].to_numpy(dtype=float) for end in ("low", "high"))
            rows = np.arange(len(part)) + shift
            ends = np.clip([share - low, high - share], 0, None)
            intervals(axes, share, rows, marker, ACCENT, label, xerr=ends, fill=fill)
        axes.axvline(COVERAGE, color=ZERO, linewidth=1, linestyle="--", zorder=0)
        axes.invert_yaxis()
        axes.set(xlabel="share of cells", xlim=(0, 1.01))
    legend_of_all(figure, panels)
    return figure
