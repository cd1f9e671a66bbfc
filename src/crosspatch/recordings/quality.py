"""Which sweeps are fit to be measured, and why the others are not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crosspatch.errors import RecordingError
from crosspatch.recordings.model import Samples, Sweep
from crosspatch.recordings.stimuli import LONG_SQUARE, NONE, RAMP, SHORT_SQUARE, Stimulus
from crosspatch.recordings.thresholds import QualityThresholds

#: mV; amplifiers and digitisers end far below.
_MAX_VOLTAGE = 2_000.0
#: A spike rises through the one, mV, after the potential was below the other.
_SPIKES_FROM, _FROM_BELOW = -20.0, -30.0
#: No neuron spikes twice within this time, s; …
_REFRACTORY = 0.0008
#: … more often than so, it is noise, on which detecting spikes takes long and means nothing.
_MAX_CLOSE = 5
#: What rises and falls so steeply by so much, mV, is a spike …
_SPIKE_HEIGHT = 15.0
#: … and by so much a whole one, whose level tells the offset of a recording.
_HIGH = 40.0
#: Between spikes at rest noise is that of stretches of the one length, s, from so long after a
#: spike to so long before the next.
_BETWEEN, _AFTER_SPIKE, _BEFORE_SPIKE = 0.02, 0.01, 0.003
#: No spike peaks above, mV: sodium's reversal potential is near 60 mV.
NEVER_ABOVE = 65.0


#: Kept after the end of a ramp, s.
_AFTER_RAMP = 0.1

#: A kind of fault.
SATURATED = "saturated"


class SweepFault(NamedTuple):
    """Why a sweep is rejected."""

    kind: str  # what is wrong, without numbers
    text: str  # the same with its numbers


@dataclass(frozen=True)
class SweepQuality:
    """What was measured on a sweep, and why it is rejected."""

    faults: tuple[SweepFault, ...] = ()  # empty if the sweep is used
    #: Mean potential before the stimulus, its median where there are spikes, mV.
    baseline: float = float("nan")
    drift: float = float("nan")  # mV; NaN where the sweep is too short to say
    slow_noise: float = float("nan")
    fast_noise: float = float("nan")
    bridge: float = float("nan")  # jump at the edges of the step, MOhm; NaN without a step
    #: Rate of spikes before the stimulus, spikes/s, and for how long it was looked at, s.
    rest_rate: float = float("nan")
    rested: float = 0.0
    recorded: tuple[int, int] = (0, 0)  # the samples that were, around the stimulus without a gap
    #: Where its spikes begin and peak, mV; only looked for at an unlikely potential.
    spike_levels: tuple[float, float] = (float("nan"), float("nan"))

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is rejected, in words."""
        return tuple(fault.text for fault in self.faults)

    @property
    def kinds(self) -> set[str]:
        """What is wrong, without numbers."""
        return {fault.kind for fault in self.faults}

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.faults


#: No membrane is at exactly 0 mV for so long: the acquisition was stopped, s.
_STOPPED = 0.01


def _plain(voltage: Samples) -> Samples:
    """Samples as compiled passes take them."""
    kind = voltage.dtype if voltage.dtype in (np.float32, np.float64) else np.float64
    return np.require(voltage, kind, ["C", "W"])


def recorded_points(voltage: Samples, rate: float) -> int:
    """Samples of a voltage in mV until the recording, at a rate in Hz, stopped.

    Acquisition programs fill the rest of a sweep that was stopped with zeros, others with NaN; one
    that went on after a pause has a gap of zeros (ramps in DANDI 000020: 19 to 40 ms).
    """
    if _whole(voltage):
        return len(voltage)
    used = np.flatnonzero((voltage != 0) & ~np.isnan(voltage))
    if not len(used):
        return 0
    pauses = np.flatnonzero(np.diff(used) > max(_STOPPED * rate, 10))
    return int(used[pauses[0] if len(pauses) else -1]) + 1


