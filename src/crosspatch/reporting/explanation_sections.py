"""Sections of a report on what explains: learning curve, explanations, what is conserved."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pandas as pd
from markupsafe import Markup

from crosspatch.reporting import (
    benchmark_figures,
    component_figures,
    conserved_figures,
    explanation_figures,
)
from crosspatch.reporting.benchmark_sections import interval
from crosspatch.reporting.labels import ordered, readable
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
from crosspatch.reporting.page import Block, Heading, Paragraph, Picture, Points, Table


def curve_blocks(source: ResultSource) -> Iterator[Block]:
    """Macro-F1 against labelled human cells, with and without mouse."""
    summary, gains = source.table("summary"), source.table("gains")
    if not len(summary):
        return
    if len(gains):
        told = " ".join(str(sentence.striptags()) for sentence in gains_in_words(source))
        yield Picture(
            f"learning_curve_{source.name}",
            partial(benchmark_figures.learning_curve_figure, summary, gains),
            "Lines: macro-F1 against labelled human cells a class, with and without mouse cells, a "
            f"panel a model. {_without_digits(source)}",
            say(
                "Macro-F1 on human cells against the number of labelled human cells a class that "
                "the model learns from, with and without mouse cells, with intervals of 95 % "
                "confidence. The donors of the test cells are always apart."
            ),
        )
        yield Picture(
            f"gains_by_labelled_cells_{source.name}",
            partial(benchmark_figures.gains_figure, gains),
            "Dots with intervals: gain in macro-F1 from mouse against labelled human cells a "
            f"class, a panel a group of test cells. {_without_digits(source)}",
            say(
                "Gain in macro-F1 from mouse cells, paired on the same draws, with intervals of "
                "95 % confidence: above zero, mouse helps. One panel for all test cells, and one "
                "for each condition and disease with enough cells."
            ),
        )
        if told:
            yield Points(gains_in_words(source))
        for cut, part in gains.groupby("cut", sort=False):
            yield Table(
                f"Gain from mouse, {_cut(str(cut))}",
                ("With mouse", "Without", "Labelled cells a class", "Gain", "95 % interval", "p"),
                [
                    (
                        name_in(gains, row, "model"),
                        name_in(gains, row, "without"),
                        Cell(source, "gains", row, "cells_per_class", form="count"),
                        Cell(source, "gains", row, "delta_macro_f1", form="signed"),
                        interval(source, "gains", row),
                        Cell(source, "gains", row, "p_value", form="p"),
                    )
                    for row in rows_of(part)
                ],
                texts=2,
                folded=cut != "all",
            )
    yield Table(
        "Learning curve, every point",
        ("Model", "Mouse", "Test cells", "Cells a class", "Labelled", "Macro-F1", "95 % interval"),
        [
            (
                name_in(summary, row, "model"),
                Cell(source, "summary", row, "mouse"),
                _cut(name_in(summary, row, "cut")),
                Cell(source, "summary", row, "cells_per_class", form="count"),
                Cell(source, "summary", row, "n_labelled", 0, "count"),
                Cell(source, "summary", row, "macro_f1_mean"),
                interval(source, "summary", row, form="plain"),
            )
            for row in rows_of(summary)
        ],
        texts=3,
        folded=True,
    )


def _cut(cut: str) -> str:
    return "all test cells" if cut == "all" else cut


def gains_in_words(source: ResultSource) -> list[Markup]:
    """Where mouse helps, where it harms, a sentence a pair of models; over all test cells."""
    gains = source.table("gains")
    sentences = []
    for (model, without), part in gains[gains["cut"] == "all"].groupby(
        ["model", "without"], sort=False
    ):
        better, worse = part[part["ci_low"] > 0], part[part["ci_high"] < 0]
        told = []
        for rows, word in ((better, "gains"), (worse, "loses")):
            if len(rows):
                told.append(say("{word} {points}", word=word, points=_points(source, rows)))
        if told:
            every = len(better) + len(worse) == len(part)
            rest = "" if every else "; with other numbers there is no clear difference"
        else:
            rest = "there is no clear difference at any number of labelled cells"
        sentences.append(
            say(
                "{model} against {without}: {told}{rest}.",
                model=str(model),
                told=listed(list(told)),
                rest=rest,
                without=str(without),
            )
        )
    return sentences


def _points(source: ResultSource, rows: pd.DataFrame) -> Markup:
    return listed(
        [
            say(
                "{delta} {ends} with {count} labelled cells a class",
                delta=Cell(source, "gains", row, "delta_macro_f1", form="signed"),
                ends=interval(source, "gains", row),
                count=Cell(source, "gains", row, "cells_per_class", form="count"),
            )
            for row in rows_of(rows)
        ]
    )


def _without_digits(source: ResultSource) -> str:
    """Where mouse helps, for those who do not see the figure."""
    gains = source.table("gains")
    of_all = gains[gains["cut"] == "all"]
    sentences = []
    for (model, without), part in of_all.groupby(["model", "without"], sort=False):
        if (part["ci_low"] > 0).all():
            word = "is better at every point"
        elif (part["ci_low"] > 0).any():
            word = "is clearly better at some points"
        else:
            word = "is clearly better at no point"
        sentences.append(f"With mouse, {model} {word} than {without}.")
    return " ".join(sentences)


def explanation_blocks(source: ResultSource) -> Iterator[Block]:
    """Attention, and beside it what really happens without a family."""
    importance, attention = source.table("importance"), source.table("attention")
    agreement = source.table("agreement")
    verdicts = verdicts_in_words(source, "attention and")
    for sentence in verdicts:
        yield Paragraph(sentence, "verdict")
    if len(attention):
        top = _top(attention[attention["subclass"] == "all"], "weight", "gives most attention to")
        yield Picture(
            f"attention_{source.name}",
            partial(explanation_figures.attention_figure, attention),
            f"Tiles: mean attention by family and subclass, a panel a species and model. {top}",
            say(
                "What the model attends to: mean weight of each family, over held-out cells of "
                "each subclass. {top}",
                top=top,
            ),
        )
    if len(importance):
        whole = importance[importance["scope"] == "macro_f1"]
        top = _top(whole[whole["how"] == "permuted"], "drop", "loses most without")
        yield Picture(
            f"importance_{source.name}",
            partial(explanation_figures.importance_figure, importance),
            "Dots with intervals: fall in macro-F1 when a family is permuted or removed, a panel a "
            f"species and model. {top}",
            say(
                "What really happens: fall in macro-F1 on held-out donors when a family is "
                "permuted among the test cells, or removed and the model trained again, with "
                "intervals of 95 % confidence. {top}",
                top=top,
            ),
        )
        yield Table(
            "Fall in macro-F1 without a family",
            ("Species", "Model", "Family", "How", "Fall", "95 % interval", "p"),
            [
                (
                    *(Cell(source, "importance", row, n) for n in ("species", "model", "family")),
                    Cell(source, "importance", row, "how"),
                    Cell(source, "importance", row, "drop", form="signed"),
                    interval(source, "importance", row),
                    Cell(source, "importance", row, "p_value", form="p"),
                )
                for row in rows_of(whole)
            ],
            texts=4,
            folded=True,
        )
    if not len(agreement):
        return
    if len(attention) and len(importance):
        yield Picture(
            f"agreement_{source.name}",
            partial(explanation_figures.agreement_figure, importance, attention, agreement),
            "Families by attention and by the fall without them, and rank correlations with "
            f"intervals. {' '.join(str(verdict.striptags()) for verdict in _plain(source))}",
            "Attention against what really happens. Did attention explain the model, families with "
            "more weight would also be those it cannot do without.",
        )
    p = ["p"] if "p_value" in agreement else []
    yield Table(
        "Rank agreement (Spearman)",
        ("Of what", "Species", "Model", "Correlation", "95 % interval", *p, "Families", "Verdict"),
        [
            (
                *(Cell(source, "agreement", row, name) for name in ("what", "species", "model")),
                Cell(source, "agreement", row, "spearman", form="signed"),
                interval(source, "agreement", row),
                *(Cell(source, "agreement", row, "p_value", form="p") for _ in p),
                Cell(source, "agreement", row, "families", form="count"),
                Cell(source, "agreement", row, "verdict"),
            )
            for row in rows_of(agreement)
        ],
        texts=3,
        last_text=True,
    )


def verdicts_in_words(source: ResultSource, what: str) -> list[Markup]:
    """Verdicts of the table ``agreement`` on comparisons that begin so, a sentence a row."""
    agreement = source.table("agreement")
    if not len(agreement):
        return []
    chosen = agreement[agreement["what"].astype(str).str.startswith(what)]
    return [
        say(
            "{what} ({species}, {model}): {verdict}; rank correlation {r} {ends}.",
            what=_in_words(name_in(agreement, row, "what")),
            species=_species(name_in(agreement, row, "species")),
            model=(name_in(agreement, row, "model")),
            verdict=Cell(source, "agreement", row, "verdict"),
            r=Cell(source, "agreement", row, "spearman", form="signed"),
            ends=interval(source, "agreement", row),
        )
        for row in rows_of(chosen)
    ]


_WHAT = {
    "attention and permuted": "Attention against the fall when a family is permuted",
    "attention and removed": "Attention against the fall when a family is removed",
    "mouse and human, permuted": "Mouse against human, families permuted",
    "mouse and human, removed": "Mouse against human, families removed",
    "mouse and human, attention": "Mouse against human, attention",
}


def _in_words(what: str) -> str:
    return _WHAT.get(what, what.capitalize())


def _species(species: str) -> str:
    return "both species" if species == "both" else species


def _plain(source: ResultSource) -> list[Markup]:
    agreement = source.table("agreement")
    chosen = agreement[agreement["what"].astype(str).str.startswith("attention and")]
    return [
        say("{s}, {w}: {v}.", s=row["species"], w=row["what"], v=row["verdict"])
        for _, row in chosen.astype(str).iterrows()
    ]


def _top(table: pd.DataFrame, column: str, verb: str) -> str:
    """Which family is first, a sentence a species and model."""
    return " ".join(
        f"In {species}, {model} {verb} {readable(name_in(part, first_by(part, column), 'family'))}."
        for (species, model), part in table.groupby(["species", "model"], sort=False)
        if part[column].notna().any()
    )


def pictures_blocks(source: ResultSource) -> Iterator[Block]:
    """The cells themselves: map, examples, loadings."""
    where, loadings = source.table("map"), source.table("loadings")
    examples = source.table("examples")
    if len(where):
        apart = _farthest(where)
        yield Picture(
            f"map_{source.name}",
            partial(component_figures.map_figure, where),
            f"Map of cells by subclass, mouse and human. {apart}",
            say(
                "Cells in two dimensions (UMAP of the sparse principal components), fitted on "
                "mouse, human cells laid over. Neighbours are alike; large distances and the axes "
                "mean nothing. {apart}",
                apart=apart,
            ),
        )
    for table, name, draw, alt, caption, told in (
        (
            examples,
            "examples",
            component_figures.examples_figure,
            "One example cell of each subclass over the quartiles of its subclass, by family of "
            "features.",
            "One example cell of each subclass, over the median and quartiles of the subclass.",
            _unlike,
        ),
        (
            loadings,
            "loadings",
            component_figures.loadings_figure,
            "Loadings of the sparse principal components of each family.",
            "Sparse principal components: where each component of a family has its loadings; of "
            "traces, over their mean.",
            _told_by_one,
        ),
    ):
        for one in dict.fromkeys(table["species"]) if len(table) else ():
            part = table[table["species"] == one].reset_index(drop=True)
            what = f"{str(one).capitalize()} cells. {told(part)}"
            yield Picture(
                f"{name}_{one}_{source.name}",
                partial(draw, part),
                f"{alt} {what}",
                say("{caption} {what}", caption=caption, what=what),
            )


def _unlike(examples: pd.DataFrame) -> str:
    """In which family the medians of the subclasses lie farthest apart, for their quartiles."""
    of = examples.groupby(["family", "feature"], sort=False)
    apart = of["median"].max() - of["median"].min()
    wide = (examples["high"] - examples["low"]).groupby(
        [examples["family"], examples["feature"]], sort=False
    )
    ratio = (apart / wide.mean().replace(0, float("nan"))).groupby("family").mean().dropna()
    if ratio.empty:
        return ""
    return f"Subclasses are least alike in {readable(str(ratio.idxmax()))}."


def _told_by_one(loadings: pd.DataFrame) -> str:
    """Which family is most of all told by its first component."""
    first = loadings[loadings["component"] == loadings["component"].min()]
    if "variance" not in first or not first["variance"].notna().any():
        return ""
    name = readable(name_in(first, first_by(first, "variance"), "family"))
    return f"The first component says most in {name}."


def _farthest(where: pd.DataFrame) -> str:
    """Which subclass lies apart: its mean is farthest from those of the others."""
    centres = where.groupby("subclass")[["x", "y"]].median()
    if len(centres) < 3:
        return ""
    lonely = {
        name: float(((centres.drop(name) - centres.loc[name]) ** 2).sum(axis=1).min())
        for name in centres.index
    }
    return f"{max(lonely, key=lambda name: lonely[name])} lies most apart."


def conserved_blocks(source: ResultSource) -> Iterator[Block]:
    """Which features mean the same in both species."""
    conserved = source.table("conserved")
    if not len(conserved):
        return
    for level, part in conserved.groupby("level", sort=False):
        counts = _verdicts_by_group(part)
        most = counts["opposite"].idxmax() if counts["opposite"].any() else ""
        level = str(level)
        told: Content = "Nowhere do they point opposite ways."
        if most:
            told = say("Most often opposite: {group}.", group=_group(source, part, str(most)))
        yield Heading(f"By {level}")
        yield Picture(
            f"conserved_by_{level.replace(' ', '_')}_{source.name}",
            partial(conserved_figures.conserved_figure, conserved, level=level),
            f"Tiles: how well each feature tells a {level} from the rest, mouse beside human. "
            + (f"Most often opposite: {most}." if most else str(told)),
            say(
                "How well each feature tells a {level} from the rest (AUC), in mouse and in human. "
                "Tiles of one colour mean the same in both; frames mark where the species point "
                "opposite ways. {told}",
                level=level,
                told=told,
            ),
        )
        balanced = "balanced_verdict" in part
        yield Table(
            f"How many features mean the same, by {level}",
            (
                level.capitalize(),
                *(word.capitalize() for word in _VERDICTS),
                *(["Opposite, balanced too"] if balanced else []),
            ),
            [
                (_group(source, part, group), *_counts(source, level, group, balanced=balanced))
                for group in ordered(part["group"])
            ],
        )
        if balanced:
            yield Paragraph(
                "Balanced: every subclass counts alike among the other cells. What is opposite "
                "only when they do not comes from which cells were collected, not from the cells."
            )
        for verdict, folded in (("opposite", False), ("same", True)):
            rows = part[part["verdict"] == verdict]
            if len(rows):
                yield _conserved_table(source, level, verdict, rows, folded=folded)


_VERDICTS = ("same", "opposite", "mouse only", "human only", "neither")


def _counts(source: ResultSource, level: str, group: str, *, balanced: bool) -> Iterator[Rows]:
    where = {"level": level, "group": group}
    for verdict in _VERDICTS:
        yield Rows(source, "conserved", where | {"verdict": verdict})
    if balanced:
        both = {"verdict": "opposite", "balanced_verdict": "opposite"}
        yield Rows(source, "conserved", where | both)


def _verdicts_by_group(part: pd.DataFrame) -> pd.DataFrame:
    counts = pd.crosstab(part["group"], part["verdict"])
    return counts.reindex(columns=list(_VERDICTS), fill_value=0)


def _group(source: ResultSource, part: pd.DataFrame, group: str) -> Content:
    """Name of a group: t-types have numbers in theirs."""
    row = part.index[part["group"].astype(str) == group][0]
    return Cell(source, "conserved", int(row), "group")


def _conserved_table(
    source: ResultSource, level: str, verdict: str, rows: pd.DataFrame, *, folded: bool
) -> Table:
    kinds = ("mouse", "human", "mouse_balanced", "human_balanced")
    there = [kind for kind in kinds if f"{kind}_auc" in rows]

    def auc(row: int, kind: str) -> Content:
        return say(
            "{value} {ends}",
            value=Cell(source, "conserved", row, f"{kind}_auc", digits=2),
            ends=interval(source, "conserved", row, (f"{kind}_low", f"{kind}_high"), 2, "plain"),
        )

    return Table(
        f"Features that point {'opposite ways' if verdict == 'opposite' else 'the same way'}, "
        f"by {level}: AUC with 95 % interval",
        (level.capitalize(), "Feature", *(kind.replace("_", ", ").capitalize() for kind in there)),
        [
            (
                Cell(source, "conserved", row, "group"),
                Cell(source, "conserved", row, "feature"),
                *(auc(row, kind) for kind in there),
            )
            for row in rows_of(rows)
        ],
        texts=2,
        folded=folded,
    )


def separation_blocks(source: ResultSource) -> Iterator[Block]:
    """How far subclasses are apart."""
    table = source.table("separation")
    if not len(table):
        return
    pairs = table[table["metric"] == "d_prime"]
    told = " ".join(
        f"In {species}, {_closest(part, 'a')} and {_closest(part, 'b')} are closest."
        for species, part in pairs.groupby("species", sort=False)
    )
    yield Picture(
        f"separation_{source.name}",
        partial(component_figures.separation_figure, table),
        f"Separation of subclasses in the space of sparse components, by species. {told}",
        say(
            "How far subclasses are apart in the space of sparse principal components: silhouette "
            "of each, d′ of each pair. {told}",
            told=told,
        ),
    )
    for metric, part in table.groupby("metric", sort=False):
        yield Table(
            {"silhouette": "Silhouette", "d_prime": "d′ between subclasses"}.get(
                str(metric), str(metric)
            )
            + ", with p-values by permutation of labels",
            ("Species", "Of", "Against", "Value", "p"),
            [
                (
                    *(Cell(source, "separation", row, name) for name in ("species", "a", "b")),
                    Cell(source, "separation", row, "value"),
                    Cell(source, "separation", row, "p_value", form="p"),
                )
                for row in rows_of(part)
            ],
            texts=3,
            folded=metric != "silhouette",
        )


def _closest(pairs: pd.DataFrame, side: str) -> str:
    return name_in(pairs, first_by(pairs, "value", lowest=True), side)
