"""At which current a cell begins to spike, also where some of its sweeps cannot be measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crosspatch.features.measuring.cuts import Cut
from crosspatch.features.measuring.membrane import straight_slope
from crosspatch.features.measuring.spikes import SpikeRules, find_spikes
from crosspatch.features.measuring.trains import Train
from crosspatch.features.responses import FoundSpikes

#: The hero sweep is the first so far above rheobase, pA.
_HERO = (39.0, 61.0)
#: A sweep that is not measured tells whether its step spikes if its potential at rest is within
#: this of that of the others, mV, and its spikes are at least this share as high.
_SAME_REST, _SAME_HEIGHT = 5.0, 0.5
#: Spikes without current in the time of a step are so many that none can be said to be its own.
_ON_ITS_OWN = 0.5
#: A step that is shorter by no more than this, s, shows as much.
_SHORTER = 0.005
#: Least height of a spike where none is measured, mV.
_LEAST_HEIGHT = 25.0
#: Steps that differ by no more than this factor are of one size: commands are measured so exactly.
_TOLERANCE = 1.01

_NAN = float("nan")


@dataclass(frozen=True)
class Unmeasured:
    """A depolarising long square that is not measured."""

    number: int
    amplitude: float  # pA
    reason: str
    baseline: float = _NAN  # potential before the step, mV
    cut: Cut | None = None  # None where nothing can be seen


@dataclass(frozen=True)
class Excitability:
    """What the steps with spikes show."""

    #: Places of the smallest step with a spike, and of one well above it; None if there is none, or
    #: its sweep is not measured.
    rheobase: int | None = None
    hero: int | None = None
    rheobase_i: float = _NAN  # pA; known as well where the sweep itself is not measured
    #: Slope of the rate over the current, spikes/s/pA; NaN with spikes at one current only.
    fi_fit_slope: float = _NAN


def fires_on_its_own(rest_rate: float, window: float) -> bool:
    """Whether spikes without current, spikes/s, are too many to tell others apart, in so many s."""
    return rest_rate * window >= _ON_ITS_OWN


@dataclass(frozen=True)
class Judge:
    """Tells whether the steps of sweeps that are not measured spike."""

    rules: SpikeRules
    window: float  # of a step that is looked at, s
    rest: float  # potential at rest, mV
    height: float  # least height of a spike, mV

    def spikes(self, each: Unmeasured) -> bool | None:
        """Whether it spikes; None where that cannot be said."""
        if each.cut is None or not abs(each.baseline - self.rest) <= _SAME_REST:
            return None
        begin, points = each.cut.time(each.cut.onset), len(each.cut.voltage) - each.cut.onset
        whole = min(points / each.cut.rate, each.cut.duration) >= self.window - _SHORTER
        found = find_spikes(each.cut, begin, begin + self.window, self.rules)
        if (found["peak_v"] - found["threshold_v"] >= self.height).any():
            return True
        return False if whole and not len(found) else None


def judge_of(found: FoundSpikes, window: float, rest: float) -> Judge:
    """A judge who knows the spikes that were measured."""
    heights = np.concatenate([each["peak_v"] - each["threshold_v"] for each in found.spikes])
    height = _SAME_HEIGHT * float(np.median(heights)) if len(heights) else _LEAST_HEIGHT
    return Judge(found.rules, window, rest, height)


def excitability(
    cuts: Sequence[Cut],
    trains: Sequence[Train],
    unmeasured: Sequence[Unmeasured],
    judge: Judge,
    notes: list[str],
    *,
    alone: bool,
) -> Excitability:
    """What measured steps with spikes show, and whether a smaller one spikes that is not measured.

    A cell that fires on its own has no rheobase.
    """
    amplitudes = np.array([cut.amplitude for cut in cuts])
    rates = np.array([train.rate for train in trains])
    spiking = np.flatnonzero(rates > 0)
    slope = _rate_slope(amplitudes[spiking], rates[spiking], notes)
    if alone:
        return Excitability(fi_fit_slope=slope)
    ranked = spiking[np.argsort(amplitudes[spiking], kind="stable")]
    depolarised = ranked[amplitudes[ranked] > 0]
    measured = float(amplitudes[depolarised[0]]) if len(depolarised) else np.inf
    known = ~np.isin([cut.number for cut in cuts], [each.number for each in unmeasured])
    silent = (rates == 0) & (amplitudes > 0) & (amplitudes < measured) & known
    found = _rheobase(amplitudes[silent], measured, unmeasured, judge, notes)
    if np.isnan(found):
        return Excitability(fi_fit_slope=slope)
    place = int(depolarised[0]) if found == measured else None
    if _is_bound(found, amplitudes):
        notes.append(f"every depolarising step spikes: the rheobase may be below {found:g} pA")
    hero = _hero(amplitudes[ranked], found, unmeasured if place is None else (), notes)
    return Excitability(place, None if hero is None else int(ranked[hero]), found, slope)


def _hero(
    amplitudes: NDArray[np.float64],
    found: float,
    unmeasured: Sequence[Unmeasured],
    notes: list[str],
) -> int | None:
    """Which measured step, pA, is that of the hero sweep; None without any, or if another is."""
    if not len(amplitudes):
        return None
    others = [each.amplitude for each in unmeasured if each.amplitude >= found]
    hero = _nearest_hero(np.array([*amplitudes, *others]) - found)
    if hero < len(amplitudes):
        return hero
    notes.append("what is measured in the hero sweep is missing: that sweep is rejected")
    return None


def _is_bound(found: float, amplitudes: NDArray[np.float64]) -> bool:
    """Whether the smallest of all steps spikes, and there was room for smaller ones."""
    steps = np.unique(amplitudes[amplitudes > 0])
    if not len(steps) or found > steps[0]:
        return False
    return len(steps) == 1 or bool(found > 1.5 * (steps[1] - steps[0]))


def _rate_slope(
    amplitudes: NDArray[np.float64], rates: NDArray[np.float64], notes: list[str]
) -> float:
    """Slope of the rates over the steps that spike, spikes/s/pA."""
    if len(rates) and differ(amplitudes):
        return straight_slope(amplitudes, rates)
    if len(rates):
        notes.append("fi_fit_slope: it spiked at one current only")
    return _NAN


def _rheobase(
    silent: NDArray[np.float64],
    measured: float,
    unmeasured: Sequence[Unmeasured],
    judge: Judge,
    notes: list[str],
) -> float:
    """The smallest step that spikes, pA; NaN if none does, or that is not known.

    Given the smaller steps without a spike, and the smallest measured one with a spike, infinite if
    there is none.
    """
    largest = float(silent.max(initial=0.0))
    between = [
        each
        for each in sorted(unmeasured, key=lambda each: each.amplitude)
        if each.amplitude > _TOLERANCE * largest and each.amplitude * _TOLERANCE < measured
    ]
    found = _smallest(between, judge, measured, notes)
    if found == np.inf and (len(silent) or between):
        notes.append("no long square made it spike")
    return found if found < np.inf else _NAN


def differ(amplitudes: NDArray[np.float64]) -> bool:
    """Whether steps, pA, are of more than one size."""
    return bool(np.ptp(amplitudes) > (_TOLERANCE - 1) * np.abs(amplitudes).max())


def _nearest_hero(above: NDArray[np.float64]) -> int:
    """Which step so many pA above rheobase, in ascending order, is that of the hero sweep."""
    inside = np.flatnonzero((above > _HERO[0]) & (above < _HERO[1]))
    return int(inside[0] if len(inside) else np.abs(above - _HERO[0]).argmin())


def _smallest(between: Sequence[Unmeasured], judge: Judge, least: float, notes: list[str]) -> float:
    """The smallest step that spikes, pA, given the smallest measured one; NaN if not known.

    The others, in ascending order, are between that and the largest without a spike.
    """
    unknown: list[Unmeasured] = []
    for each in between:
        spikes = judge.spikes(each)
        if spikes is None:
            unknown.append(each)
        elif spikes:
            least = each.amplitude
            if not unknown:
                notes.append(
                    f"rheobase_i is of sweep {each.number} ({least:g} pA), which spikes but is not "
                    f"measured ({each.reason}): the other features at rheobase are missing"
                )
            break
    if not unknown:
        return least
    bound = f"it is at most {least:g} pA, but " if np.isfinite(least) else ""
    told = "; ".join(f"sweep {u.number} of {u.amplitude:g} pA ({u.reason})" for u in unknown[:3])
    notes.append(
        f"rheobase_i and what is measured at rheobase and in the hero sweep are missing: {bound}"
        f"whether a smaller step spikes cannot be seen: {told}"
    )
    return _NAN
