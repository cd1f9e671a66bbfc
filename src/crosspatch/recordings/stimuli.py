"""What was injected, recognised from the command waveform itself."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from crosspatch.errors import RecordingError
from crosspatch.recordings.model import DESCRIBE_STEP, Recording, Samples, Sweep

LONG_SQUARE = "long square"
SHORT_SQUARE = "short square"
RAMP = "ramp"
OTHER = "other"
NONE = "none"
#: Kinds that are measured.
MEASURED = (LONG_SQUARE, SHORT_SQUARE, RAMP)

#: pA; amplifiers end far below.
_MAX_CURRENT = 1e6


# How stimuli are told apart. The Allen set has steps of 1 s, pulses of 3 ms, ramps of seconds.
#: A step at least this long is a long square, at most this long a short square, s.
_LONG, _SHORT = 0.2, 0.01
#: A ramp rises for at least this long, s.
_RAMP_LENGTH = 0.1
#: Departure of a ramp from a straight line, as a share of its height.
_STRAIGHT = 0.03
#: A test pulse ends before this time, s (IPFX 2.1.2, epochs.TEST_PULSE_MAX_TIME).
_TEST_PULSE_BEFORE = 0.4
#: Smallest pulse, pA; a command measured through an input is noisy.
_SMALLEST = 0.5


@dataclass(frozen=True)
class Stimulus:
    """The stimulus of one sweep."""

    kind: str  # ``long square``, ``short square``, ``ramp``, ``other`` or ``none``
    #: First sample of the stimulus, and the first after it, in s from the start of the sweep.
    start: float = float("nan")
    end: float = float("nan")
    amplitude: float = 0.0  # height above the holding current in pA; of a ramp, its last value
    holding: float = 0.0  # command outside the stimulus, pA
    #: Start and end in s, and amplitude in pA, of a pulse before the stimulus.
    test_pulse: tuple[float, float, float] | None = None
    #: When the next pulse of the sweep begins, s; infinite if there is none.
    next_start: float = float("inf")
    #: The kind that the file's name for the stimulus stands for, in the Allen stimulus ontology.
    named: str | None = None
    #: Of a ramp, which no other numbers describe: the command until its end, pA.
    command: Samples | None = field(default=None, repr=False, compare=False)

    @property
    def duration(self) -> float:
        """Length in s."""
        return self.end - self.start

    @property
    def disagrees(self) -> bool:
        """Whether the file calls it something other than what the command shows."""
        return self.named is not None and self.kind not in (self.named, NONE)


@dataclass(frozen=True)
class _Pulse:
    """A departure from the holding current: samples [first, last), and its shape."""

    first: int
    last: int
    rate: float  # Hz
    level: float  # above the holding current, pA
    shape: str  # "flat", "ramp" or "other"
    alone: bool = True

    @property
    def times(self) -> tuple[float, float]:
        """Start and end, s."""
        return self.first / self.rate, self.last / self.rate

    def same(self, other: _Pulse) -> bool:
        """Whether two pulses are alike: times to 0.2 ms, levels to 2 % or 0.5 pA."""
        apart = max(
            abs(ours - theirs) for ours, theirs in zip(self.times, other.times, strict=True)
        )
        near = max(0.5, 0.02 * abs(self.level))
        return apart < 2e-4 and abs(self.level - other.level) <= near


def recognise(recording: Recording) -> dict[int, Stimulus]:
    """Recognise the stimulus of every current-clamp sweep.

    A pulse is taken for a test pulse if it is the first of several in a sweep, ends early, and
    is the same in most sweeps. Of the remaining pulses the first that stands alone counts. The
    command of a sweep whose name stands for noise, a chirp or another stimulus that is never
    measured is not read.

    Returns
    -------
    dict
        Sweep number to stimulus. A sweep whose command cannot be read is not in it; a
        `RecordingError` if none can.
    """
    found: dict[int, tuple[Stimulus, list[_Pulse]]] = {}
    stimuli: dict[int, Stimulus] = {}
    reasons: list[str] = []
    for sweep in recording.current_clamp:
        named = ontology_kind(sweep.description)
        if named == OTHER:
            stimuli[sweep.number] = Stimulus(OTHER, named=OTHER)
            continue
        try:
            current = _command_of(sweep)
        except RecordingError as error:
            reasons.append(error.message)
            continue
        empty = Stimulus(NONE, holding=float(current[0]), named=named)
        pulses = _pulses(current, sweep.rate)
        ramps = [pulse.last for pulse in pulses if pulse.shape == "ramp"]
        if ramps:
            empty = replace(empty, command=np.array(current[: max(ramps)]))
        found[sweep.number] = (empty, pulses)
    if not found and stimuli:
        return stimuli
    if not found:
        reason = next(iter(reasons), None)
        raise RecordingError(
            f"{recording.name} has no command waveform ({reason})", hint=DESCRIBE_STEP
        )
    holding = Counter(round(empty.holding, 1) for empty, _ in found.values()).most_common(1)[0][0]
    tests = _test_pulses([pulses for _, pulses in found.values()])
    return stimuli | {
        number: _stimulus(empty, pulses, holding, tests)
        for number, (empty, pulses) in found.items()
    }


def _command_of(sweep: Sweep) -> Samples:
    """The command of a sweep in pA, with noise taken off; an error where it cannot be one."""
    current = np.asarray(sweep.current)
    if not np.isfinite([current.min(), current.max()]).all():
        finite = np.isfinite(current)
        valid = np.flatnonzero(finite)
        if not len(valid) or not finite[: valid[-1] + 1].all():
            raise RecordingError(f"sweep {sweep.number} has a command that is not finite")
        current = np.where(finite, current, current[valid[-1]])
    largest = float(max(-current.min(), current.max()))
    if largest > _MAX_CURRENT:
        raise RecordingError(
            f"sweep {sweep.number} has a command that reaches {largest:.3g} pA, which no amplifier "
            "does: a wrong unit, or damage"
        )
    return _without_noise(current, sweep.rate)


def _without_noise(current: Samples, rate: float) -> Samples:
    """A measured command flickers around its level; a digital one is left untouched."""
    least = 0.2 * len(current)
    if np.count_nonzero(current[1:] != current[:-1]) < least:
        return current  # it does not change often enough to turn
    steps = np.diff(current)
    if np.count_nonzero(steps[1:] * steps[:-1] < 0) < least:
        return current
    noise = 1.4826 * float(np.median(np.abs(steps))) / np.sqrt(2)
    width = max(round(0.0005 * rate), 2)
    if len(current) < 4 * width:
        return current
    sums = np.cumsum(np.concatenate([[0.0], current]))
    means = (sums[width:] - sums[:-width]) / width
    # An edge is where the means on both sides differ by more than noise can.
    jumps = np.abs(means[width:] - means[:-width])
    over = np.flatnonzero(jumps > max(8 * noise / np.sqrt(width), 1.0))
    edges = [int(near[np.argmax(jumps[near])]) + width for near in _clusters(over, width)]
    result = np.empty(len(current))
    for first, last in pairwise([0, *edges, len(current)]):
        part = current[first:last]
        slope, level = np.polyfit(np.arange(last - first), part, 1) if last - first > 2 else (0, 0)
        if last - first > 2 and abs(slope) * (last - first) > max(2 * noise, 2.0):
            result[first:last] = level + slope * np.arange(last - first)
        else:
            result[first:last] = np.median(part)
    return result


def _clusters(places: NDArray[np.intp], gap: int) -> list[NDArray[np.intp]]:
    """Sorted places in runs that are no more than a gap apart from one place to the next."""
    runs = np.split(places, np.flatnonzero(np.diff(places) > gap) + 1)
    return [run for run in runs if len(run)]


def _pulses(current: Samples, rate: float) -> list[_Pulse]:
    """The pulses of a command."""
    changes = np.flatnonzero(current[1:] != current[:-1]) + 1
    clusters = _clusters(changes, round(0.05 * rate))
    waves, edges = [], [0]
    for cluster in clusters:
        if len(cluster) > 8:
            waves.append((int(cluster[0]), int(cluster[-1])))
        else:
            edges += cluster.tolist()
    pulses = [_wave(current, first, last, rate) for first, last in waves]
    # Constant runs between the edges that lie outside waves.
    holding = float(current[0])
    runs = [
        (first, last)
        for first, last in pairwise([*edges, len(current)])
        if abs(float(current[first]) - holding) >= _SMALLEST
        and not any(first < stop and start < last for start, stop in waves)
    ]
    pulses += _flat(current, rate, runs)
    return sorted(pulses, key=lambda pulse: pulse.first)


def _flat(current: Samples, rate: float, runs: list[tuple[int, int]]) -> Iterator[_Pulse]:
    """Pulses of constant runs, which stand alone if nothing borders on them."""
    firsts, lasts = ({run[side] for run in runs} for side in (0, 1))
    for first, last in runs:
        alone = first not in lasts and last not in firsts and last < len(current)
        yield _Pulse(first, last, rate, float(current[first]) - float(current[0]), "flat", alone)


def _wave(current: Samples, first: int, last: int, rate: float) -> _Pulse:
    """A stretch in which the command keeps changing: a ramp if it rises in a straight line."""
    part = np.asarray(current[first - 1 : last], dtype=np.float64)
    level = float(part[-1] - part[0])
    height = float(np.ptp(part))
    shape = "other"
    if len(part) >= _RAMP_LENGTH * rate and height >= _SMALLEST:
        line = np.linspace(part[0], part[-1], len(part))
        # Digitised finely or coarsely, a ramp stays within a step of the line.
        grain = float(np.max(np.abs(np.diff(part))))
        if np.max(np.abs(part - line)) <= _STRAIGHT * abs(level) + grain and level:
            shape = "ramp"
    if shape == "other":
        level = float(part[np.argmax(np.abs(part - part[0]))] - part[0])
    return _Pulse(first, last, rate, level, shape)


def _test_pulses(trains: list[list[_Pulse]]) -> list[_Pulse]:
    """The test pulses of a recording, from the pulses of each sweep."""
    trains = list(filter(None, trains))
    followed: dict[_Pulse, list[bool]] = {}
    for first, *others in trains:
        early = first.times[1] <= _TEST_PULSE_BEFORE
        if first.shape == "flat" and first.alone and early:
            kind = next((each for each in followed if first.same(each)), first)
            followed.setdefault(kind, []).append(bool(others))
    return [kind for kind, seen in followed.items() if any(seen) and len(seen) >= 0.5 * len(trains)]


def _stimulus(
    empty: Stimulus, pulses: Sequence[_Pulse], holding: float, tests: list[_Pulse]
) -> Stimulus:
    """What these pulses are, in a recording with this holding current and these test pulses."""
    if pulses and any(map(pulses[0].same, tests)):
        empty = replace(empty, test_pulse=(*pulses[0].times, pulses[0].level))
        pulses = pulses[1:]
    if not pulses:
        return empty
    chosen = next((pulse for pulse in pulses if pulse.alone), pulses[0])
    later = [pulse.times[0] for pulse in pulses if pulse.first >= chosen.last]
    kind = _kind(chosen)
    amplitude, level = chosen.level, empty.holding
    if kind == RAMP:  # sweeps that go on where the last one ended start above the holding
        amplitude, level = chosen.level + level - holding, holding
    start, end = chosen.times
    return replace(
        empty,
        kind=kind,
        start=start,
        end=end,
        amplitude=amplitude,
        holding=level,
        next_start=min(later, default=np.inf),
    )


def _kind(pulse: _Pulse) -> str:
    if pulse.shape == "ramp":
        return RAMP
    duration = (pulse.last - pulse.first) / pulse.rate
    between = _SHORT < duration < _LONG
    if pulse.shape != "flat" or not pulse.alone or between:
        return OTHER
    return LONG_SQUARE if duration >= _LONG else SHORT_SQUARE


@cache
def _kinds_by_name() -> dict[str, str]:
    """The names and codes of the Allen Institute's stimuli to their kinds."""
    text = (files("crosspatch.recordings") / "data" / "stimulus_names.csv").read_text("utf-8")
    return {row["name"]: row["kind"] for row in csv.DictReader(text.splitlines())}


def ontology_kind(description: str) -> str | None:
    """The kind that a name stands for in the Allen ontology, None if it says nothing.

    Files write ``C1LSCOARSE150216_DA_0``, ``Long Square`` …
    """
    code = re.sub(r"_DA_\d+$", "", description.strip()).split("[")[0].strip()
    return _kinds_by_name().get(code) if code else None


def command_during(sweep: Sweep, stimulus: Stimulus) -> NDArray[np.float64]:
    """The stimulus alone in pA, shape (points,): no holding current, test pulse or later pulse."""
    first, last = round(stimulus.start * sweep.rate), round(stimulus.end * sweep.rate)
    result = np.zeros(sweep.points)
    if stimulus.kind in (LONG_SQUARE, SHORT_SQUARE):
        result[first:last] = stimulus.amplitude
    else:
        command = _command_of(sweep) if stimulus.command is None else stimulus.command
        result[first:last] = command[first:last] - stimulus.holding
    return result
