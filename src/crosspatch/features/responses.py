"""Sweeps of one kind of stimulus, measured: long squares, short squares, ramps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crosspatch.features.measuring.cuts import Cut, on_one_axis
from crosspatch.features.measuring.membrane import (
    StepResponse,
    input_resistance,
    step_response,
    straight_slope,
    time_constant,
)
from crosspatch.features.measuring.spikes import SpikeRules, Spikes, adjusted_rules, find_spikes
from crosspatch.features.measuring.trains import Train, measure_train

#: The part of a long square that is measured, s: the reference tables have steps of 1 s.
STEP_WINDOW = 1.0
#: Lowest peak of a spike in a long square, mV.
_LOWEST_PEAK = -25.0
#: Baseline before a step, s.
_BEFORE = 0.1
#: Spikes of a short square come at most this long after it, s.
_AFTER_SHORT = 0.05
#: Sag is that of the step whose deflection is nearest to this, mV.
_SAG_AT = -100.0
#: Smaller steps show resistance and time constant, pA: larger ones open other channels.
_SMALL = -100.0
#: The hero sweep is the first so far above rheobase, pA.
_HERO = (39.0, 61.0)

_NAN = float("nan")


@dataclass(frozen=True)
class Responses:
    """Sweeps of one kind of stimulus and what was measured on them, one entry per sweep."""

    cuts: tuple[Cut, ...]
    spikes: tuple[Spikes, ...]
    trains: tuple[Train, ...]
    #: Stimulus interval on the sweeps' time axis, s; the end of a long square is at most
    #: `STEP_WINDOW` after its start.
    start: float
    end: float
    duration: float  # how long the stimulus really lasts, s
    numbers: tuple[int, ...]  # the sweeps' numbers in the file; none where no ramp made it spike
    #: Places of the sweeps whose first spikes make the mean first action potential.
    first_spikes: tuple[int, ...]


@dataclass(frozen=True)
class Membrane:
    """What steps without a spike show; NaN where they do not."""

    #: Share of the deflection that is gone at the end, and the deflection that it is of, mV.
    sag: float = _NAN
    vm_for_sag: float = _NAN
    input_resistance: float = _NAN  # MOhm
    tau: float = _NAN  # s


@dataclass(frozen=True)
class Excitability:
    """What the steps with spikes show."""

    #: Places of the smallest step with a spike, and of one well above it; None if there is none.
    rheobase: int | None = None
    hero: int | None = None
    #: Slope of the rate over the current, spikes/s/pA; NaN with spikes at one current only.
    fi_fit_slope: float = _NAN


@dataclass(frozen=True)
class LongSquares(Responses):
    """Responses to long squares, with what only these show."""

    steps: tuple[StepResponse, ...]
    v_baseline: float  # mean over sweeps, mV
    membrane: Membrane
    excitability: Excitability

    @property
    def amplitudes(self) -> NDArray[np.float64]:
        """Of the steps, pA, shape (sweeps,)."""
        return np.array([cut.amplitude for cut in self.cuts], dtype=np.float64)

    @property
    def rates(self) -> NDArray[np.float64]:
        """Of the spikes, spikes/s, shape (sweeps,)."""
        return np.array([train.rate for train in self.trains], dtype=np.float64)


@dataclass(frozen=True)
class Ramps(Responses):
    """Responses to ramps."""

    #: Current at the first spike's threshold, pA; NaN without a spike.
    threshold_currents: tuple[float, ...]


def measure_long_squares(cuts: Sequence[Cut], notes: list[str]) -> LongSquares:
    """Measure sweeps of long squares; what cannot be measured, and why, is noted.

    Definitions are those of Gouwens et al. 2019 as IPFX (2.1.2) has them: rheobase is the smallest
    depolarising step with a spike, the hero sweep the first between 39 and 61 pA above it. Of steps
    of one size the first recorded counts.
    """
    chosen, start, whole = on_one_axis(_alike(cuts, "long squares", notes))
    end = _measured_until(start, whole, chosen[0].rate, notes)
    before = start - max(cut.time(0) for cut in chosen)
    if before < _BEFORE:
        notes.append(f"the baseline is taken from {before * 1e3:.0f} ms before the step")
    before = min(before, _BEFORE)
    spikes, trains = _spikes(chosen, start, end, SpikeRules(lowest_peak=_LOWEST_PEAK))
    steps = [step_response(cut, start, end, before) for cut in chosen]
    without = [k for k, train in enumerate(trains) if not train.rate]
    membrane = _membrane(chosen, steps, without, (start, before), notes)
    excitability = _excitability(chosen, trains, notes)
    if excitability.rheobase is None and any(cut.amplitude > 0 for cut in chosen):
        notes.append("no long square made it spike")
    if all(cut.amplitude >= 0 for cut in chosen):
        notes.append("no hyperpolarising long square")
    return LongSquares(
        cuts=tuple(chosen),
        spikes=tuple(spikes),
        trains=tuple(trains),
        start=start,
        end=end,
        duration=whole - start,
        numbers=tuple(cut.number for cut in chosen),
        first_spikes=() if excitability.rheobase is None else (excitability.rheobase,),
        steps=tuple(steps),
        v_baseline=float(np.mean([step.baseline for step in steps])),
        membrane=membrane,
        excitability=excitability,
    )


def measure_short_squares(cuts: Sequence[Cut], notes: list[str]) -> Responses | None:
    """Measure sweeps of short squares; None where none spikes.

    First spikes are of the amplitude at which most sweeps spike, the smallest of several.
    """
    chosen, start, end = on_one_axis(_alike(cuts, "short squares", notes))
    until = end + _AFTER_SHORT
    rules = adjusted_rules(chosen, start, SpikeRules())
    spikes = [find_spikes(cut, start, until, rules) for cut in chosen]
    trains = [measure_train(each[each["clipped"] == 0], start, until) for each in spikes]
    spiking = [k for k, train in enumerate(trains) if train.rate]
    if not spiking:
        notes.append("no short square made it spike")
        return None
    counts = Counter(max(chosen[k].amplitude, 0.0) for k in spiking)
    most = max(counts.values())
    common = min(amplitude for amplitude, count in counts.items() if count == most)
    places = [k for k in spiking if max(chosen[k].amplitude, 0.0) == common]
    return Responses(
        cuts=tuple(chosen),
        spikes=tuple(spikes),
        trains=tuple(trains),
        start=start,
        end=end,
        duration=end - start,
        numbers=tuple(cut.number for cut in chosen),
        first_spikes=_not_clipped(places, spikes),
    )


def measure_ramps(
    cuts: Sequence[Cut], current_at: Callable[[int, int], float], notes: list[str]
) -> Ramps:
    """Measure sweeps of ramps; `current_at` gives a sweep's command at a sample of its cut, pA."""
    rate = Counter(cut.rate for cut in cuts).most_common(1)[0][0]
    chosen, start, end = on_one_axis([cut for cut in cuts if cut.rate == rate])
    spikes, trains = _spikes(chosen, start, None, SpikeRules())
    spiking = [k for k, train in enumerate(trains) if train.rate]
    if not spiking:
        notes.append("no ramp made it spike")
    return Ramps(
        cuts=tuple(chosen),
        spikes=tuple(spikes),
        trains=tuple(trains),
        start=start,
        end=end,
        duration=end - start,
        numbers=tuple(cut.number for cut in chosen) if spiking else (),
        first_spikes=_not_clipped(spiking, spikes),
        threshold_currents=tuple(
            current_at(cut.number, int(each["threshold_index"][0])) if len(each) else _NAN
            for cut, each in zip(chosen, spikes, strict=True)
        ),
    )


