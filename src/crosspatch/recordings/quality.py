"""Which sweeps and cells are fit to be measured, and why the others are not."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

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


@dataclass(frozen=True)
class _Quality:
    reasons: tuple[str, ...] = ()  # empty if the sweep is used, or the cell passes

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons


@dataclass(frozen=True)
class SweepQuality(_Quality):
    """What was measured on a sweep, and why it is rejected."""

    baseline: float = float("nan")  # mean potential before the stimulus, mV
    drift: float = float("nan")  # mV; NaN where the sweep is too short to say
    slow_noise: float = float("nan")
    fast_noise: float = float("nan")
    bridge: float = float("nan")  # jump at the edges of the step, MOhm; NaN without a step


@dataclass(frozen=True)
class CellQuality(_Quality):
    """What was measured on the whole cell, and why it is rejected."""

    seal: float = float("nan")  # GOhm, NaN where not recorded
    #: From the voltage-clamp test after break-in, else from the file's notes; MOhm.
    access_resistance: float = float("nan")
    input_resistance: float = float("nan")
    bridge: float = float("nan")  # median jump at the edges of steps, MOhm


#: No membrane is at exactly 0 mV for so long: the acquisition was stopped, s.
_STOPPED = 0.01


def recorded_points(voltage: Samples, rate: float) -> int:
    """Samples of a voltage in mV until the recording, at a rate in Hz, stopped.

    Acquisition programs fill the rest of a sweep that was stopped with zeros, others with NaN; one
    that went on after a pause has a gap of zeros (ramps in DANDI 000020: 19 to 40 ms).
    """
    # As nearly always, and told faster: nothing is missing. A NaN is neither below nor above.
    if len(voltage) and (voltage.max() < 0 or (voltage.min() < 0 and voltage.all())):
        return len(voltage)
    used = np.flatnonzero((voltage != 0) & ~np.isnan(voltage))
    if not len(used):
        return 0
    pauses = np.flatnonzero(np.diff(used) > max(_STOPPED * rate, 10))
    return int(used[pauses[0] if len(pauses) else -1]) + 1


def assess_sweep(
    sweep: Sweep, voltage: Samples, stimulus: Stimulus, settings: QualityThresholds | None = None
) -> SweepQuality:
    """Measure a sweep, of these samples in mV, and say why it cannot be used."""
    settings = settings or QualityThresholds()
    rate = sweep.rate
    end = recorded_points(voltage, rate)
    used = voltage[:end]
    extremes = (float(used.min()), float(used.max())) if end else (math.nan, math.nan)
    if unfit := _unfit(used, rate, extremes):
        return SweepQuality((unfit,))
    if stimulus.kind == NONE:
        return SweepQuality(baseline=float(np.mean(used)))
    stopped = list(_stopped_early(stimulus, end, len(voltage), rate, settings))
    before = _before(used, stimulus, rate)
    if not len(before):
        return SweepQuality((*stopped, "nothing was recorded before the stimulus"))
    baseline = float(np.mean(before))
    drift = float("nan")
    after = _after(used, stimulus, rate)
    if stimulus.kind != RAMP and len(after):  # after a ramp there is no time to recover
        drift = abs(float(np.median(after)) - baseline)
    quality = SweepQuality(
        baseline=baseline,
        drift=drift,
        slow_noise=float(np.std(before)),
        fast_noise=_fast_noise(before, rate),
        bridge=_bridge(used, stimulus, rate),
    )
    beyond = _beyond(quality, settings)
    return replace(
        quality, reasons=(*stopped, *beyond, *_saturated(used, rate, settings, extremes))
    )


def _beyond(quality: SweepQuality, settings: QualityThresholds) -> Iterator[str]:
    """What lies beyond the limits of a sweep."""
    low, high = settings.baseline_low, settings.baseline_high
    if not low <= quality.baseline <= high:
        yield f"baseline {quality.baseline:.1f} mV, outside {low:g} to {high:g} mV"
    for name in ("drift", "slow_noise", "fast_noise"):
        value, limit = getattr(quality, name), getattr(settings, name)
        if value > limit:
            yield f"{name.replace('_', ' ')} {value:.2f} mV above {limit:g} mV"


def _unfit(used: Samples, rate: float, extremes: tuple[float, float]) -> str | None:
    """Why nothing can be measured on what was recorded, told its lowest and highest value."""
    if not len(used):
        return "no samples: the voltage is zero or missing throughout"
    if not np.isfinite(extremes).all():
        return f"{int(np.sum(~np.isfinite(used)))} samples are not finite"
    largest = max(map(abs, extremes))
    if largest > _MAX_VOLTAGE:
        return f"it reaches {largest:.3g} mV, which no amplifier does: a wrong unit, or damage"
    close = _close_spikes(used, rate) if extremes[1] > _SPIKES_FROM else 0
    if close > _MAX_CLOSE:
        return f"{close} spikes follow another within {_REFRACTORY * 1e3:g} ms: it is noise"
    return None


def _fast_noise(before: Samples, rate: float) -> float:
    short = max(round(0.0015 * rate), 2)
    blocks = before[: len(before) // short * short].reshape(-1, short)
    return float(np.median(np.std(blocks, axis=1))) if len(blocks) else float("nan")


def _stopped_early(
    stimulus: Stimulus, end: int, points: int, rate: float, settings: QualityThresholds
) -> Iterator[str]:
    """Whether too little was recorded, up to `end` of so many samples."""
    if stimulus.kind not in (LONG_SQUARE, SHORT_SQUARE):
        if end / rate < stimulus.start:
            yield f"stopped at {end / rate:.3g} s, before the stimulus began"
    elif end / rate < stimulus.end:
        yield f"stopped at {end / rate:.3g} s, before the stimulus ended"
    elif stimulus.end + settings.after_square - end / rate > 1.5 / rate and end < points:
        yield (
            f"stopped {end / rate - stimulus.end:.3g} s after the stimulus, "
            f"{settings.after_square:g} s are needed"
        )


def _close_spikes(voltage: Samples, rate: float) -> int:
    """How many rises through a level, from below a lower one, come too soon after another."""
    high = voltage > _SPIKES_FROM
    ups = np.flatnonzero(high[1:] & ~high[:-1]) + 1
    # Only the first after the potential was low counts.
    lowest_before = np.minimum.reduceat(voltage, np.concatenate([[0], ups]))[:-1]
    rises = ups[lowest_before < _FROM_BELOW]
    return int(np.count_nonzero(np.diff(rises) < _REFRACTORY * rate))


def _before(voltage: Samples, stimulus: Stimulus, rate: float) -> Samples:
    """Up to 0.5 s before the stimulus, after the test pulse has died away."""
    first = max(stimulus.start - 0.5, 0.0)
    if stimulus.test_pulse:
        start, end, _ = stimulus.test_pulse
        first = max(first, min(end + max(end - start, 0.05), stimulus.start - 0.1))
    return voltage[round(max(first, 0.0) * rate) : round(stimulus.start * rate)]


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
    t = np.arange(edge + wait, edge + wait + 3 * span)
    _, there = np.polyfit(t - edge, voltage[t[0] : t[-1] + 1], 1)
    return (left - float(there)) / stimulus.amplitude * 1e3


def _saturated(
    voltage: Samples, rate: float, settings: QualityThresholds, extremes: tuple[float, float]
) -> Iterator[str]:
    """Whether it stays too long at its lowest or highest value, where that is out of range."""
    lowest, highest = extremes
    runs = []
    for extreme, beyond in (
        (highest, highest > settings.clipped_above),
        (lowest, lowest < settings.clipped_below),
    ):
        if beyond:
            edges = np.flatnonzero(np.diff(np.r_[0, voltage == extreme, 0]))
            runs.append((int(np.max(edges[1::2] - edges[::2])), extreme))
    longest, level = max(runs, key=lambda run: run[0], default=(0, math.nan))
    if longest / rate >= settings.clipped:
        yield f"saturated: {longest / rate * 1e3:.1f} ms at {level:.0f} mV"


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
    jumps = [quality.bridge for quality in sweeps.values() if not math.isnan(quality.bridge)]
    bridge = float(np.median(jumps)) if jumps else float("nan")
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
            not any(quality.passed for quality in sweeps.values()),
            f"no sweep has a stimulus that is measured: {nothing}"
            if nothing and not sweeps
            else "no sweep passed quality control",
        ),
    )
    reasons = tuple(text for wrong, text in faults if wrong)
    return CellQuality(reasons, seal, access, resistance, bridge)


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
