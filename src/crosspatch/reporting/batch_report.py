"""A report of cells that were predicted together: one page that needs nothing else.

Longer than 400 lines: its sections come one after the other, with what each says.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from markupsafe import Markup

from crosspatch.cohorts.taxonomy import colour_of
from crosspatch.drawing.labels import clean
from crosspatch.evaluation.results import Settings
from crosspatch.models.verdicts import Verdict
from crosspatch.prediction.explained import CellExplanation
from crosspatch.prediction.prediction import PredictedCell, Prediction
from crosspatch.reporting.cell_page import cell_page
from crosspatch.reporting.numbers import Content, code, enumerated, say, written
from crosspatch.reporting.page import (
    Block,
    Paragraph,
    Picture,
    Points,
    Section,
    TableBlock,
    write_page,
)
from crosspatch.reporting.report import citation
from crosspatch.reporting.source_blocks import paragraph
from crosspatch.reporting.verdict_figure import NO_CLASS, Group, groups_of, verdicts_figure
from crosspatch.telling import Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Rows of the table of cells; a browser and a printer must cope with it.
MOST_ROWS = 1_000

# Inputs that could not be read, and messages, that are listed.
_MOST_LINES = 200
# A page of twenty recordings, their traces sharp enough to be printed.
_MOST_BYTES = 12_000_000
# Characters of a name where there is little room, and of notes, quality or a message.
_SHORT, _NOTE = 40, 800
# Notes in a picture, which breaks them into lines and cuts them itself.
_LONG_NOTE = 2_000
# Columns of the table of cells that are text.
_ANSWER = ("cell", "species", "subclass", "runner-up", "90 % set", "verdict")


def write_batch_report(
    prediction: Prediction,
    file: Path,
    *,
    explanations: Sequence[CellExplanation] = (),
    messages: Sequence[str] = (),
    failed: Mapping[str, str] = MappingProxyType({}),
    title: str = "Predicted subclasses",
    when: datetime.datetime | None = None,
    again: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write one HTML file about cells that were predicted together.

    From top to bottom: with which models, how many cells of each verdict and subclass, a table of
    the cells (the first `MOST_ROWS`), what could not be read, what was said on the way, a picture
    of each cell that was explained, and what to cite. All text from a user's files is escaped.

    The explanations are of the same cells; their recordings are opened again. `messages` were said
    while cells were read and judged; those that say why an input `failed` are left out. `when` is
    when the cells were predicted; a browser loads the page `again` after so many seconds. A
    CrosspatchError if the file cannot be written.
    """
    cells, header = prediction.cells, prediction.header
    # A recording that was not read has nothing to be drawn.
    drawn = [each for each in explanations if each.cell.unread is None]
    pages = {_key(each.cell): f"cell-{k}" for k, each in enumerate(drawn, 1)}
    unread = [*failed.items(), *_unread(prediction)]
    left = _without(messages, unread)
    sections = [
        Section("about", "What was predicted", list(_about(cells, header, when))),
        Section("verdicts", "Verdicts and subclasses", list(_verdicts(cells, header))),
        Section("cells", "All cells", list(_cells(prediction, pages))),
        Section("failed", "What could not be read", list(_failed(unread))),
        Section("messages", "Messages", list(_messages(left))),
        Section("explained", "Single cells", list(_explained(cells, drawn))),
        Section("cite", "Please cite", [Points(citation())]),
    ]
    write_page(
        Path(file),
        clean(title),
        sections,
        banner=_banner(cells, header),
        beside=False,
        again=again,
        most_bytes=_MOST_BYTES,
        progress=progress,
    )


# Text of users


def _name(text: object) -> Markup:
    """A user's name of something; it may be broken, and turns nothing around it."""
    return Markup('<bdi class="long">{}</bdi>').format(clean(text) or "(no name)")


def _key(cell: PredictedCell) -> tuple[str, str]:
    return cell.cell_id, cell.species


def _count(number: int, one: str) -> str:
    return f"{number:,} {one}{'' if number == 1 else 's'}"


# What was predicted


