"""One cell on a page: what was recorded, what the model says of it, and why."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crosspatch.errors import CohortError, NetworkError, RecordingError
from crosspatch.explanation.discriminants import Plane, discriminant_plane
from crosspatch.features.analysis import Analysis, analyse
from crosspatch.features.finding import open_source
from crosspatch.models.verdicts import Verdict
from crosspatch.prediction.explained import CellExplanation, write_contributions
from crosspatch.recordings.model import Recording
from crosspatch.recordings.quality import thresholds_named
from crosspatch.recordings.stimuli import LONG_SQUARE
from crosspatch.reporting.cell_view import (
    CellView,
    Contributions,
    FeatureValue,
    cell_view,
    recording_view,
)
from crosspatch.reporting.labels import LINE, TEXT, colour_of, ordered, readable, wrapped
from crosspatch.reporting.recording_figures import (
    draw_first_spikes,
    draw_rates,
    draw_sweeps,
    shown_kinds,
)
from crosspatch.reporting.style import SECOND, WIDE, plain, save_figure
from crosspatch.telling import Say

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

#: Points of an inch: a page is printed.
_DPI = 200

# Stretches of a sweep that are drawn; a panel is not wider than so many points of the page.
_STRETCHES = 800
# Sweeps of so many kinds of stimulus stand side by side.
_SIDE_BY_SIDE = 3
# Robust standard deviations from the reference's median beyond which a value is an arrow.
_FAR = 6.0
# Lines of notes; a recording can have a hundred.
_NOTE_LINES = 9
# Panels stand side by side on a page of at least this width, inches.
_TWO_COLUMNS = 5.0
_EDGE = "0.25"


@dataclass(frozen=True)
class _Panel:
    """Something that is drawn in a part of the page: its height, its share of a row's width."""

    height: float
    draw: Callable[[SubFigure], None]
    share: float = 1.0


_Row = list[_Panel]


def cell_page(explanation: CellExplanation, *, width: float = WIDE) -> Figure:
    """Everything about one cell on a page.

    From top to bottom: the answer; sweeps by stimulus, first spikes and the rate-current curve;
    probabilities with the prediction set, and what each family adds to the two most probable
    subclasses; the cell's values among those of the reference's subclasses, and where it lies
    between them; quality, what is missing, what is unusual, notes. What there is not, a recording
    for a row of a table or a class for a cell with too little, leaves no gap.

    Parameters
    ----------
    explanation : CellExplanation
        From `crosspatch.prediction.explained.explain_cells`. Its recording is opened again.
    width : float
        Inches; on a narrow page every panel has a row of its own.
    """
    from matplotlib.figure import Figure

    view = cell_view(explanation)
    with _opened(explanation) as opened:
        rows: list[_Row] = [[_head(explanation, view, width)]]
        if opened is not None:
            rows += _recording_rows(*opened, width)
        rows += _answer_rows(view)
        rows += _reference_rows(explanation, view)
        rows.append([_notes(view, width, recorded=opened is not None)])
        if width < _TWO_COLUMNS:
            rows = [[panel] for row in rows for panel in row]
        heights = [max(panel.height for panel in row) for row in rows]
        figure = Figure(figsize=(width, sum(heights)), layout="constrained")
        places = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False, hspace=0)
        for row, place in zip(rows, places[:, 0], strict=True):
            shares = [panel.share for panel in row]
            columns = place.subfigures(1, len(row), width_ratios=shares, squeeze=False, wspace=0)
            for panel, column in zip(row, columns[0], strict=True):
                panel.draw(column)
    return figure


def write_pages(
    explanations: Sequence[CellExplanation],
    out: str | Path,
    *,
    width: float = WIDE,
    say: Say = lambda line: None,
) -> list[Path]:
    """Write a page a cell, as PNG and SVG, and contributions.csv.

    Parameters
    ----------
    explanations : sequence of CellExplanation
    out : path
        Folder; made if it is not there.
    width : float
        Inches.
    say : callable
        Told of every page.

    Returns
    -------
    list of Path
        What was written, contributions.csv last.

    Raises
    ------
    CrosspatchError
        If something cannot be written.
    """
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CohortError(f"{out} cannot be made: {error.strerror}") from error
    written: list[Path] = []
    taken: set[str] = set()
    for each in explanations:
        name = _file_name(each, taken)
        figure = cell_page(each, width=width)
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
                recording = stack.enter_context(open_source(explanation.recording))
                step = explanation.step
                if step is not None:
                    recording = recording.with_steps(step.start, step.end, step.amplitudes)
                found = recording, analyse(recording, thresholds_named(explanation.quality))
        yield found


