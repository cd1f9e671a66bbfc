"""Sections of a report on what explains: what models go by, what is conserved, the cells."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pandas as pd
from markupsafe import Markup

from crosspatch.reporting import (
    agreement_figures,
    conserved_figures,
    example_figures,
    explanation_figures,
    loading_figures,
    map_figures,
)
from crosspatch.reporting.labels import ordered, readable
from crosspatch.reporting.numbers import Content, ResultSource, Rows, TableRow, first_by, say
from crosspatch.reporting.page import (
    Block,
    Heading,
    Paragraph,
    Picture,
    TableBlock,
    picture_telling,
)


def explanation_blocks(source: ResultSource) -> Iterator[Block]:
    """Attention, and beside it what really happens without a family."""
    importance, attention = source.table("importance"), source.table("attention")
    for sentence in verdicts_in_words(source, "attention and"):
        yield Paragraph(sentence, "verdict")
    if len(attention):
        yield _attention(source)
    if len(importance):
        yield from _importance_blocks(source)
    if len(source.table("agreement")):
        yield from _agreement_blocks(source)


def _attention(source: ResultSource) -> Picture:
    attention = source.table("attention")
    return picture_telling(
        _top(attention[attention["subclass"] == "all"], "weight", "gives most attention to"),
        f"attention_{source.name}",
        partial(explanation_figures.attention_figure, attention),
        "Tiles: mean attention by family and subclass, a panel a species and model.",
        "What the model attends to: mean weight of each family, over held-out cells of each "
        "subclass.",
    )


def _importance_blocks(source: ResultSource) -> Iterator[Block]:
    importance = source.table("importance")
    whole = importance[importance["scope"] == "macro_f1"]
    yield picture_telling(
        _top(whole[whole["how"] == "permuted"], "drop", "loses most without"),
        f"importance_{source.name}",
        partial(explanation_figures.importance_figure, importance),
        "Dots with intervals: fall in macro-F1 when a family is permuted or removed, a panel a "
        "species and model.",
        "What really happens: fall in macro-F1 on held-out donors when a family is permuted "
        "among the test cells, or removed and the model trained again, with intervals of 95 % "
        "confidence.",
    )
    yield TableBlock(
        "Fall in macro-F1 without a family",
        ("Species", "Model", "Family", "How", "Fall", "95 % interval", "p"),
        [
            (*row.cells("species", "model", "family", "how"), *row.tested("drop"))
            for row in source.rows("importance", whole)
        ],
        texts=4,
        folded=True,
    )


def _agreement_blocks(source: ResultSource) -> Iterator[Block]:
    importance, attention = source.table("importance"), source.table("attention")
    agreement = source.table("agreement")
    if len(attention) and len(importance):
        verdicts = " ".join(
            f"{row.name('species')}, {row.name('what')}: {row.name('verdict')}."
            for row in _agreement_on(source, "attention and")
        )
        yield Picture(
            f"agreement_{source.name}",
            partial(agreement_figures.agreement_figure, importance, attention, agreement),
            "Families by attention and by the fall without them, and rank correlations with "
            f"intervals. {verdicts}",
            "Attention against what really happens. Did attention explain the model, families with "
            "more weight would also be those it cannot do without.",
        )
    p = ["p"] if "p_value" in agreement else []
    yield TableBlock(
        "Rank agreement (Spearman)",
        ("Of what", "Species", "Model", "Correlation", "95 % interval", *p, "Families", "Verdict"),
        [
            (
                *row.cells("what", "species", "model"),
                row.cell("spearman", "signed"),
                row.interval(),
                *(row.cell("p_value", "p") for _ in p),
                row.cell("families", "count"),
                row.cell("verdict"),
            )
            for row in source.rows("agreement")
        ],
        texts=3,
        last_text=True,
    )


def _agreement_on(source: ResultSource, what: str) -> list[TableRow]:
    """Rows of the table ``agreement`` on comparisons that begin so."""
    return [row for row in source.rows("agreement") if row.name("what").startswith(what)]


def verdicts_in_words(source: ResultSource, what: str) -> list[Markup]:
    """Verdicts of the table ``agreement`` on comparisons that begin so, one sentence per row."""
    return [
        say(
            "{what} ({species}, {model}): {verdict}; rank correlation {r} {ends}.",
            what=_WHAT.get(row.name("what"), row.name("what").capitalize()),
            species="both species" if row.name("species") == "both" else row.name("species"),
            model=row.name("model"),
            verdict=row.cell("verdict"),
            r=row.cell("spearman", "signed"),
            ends=row.interval(),
        )
        for row in _agreement_on(source, what)
    ]


_WHAT = {
    "attention and permuted": "Attention against the fall when a family is permuted",
    "attention and removed": "Attention against the fall when a family is removed",
    "mouse and human, permuted": "Mouse against human, families permuted",
    "mouse and human, removed": "Mouse against human, families removed",
    "mouse and human, attention": "Mouse against human, attention",
}


def _top(table: pd.DataFrame, column: str, verb: str) -> str:
    """Which family is first, in one sentence per species and model."""
    return " ".join(
        f"In {species}, {model} {verb} {readable(str(first_by(part, column)['family']))}."
        for (species, model), part in table.groupby(["species", "model"], sort=False)
        if part[column].notna().any()
    )


def pictures_blocks(source: ResultSource) -> Iterator[Block]:
    """The cells themselves: map, examples, loadings."""
    where, loadings = source.table("map"), source.table("loadings")
    examples = source.table("examples")
    if len(where):
        yield picture_telling(
            _farthest(where),
            f"map_{source.name}",
            partial(map_figures.map_figure, where),
            "Map of cells by subclass, mouse and human.",
            "Cells in two dimensions (UMAP of the sparse principal components), fitted on "
            "mouse, human cells laid over. Neighbours are alike; large distances and the axes "
            "mean nothing.",
        )
    for table, name, draw, alt, caption, told in (
        (
            examples,
            "examples",
            example_figures.examples_figure,
            "One example cell of each subclass over the quartiles of its subclass, by family of "
            "features.",
            "One example cell of each subclass, over the median and quartiles of the subclass.",
            _unlike,
        ),
        (
            loadings,
            "loadings",
            loading_figures.loadings_figure,
            "Loadings of the sparse principal components of each family.",
            "Sparse principal components: where each component of a family has its loadings; of "
            "traces, over their mean.",
            _told_by_one,
        ),
    ):
        for one in dict.fromkeys(table["species"]) if len(table) else ():
            part = table[table["species"] == one].reset_index(drop=True)
            what = f"{str(one).capitalize()} cells. {told(part)}"
            label = f"{name}_{one}_{source.name}"
            yield picture_telling(what, label, partial(draw, part), alt, caption)


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
            yield Paragraph(
                "Balanced: every subclass counts alike among the other cells. What is opposite "
                "only when they do not comes from which cells were collected, not from the cells."
            )
        for verdict in ("opposite", "same"):
            rows = part[part["verdict"] == verdict]
            if len(rows):
                yield _conserved_table(source, str(level), verdict, rows)


def _conserved_picture(source: ResultSource, level: str, part: pd.DataFrame) -> Picture:
    opposite = part.loc[part["verdict"] == "opposite", "group"].astype(str).value_counts()
    plainly = "Nowhere do they point opposite ways."
    told: Content = plainly
    if len(opposite):
        most = min(opposite[opposite == opposite.max()].index)
        plainly = f"Most often opposite: {most}."
        told = say("Most often opposite: {group}.", group=_group(source, part, most))
    return Picture(
        f"conserved_by_{level.replace(' ', '_')}_{source.name}",
        partial(conserved_figures.conserved_figure, source.table("conserved"), level=level),
        f"Tiles: how well each feature tells a {level} from the rest, mouse beside human. "
        + plainly,
        say(
            "How well each feature tells a {level} from the rest (AUC), in mouse and in human. "
            "Tiles of one colour mean the same in both; frames mark where the species point "
            "opposite ways. {told}",
            level=level,
            told=told,
        ),
    )


def _verdict_counts(source: ResultSource, level: str, part: pd.DataFrame) -> TableBlock:
    kinds = {word.capitalize(): {"verdict": word} for word in _VERDICTS}
    if "balanced_verdict" in part:
        kinds["Opposite, balanced too"] = dict.fromkeys(("verdict", "balanced_verdict"), "opposite")
    return TableBlock(
        f"How many features mean the same, by {level}",
        (level.capitalize(), *kinds),
        [
            (
                _group(source, part, group),
                *(
                    Rows(source, "conserved", {"level": level, "group": group} | which)
                    for which in kinds.values()
                ),
            )
            for group in ordered(part["group"])
        ],
    )


_VERDICTS = ("same", "opposite", "mouse only", "human only", "neither")


def _group(source: ResultSource, part: pd.DataFrame, group: str) -> Content:
    """Name of a group: t-types have numbers in theirs."""
    return source.rows("conserved", part[part["group"].astype(str) == group])[0].cell("group")


def _conserved_table(
    source: ResultSource, level: str, verdict: str, rows: pd.DataFrame
) -> TableBlock:
    kinds = ("mouse", "human", "mouse_balanced", "human_balanced")
    there = [kind for kind in kinds if f"{kind}_auc" in rows]

    def auc(row: TableRow, kind: str) -> Content:
        value = row.cell(f"{kind}_auc", digits=2)
        return say("{value} {ends}", value=value, ends=row.interval(kind, "plain", 2))

    return TableBlock(
        f"Features that point {'opposite ways' if verdict == 'opposite' else 'the same way'}, "
        f"by {level}: AUC with 95 % interval",
        (level.capitalize(), "Feature", *(kind.replace("_", ", ").capitalize() for kind in there)),
        [
            (*row.cells("group", "feature"), *(auc(row, kind) for kind in there))
            for row in source.rows("conserved", rows)
        ],
        texts=2,
        folded=verdict == "same",
    )


def separation_blocks(source: ResultSource) -> Iterator[Block]:
    """How far subclasses are apart."""
    table = source.table("separation")
    if not len(table):
        return
    pairs = table[table["metric"] == "d_prime"]
    closest = [
        (species, first_by(part, "value", lowest=True))
        for species, part in pairs.groupby("species", sort=False)
    ]
    told = " ".join(f"In {name}, {row['a']} and {row['b']} are closest." for name, row in closest)
    yield picture_telling(
        told,
        f"separation_{source.name}",
        partial(map_figures.separation_figure, table),
        "Separation of subclasses in the space of sparse components, by species.",
        "How far subclasses are apart in the space of sparse principal components: silhouette "
        "of each, d′ of each pair.",
    )
    for metric, part in table.groupby("metric", sort=False):
        names = {"silhouette": "Silhouette", "d_prime": "d′ between subclasses"}
        yield TableBlock(
            f"{names.get(str(metric), metric)}, with p-values by permutation of labels",
            ("Species", "Of", "Against", "Value", "p"),
            [
                (*row.cells("species", "a", "b", "value"), row.cell("p_value", "p"))
                for row in source.rows("separation", part)
            ],
            texts=3,
            folded=metric != "silhouette",
        )
