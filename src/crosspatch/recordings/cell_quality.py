"""Whether a cell is fit to be measured, and why not: seal, access, bridge, offset, its sweeps."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from dataclasses import dataclass

import numpy as np

from crosspatch.errors import RecordingError
from crosspatch.recordings.model import VOLTAGE_CLAMP, Recording, Sweep
from crosspatch.recordings.quality import NEVER_ABOVE, SweepQuality
from crosspatch.recordings.stimuli import OTHER, ontology_kind
from crosspatch.recordings.thresholds import QualityThresholds

#: No spike begins below the first or above the second of these, or above the third if it peaks
#: above `NEVER_ABOVE`, mV: sodium channels open near -45 mV.
_BEGINS_ABOVE, _BEGINS_BELOW, _HIGH_BEGINS_BELOW = -85.0, -5.0, -25.0
#: The usual potential at rest, and where spikes usually begin, mV.
_USUAL_REST, _USUAL_BEGIN = -70.0, -45.0


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
    highest = _HIGH_BEGINS_BELOW if peaks > NEVER_ABOVE else _BEGINS_BELOW
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
