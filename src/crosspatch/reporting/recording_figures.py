"""A recording, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crosspatch.drawing.style import ACCENT, SECOND, THIRD, new_figure, plain, styled
from crosspatch.features.analysis import Analysis
from crosspatch.features.measuring.spikes import slope
from crosspatch.recordings.model import Recording
from crosspatch.recordings.sweeps_figure import draw_sweeps, stimulus_kinds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
        draw_sweeps(recording, analysis.stimuli, analysis.rejected, kind, above, below)
    draw_first_spikes(first_spikes(analysis), figure.add_subplot(grid[2, :columns]))
    draw_rates(rates(analysis), figure.add_subplot(grid[2, columns:]))
    figure.suptitle(recording.title, fontsize=11)
    return figure


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