# The answer, in words


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
    lines: list[tuple[str, dict[str, Any]]] = [
        (str(cell.cell_id), {"fontsize": 13, "fontweight": "bold"}),
        (" · ".join(about), {"color": "0.35"}),
    ]
    if view.warnings:
        lines.append(("; ".join(view.warnings), {"color": SECOND, "fontweight": "bold"}))
    lines += [(view.headline, {"fontsize": 10, "fontweight": "bold"}), (view.meaning, {})]
    return _text(lines, width)


def _text(lines: Sequence[tuple[str, dict[str, Any]]], width: float) -> _Panel:
    """Lines of text, wrapped, each with the size and weight it is given."""
    set_lines = []
    for text, given in lines:
        style = {"fontsize": TEXT} | given
        scale = style["fontsize"] / TEXT
        fitted = wrapped(text, (width - 0.2) / scale, style.get("fontweight") == "bold")
        set_lines.append((fitted, style, LINE * scale * (fitted.count("\n") + 1) + 0.03))
    height = sum(each for _, _, each in set_lines) + 0.1

    def draw(place: SubFigure) -> None:
        top = 0.05
        for text, style, tall in set_lines:
            place.text(
                0.1 / width,
                1 - top / height,
                text,
                va="top",
                linespacing=1.2,
                # A cell's id and notes are no formulas.
                parse_math=False,
                **style,
            )
            top += tall

    return _Panel(height, draw)


def _notes(view: CellView, width: float, *, recorded: bool) -> _Panel:
    found = view.remarks
    lines: list[tuple[str, dict[str, Any]]] = []
    if found.quality:
        lines.append((f"Fails quality control: {found.quality}", {"color": SECOND}))
    elif recorded:
        lines.append(("Quality control found nothing wrong with the cell.", {}))
    if found.measured:
        lines.append((f"Measured: {found.measured}", {}))
    if found.unusual:
        unusual = ", ".join(found.unusual)
        lines.append((f"Unusual for {view.cell.subclass}: {unusual}.", {}))
    if found.notes:
        fitted = wrapped(f"Notes: {'; '.join(found.notes)}.", width - 0.2).split("\n")
        more = len(fitted) - _NOTE_LINES
        shown = fitted[:_NOTE_LINES] + ([f"… {more} lines more"] if more > 0 else [])
        lines.append(("\n".join(shown), {"color": "0.35"}))
    return _text(lines, width)


# The recording


def _recording_rows(recording: Recording, analysis: Analysis, width: float) -> list[_Row]:
    kinds = shown_kinds(analysis)

    def sweeps(kind: str) -> _Panel:
        def draw(place: SubFigure) -> None:
            above, below = place.subplots(2, 1, sharex=True, height_ratios=[3, 1])
            draw_sweeps(recording, analysis, kind, above, below, points=_STRETCHES, close_up=True)
            above.set_title(wrapped(above.get_title(), share_of(kind) - 0.3), fontsize=TEXT)
            above.set_ylabel("mV")  # the panels are too low for more
            below.set_ylabel("pA")
            _small(above, below)
            place.align_ylabels([above, below])

        return _Panel(1.9, draw, 1.5 if kind == LONG_SQUARE else 1.0)

    def share_of(kind: str) -> float:
        """Width of a panel, inches."""
        if width < _TWO_COLUMNS:
            return width
        row = next(row for row in grouped if kind in row)
        shares = [1.5 if each == LONG_SQUARE else 1.0 for each in row]
        return width * (1.5 if kind == LONG_SQUARE else 1.0) / sum(shares)

    grouped = [kinds[k : k + _SIDE_BY_SIDE] for k in range(0, len(kinds), _SIDE_BY_SIDE)]
    rows = [[sweeps(kind) for kind in row] for row in grouped]
    view = recording_view(recording, analysis)

    def spikes(place: SubFigure) -> None:
        axes = place.subplots()
        draw_first_spikes(view.first_spikes, axes)
        _small(axes)

    def rates(place: SubFigure) -> None:
        axes = place.subplots()
        draw_rates(view.rates, axes)
        _small(axes)

    measured = [_Panel(1.6, spikes)] if view.first_spikes else []
    measured += [_Panel(1.6, rates)] if len(view.rates[0]) else []
    return [*rows, measured] if measured else rows


def _small(*all_axes: Axes) -> None:
    """Text of the page's size, whatever a panel was drawn with."""
    for axes in all_axes:
        for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
            text.set_fontsize(TEXT)


# What the model says, and why


