"""Sections of a report on what explains: what models go by, what is conserved, the cells."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pandas as pd
from markupsafe import Markup

from crosspatch.cohorts.taxonomy import ordered
from crosspatch.drawing.labels import readable
from crosspatch.reporting import conserved_figures, explanation_figures, family_figures, map_figures
from crosspatch.reporting.numbers import Content, ResultSource, Rows, TableRow, first_by, say
from crosspatch.reporting.page import Block, Heading, Paragraph, Picture, TableBlock
from crosspatch.reporting.source_blocks import paragraph, source_picture, source_table, wording


def explanation_blocks(source: ResultSource) -> Iterator[Block]:
    """Attention, and beside it what really happens without a family."""
    importance, attention, agreement = map(source.table, ("importance", "attention", "agreement"))
    for sentence in verdicts_in_words(source, "attention and"):
        yield Paragraph(sentence, "verdict")
    if len(attention):
        told = _top(attention[attention["subclass"] == "all"], "weight", "gives most attention to")
        draw = partial(explanation_figures.attention_figure, attention)
        yield source_picture(source, "attention", draw, told=told)
    if len(importance):
        whole = importance[importance["scope"] == "macro_f1"]
        told = _top(whole[whole["how"] == "permuted"], "drop", "loses most without")
        draw = partial(explanation_figures.importance_figure, importance)
        yield source_picture(source, "importance", draw, told=told)
        yield source_table(source, "importance", whole)
    if not len(agreement):
        return
    if len(attention) and len(importance):
        verdicts = " ".join(
            f"{row.name('species')}, {row.name('what')}: {row.name('verdict')}."
            for row in _agreement_on(source, "attention and")
        )
        draw = partial(explanation_figures.agreement_figure, importance, attention, agreement)
        yield source_picture(source, "agreement", draw, told=verdicts)
    yield source_table(source, "agreement")


def _agreement_on(source: ResultSource, what: str) -> list[TableRow]:
    """Rows of the table ``agreement`` on comparisons that begin so."""
    return [row for row in source.rows("agreement") if row.name("what").startswith(what)]


def verdicts_in_words(source: ResultSource, what: str) -> list[Markup]:
    """Verdicts of the table ``agreement`` on comparisons that begin so, one sentence per row."""
    return [
        say(
            "{what} ({species}, {model}): {verdict}; rank correlation {r} {ends}.",
            what=wording("agreement", row.name("what")).capitalize(),
            species="both species" if row.name("species") == "both" else row.name("species"),
            model=row.name("model"),
            verdict=row.cell("verdict"),
            r=row.cell("spearman", "signed"),
            ends=row.interval(),
        )
        for row in _agreement_on(source, what)
    ]


def _top(table: pd.DataFrame, column: str, verb: str) -> str:
    """Which family is first, in one sentence per species and model."""
    return " ".join(
        f"In {species}, {model} {verb} {readable(str(first_by(part, column)['family']))}."
        for (species, model), part in table.groupby(["species", "model"], sort=False)
        if part[column].notna().any()
    )


def pictures_blocks(source: ResultSource) -> Iterator[Block]:
    """The cells themselves: map, examples, loadings."""
    where, loadings, examples = map(source.table, ("map", "loadings", "examples"))
    if len(where):
        draw = partial(map_figures.map_figure, where)
        yield source_picture(source, "map", draw, told=_farthest(where))
    for name, table, draw_one, told in (
        ("examples", examples, family_figures.examples_figure, _unlike),
        ("loadings", loadings, family_figures.loadings_figure, _told_by_one),
    ):
        for one in dict.fromkeys(table["species"]) if len(table) else ():
            part = table[table["species"] == one].reset_index(drop=True)
            seen, file = (
                f"{str(one).capitalize()} cells. {told(part)}",
                f"{name}_{one}_{source.name}",
            )
            yield source_picture(source, name, partial(draw_one, part), name=file, told=seen)


def _unlike(examples: pd.DataFrame) -> str:
    """In which family the medians of the subclasses lie farthest apart, for their quartiles."""
    table = examples.assign(wide=examples["high"] - examples["low"])
    of = table.groupby(["family", "feature"], sort=False)
    apart = of["median"].max() - of["median"].min()
    wide = of["wide"].mean().replace(0, float("nan"))
    ratio = (apart / wide).groupby("family").mean().dropna()
    if ratio.empty:
        return ""
    return f"Subclasses are least alike in {readable(str(ratio.idxmax()))}."


def _told_by_one(loadings: pd.DataFrame) -> str:
    """Which family is most of all told by its first component."""
    first = loadings[loadings["component"] == loadings["component"].min()]
    if "variance" not in first or not first["variance"].notna().any():
        return ""
    name = readable(str(first_by(first, "variance")["family"]))
    return f"The first component says most in {name}."


def _farthest(where: pd.DataFrame) -> str:
    """Which subclass lies apart: its middle is farthest from those of the others."""
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
        yield Heading(f"By {level}")
        yield _conserved_picture(source, str(level), part)
        yield _verdict_counts(source, str(level), part)
        if "balanced_verdict" in part:
            yield paragraph("balanced")
        for verdict, ways in (("opposite", "opposite ways"), ("same", "the same way")):
            parts = {"ways": ways, "level": str(level), "head": str(level).capitalize()}
            if len(rows := part[part["verdict"] == verdict]):
                yield source_table(source, "conserved", rows, folded=verdict == "same", **parts)


def _conserved_picture(source: ResultSource, level: str, part: pd.DataFrame) -> Picture:
    opposite = part.loc[part["verdict"] == "opposite", "group"].astype(str).value_counts()
    told: Content = "Nowhere do they point opposite ways."
    if len(opposite):
        most = min(opposite[opposite == opposite.max()].index)
        told = say("Most often opposite: {group}.", group=_group(source, part, most))
    draw = partial(conserved_figures.conserved_figure, source.table("conserved"), level=level)
    name = f"conserved_by_{level.replace(' ', '_')}_{source.name}"
    return source_picture(source, "conserved", draw, name=name, told=told, level=level)


def _verdict_counts(source: ResultSource, level: str, part: pd.DataFrame) -> TableBlock:
    kinds = {word.capitalize(): {"verdict": word} for word in _VERDICTS}
    if "balanced_verdict" in part:
        kinds["Opposite, balanced too"] = dict.fromkeys(("verdict", "balanced_verdict"), "opposite")

    def counts(group: str) -> list[Content]:
        where = {"level": level, "group": group}
        numbers = [Rows(source, "conserved", where | which) for which in kinds.values()]
        return [_group(source, part, group), *numbers]

    caption = f"How many features mean the same, by {level}"
    return TableBlock(caption, (level.capitalize(), *kinds), [*map(counts, ordered(part["group"]))])


_VERDICTS = ("same", "opposite", "mouse only", "human only", "neither")


def _group(source: ResultSource, part: pd.DataFrame, group: str) -> Content:
    """Name of a group: t-types have numbers in theirs."""
    return source.rows("conserved", part[part["group"].astype(str) == group])[0].cell("group")


def separation_blocks(source: ResultSource) -> Iterator[Block]:
    """How far subclasses are apart."""
    table = source.table("separation")
    if not len(table):
        return
    pairs = table[table["metric"] == "d_prime"]
    closest = [
        first_by(part, "value", lowest=True) for _, part in pairs.groupby("species", sort=False)
    ]
    told = " ".join("In {species}, {a} and {b} are closest.".format(**row) for row in closest)
    draw = partial(map_figures.separation_figure, table)
    yield source_picture(source, "separation", draw, told=told)
    for metric, part in table.groupby("metric", sort=False):
        folded, shown = metric != "silhouette", wording("metric", metric)
        yield source_table(source, "separation", part, folded=folded, metric=shown)
