"""A recording, drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crosspatch.errors import RecordingError
from crosspatch.features.analysis import Analysis
from crosspatch.features.measuring.spikes import slope
from crosspatch.recordings.model import Recording
from crosspatch.recordings.quality import recorded_points
from crosspatch.recordings.stimuli import (
    LONG_SQUARE,
    NONE,
    OTHER,
    RAMP,
    SHORT_SQUARE,
    Stimulus,
    current_that_counts,
)
from crosspatch.reporting.style import ACCENT, SECOND, THIRD, new_figure, plain, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import ColorType

_MAX_SWEEPS = 40
_POINTS = 4000
_REJECTED = "0.8"


@styled
def recording_figure(recording: Recording, analysis: Analysis) -> Figure:
    """A recording's sweeps by stimulus, its first spikes and its rate-current curve.

    The recording is open; the analysis is of it. Sweeps that quality control rejected are grey.
    """
    kinds = stimulus_kinds(analysis.stimuli)
    columns = max(len(kinds), 2)
    figure = new_figure(3.6 * columns, 8.0)
    grid = figure.add_gridspec(3, 2 * columns, height_ratios=[3, 1, 2.4])
    for position, kind in enumerate(kinds):
        place = slice(2 * position, 2 * position + 2)
        above = figure.add_subplot(grid[0, place])
        below = figure.add_subplot(grid[1, place], sharex=above)
        draw_sweeps(recording, analysis, kind, above, below)
    draw_first_spikes(first_spikes(analysis), figure.add_subplot(grid[2, :columns]))
    draw_rates(rates(analysis), figure.add_subplot(grid[2, columns:]))
    label = ", SIMULATED" if recording.recorded.simulated else ""
    figure.suptitle(f"{recording.cell_id} ({recording.format}{label})", fontsize=11)
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
    analysis: Analysis,
    kind: str,
    above: Axes,
    below: Axes,
    *,
    points: int = _POINTS,
    close_up: bool = False,
) -> None:
    """Draw the sweeps of one kind of stimulus, from the smallest step (dark) to the largest.

    Potential above, command below; of `points` stretches of a sweep the lowest and highest value.
    A close-up shows only the surroundings of a short square, whose spike is but a line otherwise.
    """
    numbers = [n for n, stimulus in analysis.stimuli.items() if stimulus.kind == kind]
    chosen = numbers[:: max(1, -(-len(numbers) // _MAX_SWEEPS))]
    colours = _sweep_colours(analysis, chosen)
    for number in chosen:
        sweep = recording.sweep(number)
        try:
            voltage = sweep.voltage
            current = current_that_counts(sweep, analysis.stimuli[number])
        except RecordingError:
            continue
        recorded = voltage[: recorded_points(voltage, sweep.rate)]
        for axes, values in ((above, recorded), (below, current)):
            time, ends = _timed(values, sweep.rate, points)
            # Thousands of points a sweep: as paths they would make files of many megabytes.
            axes.plot(time, ends, color=colours[number], linewidth=0.6, rasterized=True)
    rejected = list(colours.values()).count(_REJECTED)
    title = _sweeps_title(kind, len(chosen), len(numbers), rejected)
    plain(above, title=title, ylabel="potential (mV)")
    plain(below, ylabel="command (pA)", xlabel="time (s)")
    above.tick_params(labelbottom=False)
    if close_up and kind == SHORT_SQUARE:
        shown = [analysis.stimuli[number] for number in chosen]
        first, last = min(each.start for each in shown), max(each.end for each in shown)
        above.set_xlim(first - 0.01, last + 0.04)


def _sweeps_title(kind: str, chosen: int, count: int, rejected: int) -> str:
    shown = f"{chosen} of {count}" if chosen < count else str(count)
    grey = f", {rejected} rejected (grey)" if rejected else ""
    return f"{kind}: {shown} sweep{'s' * (count > 1)}{grey}"


def _sweep_colours(analysis: Analysis, chosen: Sequence[int]) -> dict[int, ColorType]:
    """Colour of each sweep, from the smallest step (dark) to the largest."""
    from matplotlib import colormaps

    qualities = analysis.qualities
    passed = [n for n in chosen if n not in qualities or qualities[n].passed]
    ranked = sorted(passed, key=lambda n: analysis.stimuli[n].amplitude)
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


@dataclass(frozen=True)
class FirstSpike:
    """The first spike of a kind of stimulus."""

    stimulus: str  # ``rheobase``, ``short square`` or ``ramp``
    #: Shape (samples,). ms from threshold.
    time: NDArray[np.float64]
    #: Shape (samples,). mV.
    voltage: NDArray[np.float64]
    #: Shape (samples,). mV/ms, of the potential filtered as for finding spikes.
    speed: NDArray[np.float64]


#: Colours of the first spikes.
SPIKE_COLOURS = {"rheobase": ACCENT, "short square": SECOND, "ramp": THIRD}


def first_spikes(analysis: Analysis) -> list[FirstSpike]:
    """The first spike of each kind of stimulus, from 1 ms before threshold to 5 ms after."""
    found = []
    for name, responses in (
        ("rheobase", analysis.long_square),
        ("short square", analysis.short_square),
        ("ramp", analysis.ramp),
    ):
        if responses is None:
            continue
        pairs = zip(responses.cuts, responses.spikes, strict=True)
        shown = next((pair for pair in pairs if len(pair[1])), None)
        if name == "rheobase":
            shown = next(iter(responses.first_spikes), None)
        if shown is None:
            continue
        cut, spikes = shown
        start, rate = int(spikes["threshold_index"][0]), cut.rate
        first, last = max(start - round(0.001 * rate), 0), start + round(0.005 * rate)
        span = slice(first, min(last, len(cut.voltage) - 1))
        time = (np.arange(len(cut.voltage))[span] - start) / rate * 1e3
        # The filter needs some samples before and after.
        wide = slice(max(first - round(0.005 * rate), 0), last + round(0.005 * rate))
        speed = slope(cut.voltage[wide], rate)[first - wide.start :][: len(time)]
        found.append(FirstSpike(name, time, cut.voltage[span], speed))
    return found


def rates(analysis: Analysis) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps of long squares, pA, from the smallest, and the spike rate of each, spikes/s."""
    long = analysis.long_square
    if long is None:
        return np.zeros(0), np.zeros(0)
    order = np.argsort(long.amplitudes, kind="stable")
    return long.amplitudes[order], long.rates[order]


def draw_first_spikes(spikes: Sequence[FirstSpike], axes: Axes) -> None:
    """Draw the first spike of each kind of stimulus, aligned at threshold."""
    for each in spikes:
        colour = SPIKE_COLOURS[each.stimulus]
        axes.plot(each.time, each.voltage, color=colour, label=each.stimulus, linewidth=1.2)
    title = "first spike, from threshold"
    plain(axes, title=title, xlabel="time (ms)", ylabel="potential (mV)")
    if spikes:
        axes.legend()
    else:
        axes.text(0.5, 0.5, "no spike", ha="center", transform=axes.transAxes, color="0.4")


def draw_rates(measured: tuple[NDArray[np.float64], NDArray[np.float64]], axes: Axes) -> None:
    """Draw `rates`: the spike rate against the current of long squares."""
    title = "rate and current, long squares"
    plain(axes, title=title, xlabel="step (pA)", ylabel="rate (spikes/s)")
    if len(measured[0]):
        axes.plot(*measured, "o-", color=ACCENT, markersize=3)
    else:
        axes.text(0.5, 0.5, "no long square", ha="center", transform=axes.transAxes, color="0.4")
