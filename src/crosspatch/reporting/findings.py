"""The main findings, in sentences that are made from the tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from crosspatch.reporting.benchmark_sections import (
    TASKS,
    against_best,
    best_by_task,
    gain_in_words,
    learns_from_mouse,
    spread,
    transfer_rows,
)
from crosspatch.reporting.explanation_sections import gains_in_words, verdicts_in_words
from crosspatch.reporting.numbers import (
    Cell,
    Content,
    ResultSource,
    Rows,
    first_by,
    listed,
    name_in,
    rows_of,
    say,
)


def findings(
    benchmarks: Sequence[ResultSource],
    curves: Sequence[ResultSource],
    explanations: Sequence[ResultSource],
) -> Iterator[Content]:
    """What a reader should take home; each finding only where there are results for it."""
    for source in benchmarks:
        where = say(" (folder {name})", name=_code(source.label)) if len(benchmarks) > 1 else ""
        sentences = [_best(source, task) for task in best_by_task(source)]
        yield _about(say("Best models, mean ± SD over runs{where}", where=where), sentences)
    gains: list[Content] = []
    for source in benchmarks:
        rows = transfer_rows(source)
        models = dict.fromkeys([*rows["model_a"], *rows["model_b"]]) if len(rows) else {}
        gains += [gain_in_words(source, name) for name in models if learns_from_mouse(name)]
    for source in curves:
        gains += gains_in_words(source)
    if gains:
        yield _about("What mouse is worth", gains)
    sets = [sentence for source in benchmarks for sentence in _coverage(source)]
    if sets:
        yield _about("Prediction sets that aim at 90 %", sets)
    for source in explanations:
        verdicts = verdicts_in_words(source, "attention and")
        if verdicts:
            yield _about("Attention and what really matters", verdicts)
        alike = verdicts_in_words(source, "mouse and human")
        if alike:
            yield _about("Do families matter alike in both species", alike)
        yield from _conserved(source)


def _code(text: str) -> Markup:
    return Markup("<code>{}</code>").format(text)


def _about(title: Content, sentences: Sequence[Content]) -> Markup:
    text = Markup("<br>").join(sentences)
    return say("<strong>{title}:</strong><br>{text}", title=title, text=text)


def _best(source: ResultSource, task: str) -> Markup:
    row = best_by_task(source)[task]
    best, worse, tied = against_best(source, task)
    rest: Content = ""
    if worse and tied:
        rest = say("; clearly better than all others but {models}", models=listed(list(tied)))
    elif worse:
        rest = "; clearly better than all others"
    elif tied:
        rest = say("; no clear difference from {models}", models=listed(list(tied), "or"))
    return say(
        "{task}: {best}, macro-F1 {score}, accuracy {accuracy}{rest}.",
        task=TASKS.get(task, task).capitalize(),
        best=best,
        score=spread(source, "summary", row, "macro_f1"),
        accuracy=spread(source, "summary", row, "accuracy"),
        rest=rest,
    )


def _coverage(source: ResultSource) -> Iterator[Content]:
    coverage = source.table("coverage")
    if not len(coverage):
        return
    for (task, model), part in coverage[coverage["sets"] == coverage["sets"].iloc[0]].groupby(
        ["task", "model"], sort=False
    ):
        whole = rows_of(part[part["class"] == "all"])
        classes = part[part["class"] != "all"]
        if not len(whole) or not len(classes):
            continue
        least = first_by(classes, "coverage_mean", lowest=True)
        yield (
            say(
                "Sets of {model} hold the true subclass of {share} of {task}, with {size} classes "
                "in a set on average; of {name} they hold it least often, {low}.",
                model=str(model),
                share=spread(source, "coverage", whole[0], "coverage"),
                task=TASKS.get(str(task), str(task)),
                size=Cell(source, "coverage", whole[0], "set_size_mean", 2),
                name=name_in(classes, least, "class"),
                low=spread(source, "coverage", least, "coverage"),
            )
        )


def _conserved(source: ResultSource) -> Iterator[Content]:
    conserved = source.table("conserved")
    if not len(conserved):
        return
    part = conserved[conserved["level"] == "subclass"]
    sentences = []
    for group in dict.fromkeys(part["group"].astype(str)):
        where = {"level": "subclass", "group": group}
        opposite = {"verdict": "opposite"}
        both: Content = ""
        if "balanced_verdict" in conserved:
            balanced = opposite | {"balanced_verdict": "opposite"}
            both = say(
                ", {n} of these also when subclasses count alike",
                n=Rows(source, "conserved", where | balanced),
            )
        sentences.append(
            say(
                "{group}: {same} the same, {opposite} opposite{both}.",
                group=group,
                same=Rows(source, "conserved", where | {"verdict": "same"}),
                opposite=Rows(source, "conserved", where | opposite),
                both=both,
            )
        )
    yield _about("Features that mean the same in mouse and human, by subclass", sentences)
