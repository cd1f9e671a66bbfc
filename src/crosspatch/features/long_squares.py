"""Long squares, measured: the membrane, and how the cell spikes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crosspatch.features.excitability import (
    Excitability,
    Unmeasured,
    excitability,
    fires_on_its_own,
    judge_of,
)
from crosspatch.features.measuring.cuts import Cut, on_one_axis
from crosspatch.features.measuring.membrane import (
    StepResponse,
    input_resistance,
    silenced_resistance,
    silenced_tau,
    step_response,
    time_constant,
)
from crosspatch.features.measuring.spikes import SpikeRules, Spikes, find_spikes
from crosspatch.features.measuring.trains import Train
from crosspatch.features.responses import FoundSpikes, Responses, found_spikes

#: The part of a long square that is measured, s: the reference tables have steps of 1 s.
STEP_WINDOW = 1.0
#: Lowest peak of a spike in a long square, mV.
_LOWEST_PEAK = -25.0
#: Baseline before a step, s.
_BEFORE = 0.1
#: Sag is that of the step whose deflection is nearest to this, mV.
_SAG_AT = -100.0
#: Smaller steps show resistance and time constant, pA: larger ones open other channels.
_SMALL = -100.0
#: Steps that last this much longer or shorter last as long, s.
_AS_LONG = 0.005

_NAN = float("nan")


@dataclass(frozen=True)
class Window:
    """The part of steps that is measured."""

    end: float  # on the sweeps' time axis, s; at most `STEP_WINDOW` after their start
    duration: float  # how long they really last, s; NaN where they last differently


@dataclass(frozen=True)
class Membrane:
    """What steps without a spike show; NaN where they do not."""

    #: Share of the deflection that is gone at the end, and the deflection that it is of, mV.
    sag: float = _NAN
    vm_for_sag: float = _NAN
    input_resistance: float = _NAN  # MOhm
    tau: float = _NAN  # s


@dataclass(frozen=True)
class LongSquares(Responses):
    """Responses to long squares, with what only these show."""

    below: Window  # of the hyperpolarising steps
    steps: tuple[StepResponse, ...]
    v_baseline: float  # mean over sweeps, mV
    alone: bool  # whether it fires on its own: it has no rheobase, and no potential at rest
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


def measure_long_squares(
    cuts: Sequence[Cut],
    notes: list[str],
    unmeasured: Sequence[Unmeasured] = (),
    rest_rate: float = 0.0,
) -> LongSquares:
    """Measure sweeps of long squares; what cannot be measured, and why, is noted.

    Definitions are those of Gouwens et al. 2019 as IPFX (2.1.2) has them: rheobase is the smallest
    depolarising step with a spike, the hero sweep the first between 39 and 61 pA above it. Of steps
    of one size the first recorded counts. Depolarising steps that are not measured, and the rate of
    spikes without current in spikes/s, may make the rheobase another one, or unknown.
    """
    chosen, left = _alike(cuts, notes)
    chosen, start, _ = on_one_axis(chosen)
    firing, below = _windows(chosen, start, notes)
    ends = [below.end if cut.amplitude < 0 else firing.end for cut in chosen]
    befores = [min(start - cut.time(0), _BEFORE) for cut in chosen]
    if min(befores) < _BEFORE:
        notes.append(f"the baseline is taken from {min(befores) * 1e3:.0f} ms before the step")
    found = found_spikes(chosen, start, ends, SpikeRules(lowest_peak=_LOWEST_PEAK), notes)
    alone = fires_on_its_own(rest_rate, firing.end - start)
    if alone:
        notes.append(
            "it fires on its own and has no rheobase: rheobase_i, what is measured at it (but "
            "for the action potential, which is that at rest) and in the hero sweep, and sag are "
            "missing; v_baseline is the median potential"
        )
    steps = [
        step_response(cut, start, end, before, spiking=alone)
        for cut, end, before in zip(chosen, ends, befores, strict=True)
    ]
    v_baseline = float(np.mean([step.baseline for step in steps]))
    hidden = [*unmeasured, *left]
    hidden += [
        Unmeasured(chosen[k].number, chosen[k].amplitude, "slow spikes") for k in found.missed
    ]
    judge = judge_of(found, firing.end - start, v_baseline)
    shown = excitability(chosen, found.trains, hidden, judge, notes, alone=alone)
    first_spikes = _first_spikes(chosen, start, found, shown.rheobase, alone=alone)
    return LongSquares(
        cuts=tuple(chosen),
        spikes=tuple(found.spikes),
        trains=tuple(found.trains),
        start=start,
        end=firing.end,
        duration=firing.duration,
        numbers=tuple(cut.number for cut in chosen),
        first_spikes=tuple(first_spikes),
        below=below,
        steps=tuple(steps),
        v_baseline=v_baseline,
        alone=alone,
        membrane=_below_rest(chosen, steps, found.trains, (start, below.end), notes, alone=alone),
        excitability=shown,
    )


def _first_spikes(
    cuts: Sequence[Cut], start: float, found: FoundSpikes, rheobase: int | None, *, alone: bool
) -> list[tuple[Cut, Spikes]]:
    """The sweep at the rheobase with its spikes; of a cell that fires on its own, those at rest."""
    if alone:
        return _at_rest(cuts, start, found.rules)
    return [] if rheobase is None else [(cuts[rheobase], found.spikes[rheobase])]


def _at_rest(cuts: Sequence[Cut], start: float, rules: SpikeRules) -> list[tuple[Cut, Spikes]]:
    """Sweeps with the spikes before a step, of those that have a whole one."""
    found = [(cut, find_spikes(cut, cut.time(0), start, rules)) for cut in cuts]
    return [(cut, spikes) for cut, spikes in found if len(spikes) and not spikes["clipped"][0]]


def _alike(cuts: Sequence[Cut], notes: list[str]) -> tuple[list[Cut], list[Unmeasured]]:
    """The sweeps of the commonest rate, and of steps that last long enough; and what is left.

    Long enough is the commonest duration, or the window where that is longer; hyperpolarising and
    other steps may differ in it.
    """
    rate = Counter(round(cut.rate) for cut in cuts).most_common(1)[0][0]
    alike = [cut for cut in cuts if round(cut.rate) == rate]
    common = {below: _commonest(alike, below=below) for below in (False, True)}
    chosen, left = [], []
    for cut in cuts:
        least = common[cut.amplitude < 0]
        if round(cut.rate) == rate and cut.duration >= least - _AS_LONG:
            chosen.append(cut)
            continue
        told = f"it lasts {cut.duration:g} s at {cut.rate:g} Hz"
        notes.append(
            f"sweep {cut.number}: left out, {told}, most long squares last {least:g} s or more at "
            f"{rate} Hz"
        )
        if cut.amplitude > 0:
            before = cut.voltage[max(cut.onset - round(_BEFORE * cut.rate), 0) : cut.onset]
            rest = float(before.mean()) if len(before) else _NAN
            left.append(Unmeasured(cut.number, cut.amplitude, told, rest, cut))
    return chosen, left


def _commonest(cuts: Sequence[Cut], *, below: bool) -> float:
    """The commonest duration of hyperpolarising or other steps, s, no more than the window.

    Of equals it is the longest.
    """
    counts = Counter(
        min(round(cut.duration, 3), STEP_WINDOW) for cut in cuts if (cut.amplitude < 0) == below
    )
    return max(counts, key=lambda each: (counts[each], each), default=0.0)


def _windows(cuts: Sequence[Cut], start: float, notes: list[str]) -> tuple[Window, Window]:
    """What is measured of steps that begin at a time in s, and of hyperpolarising ones."""
    every = [cut.duration for cut in cuts]
    firing, below = (
        [cut.duration for cut in cuts if (cut.amplitude < 0) == negative] or every
        for negative in (False, True)
    )
    rate = cuts[0].rate
    return _window(firing, start, rate, notes), _window(below, start, rate, notes)


def _window(durations: Sequence[float], start: float, rate: float, notes: list[str]) -> Window:
    """The part of steps of these durations, s, that is measured."""
    shortest, longest = min(durations), max(durations)
    same = longest - shortest < _AS_LONG
    duration = durations[0] if same else _NAN
    whole = (round(start * rate) + round(shortest * rate)) / rate
    if same and abs(shortest - STEP_WINDOW) < _AS_LONG:
        return Window(whole, duration)
    window = min(shortest, STEP_WINDOW)
    if window < STEP_WINDOW - _AS_LONG:
        window = float(np.floor(window * 100 + 1e-6) / 100)
    told = f"{shortest:g} s" if same else f"{shortest:g} to {longest:g} s"
    notes.append(f"steps last {told}; their first {window:g} s are measured")
    return Window(whole if window == shortest else start + round(window * rate) / rate, duration)


def _below_rest(
    cuts: Sequence[Cut],
    steps: Sequence[StepResponse],
    trains: Sequence[Train],
    during: tuple[float, float],
    notes: list[str],
    *,
    alone: bool,
) -> Membrane:
    """What hyperpolarising steps between two times, s, show.

    In a cell that fires on its own they show what they do once they have silenced it; that is below
    its potential at rest, so that larger steps will do.
    """
    negative = [k for k, cut in enumerate(cuts) if cut.amplitude < 0]
    if not negative:
        notes.append("no hyperpolarising long square")
    without = [k for k in negative if not trains[k].rate]
    silent = [cuts[k] for k in without]
    if alone:
        tau = silenced_tau(silent, *during)
        return Membrane(input_resistance=silenced_resistance(silent, tau), tau=tau)
    smallest = max((cuts[k].amplitude for k in negative), default=0.0)
    return _membrane(silent, [steps[k] for k in without], smallest, during[0], notes)


def _membrane(
    cuts: Sequence[Cut],
    steps: Sequence[StepResponse],
    smallest: float,
    start: float,
    notes: list[str],
) -> Membrane:
    """What hyperpolarising steps without a spike show, given the smallest of all, pA."""
    least = _SMALL
    if smallest <= least:
        least = smallest * 1.001
        notes.append(f"resistance and time constant are of steps of {smallest:g} pA")
    if not cuts:
        return Membrane()
    deepest = min(steps, key=lambda step: abs(step.deflection - _SAG_AT))
    membrane = Membrane(deepest.sag, deepest.deflection)
    places = [k for k, cut in enumerate(cuts) if cut.amplitude > least]
    if not places:
        return membrane
    small = [cuts[k] for k in places], [steps[k] for k in places]
    resistance, tau = input_resistance(*small), time_constant(*small, start)
    if np.isnan(tau):
        notes.append(
            "tau: no exponential fits the response to small steps, or it is not above noise"
        )
    return replace(membrane, input_resistance=resistance, tau=tau)