def unrecorded(voltage: Samples, rate: float) -> Iterator[slice]:
    """Stretches of zeros that stand for what was not recorded; a single zero is a potential."""
    edges = np.flatnonzero(np.diff(np.r_[False, voltage == 0, False]))
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if last - first >= max(_STOPPED * rate, 10) or last == len(voltage):
            yield slice(first, last)


def _whole(voltage: Samples) -> tuple[float, float] | None:
    """The extremes of a voltage of which no sample is missing; None where that cannot be told."""
    if not len(voltage):
        return None
    lowest, highest = float(voltage.min()), float(voltage.max())  # a NaN is not below or above
    whole = -np.inf < lowest < 0 and highest < np.inf and (highest < 0 or voltage.all())
    return (lowest, highest) if whole else None


def recorded_around(voltage: Samples, rate: float, time: float) -> slice:
    """The samples around a time in s that were recorded without a gap, and are numbers."""
    return _recorded(voltage, rate, time)[0]


def _recorded(voltage: Samples, rate: float, time: float) -> tuple[slice, tuple[float, float]]:
    """As `recorded_around`, with the lowest and the highest of these samples."""
    if extremes := _whole(voltage):
        return slice(0, len(voltage)), extremes
    from crosspatch.recordings import passes

    first, last = passes.recorded(_plain(voltage), round(time * rate), max(_STOPPED * rate, 10.0))
    seen = voltage[min(first, last) : last]
    extremes = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 0.0)
    return slice(min(first, last), last), extremes


def assess_sweep(
    sweep: Sweep, voltage: Samples, stimulus: Stimulus, settings: QualityThresholds | None = None
) -> SweepQuality:
    """Measure a sweep, of these samples in mV, and say why it cannot be used."""
    settings = settings or QualityThresholds()
    rate = sweep.rate
    span, extremes = _recorded(voltage, rate, 0.0 if stimulus.kind == NONE else stimulus.start)
    used = voltage[: span.stop]
    seen = used[span]
    if unfit := _unfit(seen, rate, extremes):
        return SweepQuality((unfit,))
    if stimulus.kind == NONE:
        return _at_rest(used[max(span.start, _after_test(stimulus, rate)) :], rate)
    stopped = list(_stopped_early(stimulus, voltage, span.stop, rate, settings))
    before = _before(used, stimulus, rate, span.start)
    if not len(before):
        text = "nothing was recorded before the stimulus"
        return SweepQuality((*stopped, SweepFault(text, text)))
    quality = _at_rest(before, rate)
    drift = _drift(used, stimulus, rate, quality.baseline)
    bridge = _bridge(used, stimulus, rate)
    quality = replace(quality, drift=drift, bridge=bridge, recorded=(span.start, span.stop))
    if not settings.baseline_low <= quality.baseline <= settings.baseline_high or (
        extremes[1] > NEVER_ABOVE
    ):
        quality = replace(quality, spike_levels=_spike_levels(seen, rate))
    faults = (*stopped, *_beyond(quality, settings), *_saturated(seen, rate, settings, extremes))
    return replace(quality, faults=faults)


def _drift(used: Samples, stimulus: Stimulus, rate: float, baseline: float) -> float:
    """How far the potential is from the baseline after the stimulus, mV; NaN if it cannot be told.

    After a ramp there is no time to recover.
    """
    after = _after(used, stimulus, rate)
    if stimulus.kind == RAMP or not len(after):
        return math.nan
    return abs(float(np.median(after)) - baseline)


def steep_peaks(voltage: Samples, rate: float) -> NDArray[np.int64]:
    """Where spikes begin and peak in samples in mV, whatever their level and slope, one per row."""
    from crosspatch.recordings import passes

    if not len(voltage) or np.ptp(voltage) < _SPIKE_HEIGHT:
        return np.empty((0, 2), np.int64)
    return np.asarray(passes.peaks_of_height(_plain(voltage), rate, _SPIKE_HEIGHT))


def _at_rest(before: Samples, rate: float) -> SweepQuality:
    """Potential, noise and spikes before the stimulus."""
    rested = len(before) / rate
    peaks = steep_peaks(before, rate)[:, 1]
    return SweepQuality(
        baseline=float(np.median(before) if len(peaks) else np.mean(before)),
        slow_noise=_noise_between(before, peaks, rate) if len(peaks) else float(np.std(before)),
        fast_noise=_fast_noise(before, rate),
        rest_rate=len(peaks) / rested,
        rested=rested,
    )


