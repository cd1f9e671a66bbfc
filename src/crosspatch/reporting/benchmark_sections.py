"""Sections of a report on a benchmark: cohorts, scores, differences, confusion, calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import pandas as pd

from crosspatch.cohorts.cohort_figure import cohorts_figure
from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.errors import ModelError
from crosspatch.evaluation import benchmark_figures as figures
from crosspatch.models.registry import model_entry
from crosspatch.reporting.numbers import (
    Content,
    ResultSource,
    Setting,
    TableRow,
    code,
    enumerated,
    file_name,
    first_by,
    say,
)
from crosspatch.reporting.page import Block, Heading, TableBlock
from crosspatch.reporting.source_blocks import paragraph, source_picture, source_table, wording

# Panels of a figure that still fits a page.
_MOST_PANELS = 9


def cohorts_blocks(sources: Sequence[ResultSource]) -> Iterator[Block]:
    """Cells by subclass, condition and disease, missing families, and cells left out."""
    seen: list[pd.DataFrame] = []
    told: list[object] = []
    for source in sorted(sources, key=lambda source: not len(source.table("cohorts"))):
        table = source.table("cohorts")
        if len(table) and not any(table.equals(other) for other in seen):
            seen.append(table)
            yield from _cohorts_of(source, table, len(seen))
        for species, about in source.settings.get("cohorts", {}).items():
            if about in told:
                continue
            told.append(about)
            if not len(table):
                yield _from_settings(source, species)
            yield from _left_out(source, species)


def _cohorts_of(source: ResultSource, table: pd.DataFrame, number: int) -> Iterator[Block]:
    largest = " ".join(
        f"Of {species} cells most are {first_by(part, 'cells')['name']}."
        for species, part in table[table["group"] == "subclass"].groupby("species", sort=False)
    )
    draw = partial(cohorts_figure, table)
    yield source_picture(source, "cohorts", draw, name="cohorts" * (number == 1), told=largest)
    for (species, group), part in table.groupby(["species", "group"], sort=False):
        if group in ("subclass", "condition", "disease", "missing family"):
            yield source_table(
                source,
                "cohorts",
                part,
                folded=group != "subclass",
                species=str(species).capitalize(),
                group=wording("group", group),
                name="Family" if group == "missing family" else "Name",
            )


def _from_settings(source: ResultSource, species: str) -> TableBlock:
    path = ("cohorts", species, "subclasses")
    there = source.settings["cohorts"][species]["subclasses"]
    names = load_taxonomy().ordered(there)
    rows = [(name, Setting(source, (*path, name))) for name in names]
    return TableBlock(f"{species.capitalize()} cells by subclass", ("Subclass", "Cells"), rows)


def _left_out(source: ResultSource, species: str) -> Iterator[Block]:
    def setting(*path: str) -> Setting:
        return Setting(source, ("cohorts", species, *path))

    reasons: list[Content] = [
        say("{n} {reason}", n=setting("dropped", key), reason=key)
        for key, count in source.settings["cohorts"][species].get("dropped", {}).items()
        if count
    ]
    yield paragraph(
        "left_out",
        species=species.capitalize(),
        cells=setting("cells"),
        donors=setting("donors"),
        dataset=setting("dataset"),
        reasons=enumerated(reasons) if reasons else "none",
    )


def results_blocks(source: ResultSource) -> Iterator[Block]:
    """Scores beside the published ones, and paired differences."""
    summary = source.table("summary")
    best = best_by_task(source)
    found = [say("{m} ({t})", m=row.name("model"), t=task) for task, row in best.items()]
    names = enumerated(found)
    yield source_picture(source, "scores", partial(figures.scores_figure, summary), names=names)
    if "skipped" in source.settings:
        yield from _held_out(source)
    published = "published_macro_f1" in summary and summary["published_macro_f1"].notna().any()
    unknown = () if published else ("published_macro_f1", "published_accuracy")
    yield source_table(source, "scores", without=unknown)
    if published:
        yield paragraph("orientation")
    if len(source.table("comparisons")):
        yield from _compared(source, " ".join(_tied_in_words(source, task) for task in best))


def _held_out(source: ResultSource) -> Iterator[Block]:
    """What holding out datasets means, and which could not be."""
    yield paragraph("held_out")
    if reasons := source.settings["skipped"]:
        told = [say("{name} ({why})", name=name, why=why) for name, why in reasons.items()]
        yield paragraph("skipped", reasons=enumerated(told))


def _compared(source: ResultSource, tied: str) -> Iterator[Block]:
    comparisons = source.table("comparisons")
    draw = partial(figures.differences_figure, comparisons)
    yield source_picture(source, "differences", draw, told=tied)
    several = len(comparisons) > figures.MOST_PAIRS
    if several:
        with_best = [
            figures.pairs_with(part, figures.best_model(part))
            for _, part in comparisons.groupby("task", sort=False)
        ]
        caption = "Paired differences with the best model of each task"
        yield source_table(source, "differences", pd.concat(with_best), caption=caption)
    caption = "All paired differences" if several else "Paired differences"
    yield source_table(source, "differences", folded=several, caption=caption)
    yield paragraph("paired_by_donor" if "skipped" in source.settings else "paired")


def best_by_task(source: ResultSource) -> dict[str, TableRow]:
    """Row of the model with the highest macro-F1, by task."""
    return {
        str(task): source.rows("summary", part.nlargest(1, "macro_f1_mean"))[0]
        for task, part in source.table("summary").groupby("task", sort=False)
    }


def against_best(source: ResultSource, task: str) -> tuple[str, list[str], list[str]]:
    """The best model of a task; those that are worse, and those that may be as good.

    The first are those for which the interval of the difference has no zero in it.
    """
    best = best_by_task(source)[task].name("model")
    table = source.table("comparisons")
    if not len(table):
        return best, [], []
    others = figures.against(table[table["task"] == task], best)
    worse = others["ci_high"] < 0
    names = others["model"].astype(str)
    return best, names[worse].tolist(), names[~worse].tolist()


def _tied_in_words(source: ResultSource, task: str) -> str:
    best, worse, tied = against_best(source, task)
    if tied and worse:
        return f"In task {task}, {enumerated(tied)} may be as good as {best}."
    if tied:
        return f"In task {task} no model is clearly worse than {best}."
    return f"In task {task} all others are clearly worse than {best}." if worse else ""


def confusion_blocks(source: ResultSource) -> Iterator[Block]:
    """Confusion matrices, one figure per task."""
    for task, part in source.table("confusion").groupby("task", sort=False):
        models = list(dict.fromkeys(part["model"]))
        for first in range(0, len(models), _MOST_PANELS):
            chosen = models[first : first + _MOST_PANELS]
            here = part[part["model"].isin(chosen)]
            yield source_picture(
                source,
                "confusion",
                partial(figures.confusion_figure, here),
                name=f"confusion_{file_name(str(task))}_{source.name}"
                + (f"_from_{chosen[0]}" if first else ""),
                told=_confused(here),
                task=str(task),
                models=enumerated(chosen),
                cells=wording("task", task),
            )


def _confused(confusion: pd.DataFrame) -> str:
    counts = confusion.groupby(["true", "predicted"])["cells"].sum().reset_index()
    counts["share"] = counts["cells"] / counts.groupby("true")["cells"].transform("sum")
    wrong = counts[counts["true"] != counts["predicted"]]
    if wrong["cells"].sum() == 0:
        return "No cell is confused."
    most = first_by(wrong, "share")
    return f"Over these models, {most['true']} is most often taken for {most['predicted']}."


def class_f1_blocks(source: ResultSource) -> Iterator[Block]:
    """F1 of each subclass."""
    summary = source.table("summary")
    found = figures.f1_classes(summary)
    names = load_taxonomy().ordered(found)
    if not names:
        return
    scores = summary[[f"f1_{name}_mean" for name in names]].set_axis(names, axis="columns")
    hardest = " ".join(
        f"In task {task}, {scores.loc[row.number].idxmin()} is hardest for {row.name('model')}."
        for task, row in best_by_task(source).items()
    )
    draw = partial(figures.class_f1_figure, summary)
    yield source_picture(source, "f1_by_subclass", draw, told=hardest)
    rows = [
        (row.name("task"), row.name("model"), *(row.spread(f"f1_{name}") for name in names))
        for row in source.rows("summary")
    ]
    caption, header = "F1 by subclass, mean ± SD over runs", ("Task", "Model", *names)
    yield TableBlock(caption, header, rows, texts=2, folded=True)


def learns_from_mouse(model: str) -> bool:
    """Whether a model needs a second species."""
    try:
        return model_entry(model).needs_source
    except ModelError:
        return False


def transfer_rows(source: ResultSource) -> pd.DataFrame:
    """Comparisons of the transfer task in which one of the models learns from mouse."""
    table = source.table("comparisons")
    if not len(table):
        return table
    table = table[table["task"] == "transfer"]
    a, b = (table[name].map(learns_from_mouse).astype(bool) for name in ("model_a", "model_b"))
    return table[a ^ b]


def mouse_learners(source: ResultSource) -> list[str]:
    """Models of `transfer_rows` that learn from mouse."""
    rows = transfer_rows(source)
    models = dict.fromkeys([*rows["model_a"], *rows["model_b"]]) if len(rows) else {}
    return [name for name in models if learns_from_mouse(name)]


def gain_blocks(source: ResultSource) -> Iterator[Block]:
    """Transfer models against those without mouse."""
    rows, theirs = transfer_rows(source), mouse_learners(source)
    if not theirs:
        return
    draw = partial(figures.gain_figure, rows, theirs)
    gains = " ".join(gain_in_words(source, name) for name in theirs)
    yield source_picture(source, "gain_from_mouse", draw, told=gains)
    yield source_table(source, "differences", rows, caption="With and without mouse")


def gain_in_words(source: ResultSource, model: str) -> str:
    """Over which models one that learns from mouse gains, over which it loses."""
    found = figures.against(transfer_rows(source), model)  # the others minus it
    gains, loses = found["ci_high"] < 0, found["ci_low"] > 0
    parts: list[Content] = [
        f"{verb} {enumerated(found.loc[rows, 'model'].tolist())}"
        for verb, rows in (
            ("is better than", gains),
            ("is worse than", loses),
            ("shows no clear difference from", ~gains & ~loses),
        )
        if rows.any()
    ]
    return f"{model} {enumerated(parts)}." if parts else ""


def calibration_blocks(source: ResultSource) -> Iterator[Block]:
    """How honest models are about their uncertainty."""
    table = source.table("calibration")
    if not len(table):
        return
    reliability = source.table("reliability")
    draw = partial(figures.reliability_figure, reliability)
    yield source_picture(source, "reliability", draw, told=_leaning(reliability))
    yield source_table(source, "calibration")
    yield paragraph("calibration")
    yield from _coverage(source)
    if len(source.table("families")):
        yield source_table(source, "families")


def _leaning(reliability: pd.DataFrame) -> str:
    """Which models are more or less often right than they say."""
    gap = (reliability["accuracy"] - reliability["confidence"]) * reliability["cells"]
    sums = gap.groupby(reliability["model"], sort=False).sum()
    mean = sums / reliability.groupby("model", sort=False)["cells"].sum()
    leaning = " ".join(
        f"On the whole {model} is right {'more' if of_model > 0 else 'less'} often than it says."
        for model, of_model in mean[mean.abs() > 0.02].items()
    )
    return leaning or "On the whole, models are about as often right as they say."


def _coverage(source: ResultSource) -> Iterator[Block]:
    coverage = source.table("coverage")
    classes = coverage[coverage["class"] != "all"]
    low = classes.loc[classes.groupby("sets", sort=False)["coverage_mean"].idxmin()]
    told = " ".join(
        f"With sets {sets}, {name} is covered least."
        for sets, name in zip(low["sets"], low["class"], strict=True)
    )
    draw = partial(figures.coverage_figure, coverage)
    yield source_picture(source, "prediction_sets", draw, told=told)
    yield source_table(source, "coverage")


def by_source(
    sources: Sequence[ResultSource], blocks: Callable[[ResultSource], Iterable[Block]]
) -> Iterator[Block]:
    """Blocks of several folders, each under a heading if there is more than one."""
    filled = [(source, part) for source in sources if (part := list(blocks(source)))]
    for source, part in filled:
        if len(filled) > 1:
            yield Heading(say("Folder {label}", label=code(source.label)))
        yield from part