def _spikes(
    cuts: Sequence[Cut], start: float, end: float | None, rules: SpikeRules
) -> tuple[list[Spikes], list[Train]]:
    """The spikes of sweeps in a window, s, to the end of each where it has none."""
    spikes = [find_spikes(cut, start, end, rules) for cut in cuts]
    ends = [cut.time(len(cut.voltage) - 1) if end is None else end for cut in cuts]
    trains = [measure_train(each, start, last) for each, last in zip(spikes, ends, strict=True)]
    return spikes, trains


def _not_clipped(places: Sequence[int], spikes: Sequence[Spikes]) -> tuple[int, ...]:
    """Those whose first spike is not cut off."""
    return tuple(k for k in places if not spikes[k]["clipped"][0])


def _alike(cuts: Sequence[Cut], name: str, notes: list[str]) -> list[Cut]:
    """The sweeps of the commonest rate and duration."""

    def kind(cut: Cut) -> tuple[int, int]:
        return round(cut.rate), round(cut.duration * 1e4)

    common = Counter(kind(cut) for cut in cuts).most_common(1)[0][0]
    for cut in cuts:
        if kind(cut) != common:
            notes.append(
                f"sweep {cut.number}: left out, it lasts {cut.duration:g} s at "
                f"{cut.rate:g} Hz, most {name} last {common[1] / 1e4:g} s at {common[0]} Hz"
            )
    return [cut for cut in cuts if kind(cut) == common]