def _noise_between(before: Samples, peaks: NDArray[np.int64], rate: float) -> float:
    """Root mean square about straight lines between spikes, median of short stretches, mV."""
    width = max(round(_BETWEEN * rate), 4)
    t = np.arange(width) - (width - 1) / 2
    found = []
    for first, last in pairwise([0, *peaks.tolist(), len(before)]):
        inside = before[first + round(_AFTER_SPIKE * rate) : last - round(_BEFORE_SPIKE * rate)]
        for part in inside[: len(inside) // width * width].reshape(-1, width):
            slope = float(t @ part) / float(t @ t)
            found.append(float(np.std(part - slope * t)))
    return float(np.median(found)) if found else math.nan


def _spike_levels(used: Samples, rate: float) -> tuple[float, float]:
    """Where spikes begin and peak, mV, medians over the high ones."""
    found = steep_peaks(used, rate)
    begins, peaks = used[found[:, 0]], used[found[:, 1]]
    high = peaks - begins >= _HIGH
    if not high.any():
        return math.nan, math.nan
    return float(np.median(begins[high])), float(np.median(peaks[high]))


def _beyond(quality: SweepQuality, settings: QualityThresholds) -> Iterator[SweepFault]:
    """What lies beyond the limits of a sweep."""
    low, high = settings.baseline_low, settings.baseline_high
    if not low <= quality.baseline <= high:
        limits = f"outside {low:g} to {high:g} mV"
        yield SweepFault(f"baseline {limits}", f"baseline {quality.baseline:.1f} mV, {limits}")
    for field in ("drift", "slow_noise", "fast_noise"):
        value, limit, name = getattr(quality, field), getattr(settings, field), field
        name = name.replace("_", " ")
        if value > limit:
            yield SweepFault(
                f"{name} above {limit:g} mV", f"{name} {value:.2f} mV above {limit:g} mV"
            )


def _unfit(used: Samples, rate: float, extremes: tuple[float, float]) -> SweepFault | None:
    """Why nothing can be measured on what was recorded, told its lowest and highest value."""
    from crosspatch.recordings import passes

    if not len(used):
        return SweepFault("no samples", "no samples: the voltage is zero or missing throughout")
    largest = max(map(abs, extremes))
    if largest > _MAX_VOLTAGE:
        text = f"it reaches {largest:.3g} mV, which no amplifier does: a wrong unit, or damage"
        return SweepFault("potentials that no amplifier reaches", text)
    if extremes[1] > _SPIKES_FROM:
        limits = (_SPIKES_FROM, _FROM_BELOW, _REFRACTORY * rate)
        close = passes.close_rises(_plain(used), *limits)
        if close > _MAX_CLOSE:
            within = f"within {_REFRACTORY * 1e3:g} ms: it is noise"
            return SweepFault(f"spikes {within}", f"{close} spikes follow another {within}")
    return None


def _fast_noise(before: Samples, rate: float) -> float:
    from crosspatch.recordings import passes

    blocks = passes.spreads(_plain(before), max(round(0.0015 * rate), 2))
    return float(np.median(blocks)) if len(blocks) else math.nan


def _stopped_early(
    stimulus: Stimulus, voltage: Samples, end: int, rate: float, settings: QualityThresholds
) -> Iterator[SweepFault]:
    """Whether too little was recorded, up to `end`."""
    squares = stimulus.kind in (LONG_SQUARE, SHORT_SQUARE)
    needed = stimulus.end if squares else stimulus.start
    if end / rate < needed:
        missing = int(np.sum(~np.isfinite(voltage[: round(needed * rate)])))
        if missing and recorded_points(voltage, rate) / rate >= needed:
            yield SweepFault("samples that are not finite", f"{missing} samples are not finite")
            return
        what = "before the stimulus " + ("ended" if squares else "began")
        yield SweepFault(f"stopped {what}", f"stopped at {end / rate:.3g} s, {what}")
    elif (
        squares
        and needed + settings.after_square - end / rate > 1.5 / rate
        and (end < len(voltage))
    ):
        yield SweepFault(
            "stopped too early",
            f"stopped {end / rate - needed:.3g} s after the stimulus, "
            f"{settings.after_square:g} s are needed",
        )


def _before(voltage: Samples, stimulus: Stimulus, rate: float, begun: int) -> Samples:
    """Up to 0.5 s before the stimulus, after the test pulse has died away, from a sample on."""
    first = max(stimulus.start - 0.5, 0.0)
    first = max(first, min(_after_test(stimulus, rate) / rate, stimulus.start - 0.1))
    return voltage[max(round(max(first, 0.0) * rate), begun) : round(stimulus.start * rate)]


def _after_test(stimulus: Stimulus, rate: float) -> int:
    """The sample at which the test pulse, if there is one, has died away."""
    if stimulus.test_pulse is None:
        return 0
    start, end, _ = stimulus.test_pulse
    return round((end + max(end - start, 0.05)) * rate)


def _after(voltage: Samples, stimulus: Stimulus, rate: float) -> Samples:
    """The last 0.5 s before the next pulse, if the cell had 0.3 s to recover."""
    last = min(len(voltage), round(min(stimulus.next_start, 1e6) * rate))
    first = max(round((stimulus.end + 0.3) * rate), last - round(0.5 * rate))
    return voltage[first:last] if last - first >= 0.02 * rate else voltage[:0]


def _bridge(voltage: Samples, stimulus: Stimulus, rate: float) -> float:
    """Jump of the potential within 0.2 ms of the end of a hyperpolarising step, MOhm."""
    if stimulus.kind != LONG_SQUARE or stimulus.amplitude > -10:
        return float("nan")
    edge, wait = round(stimulus.end * rate), max(round(0.0002 * rate), 2)
    span = max(round(0.001 * rate), 4)
    if edge - span < 0 or edge + wait + 3 * span > len(voltage):
        return float("nan")
    # Where the potential would be right after the edge, from straight lines on both sides.
    left = float(np.mean(voltage[edge - span : edge]))
    right = voltage[edge + wait : edge + wait + 3 * span].astype(np.float64)
    middle = (len(right) - 1) / 2
    t = np.arange(len(right)) - middle
    there = float(right.mean()) - float(t @ right) / float(t @ t) * (wait + middle)
    return (left - there) / stimulus.amplitude * 1e3


def _saturated(
    used: Samples, rate: float, settings: QualityThresholds, extremes: tuple[float, float]
) -> Iterator[SweepFault]:
    """Whether it stays too long at its lowest or highest value, where that is out of range."""
    lowest, highest = extremes
    beyond = [highest] if highest > settings.clipped_above else []
    beyond += [lowest] if lowest < settings.clipped_below else []
    runs = []
    for level in beyond:
        there = used == level
        if np.count_nonzero(there) / rate >= settings.clipped:
            edges = np.flatnonzero(np.diff(np.r_[False, there, False]))
            runs.append((int(np.max(edges[1::2] - edges[::2])), level))
    longest, level = max(runs, key=lambda run: run[0], default=(0, math.nan))
    if longest / rate >= settings.clipped:
        text = f"saturated: {longest / rate * 1e3:.1f} ms at {level:.0f} mV"
        yield SweepFault(SATURATED, text)


def judged(
    sweep: Sweep, stimulus: Stimulus, thresholds: QualityThresholds | None = None
) -> tuple[Samples, SweepQuality]:
    """The samples of a sweep as far as they are measured, and whether they can be."""
    points = sweep.points
    if stimulus.kind == RAMP:  # what follows is not used, and may be long
        points = min(points, round((stimulus.end + _AFTER_RAMP) * sweep.rate))
    try:
        voltage = sweep.voltage_until(points)
        return voltage, assess_sweep(sweep, voltage, stimulus, thresholds)
    except RecordingError as error:
        return np.zeros(0), SweepQuality((SweepFault("sweeps that cannot be read", str(error)),))
