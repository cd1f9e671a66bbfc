"""Sections of a report on a benchmark: cohorts, scores, differences, confusion, calibration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import pandas as pd
from markupsafe import Markup

from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.errors import ModelError
from crosspatch.models.registry import model_entry
from crosspatch.reporting import benchmark_figures as figures
from crosspatch.reporting.numbers import (
    Cell,
    Content,
    Form,
    ResultSource,
    Setting,
    first_by,
    listed,
    name_in,
    rows_of,
    say,
)
from crosspatch.reporting.page import Block, Heading, Paragraph, Picture, Table

#: Tasks in words.
TASKS = {
    "mouse": "mouse cells",
    "human": "human cells",
    "transfer": "human cells, with mouse cells to learn from",
}

# Panels of a figure that still fits a page.
_MOST_PANELS = 9

_ORIENTATION = (
    "Published: arXiv 2603.11000, on other cells (after its own quality control of recordings) "
    "and other features, with folds that ignore the donor; for orientation, not a like-for-like "
    "comparison."
)


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
        f"Of {species} cells most are {name_in(part, first_by(part, 'cells'), 'name')}."
        for species, part in table[table["group"] == "subclass"].groupby("species", sort=False)
    )
    yield Picture(
        f"cohorts_{source.name}" if number > 1 else "cohorts",
        partial(figures.cohorts_figure, table),
        f"Bars: cells by group, for each species. {largest}",
        say(
            "Cells by subclass and by what is known of the tissue, and the share of cells without "
            "each family of features. {largest}",
            largest=largest,
        ),
    )
    for (species, group), part in table.groupby(["species", "group"], sort=False):
        if group not in _COHORT_TABLES:
            continue
        yield Table(
            _COHORT_TABLES[str(group)].format(species=str(species).capitalize()),
            ("Family" if group == "missing family" else "Name", "Cells", "Donors", "Share"),
            [
                (
                    _cell(source, "cohorts", row, "name"),
                    _cell(source, "cohorts", row, "cells", form="count"),
                    _cell(source, "cohorts", row, "donors", form="count"),
                    _cell(source, "cohorts", row, "share"),
                )
                for row in rows_of(part)
            ],
            folded=group != "subclass",
        )


_COHORT_TABLES = {
    "subclass": "{species} cells by subclass",
    "condition": "{species} cells by condition of the slice",
    "disease": "{species} cells by disease of the donor",
    "missing family": "{species} cells in which a family is missing",
}


def _from_settings(source: ResultSource, species: str) -> Table:
    about = source.settings["cohorts"][species]
    return Table(
        f"{species.capitalize()} cells by subclass",
        ("Subclass", "Cells"),
        [
            (name, Setting(source, ("cohorts", species, "subclasses", name)))
            for name in (n for n in load_taxonomy().subclasses if n in about["subclasses"])
        ],
    )


def _left_out(source: ResultSource, species: str) -> Iterator[Block]:
    about = source.settings["cohorts"][species]
    reasons = [
        say("{n} {reason}", n=Setting(source, ("cohorts", species, "dropped", key)), reason=key)
        for key, count in about.get("dropped", {}).items()
        if count
    ]
    yield Paragraph(
        say(
            "{species}: {cells} cells of {donors} donors ({dataset}); left out: {reasons}.",
            species=species.capitalize(),
            cells=Setting(source, ("cohorts", species, "cells")),
            donors=Setting(source, ("cohorts", species, "donors")),
            dataset=Setting(source, ("cohorts", species, "dataset")),
            reasons=listed(list(reasons)) if reasons else "none",
        )
    )


def results_blocks(source: ResultSource) -> Iterator[Block]:
    """Scores beside the published ones, and paired differences."""
    summary = source.table("summary")
    published = "published_macro_f1" in summary and summary["published_macro_f1"].notna().any()
    header = ["Task", "Model", "Macro-F1", "Accuracy", "Balanced accuracy", "Runs"]
    if published:
        header = [*header[:3], "published", "Accuracy", "published", *header[4:]]
    rows = []
    for row in rows_of(summary):
        cells = {
            name: spread(source, "summary", row, name)
            for name in ("macro_f1", "accuracy", "balanced_accuracy")
            if f"{name}_mean" in summary
        }
        line: list[Content] = [
            _cell(source, "summary", row, "task"),
            _cell(source, "summary", row, "model"),
            cells["macro_f1"],
        ]
        line += [_cell(source, "summary", row, "published_macro_f1")] if published else []
        line.append(cells["accuracy"])
        line += [_cell(source, "summary", row, "published_accuracy")] if published else []
        line.append(cells.get("balanced_accuracy", "–"))
        line.append(_cell(source, "summary", row, "runs", form="count"))
        rows.append(line)
    best = best_by_task(source)
    names = listed([say("{m} ({t})", m=name_in(summary, r, "model"), t=t) for t, r in best.items()])
    yield Picture(
        f"scores_{source.name}",
        partial(figures.scores_figure, summary),
        f"Dots: macro-F1 of every model, a panel a task. Highest: {names.striptags()}.",
        say(
            "Macro-F1 of every model on cells it has not seen, mean and SD over runs. Highest: "
            "{names}.",
            names=names,
        ),
    )
    yield Table("Scores, mean ± SD over runs", header, rows, texts=2)
    if published:
        yield Paragraph(_ORIENTATION)
    comparisons = source.table("comparisons")
    if not len(comparisons):
        return
    yield Picture(
        f"differences_{source.name}",
        partial(figures.differences_figure, comparisons),
        "Dots with intervals: paired differences in macro-F1 between models, a panel a task. "
        + " ".join(_tied_in_words(source, task) for task in best),
        say(
            "Differences in macro-F1 on the same folds, with intervals of 95 % confidence. Filled: "
            "the interval has no zero in it, so the difference is hardly chance. {tied}",
            tied=" ".join(_tied_in_words(source, task) for task in best),
        ),
    )
    several = len(comparisons) > figures.MOST_PAIRS
    if several:
        chosen = [
            row
            for task, part in comparisons.groupby("task", sort=False)
            for row in rows_of(part)
            if figures.best_model(part)
            in (name_in(part, row, "model_a"), name_in(part, row, "model_b"))
        ]
        yield _differences("Paired differences with the best model of each task", source, chosen)
    yield _differences(
        "All paired differences" if several else "Paired differences",
        source,
        rows_of(comparisons),
        folded=several,
    )
    yield Paragraph(
        "Corrected resampled t-test (Nadeau and Bengio), which allows for training sets that "
        "overlap. The p-values are not corrected for the number of pairs."
    )


def _differences(
    caption: str, source: ResultSource, rows: Sequence[int], *, folded: bool = False
) -> Table:
    table = source.table("comparisons")
    return Table(
        caption,
        ("Task", "Difference", "Macro-F1", "95 % interval", "p"),
        [
            (
                name_in(table, row, "task"),
                f"{name_in(table, row, 'model_a')} − {name_in(table, row, 'model_b')}",
                _cell(source, "comparisons", row, "delta_macro_f1", form="signed"),
                interval(source, "comparisons", row),
                _cell(source, "comparisons", row, "p_value", form="p"),
            )
            for row in rows
        ],
        texts=2,
        folded=folded,
    )


def best_by_task(source: ResultSource) -> dict[str, int]:
    """Row of the model with the highest macro-F1, by task."""
    summary = source.table("summary")
    return {
        str(task): first_by(part, "macro_f1_mean")
        for task, part in summary.groupby("task", sort=False)
    }


def against_best(source: ResultSource, task: str) -> tuple[str, list[str], list[str]]:
    """The best model of a task; those that are worse, and those that may be as good.

    The first are those for which the interval of the difference has no zero in it.
    """
    best = name_in(source.table("summary"), best_by_task(source)[task], "model")
    table = source.table("comparisons")
    worse: list[str] = []
    tied: list[str] = []
    if len(table):
        for _, row in figures.against(table[table["task"] == task], best).iterrows():
            (worse if row["ci_high"] < 0 else tied).append(str(row["model"]))
    return best, worse, tied


def _tied_in_words(source: ResultSource, task: str) -> str:
    best, worse, tied = against_best(source, task)
    if tied and worse:
        return f"In task {task}, {listed(list(tied))} may be as good as {best}."
    if tied:
        return f"In task {task} no model is clearly worse than {best}."
    return f"In task {task} all others are clearly worse than {best}." if worse else ""


def confusion_blocks(source: ResultSource) -> Iterator[Block]:
    """Confusion matrices, a figure a task."""
    confusion = source.table("confusion")
    for task, part in confusion.groupby("task", sort=False):
        models = list(dict.fromkeys(part["model"]))
        for first in range(0, len(models), _MOST_PANELS):
            chosen = models[first : first + _MOST_PANELS]
            here = part[part["model"].isin(chosen)]
            name = f"confusion_{task}_{source.name}" + (f"_from_{chosen[0]}" if first else "")
            yield Picture(
                name,
                partial(figures.confusion_figure, here),
                f"Matrices of true against predicted subclass, task {task}, one a model: "
                f"{listed(list(chosen))}. {_confused(here)}",
                say(
                    "Where the cells of each subclass end up ({task}): share of the row, and below "
                    "it cells a run. {confused}",
                    task=TASKS.get(str(task), str(task)),
                    confused=_confused(here),
                ),
            )


def _confused(confusion: pd.DataFrame) -> str:
    counts = confusion.groupby(["true", "predicted"])["cells"].sum().reset_index()
    counts["share"] = counts["cells"] / counts.groupby("true")["cells"].transform("sum")
    wrong = counts[counts["true"] != counts["predicted"]]
    if wrong["cells"].sum() == 0:
        return "No cell is confused."
    most = first_by(wrong, "share")
    true, predicted = (name_in(wrong, most, column) for column in ("true", "predicted"))
    return f"Over these models, {true} is most often taken for {predicted}."


def class_f1_blocks(source: ResultSource) -> Iterator[Block]:
    """F1 of each subclass."""
    summary = source.table("summary")
    columns = [n for n in summary if str(n).startswith("f1_") and str(n).endswith("_mean")]
    names = [str(n).removeprefix("f1_").removesuffix("_mean") for n in columns]
    names = [n for n in load_taxonomy().subclasses if n in names]
    if not names:
        return
    hardest = []
    for task, row in best_by_task(source).items():
        scores = {n: float(str(summary[f"f1_{n}_mean"].loc[row])) for n in names}
        there = [name for name, score in scores.items() if score == score]
        worst = min(there, key=lambda name, scores=scores: scores[name])  # type: ignore[misc]
        hardest.append(f"In task {task}, {worst} is hardest for {name_in(summary, row, 'model')}.")
    yield Picture(
        f"f1_by_subclass_{source.name}",
        partial(figures.class_f1_figure, summary),
        f"Dots: F1 by model, a panel a subclass and task. {' '.join(hardest)}",
        say(
            "F1 of each subclass by model, mean and SD over runs. {hardest}",
            hardest=" ".join(hardest),
        ),
    )
    yield Table(
        "F1 by subclass, mean ± SD over runs",
        ("Task", "Model", *names),
        [
            (
                name_in(summary, row, "task"),
                name_in(summary, row, "model"),
                *(spread(source, "summary", row, f"f1_{name}") for name in names),
            )
            for row in rows_of(summary)
        ],
        texts=2,
        folded=True,
    )


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


def gain_blocks(source: ResultSource) -> Iterator[Block]:
    """Transfer models against those without mouse."""
    rows = transfer_rows(source)
    if not len(rows):
        return
    models = list(dict.fromkeys([*rows["model_a"], *rows["model_b"]]))
    theirs = [name for name in models if learns_from_mouse(name)]
    told = " ".join(gain_in_words(source, name) for name in theirs)
    yield Picture(
        f"gain_from_mouse_{source.name}",
        partial(figures.gain_figure, rows, theirs),
        "Dots with intervals: macro-F1 of models that learn from mouse minus that of others, on "
        f"the same human cells. {told}",
        say(
            "Macro-F1 on human cells of models that learn from mouse as well, minus that of "
            "models that do not, with intervals of 95 % confidence. {told}",
            told=told,
        ),
    )
    yield _differences("With and without mouse", source, rows_of(rows))


def gain_in_words(source: ResultSource, model: str) -> str:
    """Over which models one that learns from mouse gains, over which it loses."""
    rows = transfer_rows(source)
    found = figures.against(rows, model)  # the others minus it
    gains = list(found.loc[found["ci_high"] < 0, "model"])
    loses = list(found.loc[found["ci_low"] > 0, "model"])
    rest = list(found.loc[(found["ci_high"] >= 0) & (found["ci_low"] <= 0), "model"])
    parts = []
    if gains:
        parts.append(f"is better than {listed(gains)}")
    if loses:
        parts.append(f"is worse than {listed(loses)}")
    if rest:
        parts.append(f"shows no clear difference from {listed(rest)}")
    return f"{model} {listed(list(parts))}." if parts else ""


def calibration_blocks(source: ResultSource) -> Iterator[Block]:
    """How honest models are about their uncertainty."""
    table = source.table("calibration")
    if not len(table):
        return
    reliability, coverage = source.table("reliability"), source.table("coverage")
    bins = reliability.assign(gap=reliability["accuracy"] - reliability["confidence"])
    weighted = (bins["gap"] * bins["cells"]).groupby(bins["model"], sort=False).sum()
    leaning = " ".join(
        f"On the whole {model} is right {'more' if gap > 0 else 'less'} often than it says."
        for model, gap in weighted.items()
        if abs(gap) / bins.loc[bins["model"] == model, "cells"].sum() > 0.02
    )
    leaning = leaning or "On the whole, models are about as often right as they say."
    yield Picture(
        f"reliability_{source.name}",
        partial(figures.reliability_figure, reliability),
        f"Lines: accuracy against confidence, a panel a model. {leaning}",
        say(
            "Accuracy of cells by the probability of their predicted class; on the dashed line a "
            "model is as often right as it says. Bars: share of cells. {leaning}",
            leaning=leaning,
        ),
    )
    names = [n for n in _CALIBRATION if f"{n}_mean" in table]
    yield Table(
        "Calibration, mean ± SD over runs",
        ("Task", "Model", *(_CALIBRATION[n] for n in names)),
        [
            (
                name_in(table, row, "task"),
                name_in(table, row, "model"),
                *(spread(source, "calibration", row, n) for n in names),
            )
            for row in rows_of(table)
        ],
        texts=2,
    )
    yield Paragraph(
        "Confident: share of cells with one class in their set that are not called outside the "
        "reference. Outside: share of cells called so, all of which are true cells of the "
        "reference; by its definition 0.05 is expected.".replace("0.05", "a twentieth")
    )
    least = coverage[coverage["class"] != "all"]
    low = least.loc[least.groupby("sets", sort=False)["coverage_mean"].idxmin()]
    told = " ".join(
        f"With sets {row['sets']}, {row['class']} is covered least." for _, row in low.iterrows()
    )
    yield Picture(
        f"prediction_sets_{source.name}",
        partial(figures.coverage_figure, coverage),
        f"Dots: coverage and size of prediction sets by subclass, a row a model. {told}",
        say(
            "How often the true subclass is in the prediction set (aim: the dashed line, 90 %), "
            "and how many classes a set has. {told}",
            told=told,
        ),
    )
    yield _scores_table(
        "Prediction sets by subclass, mean ± SD over runs", source, "coverage", ("sets", "class")
    )
    if len(source.table("families")):
        yield _scores_table(
            "Scores by which features are present, mean ± SD over runs",
            source,
            "families",
            ("present",),
        )


_CALIBRATION = {
    "ece": "Calibration error",
    "confident": "Confident",
    "accuracy_confident": "Accuracy of these",
    "outside": "Outside",
    "refused": "Refused",
}

_SCORES = {
    "macro_f1": "Macro-F1",
    "coverage": "Coverage",
    "set_size": "Classes in the set",
    "one_class": "One class",
    "empty": "Empty",
    "refused": "Refused",
}


def _scores_table(caption: str, source: ResultSource, name: str, keys: Sequence[str]) -> Table:
    table = source.table(name)
    scores = [n for n in _SCORES if f"{n}_mean" in table]
    who = ("task", "model", *keys)
    return Table(
        caption,
        (*(key.capitalize() for key in who), *(_SCORES[n] for n in scores)),
        [
            (
                *(_cell(source, name, row, key) for key in who),
                *(spread(source, name, row, n) for n in scores),
            )
            for row in rows_of(table)
        ],
        texts=len(who),
        folded=True,
    )


def _cell(
    source: ResultSource, table: str, row: int, column: str, digits: int = 3, form: Form = "plain"
) -> Cell:
    return Cell(source, table, row, column, digits, form)


def spread(source: ResultSource, table: str, row: int, name: str, digits: int = 3) -> Markup:
    """Mean ± SD; the mean alone where one run has no SD."""
    mean = _cell(source, table, row, f"{name}_mean", digits)
    if f"{name}_sd" not in source.table(table):
        return say("{mean}", mean=mean)
    deviation = _cell(source, table, row, f"{name}_sd", digits)
    return say("{mean} ± {sd}", mean=mean, sd=deviation) if deviation else say("{m}", m=mean)


def interval(
    source: ResultSource,
    table: str,
    row: int,
    columns: tuple[str, str] = ("ci_low", "ci_high"),
    digits: int = 3,
    form: Form = "signed",
) -> Markup:
    """A 95 % interval in brackets."""
    ends = (_cell(source, table, row, name, digits, form) for name in columns)
    return say("[{low}, {high}]", **dict(zip(("low", "high"), ends, strict=True)))


def by_source(
    sources: Sequence[ResultSource], blocks: Sequence[Sequence[Block]]
) -> Iterator[Block]:
    """Blocks of several folders, each under a heading if there is more than one."""
    filled = [(source, part) for source, part in zip(sources, blocks, strict=True) if part]
    for source, part in filled:
        if len(filled) > 1:
            yield Heading(
                say("Folder {label}", label=Markup("<code>{}</code>").format(source.label))
            )
        yield from part