def _answer_rows(view: CellView) -> list[_Row]:
    shares = view.contributions
    if shares is None:
        return []
    low = 0.7 + 0.26 * len(view.probabilities)
    height = max(0.8 + 0.27 * len(shares.families), low)

    def probabilities(place: SubFigure) -> None:
        # Few classes beside many families: bars stay as high as elsewhere.
        inches = place.bbox.height / place.figure.dpi
        if inches > 1.4 * low:
            parts = place.subfigures(2, 1, height_ratios=[low, inches - low], squeeze=False)
            place = parts[0, 0]
        _draw_probabilities(view, place)

    return [
        [
            _Panel(low, probabilities, 0.9),
            _Panel(height, lambda place: _draw_contributions(view, shares, place), 1.2),
        ]
    ]


def _draw_probabilities(view: CellView, place: SubFigure) -> None:
    axes = place.subplots()
    names = [each.class_ for each in view.probabilities]
    p = [each.probability for each in view.probabilities]
    pale = 0.4 if view.cell.verdict == Verdict.OUTSIDE else 1.0
    rows = range(len(names))
    colours = [colour_of(name) for name in names]
    axes.barh(rows, p, 0.62, color=colours, alpha=pale)
    axes.barh(rows, p, 0.62, facecolor="none", edgecolor=_EDGE, linewidth=0.6)
    for row, each in enumerate(view.probabilities):
        axes.plot([each.needed] * 2, [row - 0.42, row + 0.42], color="black", linewidth=1.2)
        axes.text(
            1.02,
            row,
            f"{each.probability:.2f}{' in set' if each.in_set else ''}",
            va="center",
            fontsize=TEXT,
            fontweight="bold" if each.in_set else "normal",
            transform=axes.get_yaxis_transform(),
        )
    axes.set_yticks(rows, names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("probability; black: needed to be in the set", fontsize=TEXT)
    axes.set_title("subclass", fontsize=TEXT)
    plain(axes)


def _draw_contributions(view: CellView, shares: Contributions, place: SubFigure) -> None:
    from matplotlib.patches import Patch

    axes = place.subplots()
    handles = []
    shown = shares.classes[:2]
    measured = [(row, each.classes) for row, each in enumerate(shares.families) if each.measured]
    reach = max(0.02, *(abs(of[name].contribution) for _, of in measured for name in shown))
    for name, shift in zip(shown, (-0.2, 0.2), strict=False):
        at = [row + shift for row, _ in measured]
        values = [of[name].contribution for _, of in measured]
        errors = [of[name].error for _, of in measured]
        colour = colour_of(name)
        axes.barh(at, values, 0.36, color=colour, edgecolor=_EDGE, linewidth=0.6)
        if any(errors):
            axes.errorbar(values, at, xerr=errors, fmt="none", ecolor="black", elinewidth=0.8)
        for y, value, error in zip(at, values, errors, strict=True):
            right = value >= 0
            axes.text(
                value + (error + 0.03 * reach) * (1 if right else -1),
                y,
                _signed(value),
                va="center",
                ha="left" if right else "right",
                fontsize=TEXT - 1,
            )
        label = f"{name}: from {shares.base[name]:.2f} to {view.cell.probabilities[name]:.2f}"
        handles.append(Patch(facecolor=colour, edgecolor=_EDGE, linewidth=0.6, label=label))
    for row, family in enumerate(shares.families):
        if not family.measured:
            axes.text(0.03 * reach, row, "not measured", va="center", fontsize=TEXT, color="0.45")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlim(-1.35 * reach, 1.35 * reach)
    labels = [wrapped(readable(each.family), 1.2) for each in shares.families]
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    place.suptitle("what speaks against (left) and for (right)", fontsize=TEXT)
    axes.set_xlabel("added to the probability by each family", fontsize=TEXT)
    plain(axes)
    wide = place.bbox.width / place.figure.dpi > 3.8
    place.legend(
        handles=handles,
        loc="outside lower center",
        ncols=2 if wide else 1,
        frameon=False,
        fontsize=TEXT,
    )


def _signed(value: float) -> str:
    rounded = round(value, 2)
    return f"{rounded:+.2f}".replace("-", "−") if rounded else "0.00"


# Among the reference


def _reference_rows(explanation: CellExplanation, view: CellView) -> list[_Row]:
    if explanation.model is None:
        return []
    reference = explanation.model.classifier.reference_
    panels = []
    values = [each for each in view.values if each.telling]
    if values:
        height = 0.85 + 0.19 * len(values) + 0.05
        panels.append(_Panel(height, lambda place: _draw_values(values, place), 1.15))
    plane = None
    if view.cell.verdict != Verdict.INSUFFICIENT:
        plane = discriminant_plane(reference, explanation.values)
    if plane is not None:
        panels.append(_Panel(3.0, lambda place: _draw_plane(view, plane, place), 0.85))
    return [panels] if panels else []


def _draw_values(values: Sequence[FeatureValue], place: SubFigure) -> None:
    axes = place.subplots()
    rows = np.arange(len(values))
    names = [each.class_ for each in values[0].classes]
    step = 0.76 / len(names)
    for number, name in enumerate(names):
        at = rows - 0.38 + step * (number + 0.5)
        ends = np.clip([each.classes[number].z for each in values], -_FAR, _FAR)
        low, means, high = ends.T
        axes.barh(
            at,
            high - low,
            step * 0.85,
            left=low,
            color=colour_of(name),
            edgecolor=_EDGE,
            linewidth=0.3,
        )
        axes.plot(means, at, "|", color="black", markersize=2.5, markeredgewidth=0.8)
    for row, each in enumerate(values):
        x = min(max(each.z, -_FAR), _FAR)
        axes.plot([x, x], [row - 0.45, row + 0.45], color="white", linewidth=2.6)
        axes.plot([x, x], [row - 0.45, row + 0.45], color="black", linewidth=1.3)
        if x != each.z:
            axes.plot(x, row, ">" if x > 0 else "<", color="black", markersize=5)
        axes.text(
            1.02,
            row,
            f"{each.value:.3g} {each.unit}".rstrip(),
            va="center",
            fontsize=TEXT - 1,
            transform=axes.get_yaxis_transform(),
        )
    axes.set_yticks(rows, [each.label for each in values])
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.margins(x=0.03)
    axes.set_title("the cell (line) among the reference", fontsize=TEXT)
    axes.set_xlabel(
        "robust SD from the reference's median;\nbars: middle 95 % of each subclass", fontsize=TEXT
    )
    plain(axes)
    axes.tick_params(axis="y", labelsize=TEXT - 1)
    _class_legend(place, names)


def _draw_plane(view: CellView, plane: Plane, place: SubFigure) -> None:
    from matplotlib.patches import Circle
    from matplotlib.patheffects import AbstractPathEffect, withStroke
    from scipy.stats import chi2

    axes = place.subplots()
    inches = place.bbox.width / place.figure.dpi
    half, most = np.sqrt(chi2.ppf([0.5, 0.9], 2))
    outline: list[AbstractPathEffect] = [withStroke(linewidth=2.2, foreground=_EDGE)]
    for name, centre in zip(plane.classes, plane.centres, strict=True):
        colour = colour_of(name)
        axes.add_patch(Circle(tuple(centre), most, color=colour, alpha=0.18, linewidth=0))
        for radius, dash in ((half, "-"), (most, "--")):
            ring = Circle(tuple(centre), radius, fill=False, edgecolor=colour, linestyle=dash)
            ring.set_linewidth(1.3)
            if dash == "-":
                ring.set_path_effects(outline)
            axes.add_patch(ring)
    low = plane.centres.min(axis=0) - most - 0.4
    high = plane.centres.max(axis=0) + most + 0.4
    room = 0.6 * (high - low).max()
    at = np.clip(plane.cell, low - room, high + room)
    beyond = not np.array_equal(at, plane.cell)
    axes.plot(
        *at,
        "*",
        markersize=14,
        color="black",
        markeredgecolor="white",
        markeredgewidth=0.9,
        zorder=5,
        clip_on=False,
    )
    low, high = np.minimum(low, at - 0.6), np.maximum(high, at + 0.6)
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    axes.set_aspect("equal")
    axes.set_xlabel(f"discriminant 1 ({plane.shares[0]:.0%} of what separates them)", fontsize=TEXT)
    axes.set_ylabel(f"discriminant 2 ({plane.shares[1]:.0%})", fontsize=TEXT)
    far = f"{100 * view.cell.p_reference:.2g} % of its cells lie as far out"
    said = (
        f"the cell (star), and 50 and 90 % of each subclass of the reference; over all "
        f"{plane.measured} values {far}"
    )
    if beyond:
        said += "; the cell lies beyond the edge"
    place.suptitle(wrapped(said, inches - 0.2), fontsize=TEXT)
    plain(axes)
    if not view.values:  # of traces; beside values the legend is theirs
        _class_legend(place, ordered(plane.classes))


def _class_legend(place: SubFigure, names: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=colour_of(name), edgecolor=_EDGE, linewidth=0.6, label=name)
        for name in names
    ]
    place.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(names),
        frameon=False,
        fontsize=TEXT,
        columnspacing=1.0,
        handlelength=1.2,
    )
