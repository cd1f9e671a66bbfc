"""The main findings, in sentences that are made from the tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from crosspatch.reporting.benchmark_sections import (
    against_best,
    best_by_task,
    gain_in_words,
    mouse_learners,
)
from crosspatch.reporting.curves import gains_in_words
from crosspatch.reporting.explanation_sections import verdicts_in_words
from crosspatch.reporting.numbers import Content, ResultSource, Rows, code, enumerated, say
from crosspatch.reporting.source_blocks import wording


def findings(
    benchmarks: Sequence[ResultSource],
    curves: Sequence[ResultSource],
    explanations: Sequence[ResultSource],
) -> list[Content]:
    """What a reader should take home; each finding only where there are results for it."""
    found = [*_of_benchmarks(benchmarks, curves), *_of_explanations(explanations)]
    return [
        say("<strong>{title}:</strong><br>{text}", title=title, text=Markup("<br>").join(sentences))
        for title, sentences in found
        if sentences
    ]


def _of_benchmarks(
    benchmarks: Sequence[ResultSource], curves: Sequence[ResultSource]
) -> Iterator[tuple[Content, Sequence[Content]]]:
    for source in benchmarks:
        where = say(" (folder {name})", name=code(source.label)) if len(benchmarks) > 1 else ""
        best = [_best(source, task) for task in best_by_task(source)]
        yield say("Best models, mean ± SD over runs{where}", where=where), best
    gains: list[Content] = [
        gain_in_words(s, name) for s in benchmarks for name in mouse_learners(s)
    ]
    yield "What mouse is worth", gains + [s for source in curves for s in gains_in_words(source)]
    yield "Prediction sets that aim at 90 %", [s for each in benchmarks for s in _coverage(each)]


def _of_explanations(
    sources: Sequence[ResultSource],
) -> Iterator[tuple[Content, Sequence[Content]]]:
    for source in sources:
        attention = verdicts_in_words(source, "attention and")
        yield "Attention and what really matters", attention
        species = verdicts_in_words(source, "mouse and human")
        yield "Do families matter alike in both species", species
        conserved = [*_conserved(source)]
        yield "Features that mean the same in mouse and human, by subclass", conserved


def _best(source: ResultSource, task: str) -> Markup:
    row = best_by_task(source)[task]
    best, worse, tied = against_best(source, task)
    rest: Content = ""
    if worse and tied:
        rest = say("; clearly better than all others but {models}", models=enumerated(tied))
    elif worse:
        rest = "; clearly better than all others"
    elif tied:
        rest = say("; no clear difference from {models}", models=enumerated(tied, "or"))
    return say(
        "{task}: {best}, macro-F1 {score}, accuracy {accuracy}{rest}.",
        task=wording("task", task).capitalize(),
        best=best,
        score=row.spread("macro_f1"),
        accuracy=row.spread("accuracy"),
        rest=rest,
    )


def _coverage(source: ResultSource) -> Iterator[Content]:
    coverage = source.table("coverage")
    if not len(coverage):
        return
    first_kind = coverage[coverage["sets"] == coverage["sets"].iloc[0]]
    for (task, model), part in first_kind.groupby(["task", "model"], sort=False):
        whole = source.rows("coverage", part[part["class"] == "all"])
        classes = part[part["class"] != "all"]
        if not whole or not len(classes):
            continue
        least = source.rows("coverage", classes.nsmallest(1, "coverage_mean"))[0]
        yield say(
            "Sets of {model} hold the true subclass of {share} of {task}, with {size} classes "
            "in a set on average; of {name} they hold it least often, {low}.",
            model=str(model),
            share=whole[0].spread("coverage"),
            task=wording("task", task),
            size=whole[0].cell("set_size_mean", digits=2),
            name=least.name("class"),
            low=least.spread("coverage"),
        )


def _conserved(source: ResultSource) -> Iterator[Content]:
    conserved = source.table("conserved")
    if not len(conserved):
        return
    part = conserved[conserved["level"] == "subclass"]
    for group in dict.fromkeys(part["group"].astype(str)):
        where = {"level": "subclass", "group": group}
        opposite = where | {"verdict": "opposite"}
        both: Content = ""
        if "balanced_verdict" in conserved:
            both = say(
                ", {n} of these also when subclasses count alike",
                n=Rows(source, "conserved", opposite | {"balanced_verdict": "opposite"}),
            )
        yield say(
            "{group}: {same} the same, {opposite} opposite{both}.",
            group=group,
            same=Rows(source, "conserved", where | {"verdict": "same"}),
            opposite=Rows(source, "conserved", opposite),
            both=both,
        )