def _about(
    cells: pd.DataFrame, header: Settings, when: datetime.datetime | None
) -> Iterator[Block]:
    on: Content = ""
    if when is not None:
        on = say(
            ' on <time datetime="{iso}">{shown}</time>',
            iso=when.isoformat(timespec="minutes"),
            shown=f"{when.day} {when:%B %Y, %H:%M}",
        )
    parts = _sources(cells)
    yield Paragraph(
        say(
            "{cells}{of}: the transcriptomic subclass of each, by crosspatch {version}{on}.",
            cells=_count(cells["cell_id"].nunique(), "cell"),
            of=say(" ({parts})", parts=enumerated(parts)) if parts else "",
            version=str(header.get("crosspatch", "")),
            on=on,
        )
    )
    known = cells["species_known"].astype(bool)
    if not known.all():
        unknown = _count(cells.loc[~known, "cell_id"].nunique(), "cell")
        yield paragraph("species_unknown", "warning", cells=unknown)
    if header.get("models"):
        yield _models(header)
    if moved := int(cells["aligned"].sum()):
        yield paragraph("adapted", "warning", cells=_count(moved, "cell"))


def _sources(cells: pd.DataFrame) -> list[Content]:
    """How many cells are from where, the ten largest tables by name."""
    sources = cells.drop_duplicates("cell_id")["source"].astype(str).value_counts()
    parts: list[Content] = [
        _count(int(count), "recording")
        if source == "recordings"
        else say("{rows} of {source}", rows=_count(int(count), "row"), source=_name(source))
        for source, count in sources.head(10).items()
    ]
    if len(sources) > 10:
        parts.append(f"rows of {_count(len(sources) - 10, 'more table')}")
    return parts


def _models(header: Settings) -> TableBlock:
    return TableBlock(
        "Models",
        ("species", "model", "layout", "classes", "trained on", "sha256"),
        [
            (
                clean(model["species"]),
                clean(model["model"]) + " (SIMULATED)" * model["simulated"],
                clean(model["layout"]),
                say(
                    '<span class="long">{classes} (taxonomy {taxonomy})</span>',
                    classes=clean(
                        ", ".join(
                            f"{name} {model.get('ontology', {}).get(name, '')}".strip()
                            for name in model["classes"]
                        ),
                        _NOTE,
                    ),
                    taxonomy=clean(model["taxonomy"]),
                ),
                clean(", ".join(model["trained_on"]) or "not said"),
                code(clean(model["digest"])),
            )
            for model in header["models"]
        ],
        texts=5,
        last_text=True,
    )


def _banner(cells: pd.DataFrame, header: Settings) -> str:
    said = []
    made_up = [str(m["species"]) for m in header.get("models", ()) if m["simulated"]]
    if made_up:
        models = "model of" if len(made_up) == 1 else "models of"
        said.append(
            f"The {models} {' and '.join(made_up)} cells learnt from SIMULATED recordings: what is "
            "said here says nothing about real neurons."
        )
    simulated = cells.loc[cells["simulated"].astype(bool), "cell_id"].nunique()
    if simulated:
        count = cells["cell_id"].nunique()
        which = "All cells are" if simulated == count else f"{simulated:,} of {count:,} cells are"
        said.append(f"{which} SIMULATED recordings: no real neuron was recorded.")
    return clean(" ".join(said), _NOTE)


# Verdicts and subclasses


def _verdicts(cells: pd.DataFrame, header: Settings) -> Iterator[Block]:
    found = cells["verdict"].value_counts()
    yield TableBlock(
        "What the verdicts mean, and how many rows have each",
        ("verdict", "rows", "meaning"),
        [(name, f"{found.get(name, 0):,}", name.meaning) for name in Verdict],
        last_text=True,
    )
    by_class = header.get("parameters", {}).get("sets") == "by-class"
    yield paragraph("sets_by_class" if by_class else "sets_over_all")
    if len(cells):
        classes = {str(m["species"]): list(m["classes"]) for m in header.get("models", ())}
        yield from _counts(cells, groups_of(cells, classes))