def _measured_until(start: float, end: float, rate: float, notes: list[str]) -> float:
    """End of the part of a step that is measured, s."""
    duration = end - start
    if abs(duration - STEP_WINDOW) < 0.005:
        return end
    window = min(duration, STEP_WINDOW)
    if window < STEP_WINDOW:
        window = float(np.floor(window * 100 + 1e-6) / 100)
    notes.append(f"steps last {duration:g} s; their first {window:g} s are measured")
    return end if window == duration else start + round(window * rate) / rate


def _membrane(
    cuts: Sequence[Cut],
    steps: Sequence[StepResponse],
    without: Sequence[int],
    baseline: tuple[float, float],
    notes: list[str],
) -> Membrane:
    """What the steps at these places, which have no spike, show.

    The baseline ends where the step begins, s, and lasts so many s.
    """
    negative = [cut.amplitude for cut in cuts if cut.amplitude < 0]
    smallest = _SMALL
    if negative and max(negative) <= smallest:
        smallest = max(negative) * 1.001
        notes.append(f"resistance and time constant are of steps of {max(negative):g} pA")
    if not negative or not without:
        return Membrane()
    deepest = steps[min(without, key=lambda k: abs(steps[k].deflection - _SAG_AT))]
    membrane = Membrane(deepest.sag, deepest.deflection)
    places = [k for k in without if smallest < cuts[k].amplitude < 0]
    if not places:
        return membrane
    small = [cuts[k] for k in places], [steps[k] for k in places]
    return replace(
        membrane, input_resistance=input_resistance(*small), tau=time_constant(*small, *baseline)
    )


def _excitability(cuts: Sequence[Cut], trains: Sequence[Train], notes: list[str]) -> Excitability:
    amplitudes = np.array([cut.amplitude for cut in cuts])
    rates = np.array([train.rate for train in trains])
    spiking = np.flatnonzero(rates > 0)
    ranked = spiking[np.argsort(amplitudes[spiking], kind="stable")]
    depolarised = ranked[amplitudes[ranked] > 0]
    if not len(depolarised):
        return Excitability()
    rheobase = int(depolarised[0])
    above = amplitudes[ranked] - amplitudes[rheobase]
    inside = np.flatnonzero((above > _HERO[0]) & (above < _HERO[1]))
    hero = int(ranked[inside[0] if len(inside) else np.abs(above - _HERO[0]).argmin()])
    slope = _NAN
    if np.ptp(amplitudes[spiking]):
        slope = straight_slope(amplitudes[spiking], rates[spiking])
    else:
        notes.append("fi_fit_slope: it spiked at one current only")
    return Excitability(rheobase, hero, slope)
