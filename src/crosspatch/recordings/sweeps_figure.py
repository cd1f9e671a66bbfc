"""The sweeps of a recording, drawn."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crosspatch.drawing.style import LARGE, new_figure, plain, styled
from crosspatch.errors import RecordingError
from crosspatch.recordings.model import Recording
from crosspatch.recordings.quality import judged, recorded_points
from crosspatch.recordings.stimuli import (
    LONG_SQUARE,
    NONE,
    OTHER,
    RAMP,
    SHORT_SQUARE,
    Stimulus,
    current_that_counts,
    recognise,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import ColorType

_MAX_SWEEPS = 40
_POINTS = 4000
_REJECTED = "0.8"
#: Kinds of stimulus whose sweeps are measured, and so judged.
_MEASURED = (LONG_SQUARE, SHORT_SQUARE, RAMP)


@styled
def sweeps_figure(recording: Recording) -> Figure:
    """The sweeps of an open recording by stimulus; those that quality control rejects are grey."""
    stimuli = recognise(recording)
    rejected = {
        number
        for number, stimulus in stimuli.items()
        if stimulus.kind in _MEASURED and not judged(recording.sweep(number), stimulus)[1].passed
    }
    kinds = shown_kinds(stimuli)
    figure = new_figure(3.6 * len(kinds), 4.2)
    places = figure.subplots(2, len(kinds), sharex="col", height_ratios=[3, 1], squeeze=False)
    for kind, (above, below) in zip(kinds, places.T, strict=True):
        draw_sweeps(recording, stimuli, rejected, kind, above, below)
    figure.suptitle(recording.title, fontsize=LARGE)
    return figure


def stimulus_kinds(stimuli: Mapping[int, Stimulus]) -> list[str]:
    """The kinds of stimulus that there are, those that are measured first."""
    there = {stimulus.kind for stimulus in stimuli.values()}
    return [kind for kind in (LONG_SQUARE, SHORT_SQUARE, RAMP, OTHER, NONE) if kind in there]


def shown_kinds(stimuli: Mapping[int, Stimulus]) -> list[str]:
    """`stimulus_kinds` without none at all, which tells little, unless there is no other."""
    kinds = stimulus_kinds(stimuli)
    return [kind for kind in kinds if kind != NONE] or kinds


def draw_sweeps(
    recording: Recording,
    stimuli: Mapping[int, Stimulus],
    rejected: Container[int],
    kind: str,
    above: Axes,
    below: Axes,
    *,
    points: int = _POINTS,
    close_up: bool = False,
) -> None:
    """Draw the sweeps of one kind of stimulus, from the smallest step (dark) to the largest.

    Potential above, command below; of `points` stretches of a sweep the lowest and highest value.
    Those that are rejected, by number, are grey.
    A close-up shows only the surroundings of a short square, whose spike is but a line otherwise.
    """
    numbers = [n for n, stimulus in stimuli.items() if stimulus.kind == kind]
    chosen = numbers[:: max(1, -(-len(numbers) // _MAX_SWEEPS))]
    colours = _sweep_colours(stimuli, rejected, chosen)
    for number in chosen:
        sweep = recording.sweep(number)
        try:
            voltage = sweep.voltage
            current = current_that_counts(sweep, stimuli[number])
        except RecordingError:
            continue
        recorded = voltage[: recorded_points(voltage, sweep.rate)]
        for axes, values in ((above, recorded), (below, current)):
            time, ends = _timed(values, sweep.rate, points)
            # Thousands of points a sweep: as paths they would make files of many megabytes.
            axes.plot(time, ends, color=colours[number], linewidth=0.6, rasterized=True)
    grey = sum(number in rejected for number in chosen)
    title = _sweeps_title(kind, len(chosen), len(numbers), grey)
    plain(above, title=title, ylabel="potential (mV)")
    plain(below, ylabel="command (pA)", xlabel="time (s)")
    above.tick_params(labelbottom=False)
    if close_up and kind == SHORT_SQUARE:
        shown = [stimuli[number] for number in chosen]
        first, last = min(each.start for each in shown), max(each.end for each in shown)
        above.set_xlim(first - 0.01, last + 0.04)


def _sweeps_title(kind: str, chosen: int, count: int, rejected: int) -> str:
    shown = f"{chosen} of {count}" if chosen < count else str(count)
    grey = f", {rejected} rejected (grey)" if rejected else ""
    return f"{kind}: {shown} sweep{'s' * (count > 1)}{grey}"


def _sweep_colours(
    stimuli: Mapping[int, Stimulus], rejected: Container[int], chosen: Sequence[int]
) -> dict[int, ColorType]:
    """Colour of each sweep, from the smallest step (dark) to the largest."""
    from matplotlib import colormaps

    passed = [number for number in chosen if number not in rejected]
    ranked = sorted(passed, key=lambda number: stimuli[number].amplitude)
    shades = colormaps["viridis"](np.linspace(0, 0.9, max(len(ranked), 1)))
    colours: dict[int, ColorType] = dict.fromkeys(chosen, _REJECTED)
    return colours | {number: tuple(shade) for number, shade in zip(ranked, shades, strict=False)}


def thinned(values: NDArray[np.floating], width: int) -> NDArray[np.float64]:
    """Lowest and highest value of every stretch of so many samples, so that no spike is lost.

    Shape (2 * stretches,); samples at the end that fill no stretch are left out. With a width of 1
    the values stay as they are.
    """
    samples: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    if width <= 1:
        return samples
    whole = samples[: len(samples) // width * width].reshape(-1, width)
    return np.stack([whole.min(axis=1), whole.max(axis=1)], axis=1).ravel()


def until_last(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Samples up to the last one that is a number."""
    if len(values) and np.isfinite(values[-1]):
        return values
    used = np.flatnonzero(np.isfinite(values))
    return values[: used[-1] + 1] if len(used) else values[:0]


def _timed(values: NDArray[np.floating], rate: float, points: int) -> tuple[NDArray, NDArray]:
    """Times and thinned values."""
    values = until_last(values)
    width = max(1, len(values) // points)
    ends = thinned(values, width)
    if width == 1:
        return np.arange(len(ends)) / rate, ends
    return np.repeat((np.arange(len(ends) // 2) + 0.5) * width / rate, 2), ends
