"""A recording's usable sweeps by stimulus, measured.

The sweeps, the stimulus interval and the command come from the recording itself, so that any file,
rate and timing will do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from crosspatch.features.excitability import Unmeasured, fires_on_its_own
from crosspatch.features.long_squares import LongSquares, measure_long_squares
from crosspatch.features.measuring.cuts import Cut
from crosspatch.features.responses import Ramps, Responses, measure_ramps, measure_short_squares
from crosspatch.recordings.cell_quality import CellQuality, assess_cell, rest_rate
from crosspatch.recordings.model import Recording, Samples, Sweep
from crosspatch.recordings.quality import (
    SATURATED,
    SweepFault,
    SweepQuality,
    judged,
    recorded_around,
)
from crosspatch.recordings.stimuli import (
    LONG_SQUARE,
    NONE,
    OTHER,
    RAMP,
    SHORT_SQUARE,
    Stimulus,
    ramp_current,
    recognise,
    remarks,
)
from crosspatch.recordings.thresholds import QualityThresholds

#: Kept on both sides of a square, s: families need 0.2, the rest keeps filter edges away.
MARGIN = 0.25
#: Kept after the start of a short square, s.
_SHORT_AFTER = 0.3
#: A cell that is watched for so long without current shows whether it fires on its own, s.
_RESTED = 0.5


_Measured = TypeVar("_Measured", bound=Responses)


@dataclass(frozen=True)
class Analysis:
    """Everything measured on a recording before features are named."""

    #: None where the protocol is missing or none of its sweeps can be used.
    long_square: LongSquares | None
    short_square: Responses | None
    ramp: Ramps | None
    stimuli: dict[int, Stimulus]  # sweep number to stimulus
    qualities: dict[int, SweepQuality]  # sweep number to quality, of the sweeps that were read
    cell: CellQuality
    notes: list[str] = field(default_factory=list)  # what could not be done, and why

    @property
    def rejected(self) -> set[int]:
        """Numbers of the sweeps that cannot be used."""
        return {number for number, quality in self.qualities.items() if not quality.passed}


def analyse(
    recording: Recording,
    quality: QualityThresholds | None = None,
    stimuli: dict[int, Stimulus] | None = None,
) -> Analysis:
    """Read a recording once and measure its long squares, short squares and ramps.

    The voltage of other sweeps is not read, unless their test pulses are all there is to measure
    the resistance on: they are most of a file, and it may lie on the other side of a network.
    Stimuli are recognised unless they are given. A `RecordingError` if no sweep has a command
    waveform.
    """
    found = recognise(recording) if stimuli is None else stimuli
    usable = _Usable(recording, quality)
    others = usable.read_measured(found)
    notes = usable.notes
    usable.watch_at_rest(found)
    notes += [f"{_named(numbers)}: {remark}" for remark, numbers in remarks(found).items()]
    long = _attempt(usable.measure_long_squares, usable.cuts[LONG_SQUARE], "long squares", notes)
    short = _attempt(measure_short_squares, usable.cuts[SHORT_SQUARE], "short squares", notes)
    ramp = _attempt(usable.measure_ramps, usable.cuts[RAMP], "ramps", notes)
    if long is not None and np.isnan(long.membrane.input_resistance):
        for sweep, stimulus in others:
            usable.read(sweep, stimulus)
        long = _with_test_pulses(long, usable.tests, notes)
    resistance = long.membrane.input_resistance if long else float("nan")
    cell = usable.assessed(found, resistance)
    return Analysis(long, short, ramp, found, usable.qualities, cell, notes)


class _Usable:
    """The sweeps that can be measured, by kind of stimulus, and what is wrong with the others."""

    def __init__(self, recording: Recording, thresholds: QualityThresholds | None) -> None:
        self.recording, self.thresholds = recording, thresholds
        self.notes = list(recording.notes)
        self.notes += [f"{name}: {reason}" for name, reason in recording.unreadable.items()]
        self.qualities: dict[int, SweepQuality] = {}
        self.cuts: dict[str, list[Cut]] = {LONG_SQUARE: [], SHORT_SQUARE: [], RAMP: []}
        self.tests: list[Cut] = []
        self.unmeasured: list[Unmeasured] = []
        self.rest_rate = 0.0
        self._ramps: dict[int, tuple[Sweep, Stimulus, int]] = {}

    def read_measured(self, found: dict[int, Stimulus]) -> list[tuple[Sweep, Stimulus]]:
        """Read the sweeps that are measured; those that have no more than a test pulse are left."""
        left = []
        for sweep in self.recording.current_clamp:
            stimulus = found.get(sweep.number)
            if stimulus is None:
                reason = "its command cannot be read"
                self.qualities[sweep.number] = SweepQuality((SweepFault(reason, reason),))
                self.notes.append(f"sweep {sweep.number}: {reason}")
                continue
            if stimulus.disagrees:
                self.notes.append(
                    f"sweep {sweep.number}: the command shows: {stimulus.kind}; the file's name "
                    f"'{sweep.description}' stands for: {stimulus.named}; the command counts"
                )
            if stimulus.kind in self.cuts:
                self.read(sweep, stimulus)
            elif _test_step(stimulus) is not None:
                left.append((sweep, stimulus))
        return left

    def read(self, sweep: Sweep, stimulus: Stimulus) -> None:
        """Read a sweep and judge it; if it passes, keep its stimulus and its test pulse."""
        if sweep.number in self.qualities:
            return
        voltage, quality = judged(sweep, stimulus, self.thresholds)
        self.qualities[sweep.number] = quality
        if quality.reasons:
            reason = "; ".join(quality.reasons)
            self.notes.append(f"sweep {sweep.number} rejected: {reason}")
            if stimulus.kind == LONG_SQUARE and stimulus.amplitude > 0:
                seen = np.isfinite(quality.baseline) and SATURATED not in quality.kinds
                cut = _cut(sweep, voltage, stimulus, quality.recorded) if seen else None
                what = (sweep.number, stimulus.amplitude, reason, quality.baseline, cut)
                self.unmeasured.append(Unmeasured(*what))
            return
        if stimulus.kind in self.cuts:
            cut = _cut(sweep, voltage, stimulus, quality.recorded)
            self.cuts[stimulus.kind].append(cut)
            if stimulus.kind == RAMP:
                self._ramps[sweep.number] = sweep, stimulus, cut.first
        pulse = _test_step(stimulus)
        if pulse is not None:
            around = recorded_around(voltage, sweep.rate, pulse.start)
            self.tests.append(_cut(sweep, voltage, pulse, (around.start, around.stop)))

    def watch_at_rest(self, found: dict[int, Stimulus]) -> None:
        """See how often it spikes without current; in sweeps without any where others are short."""
        for sweep in self.recording.current_clamp:
            if sum(quality.rested for quality in self.qualities.values()) >= _RESTED:
                break
            if sweep.number in found and found[sweep.number].kind == NONE:
                self.read(sweep, found[sweep.number])
        self.rest_rate = rest_rate(self.qualities)
        if self.rest_rate > 0:
            self.notes.append(f"fires without current ({self.rest_rate:.2g} Hz)")

    def assessed(self, found: dict[int, Stimulus], resistance: float) -> CellQuality:
        """The quality of the cell by its stimulated sweeps, and by its resistance in MOhm."""
        stimulated = {
            number: result
            for number, result in self.qualities.items()
            if number in found and found[number].kind not in (NONE, OTHER)
        }
        reasons = Counter(stimulus.reason for stimulus in found.values() if stimulus.reason)
        commonest = max(reasons, key=lambda reason: reasons[reason], default="")
        return assess_cell(
            self.recording, stimulated, resistance, self.thresholds, nothing=commonest
        )

    def measure_long_squares(self, cuts: list[Cut], notes: list[str]) -> LongSquares:
        """As `crosspatch.features.long_squares.measure_long_squares`."""
        return measure_long_squares(cuts, notes, self.unmeasured, self.rest_rate)

    def measure_ramps(self, cuts: list[Cut], notes: list[str]) -> Ramps:
        """As `crosspatch.features.responses.measure_ramps`; commands are read where they count."""

        def current_at(number: int, sample: int) -> float:
            sweep, stimulus, first = self._ramps[number]
            return float(ramp_current(sweep, stimulus, first + sample, 1)[0])

        ramps = measure_ramps(cuts, current_at, notes)
        if fires_on_its_own(self.rest_rate, ramps.end - ramps.start):
            notes.append("it fires on its own: threshold_i_ramp is missing")
            return replace(ramps, threshold_currents=())
        return ramps


def _named(numbers: list[int]) -> str:
    """Sweeps by their numbers."""
    if len(numbers) == 1:
        return f"sweep {numbers[0]}"
    few = ", ".join(map(str, numbers)) if len(numbers) <= 5 else f"{numbers[0]} … {numbers[-1]}"
    return f"{len(numbers)} sweeps ({few})"


def _with_test_pulses(long: LongSquares, tests: list[Cut], notes: list[str]) -> LongSquares:
    """Take resistance and time constant from test pulses."""
    if long.alone:
        where = "it has no rest, and no two steps show where it goes after them"
        notes.append(f"input_resistance is missing: {where}")
        return long
    of_tests = _attempt(measure_long_squares, tests, "test pulses", notes) if tests else None
    if of_tests is None or np.isnan(of_tests.membrane.input_resistance):
        return long
    notes.append("resistance and time constant are of the test pulses")
    resistance, tau = of_tests.membrane.input_resistance, of_tests.membrane.tau
    return replace(long, membrane=replace(long.membrane, input_resistance=resistance, tau=tau))


def _cut(sweep: Sweep, voltage: Samples, stimulus: Stimulus, recorded: tuple[int, int]) -> Cut:
    """A sweep, cut to what is measured of these samples."""
    rate = sweep.rate
    onset = round(stimulus.start * rate)
    first, last = recorded
    if stimulus.kind != RAMP:
        after = stimulus.end + (MARGIN if stimulus.kind == LONG_SQUARE else _SHORT_AFTER)
        first = max(first, round((stimulus.start - MARGIN) * rate))
        last = min(last, round(min(after, stimulus.next_start) * rate))
    if stimulus.test_pulse and first < round(stimulus.test_pulse[1] * rate):
        first = min(round(stimulus.test_pulse[1] * rate), max(onset - round(0.11 * rate), 0))
    samples = np.ascontiguousarray(voltage[first:last], dtype=np.float64)
    timing = (onset - first, stimulus.duration)
    return Cut(sweep.number, rate, samples, first, *timing, stimulus.amplitude)


def _test_step(stimulus: Stimulus) -> Stimulus | None:
    """A hyperpolarising test pulse long enough to show the membrane, as if it were a step."""
    if stimulus.test_pulse is None:
        return None
    start, end, amplitude = stimulus.test_pulse
    if amplitude > -10 or end - start < 0.1:
        return None
    following = min(stimulus.start if stimulus.kind != NONE else np.inf, stimulus.next_start)
    return Stimulus(LONG_SQUARE, start, end, amplitude, stimulus.holding, next_start=following)


def _attempt(
    measure: Callable[[list[Cut], list[str]], _Measured | None],
    cuts: list[Cut],
    name: str,
    notes: list[str],
) -> _Measured | None:
    if not cuts:
        notes.append(f"no usable {name}")
        return None
    return measure(cuts, notes)