def _counts(cells: pd.DataFrame, groups: Sequence[Group]) -> Iterator[Block]:
    several = len({group.species for group in groups}) > 1
    yield TableBlock(
        "Rows by subclass and verdict"
        + (" (a cell of unknown species has several rows)" if several else ""),
        ("species", "subclass", *Verdict, "all"),
        [
            (
                clean(group.species),
                _subclass(group.subclass),
                *(f"{group.rows[verdict]:,}" for verdict in Verdict),
                f"{group.total:,}",
            )
            for group in groups
            if group.total
        ],
        texts=2,
    )
    if not (cells["subclass"] != "").any():
        yield Paragraph("No cell was given a subclass.", "warning")
        return
    shown = "; ".join(
        f"{clean(group.species)} {clean(group.subclass)} {group.total:,}, of them "
        f"{group.rows[Verdict.CONFIDENT]:,} confident"
        for group in groups[:20]
    )
    yield Picture(
        "subclasses",
        lambda width: verdicts_figure(groups, width),
        alt=f"Bars, one a subclass: {shown}.",
        caption="Cells by subclass and verdict; beside each bar how many there are. Of cells "
        "outside the reference, the subclass is what the model's answer would be.",
    )


# All cells


def _cells(prediction: Prediction, pages: Mapping[tuple[str, str], str]) -> Iterator[Block]:
    cells = prediction.cells
    if not len(cells):
        yield Paragraph("No cell was predicted.", "warning")
        return
    shown, first = cells.head(MOST_ROWS), list(prediction.first(MOST_ROWS))
    if len(shown) < len(cells):
        counts = {"shown": f"{len(shown):,}", "all": f"{len(cells):,}"}
        yield paragraph("first_rows", "warning", **counts)
    bracketed = (
        " A subclass in brackets is what the model's answer would be of a cell outside the "
        "reference."
    )
    yield Paragraph(
        "p reference is the share of reference cells that lie as far out; measured is the share "
        "of the model's features that the cell has. Quality control and notes stand under a cell."
        + (bracketed if (shown["verdict"] == Verdict.OUTSIDE).any() else "")
        + (" A cell id leads to the cell's picture." if pages else "")
    )
    rest = len(cells) - len(shown)
    yield TableBlock(
        f"The first {len(shown):,} of {len(cells):,} rows; {rest:,} are left out"
        if rest
        else f"All {_count(len(cells), 'row')}",
        (*_ANSWER, "probability", "p reference", "measured"),
        [_cell_row(each, pages) for each in first],
        texts=len(_ANSWER),
        notes=[_noted(each) for each in first],
    )


def _cell_row(cell: PredictedCell, pages: Mapping[tuple[str, str], str]) -> list[Content]:
    name: Content = _name(cell.cell_id)
    page = pages.get(_key(cell))
    if page is not None:
        name = Markup('<a href="#figure-{}">{}</a>').format(page, name)
    chosen = clean(", ".join(cell.prediction_set), _NOTE)
    second, chance = cell.runner_up
    return [
        name,
        say(
            "<bdi>{species}</bdi>{assumed}",
            species=clean(cell.species, _SHORT),
            assumed="" if cell.species_known else " (assumed)",
        ),
        _subclass(str(cell.subclass), str(cell.verdict)),
        clean(f"{second} {chance:.2f}") if second else "–",
        say('<span class="long">{chosen}</span>', chosen=chosen or "–"),
        clean(cell.verdict),
        _number(cell.probability, 2),
        _number(cell.p_reference, 3, small=True),
        f"{float(cell.completeness):.0%}",
    ]


def _noted(cell: PredictedCell) -> Content:
    """What is wrong with a cell, and notes."""
    quality, notes = clean(cell.quality, _NOTE), clean(cell.text, _NOTE)
    parts: list[Content] = [notes] if notes else []
    if cell.t_type:
        parts.insert(0, f"t-type {clean(cell.t_type)}, probability {cell.t_type_probability:.2f}")
    if quality:
        fails = say("<strong>Fails quality control:</strong> {quality}", quality=quality)
        parts.insert(0, fails)
    return say("<bdi>{parts}</bdi>", parts=Markup("; ").join(parts)) if parts else ""


