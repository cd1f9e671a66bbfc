"""Which sweeps and cells are fit to be measured, and why the others are not."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crosspatch.errors import RecordingError
from crosspatch.recordings.model import VOLTAGE_CLAMP, Recording, Samples, Sweep
from crosspatch.recordings.stimuli import (
    LONG_SQUARE,
    NONE,
    OTHER,
    RAMP,
    SHORT_SQUARE,
    Stimulus,
    ontology_kind,
)
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
#: No spike begins below the first or above the second of these, or above the third if it peaks
#: above the last, mV: sodium channels open near -45 mV, and their reversal potential is near 60 mV.
_BEGINS_ABOVE, _BEGINS_BELOW, _HIGH_BEGINS_BELOW, _NEVER_ABOVE = -85.0, -5.0, -25.0, 65.0
#: The usual potential at rest, and where spikes usually begin, mV.
_USUAL_REST, _USUAL_BEGIN = -70.0, -45.0


#: A kind of fault.
SATURATED = "saturated"


class Fault(NamedTuple):
    """Why a sweep is rejected."""

    kind: str  # what is wrong, without numbers
    text: str  # the same with its numbers


@dataclass(frozen=True)
class SweepQuality:
    """What was measured on a sweep, and why it is rejected."""

    faults: tuple[Fault, ...] = ()  # empty if the sweep is used
    #: Mean potential before the stimulus, its median where there are spikes, mV.
    baseline: float = float("nan")
    drift: float = float("nan")  # mV; NaN where the sweep is too short to say
    slow_noise: float = float("nan")
    fast_noise: float = float("nan")
    bridge: float = float("nan")  # jump at the edges of the step, MOhm; NaN without a step
    #: Rate of spikes before the stimulus, spikes/s, and for how long it was looked at, s.
    rest_rate: float = float("nan")
    rested: float = 0.0
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


@dataclass(frozen=True)
class CellQuality:
    """What was measured on the whole cell, and why it is rejected."""

    reasons: tuple[str, ...] = ()  # empty if the cell passes
    seal: float = float("nan")  # GOhm, NaN where not recorded
    #: From the voltage-clamp test after break-in, else from the file's notes; MOhm.
    access_resistance: float = float("nan")
    input_resistance: float = float("nan")
    bridge: float = float("nan")  # median jump at the edges of steps, MOhm
    offset: float = float("nan")  # probably added to every potential, mV; NaN without such a sign

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons


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
    if _is_whole(voltage):
        return len(voltage)
    used = np.flatnonzero((voltage != 0) & ~np.isnan(voltage))
    if not len(used):
        return 0
    pauses = np.flatnonzero(np.diff(used) > max(_STOPPED * rate, 10))
    return int(used[pauses[0] if len(pauses) else -1]) + 1


def _is_whole(voltage: Samples) -> bool:
    """Whether no sample is missing, told fast; what cannot be told so may be whole as well."""
    if not len(voltage):
        return False
    lowest, highest = voltage.min(), voltage.max()  # a NaN is neither below nor above
    return bool(-np.inf < lowest < 0 and highest < np.inf and (highest < 0 or voltage.all()))


def recorded_around(voltage: Samples, rate: float, time: float) -> slice:
    """The samples around a time in s that were recorded without a gap, and are numbers."""
    if _is_whole(voltage):
        return slice(0, len(voltage))
    from crosspatch.recordings import passes

    first, last = passes.recorded(_plain(voltage), round(time * rate), max(_STOPPED * rate, 10.0))
    return slice(min(first, last), last)


def assess_sweep(
    sweep: Sweep, voltage: Samples, stimulus: Stimulus, settings: QualityThresholds | None = None
) -> SweepQuality:
    """Measure a sweep, of these samples in mV, and say why it cannot be used."""
    settings = settings or QualityThresholds()
    rate = sweep.rate
    span = recorded_around(voltage, rate, 0.0 if stimulus.kind == NONE else stimulus.start)
    used = voltage[: span.stop]
    seen = used[span]
    extremes = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 0.0)
    if unfit := _unfit(seen, rate, extremes):
        return SweepQuality((unfit,))
    if stimulus.kind == NONE:
        return _at_rest(used[max(span.start, _after_test(stimulus, rate)) :], rate)
    stopped = list(_stopped_early(stimulus, voltage, span.stop, rate, settings))
    before = _before(used, stimulus, rate, span.start)
    if not len(before):
        text = "nothing was recorded before the stimulus"
        return SweepQuality((*stopped, Fault(text, text)))
    quality = _at_rest(before, rate)
    drift = float("nan")
    after = _after(used, stimulus, rate)
    if stimulus.kind != RAMP and len(after):  # after a ramp there is no time to recover
        drift = abs(float(np.median(after)) - quality.baseline)
    quality = replace(quality, drift=drift, bridge=_bridge(used, stimulus, rate))
    if not settings.baseline_low <= quality.baseline <= settings.baseline_high or (
        extremes[1] > _NEVER_ABOVE
    ):
        quality = replace(quality, spike_levels=_spike_levels(seen, rate))
    faults = (*stopped, *_beyond(quality, settings), *_saturated(seen, rate, settings, extremes))
    return replace(quality, faults=faults)


def steep_peaks(voltage: Samples, rate: float) -> NDArray[np.int64]:
    """Where spikes begin and peak in samples in mV, whatever their level and slope, one per row."""
    from crosspatch.recordings import passes

    if not len(voltage) or np.ptp(voltage) < _SPIKE_HEIGHT:
        return np.empty((0, 2), np.int64)
    return np.asarray(passes.steep_peaks(_plain(voltage), rate, _SPIKE_HEIGHT))


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


def _beyond(quality: SweepQuality, settings: QualityThresholds) -> Iterator[Fault]:
    """What lies beyond the limits of a sweep."""
    low, high = settings.baseline_low, settings.baseline_high
    if not low <= quality.baseline <= high:
        limits = f"outside {low:g} to {high:g} mV"
        yield Fault(f"baseline {limits}", f"baseline {quality.baseline:.1f} mV, {limits}")
    for field in ("drift", "slow_noise", "fast_noise"):
        value, limit, name = getattr(quality, field), getattr(settings, field), field
        name = name.replace("_", " ")
        if value > limit:
            yield Fault(f"{name} above {limit:g} mV", f"{name} {value:.2f} mV above {limit:g} mV")


def _unfit(used: Samples, rate: float, extremes: tuple[float, float]) -> Fault | None:
    """Why nothing can be measured on what was recorded, told its lowest and highest value."""
    from crosspatch.recordings import passes

    if not len(used):
        return Fault("no samples", "no samples: the voltage is zero or missing throughout")
    largest = max(map(abs, extremes))
    if largest > _MAX_VOLTAGE:
        text = f"it reaches {largest:.3g} mV, which no amplifier does: a wrong unit, or damage"
        return Fault("potentials that no amplifier reaches", text)
    if extremes[1] > _SPIKES_FROM:
        limits = (_SPIKES_FROM, _FROM_BELOW, _REFRACTORY * rate)
        close = passes.close_rises(_plain(used), *limits)
        if close > _MAX_CLOSE:
            within = f"within {_REFRACTORY * 1e3:g} ms: it is noise"
            return Fault(f"spikes {within}", f"{close} spikes follow another {within}")
    return None


def _fast_noise(before: Samples, rate: float) -> float:
    from crosspatch.recordings import passes

    blocks = passes.spreads(_plain(before), max(round(0.0015 * rate), 2))
    return float(np.median(blocks)) if len(blocks) else math.nan


def _stopped_early(
    stimulus: Stimulus, voltage: Samples, end: int, rate: float, settings: QualityThresholds
) -> Iterator[Fault]:
    """Whether too little was recorded, up to `end`."""
    squares = stimulus.kind in (LONG_SQUARE, SHORT_SQUARE)
    needed = stimulus.end if squares else stimulus.start
    if end / rate < needed:
        missing = int(np.sum(~np.isfinite(voltage[: round(needed * rate)])))
        if missing and recorded_points(voltage, rate) / rate >= needed:
            yield Fault("samples that are not finite", f"{missing} samples are not finite")
            return
        what = "before the stimulus " + ("ended" if squares else "began")
        yield Fault(f"stopped {what}", f"stopped at {end / rate:.3g} s, {what}")
    elif (
        squares
        and needed + settings.after_square - end / rate > 1.5 / rate
        and (end < len(voltage))
    ):
        yield Fault(
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
) -> Iterator[Fault]:
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
        yield Fault(SATURATED, text)


def assess_cell(
    recording: Recording,
    sweeps: dict[int, SweepQuality],
    input_resistance: float = float("nan"),
    settings: QualityThresholds | None = None,
    *,
    nothing: str = "",
) -> CellQuality:
    """Judge the cell: seal, access and bridge; `sweeps` is what `assess_sweep` said, by number.

    The input resistance from current clamp, MOhm, stands in where no voltage-clamp test was
    recorded. `nothing` says why there are no sweeps that are measured, if there are none.
    """
    settings = settings or QualityThresholds()
    noted = recording.recorded
    seal = _clamp_test(recording, "seal", noted.seal)
    access = _clamp_test(recording, "access", noted.access_resistance)
    resistance = _clamp_test(recording, "input", input_resistance)
    resistance = resistance if resistance > 0 else math.nan
    jumps = [quality.bridge for quality in sweeps.values() if not math.isnan(quality.bridge)]
    bridge = float(np.median(jumps)) if jumps else float("nan")
    offset = _offset(sweeps)
    faults = (
        (seal < settings.seal, f"seal {seal:.2f} GOhm below {settings.seal:g} GOhm"),
        (
            not (math.isnan(access) or settings.access_low <= access <= settings.access_high),
            f"access resistance {access:.1f} MOhm outside {settings.access_low:g} to "
            f"{settings.access_high:g} MOhm",
        ),
        (
            access / resistance > settings.access_share,
            f"access resistance is {access / resistance:.0%} of the input resistance, "
            f"above {settings.access_share:.0%}",
        ),
        (
            abs(bridge) > settings.bridge,
            f"bridge off by {bridge:.1f} MOhm, above {settings.bridge:g} MOhm",
        ),
        (
            not math.isnan(offset),
            f"the potential is probably offset by about {offset:+.0f} mV: offset_mv takes it off",
        ),
        (not any(quality.passed for quality in sweeps.values()), _none_passed(sweeps, nothing)),
    )
    reasons = tuple(text for wrong, text in faults if wrong)
    return CellQuality(reasons, seal, access, resistance, bridge, offset)


def _none_passed(sweeps: dict[int, SweepQuality], nothing: str) -> str:
    """Why no sweep is used: the commonest reasons, and of how many sweeps."""
    if not sweeps:
        why = nothing or "none is a long square, a short square or a ramp"
        return f"no sweep has a stimulus that is measured: {why}"
    counts = Counter(kind for each in sweeps.values() for kind in each.kinds)
    told = ", ".join(f"{kind} ({count} of {len(sweeps)})" for kind, count in counts.most_common(3))
    return f"no sweep passed quality control: {told}"


def rest_rate(sweeps: dict[int, SweepQuality]) -> float:
    """Rate of spikes without current, spikes/s, of sweeps as `assess_sweep` found them."""
    rested = [each for each in sweeps.values() if each.rested]
    total = sum(each.rested for each in rested)
    return sum(each.rest_rate * each.rested for each in rested) / total if total else 0.0


def _offset(sweeps: dict[int, SweepQuality]) -> float:
    """What is probably added to all potentials, to 5 mV; NaN without a sign of it.

    The sign: spikes of usual height at levels where no neuron has any.
    """
    levels = [q.spike_levels for q in sweeps.values() if not math.isnan(q.spike_levels[0])]
    if not levels:
        return math.nan
    begins, peaks = np.median(levels, axis=0).tolist()
    highest = _HIGH_BEGINS_BELOW if peaks > _NEVER_ABOVE else _BEGINS_BELOW
    if _BEGINS_ABOVE <= begins <= highest:
        return math.nan
    rest = float(np.nanmedian([q.baseline for q in sweeps.values()]))
    return 5.0 * round((rest - _USUAL_REST + begins - _USUAL_BEGIN) / 10)


#: The Allen Institute's codes of the voltage-clamp tests (IPFX 2.1.2, stimulus ontology).
_TESTS = {"seal": "EXTPCLLATT", "access": "EXTPBREAKN", "input": "EXTPBREAKN"}


def is_unmeasured(clamp: str, description: str) -> bool:
    """Whether a sweep is neither measured nor used to judge the cell, by what the file calls it."""
    if clamp == VOLTAGE_CLAMP:
        return not description.upper().startswith(tuple(_TESTS.values()))
    return ontology_kind(description) == OTHER


def _clamp_test(recording: Recording, test: str, otherwise: float | None = None) -> float:
    """A resistance from the last voltage-clamp test of its kind, or what is known else.

    In GOhm of the seal, in MOhm of the others.
    """
    for sweep in reversed(recording.sweeps):
        if sweep.clamp != VOLTAGE_CLAMP or not sweep.description.upper().startswith(_TESTS[test]):
            continue
        try:
            value = _pulse_resistance(sweep, at_peak=test == "access")
        except RecordingError:
            continue
        if math.isfinite(value):
            return value if test == "seal" else value * 1e3
    return float("nan") if otherwise is None else otherwise


def _pulse_resistance(sweep: Sweep, *, at_peak: bool) -> float:
    """Resistance in GOhm that the pulses of a voltage-clamp test show, NaN without whole pulses.

    Change of the voltage over that of the current, from the millisecond before a pulse to its last
    or, for the access, to the highest current; mean over pulses but the first, which is the test
    pulse (IPFX 2.1.2, quality control).
    """
    voltage, current = sweep.voltage, sweep.current
    steps = np.diff(voltage)
    rises, falls = np.flatnonzero(steps > 0)[1:], np.flatnonzero(steps < 0)[1:]
    if len(rises) != len(falls) or (rises >= falls).any():
        return math.nan
    millisecond = int(0.001 / (1 / sweep.rate))

    def before(edge: int) -> tuple[float, float]:
        part = slice(max(edge - 1 - millisecond, 0), max(edge - 1, 0))
        return float(np.mean(voltage[part])), float(np.mean(current[part]))

    found = []
    with warnings.catch_warnings(action="ignore"):  # numpy's, on samples that make no sense
        for rise, fall in zip(rises.tolist(), falls.tolist(), strict=True):
            volts, amperes = before(fall)
            if at_peak:
                if fall - 1 <= rise:
                    return math.nan
                peak = rise + int(np.argmax(current[rise : fall - 1]))
                volts, amperes = float(voltage[peak]), float(current[peak])
            base_volts, base_amperes = before(rise)
            if amperes == base_amperes:
                return math.nan
            found.append((volts - base_volts) / (amperes - base_amperes))
    return float(np.mean(found)) if found else math.nan
