"""What was injected, recognised from the command waveform itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from crosspatch.errors import RecordingError
from crosspatch.recordings.model import DESCRIBE_STEP, Recording, Samples, Sweep
from crosspatch.recordings.pulses import (
    FLAT,
    RISING,
    TEST_PULSE_BEFORE,
    Pulse,
    changes_of,
    has_smooth_edges,
    is_measured,
    pulses_of,
)
from crosspatch.texts import data_rows

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
    reason: str = ""  # why it is not measured, if it is ``other``
    note: str = ""  # what was decided about the command, and why
    #: Whether it is that of the current as it was measured beside a command that is not true; None
    #: where it is not known which of the two is.
    by_monitor: bool | None = False
    #: Of a ramp, which no other numbers describe: the command until its end, pA.
    command: Samples | None = field(default=None, repr=False, compare=False)

    @property
    def height(self) -> float:
        """The amplitude of a stimulus that is measured, pA; 0 without one."""
        return self.amplitude if self.kind in MEASURED else 0.0

    def refused(self, reason: str) -> Stimulus:
        """The same as one that is not measured."""
        return replace(self, kind=OTHER, reason=reason)

    @property
    def duration(self) -> float:
        """Length in s."""
        return self.end - self.start

    @property
    def disagrees(self) -> bool:
        """Whether the file calls it something other than what the command shows."""
        return self.named is not None and self.kind not in (self.named, NONE)


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
    stimuli, read = _read_commands(recording)
    found = _told_together(read)
    measured = {number for number, each in read.items() if each.measured is not None}
    monitors = _read_monitors(recording, set(read) - measured)
    if measured or monitors:
        from crosspatch.recordings.monitors import counting, upright  # most files have commands

        found |= upright(recording, {number: found[number] for number in measured})
        if monitors:
            found = counting(recording, found, _told_together(monitors))
    if found and all(each.kind == NONE for each in found.values()):
        found |= _too_small(recording, found)
    return stimuli | found


def _read_commands(recording: Recording) -> tuple[dict[int, Stimulus], dict[int, _Read]]:
    """The stimuli that are known by name not to be measured, and the commands of other sweeps."""
    stimuli: dict[int, Stimulus] = {}
    read: dict[int, _Read] = {}
    reasons: list[str] = []
    for sweep in recording.current_clamp:
        named = ontology_kind(sweep.description)
        if named == OTHER:
            stimuli[sweep.number] = Stimulus(OTHER, named=OTHER)
            continue
        try:
            read[sweep.number] = _read(sweep, named)
        except RecordingError as error:
            reasons.append(error.message)
    if not read and not stimuli:
        reason = next(iter(reasons), None)
        raise RecordingError(
            f"{recording.name} has no command waveform ({reason})", hint=DESCRIBE_STEP
        )
    return stimuli, read


def _too_small(recording: Recording, found: Mapping[int, Stimulus]) -> dict[int, Stimulus]:
    """Sweeps whose current would be a stimulus if it were a thousand times what it is."""
    sweeps = [recording.sweep(number) for number in found]
    larger = [replace(each, read_current=partial(_thousandfold, each)) for each in sweeps]
    told = _told_together({each.number: _read(each, None) for each in larger})
    return {
        number: found[number].refused(
            f"its current changes by {abs(each.amplitude) / 1e3:.2g} pA, which moves no cell: its "
            "unit or gain is wrong"
        )
        for number, each in told.items()
        if each.height
    }


def _thousandfold(sweep: Sweep) -> Samples:
    return 1e3 * sweep.current


def _told_together(read: Mapping[int, _Read]) -> dict[int, Stimulus]:
    """The stimuli of commands, which bear witness for each other."""
    _fit_measured([each for each in read.values() if each.measured is not None])
    levels = [round(each.empty.holding, 1) for each in read.values() if each.measured is None]
    holding = Counter(levels).most_common(1)[0][0] if levels else None
    tests = _test_pulses([each.pulses for each in read.values()])
    return {number: _stimulus(each, holding, tests) for number, each in read.items()}


def _read_monitors(recording: Recording, commanded: set[int]) -> dict[int, _Read]:
    """The measured currents of sweeps that have a command as well."""
    found: dict[int, _Read] = {}
    for sweep in recording.current_clamp:
        if sweep.number in commanded and sweep.read_monitor is not None:
            try:
                measured = replace(sweep, read_current=sweep.read_monitor)
                found[sweep.number] = _read(measured, ontology_kind(sweep.description))
            except RecordingError:  # then there is the command
                continue
    return found


@dataclass
class _Read:
    """A command that was read."""

    rate: float
    empty: Stimulus
    pulses: list[Pulse]
    measured: Samples | None = None  # the current, of one that was not commanded but measured


def _read(sweep: Sweep, named: str | None) -> _Read:
    """The command of a sweep and, if it is a digital one, its pulses."""
    current, changes = _command_of(sweep)
    empty = Stimulus(NONE, holding=float(current[0]), named=named)
    if is_measured(current, changes, sweep.rate):
        return _Read(sweep.rate, empty, [], current)
    pulses = pulses_of(current, changes, sweep.rate)
    if has_smooth_edges(pulses):
        return _Read(sweep.rate, empty, [], current)
    ramps = [pulse.last for pulse in pulses if pulse.shape == RISING]
    if ramps:
        empty = replace(empty, command=np.array(current[: max(ramps)]))
    return _Read(sweep.rate, empty, pulses)


def _fit_measured(found: Sequence[_Read]) -> None:
    """Find the pulses of measured currents, which bear witness for each other."""
    if not found:
        return
    from crosspatch.recordings.measured import fit_pulses  # digital commands do without

    currents = [(each.measured, each.rate) for each in found if each.measured is not None]
    for each, fit in zip(found, fit_pulses(currents), strict=True):
        each.pulses = list(fit.pulses)
        each.empty = replace(each.empty, holding=fit.holding, reason=fit.reason)
        for pulse in fit.pulses:
            if pulse.shape == RISING:
                command = np.full(pulse.last, fit.holding)
                command[pulse.first :] += np.linspace(0, pulse.level, pulse.last - pulse.first)
                each.empty = replace(each.empty, command=command)


def _command_of(sweep: Sweep) -> tuple[Samples, NDArray[np.int64]]:
    """The command of a sweep in pA, and where it changes; an error where it cannot be one."""
    current = np.asarray(sweep.current)
    changes = changes_of(current)
    levels = current  # or all that there are, where these are few
    if len(changes) < 0.1 * len(current):
        levels = np.append(current[changes], current[:1])
    if not np.isfinite([levels.min(), levels.max()]).all():
        finite = np.isfinite(current)
        valid = np.flatnonzero(finite)
        if not len(valid) or not finite[: valid[-1] + 1].all():
            raise RecordingError(f"sweep {sweep.number} has a command that is not finite")
        current = np.where(finite, current, current[valid[-1]])
        changes, levels = changes_of(current), current
    largest = float(max(-levels.min(), levels.max()))
    if largest > _MAX_CURRENT:
        raise RecordingError(
            f"sweep {sweep.number} has a command that reaches {largest:.3g} pA, which no amplifier "
            "does: a wrong unit, or damage"
        )
    return current, changes


def _test_pulses(trains: list[list[Pulse]]) -> list[Pulse]:
    """The test pulses of a recording, from the pulses of each sweep."""
    trains = list(filter(None, trains))
    followed: dict[Pulse, list[bool]] = {}
    for first, *others in trains:
        early = first.times[1] <= TEST_PULSE_BEFORE
        if first.shape == "flat" and first.alone and early:
            kind = next((each for each in followed if first.same(each)), first)
            followed.setdefault(kind, []).append(bool(others))
    return [kind for kind, seen in followed.items() if any(seen) and len(seen) >= 0.5 * len(trains)]


def _stimulus(read: _Read, holding: float | None, tests: list[Pulse]) -> Stimulus:
    """What these pulses are, in a recording with this holding current and these test pulses."""
    empty, pulses = _without_test(read, tests)
    if not pulses:
        return empty
    chosen = next((pulse for pulse in pulses if pulse.alone), pulses[0])
    later = [pulse.times[0] for pulse in pulses if pulse.first >= chosen.last]
    kind, reason = _kind(chosen)
    amplitude, level = chosen.level, empty.holding
    if kind == RAMP and holding is not None and read.measured is None:
        # Sweeps that go on where the last one ended start above the holding.
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
        reason=empty.reason or reason,
    )


def _without_test(read: _Read, tests: list[Pulse]) -> tuple[Stimulus, list[Pulse]]:
    """No stimulus but the test pulse, if there is one; and the other pulses."""
    first, others = read.pulses[:1], read.pulses[1:]
    if not any(pulse.same(test) for pulse in first for test in tests):
        return read.empty, read.pulses
    return replace(read.empty, test_pulse=(*first[0].times, first[0].level)), others


def _kind(pulse: Pulse) -> tuple[str, str]:
    """What a pulse is, and why it is no more than `OTHER`."""
    if pulse.shape == RISING:
        return RAMP, ""
    duration = (pulse.last - pulse.first) / pulse.rate
    if pulse.shape != FLAT:
        return OTHER, "its command is neither a step nor a ramp"
    if not pulse.alone:
        return OTHER, "its steps follow each other without a pause, or do not end"
    if _SHORT < duration < _LONG:
        return OTHER, (
            f"its step lasts {duration:.3g} s; long squares need {_LONG:g} s, short squares last "
            f"{_SHORT:g} s at most"
        )
    return (LONG_SQUARE if duration >= _LONG else SHORT_SQUARE), ""


def remarks(stimuli: Mapping[int, Stimulus]) -> dict[str, list[int]]:
    """What was decided about commands, and why sweeps are not measured, with their numbers."""
    found: dict[str, list[int]] = {}
    for number, stimulus in stimuli.items():
        for remark in filter(None, (stimulus.reason, stimulus.note)):
            found.setdefault(remark, []).append(number)
    return found


@cache
def _kinds_by_name() -> dict[str, str]:
    """The names and codes of the Allen Institute's stimuli to their kinds."""
    return {row["name"]: row["kind"] for row in data_rows("recordings", "stimulus_names")}


def ontology_kind(description: str) -> str | None:
    """The kind that a name stands for in the Allen ontology, None if it says nothing.

    Files write ``C1LSCOARSE150216_DA_0``, ``Long Square`` …
    """
    code = re.sub(r"_DA_\d+$", "", description.strip()).split("[")[0].strip()
    return _kinds_by_name().get(code) if code else None


def current_that_counts(sweep: Sweep, stimulus: Stimulus) -> Samples:
    """The command of a sweep in pA, or what was measured where that counts instead."""
    if stimulus.by_monitor and sweep.read_monitor is not None:
        return sweep.read_monitor()
    return sweep.current


def ramp_current(sweep: Sweep, stimulus: Stimulus, first: int, points: int) -> Samples:
    """The current of a ramp above its holding, pA, from a sample of its sweep on; else it is 0."""
    command = _command_of(sweep)[0] if stimulus.command is None else stimulus.command
    begin, end = round(stimulus.start * sweep.rate), round(stimulus.end * sweep.rate)
    result = np.zeros(points)
    during = command[max(begin, first) : min(end, first + points)]
    place = max(begin - first, 0)
    result[place : place + len(during)] = during - stimulus.holding
    return result
