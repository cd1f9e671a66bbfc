"""One cell on a page: what was recorded, what the model says of it, and why."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from crosspatch.drawing.labels import wrapped
from crosspatch.drawing.panels import in_rows
from crosspatch.drawing.style import (
    LINE,
    SECOND,
    SIDE_BY_SIDE,
    TEXT,
    WIDE,
    new_figure,
    save_figure,
    styled,
)
from crosspatch.errors import CohortError, NetworkError, RecordingError
from crosspatch.explanation.discriminants import discriminant_plane
from crosspatch.features.analysis import Analysis, analyse
from crosspatch.features.finding import open_source
from crosspatch.models.verdicts import Verdict
from crosspatch.prediction.explained import CellExplanation, write_contributions
from crosspatch.recordings.model import Recording
from crosspatch.recordings.stimuli import LONG_SQUARE
from crosspatch.recordings.sweeps_figure import draw_sweeps, shown_kinds
from crosspatch.reporting.cell_panels import (
    draw_contributions,
    draw_plane,
    draw_probabilities,
    draw_values,
    inches,
)
from crosspatch.reporting.cell_view import CellView, cell_view, recording_view
from crosspatch.reporting.recording_figures import draw_first_spikes, draw_rates
from crosspatch.telling import Say
from crosspatch.writing import make_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

#: Points of an inch: a page is printed.
_DPI = 200

# Stretches of a sweep that are drawn; a panel is not wider than so many points of the page.
_STRETCHES = 800
# Sweeps of so many kinds of stimulus stand side by side.
_KINDS_IN_ROW = 3
# Lines of notes; a recording can have a hundred.
_NOTE_LINES = 9
# Colour of what matters less.
_PALE = "0.35"


@dataclass(frozen=True)
class _Panel:
    """Something that is drawn in a part of the page: its height, its share of a row's width."""

    height: float
    draw: Callable[[SubFigure], None]
    share: float = 1.0


_Row = list[_Panel]


@styled
def cell_page(explanation: CellExplanation, *, width: float = WIDE) -> Figure:
    """Everything about one cell on a page.

    From top to bottom: the answer; sweeps by stimulus, first spikes and the rate-current curve;
    probabilities with the prediction set, and what each family adds to the two most probable
    subclasses; the cell's values among those of the reference's subclasses, and where it lies
    between them; quality, what is missing, what is unusual, notes. What there is not, a recording
    for a row of a table or a class for a cell with too little, leaves no gap. The recording
    is opened again; on a narrow page (width in inches) every panel has a row of its own.
    """
    view = cell_view(explanation)
    with _opened(explanation) as opened:
        rows: list[_Row] = [[_head(explanation, view, width)]]
        if opened is not None:
            rows += _recording_rows(*opened)
        rows += _answer_rows(view)
        rows += _reference_rows(explanation, view)
        rows.append([_notes(view, width, recorded=opened is not None)])
        if width < SIDE_BY_SIDE:
            rows = [[panel] for row in rows for panel in row]
        heights = [max(panel.height for panel in row) for row in rows]
        figure = new_figure(width, sum(heights))
        places = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False, hspace=0)
        for row, place in zip(rows, places[:, 0], strict=True):
            shares = [panel.share for panel in row]
            columns = place.subfigures(1, len(row), width_ratios=shares, squeeze=False, wspace=0)
            for panel, column in zip(row, columns[0], strict=True):
                panel.draw(column)
    return figure


def write_pages(
    explanations: Sequence[CellExplanation], out: str | Path, say: Say = lambda line: None
) -> list[Path]:
    """Write one page per cell, as PNG and SVG, and contributions.csv, into a folder.

    The folder is made if it is not there; `say` is told of every page. Gives back what was written,
    contributions.csv last; a CrosspatchError if something cannot be.
    """
    out = Path(out)
    make_folder(out, CohortError)
    written: list[Path] = []
    taken: set[str] = set()
    for each in explanations:
        name = _file_name(each, taken)
        figure = cell_page(each)
        for ending in (".png", ".svg"):
            save_figure(figure, out / f"{name}{ending}", _DPI)
            written.append(out / f"{name}{ending}")
            figure.set_layout_engine("none")  # it has its layout, which takes most of the time
        say(f"{each.cell.cell_id}: {out / name}.png")
    write_contributions(explanations, out / "contributions.csv")
    return [*written, out / "contributions.csv"]


def _file_name(explanation: CellExplanation, taken: set[str]) -> str:
    """A name for files that any system takes, which no other cell has."""
    cell = explanation.cell
    plain_id = re.sub(r"[^\w.-]+", "_", str(cell.cell_id)).strip("._")[:80] or "cell"
    first = plain_id if cell.species_known else f"{plain_id}-{cell.species}"
    name, number = first, 1
    while name.lower() in taken:
        number += 1
        name = f"{first}-{number}"
    taken.add(name.lower())
    return name


@contextmanager
def _opened(explanation: CellExplanation) -> Iterator[tuple[Recording, Analysis] | None]:
    """The cell's recording and what was measured on it; None where there is none to be read."""
    with ExitStack() as stack:
        found = None
        if explanation.recording is not None:
            # One that cannot be read could not be for the prediction either; the notes say why.
            with suppress(RecordingError, NetworkError):
                reading = explanation.reading
                recording = stack.enter_context(open_source(explanation.recording, reading))
                found = recording, analyse(recording, reading.thresholds)
        yield found


# The answer, in words