def _subclass(name: str, verdict: str = "") -> Content:
    """A subclass and its colour."""
    if name in ("", NO_CLASS):
        return "–" if verdict else name
    shown = clean(name)
    return Markup('<span class="dot" style="border-color:{}" aria-hidden="true"></span>{}').format(
        colour_of(name), f"({shown})" if verdict == Verdict.OUTSIDE else shown
    )


def _number(value: float, digits: int, small: bool = False) -> str:
    return "–" if np.isnan(value) else written(value, digits, "p" if small else "plain")


# What went wrong


def _unread(prediction: Prediction) -> Iterator[tuple[str, str]]:
    """Recordings that gave nothing, and why."""
    if prediction.cells["unread"].notna().any():
        yield from {cell.cell_id: cell.unread for cell in prediction if cell.unread}.items()


def _without(messages: Sequence[str], unread: Sequence[tuple[str, str]]) -> list[str]:
    """Messages once each, without those that say why something was not read."""
    told = [(name, why) for name, why in unread if why]
    whole = {line for name, why in told for line in (why, f"{name} {why}")}
    ends = tuple(f": {why}" for _, why in told)
    return [
        line for line in dict.fromkeys(messages) if line not in whole and not line.endswith(ends)
    ]


def _failed(unread: Sequence[tuple[str, str]]) -> Iterator[Block]:
    if unread:
        yield TableBlock(
            f"{_count(len(unread), 'input')} could not be read",
            ("input", "why"),
            [
                (_name(name), say("<bdi>{why}</bdi>", why=clean(why, _NOTE) or "see the messages"))
                for name, why in unread[:_MOST_LINES]
            ],
            last_text=True,
        )
        yield from _and_more(len(unread))


def _messages(messages: Sequence[str]) -> Iterator[Block]:
    if messages:
        shown = [clean(line, _NOTE) for line in messages[:_MOST_LINES]]
        yield Points([say("<bdi>{line}</bdi>", line=line) for line in shown])
        yield from _and_more(len(messages))


def _and_more(count: int) -> Iterator[Block]:
    if count > _MOST_LINES:
        yield Paragraph(f"… and {count - _MOST_LINES:,} more.", "warning")


# Single cells


def _explained(cells: pd.DataFrame, explanations: Sequence[CellExplanation]) -> Iterator[Block]:
    if not explanations:
        return
    n = len({str(each.cell.cell_id) for each in explanations})
    of = cells["cell_id"].nunique()
    which = "All cells" if n == of else f"{n:,} of {_count(of, 'cell')}"
    yield paragraph("explained", which=which)
    for number, each in enumerate(explanations, 1):
        yield _picture(f"cell-{number}", each)


def _picture(name: str, explanation: CellExplanation) -> Picture:
    cell = explanation.cell
    # Lengths that a page of one cell can take; the table has the names as they are.
    name_of_cell = clean(cell.cell_id) or "(no name)"
    species = clean(cell.species, _SHORT)
    shown = cell._replace(
        cell_id=name_of_cell,
        given_id=name_of_cell if cell.given_id == cell.cell_id else clean(cell.given_id),
        species=species,
        quality=clean(cell.quality, _NOTE),
        notes=tuple(clean(note, _LONG_NOTE) for note in cell.notes),
        source=clean(cell.source),
    )
    cleaned = replace(explanation, cell=shown)

    def draw(width: float) -> Figure:
        from matplotlib import rc_context

        with rc_context({"text.parse_math": False}):  # a "$" in a name begins no formula
            return cell_page(cleaned, width=width)

    assumed = "" if cell.species_known else ", assumed"
    said = f"{species or 'unknown species'}{assumed}; {cell.verdict}"
    if cell.subclass:
        probability = f"{clean(cell.subclass)} with probability {cell.probability:.2f}"
        said += f"; {'it would be ' * (cell.verdict == Verdict.OUTSIDE)}{probability}"
    return Picture(
        name,
        draw,
        alt=f"Page of cell {name_of_cell} ({said}): recording if there is one, probabilities, "
        "contributions of families, and the cell among the reference.",
        caption=say("{cell}: {said}.", cell=_name(cell.cell_id), said=said),
        large=True,
    )