@dataclass(frozen=True)
class _Line:
    """A line of text, and how it looks."""

    text: str
    size: float = TEXT
    bold: bool = False
    colour: str = "black"

    def fitted(self, width: float) -> _Line:
        """It in as many lines as it takes to be no wider than so many inches."""
        return replace(self, text=wrapped(self.text, width * TEXT / self.size, self.bold))

    @property
    def height(self) -> float:
        """Inches."""
        return LINE * self.size / TEXT * (self.text.count("\n") + 1) + 0.03


def _text(lines: Sequence[_Line], width: float) -> _Panel:
    """Lines of text, wrapped, one below the other."""
    edge = 0.1
    fitted = [line.fitted(width - 2 * edge) for line in lines]
    height = sum(line.height for line in fitted) + edge

    def draw(place: SubFigure) -> None:
        top = edge / 2
        for line in fitted:
            place.text(
                edge / width,
                1 - top / height,
                line.text,
                va="top",
                linespacing=1.2,
                # A cell's id and notes are not formulas.
                parse_math=False,
                fontsize=line.size,
                fontweight="bold" if line.bold else "normal",
                color=line.colour,
            )
            top += line.height

    return _Panel(height, draw)


def _head(explanation: CellExplanation, view: CellView, width: float) -> _Panel:
    cell, model = view.cell, view.model
    known = "" if cell.species_known else ", assumed: the file does not say"
    about = [f"{cell.species or 'unknown'} cell{known}"]
    if explanation.recording is not None:
        about.append(explanation.name or explanation.recording.name)
    elif cell.source:
        about.append(f"a row of {cell.source}")
    if model is not None:
        about.append(f"model {model.model} of {model.species} cells, layout {model.layout}")
    lines = [_Line(str(cell.cell_id), 13, bold=True), _Line(" · ".join(about), colour=_PALE)]
    if view.warnings:
        lines.append(_Line("; ".join(view.warnings), bold=True, colour=SECOND))
    lines += [_Line(view.headline, 10, bold=True), _Line(view.meaning)]
    return _text(lines + ([_Line(view.levels)] if view.levels else []), width)


def _notes(view: CellView, width: float, *, recorded: bool) -> _Panel:
    found = view.remarks
    lines = []
    if found.quality:
        lines.append(_Line(f"Fails quality control: {found.quality}", colour=SECOND))
    elif recorded:
        lines.append(_Line("Quality control found nothing wrong with the cell."))
    if found.measured:
        lines.append(_Line(f"Measured: {found.measured}"))
    if found.unusual:
        lines.append(_Line(f"Unusual for {view.cell.subclass}: {', '.join(found.unusual)}."))
    if found.notes:
        fitted = wrapped(f"Notes: {'; '.join(found.notes)}.", width - 0.2).split("\n")
        more = len(fitted) - _NOTE_LINES
        shown = fitted[:_NOTE_LINES] + ([f"… {more} lines more"] if more > 0 else [])
        lines.append(_Line("\n".join(shown), colour=_PALE))
    return _text(lines, width)


# The recording


def _recording_rows(recording: Recording, analysis: Analysis) -> list[_Row]:
    def sweeps(kind: str) -> _Panel:
        def draw(place: SubFigure) -> None:
            above, below = place.subplots(2, 1, sharex=True, height_ratios=[3, 1])
            stimuli, grey = analysis.stimuli, analysis.rejected
            axes = above, below
            draw_sweeps(recording, stimuli, grey, kind, *axes, points=_STRETCHES, close_up=True)
            above.set_title(wrapped(above.get_title(), inches(place)[0] - 0.3))
            above.set_ylabel("mV")  # the panels are too low for more
            below.set_ylabel("pA")
            place.align_ylabels([above, below])

        return _Panel(1.9, draw, 1.5 if kind == LONG_SQUARE else 1.0)

    view = recording_view(recording, analysis)
    rows = in_rows([sweeps(kind) for kind in shown_kinds(analysis.stimuli)], _KINDS_IN_ROW)
    spikes, measured = view.first_spikes, []
    if spikes:
        measured.append(_Panel(1.6, lambda place: draw_first_spikes(spikes, place.subplots())))
    if len(view.rates[0]):
        measured.append(_Panel(1.6, lambda place: draw_rates(view.rates, place.subplots())))
    return [*rows, measured] if measured else rows


# What the model says, and why


def _answer_rows(view: CellView) -> list[_Row]:
    shares = view.contributions
    if shares is None:
        return []
    low = 0.7 + 0.26 * len(view.probabilities)
    height = max(0.8 + 0.27 * len(shares.families), low)

    def probabilities(place: SubFigure) -> None:
        # Few classes beside many families: bars stay as high as elsewhere.
        tall = inches(place)[1]
        if tall > 1.4 * low:
            parts = place.subfigures(2, 1, height_ratios=[low, tall - low], squeeze=False)
            place = parts[0, 0]
        draw_probabilities(view, place)

    contributions = _Panel(height, lambda place: draw_contributions(view, shares, place), 1.2)
    return [[_Panel(low, probabilities, 0.9), contributions]]


def _reference_rows(explanation: CellExplanation, view: CellView) -> list[_Row]:
    if explanation.model is None:
        return []
    panels = []
    values = [each for each in view.values if each.telling]
    if values:
        height = 0.9 + 0.19 * len(values)
        panels.append(_Panel(height, lambda place: draw_values(values, place), 1.15))
    plane = None
    if view.cell.verdict != Verdict.INSUFFICIENT:
        plane = discriminant_plane(explanation.model.classifier.reference_, explanation.values)
    if plane is not None:
        panels.append(_Panel(3.0, lambda place: draw_plane(view, plane, place), 0.85))
    return [panels] if panels else []
