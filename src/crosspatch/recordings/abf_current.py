"""The current that went into a cell of an ABF file: put out, measured, or not known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from crosspatch.errors import RecordingError, in_words
from crosspatch.recordings.abf_cells import ClampedCell
from crosspatch.recordings.abf_inputs import FOLLOWS, AnalogInput, follows
from crosspatch.recordings.abf_protocol import AnalogOutput
from crosspatch.recordings.model import DESCRIBE_STEP, Samples, to_picoamperes

#: A measured current has the height of the command to this share, or so many pA, and begins within
#: so many s of it.
_HEIGHT, _HEIGHT_PA, _DELAY = 0.1, 5.0, 0.001
#: Two scales agree to this share; below the second the measurement does not follow at all.
_SCALE, _NOTHING = 0.05, 0.1
#: Commands below are too small to be compared, pA.
_SMALL = 10.0
#: Where the height is measured, s from the beginning of a step: before it, and after it.
_BEFORE, _AFTER = (0.02, 0.001), (0.005, 0.025)

_ReadSweep = Callable[[int], Samples]


@dataclass(frozen=True)
class Current:
    """Reads the current of a sweep in pA, and what is said about it."""

    read: _ReadSweep
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Played:
    """The waveform of an output, sweep by sweep, in pA."""

    output: AnalogOutput
    points: Sequence[int]  # of each sweep
    in_run: int  # sweeps of the protocol; 0 where the file does not say

    def __call__(self, sweep: int) -> Samples:
        """A ValueError where it cannot be known."""
        if 0 < self.in_run <= sweep:
            raise ValueError(f"its protocol has {self.in_run} sweeps, this one was added later")
        waveform = self.output.waveform(sweep, self.points[sweep])
        return np.asarray(waveform, dtype=np.float64) * (to_picoamperes(self.output.unit) or 1.0)


@dataclass(frozen=True)
class _Compared:
    """A command and its measurement in one sweep."""

    command: float  # height, pA
    measured: float  # height, pA
    delay: float  # s, NaN where there is no step
    noise: float  # pA

    def is_apart(self, ratio: float) -> bool:
        """Whether the measurement is not the command in this scale, or late."""
        if self.delay > _DELAY:
            return True
        if self.command == 0:
            return self.measured > 8 * self.noise + 2 * _SMALL
        allowed = max(_HEIGHT * abs(self.command), _HEIGHT_PA, 2 * self.noise)
        return abs(self.measured - ratio * self.command) > allowed * max(abs(ratio), 1.0)


@dataclass(frozen=True)
class _Comparison:
    """The command of a cell and its measured current, sweep by sweep."""

    voltage: AnalogInput
    measured: AnalogInput
    played: _Played
    sweeps: Sequence[_Compared]

    @property
    def names(self) -> str:
        """For messages."""
        return f"the current of {self.measured.label} and the command of {self.played.output.label}"

    @cached_property
    def large(self) -> list[_Compared]:
        """Where the command is large enough."""
        return [each for each in self.sweeps if abs(each.command) >= _SMALL]

    @cached_property
    def ratio(self) -> float:
        """Of the measurement to the command."""
        sizes = np.array([each.command for each in self.large])
        measured = [each.measured for each in self.large]
        return float(np.dot(sizes, measured) / np.dot(sizes, sizes))

    @cached_property
    def apart(self) -> list[int]:
        """Sweeps in which they differ."""
        return [sweep for sweep, each in enumerate(self.sweeps) if each.is_apart(self.ratio)]

    def for_command(self) -> str | None:
        """What is said where the command is used, None where it is not."""
        ratio = self.ratio
        if not self.apart and abs(ratio - 1) <= _SCALE:
            return f"{self.names} agree"
        moves = any(abs(each.measured) > 8 * each.noise for each in self.large)
        if not self.apart and (moves or abs(ratio) > _NOTHING):
            scale = f"it measures {ratio:.2g} of it; the command is used"
            return f"{self.names} agree in all but scale: {scale}"
        if abs(ratio) <= _NOTHING and follows(self.voltage, self.played) >= FOLLOWS:
            return (
                f"{self.measured.label} does not measure the command of {self.played.output.label}"
            )
        return None

    def against_command(self) -> str:
        """What is said where it is not."""
        apart, count = self.apart, len(self.sweeps)
        where = f"sweep {apart[0]}" if len(apart) == 1 else f"{len(apart)} of {count} sweeps"
        first = self.sweeps[apart[0] if apart else 0]
        late = f", {first.delay * 1000:.1f} ms late" if first.delay > _DELAY else ""
        sizes = f"{first.measured:.3g} against {first.command:.3g} pA"
        return f"{self.names} disagree in {where} ({sizes}{late})"


def current_of(
    path: Path, cell: ClampedCell, points: Sequence[int], in_run: int, missing: str
) -> Current:
    """The current of a cell; `missing` says why no output gives a command, where none does."""
    measured, output = cell.measured, cell.output
    if output is None:
        if measured is None:
            return Current(_refusing(path, missing))
        return Current(measured.read, (f"the current is that of {measured.label}: {missing}",))
    played = _Played(output, points, in_run)
    if measured is None:
        return Current(_reading(path, played))
    try:
        compared = [
            _compare(played(sweep), measured.read(sweep), measured.rate)
            for sweep in range(len(points))
        ]
    except RecordingError:
        raise
    except Exception as error:  # pyabf raises whatever it meets
        why = f"the command of {output.label} cannot be known ({in_words(error)})"
        return Current(measured.read, (f"the current is that of {measured.label}: {why}",))
    return _judged(path, _Comparison(cell.voltage, measured, played, compared))


def _refusing(path: Path, reason: str) -> _ReadSweep:
    def read(sweep: int) -> Samples:
        raise RecordingError(f"{path}, sweep {sweep}: {reason}", hint=DESCRIBE_STEP)

    return read


def _reading(path: Path, played: _Played) -> _ReadSweep:
    def read(sweep: int) -> Samples:
        try:
            return played(sweep)
        except Exception as error:  # pyabf raises whatever it meets
            raise RecordingError(
                f"{path}, sweep {sweep}: the command of {played.output.label} cannot be known: "
                f"{in_words(error)}",
                hint=DESCRIBE_STEP,
            ) from error

    return read


def _compare(command: Samples, measured: Samples, rate: float) -> _Compared:
    """Heights at the beginning of the largest step; of a flat command, how far the other moves."""
    off = command - command[0]
    noise = 1.4826 * float(np.median(np.abs(np.diff(measured)))) / np.sqrt(2)
    height = float(off[np.argmax(np.abs(off))])
    if abs(height) < _HEIGHT_PA:
        return _Compared(0.0, _moves(measured, rate), float("nan"), noise)
    there = np.abs(off - height) <= 0.02 * abs(height)
    first = int(np.argmax(there))
    last = first + int(np.argmin(there[first:])) if not there[first:].all() else len(there)
    starts, ends = (first + round(each * rate) for each in _AFTER)
    after = measured[starts if starts < last else first : max(min(ends, last), first + 1)]
    base = np.flatnonzero(off[:first] == 0)  # of a ramp, not just before its end
    end = int(base[-1]) + 1 if len(base) else 1
    before = measured[
        max(end - round(_BEFORE[0] * rate), 0) : end - round(_BEFORE[1] * rate) or end
    ]
    level = float(np.median(before if len(before) else measured[:1]))
    rise = float(np.median(after)) - level
    delay = float("nan")
    if end == first and abs(rise) > 8 * noise:
        delay = _delay(measured - level, rise, first, rate)
    return _Compared(height, rise, delay, noise)


def _moves(measured: Samples, rate: float) -> float:
    """How far it moves, but for noise."""
    width = max(round(_BEFORE[0] * rate), 1)
    whole = len(measured) // width * width
    return float(np.ptp(np.median(measured[:whole].reshape(-1, width), axis=1))) if whole else 0.0


def _delay(measured: Samples, rise: float, first: int, rate: float) -> float:
    """When the measurement passes half its height, from the beginning of the step, s."""
    width = round(_BEFORE[0] * rate)
    start = max(first - width, 0)
    over = measured[start : first + width] * np.sign(rise) > abs(rise) / 2
    crossings = np.flatnonzero(over[1:] & ~over[:-1]) + 1 + start - first
    return float(np.min(np.abs(crossings))) / rate if len(crossings) else width / rate


def _judged(path: Path, both: _Comparison) -> Current:
    """The command if the measurement does not speak against it."""
    command = _reading(path, both.played)
    if not both.large:
        if max(each.measured - 8 * each.noise for each in both.sweeps) < 2 * _SMALL:
            return Current(command)
        return _measured_instead(path, both, f"the command of {both.played.output.label} is flat")
    said = both.for_command()
    if said is not None:
        return Current(command, (said,))
    return _measured_instead(path, both, both.against_command())


def _measured_instead(path: Path, both: _Comparison, why: str) -> Current:
    """The measured current, if the potential follows it no worse than the command."""
    by_measured = follows(both.voltage, both.measured.read)
    by_command = follows(both.voltage, both.played)
    if by_measured >= max(FOLLOWS, by_command - 0.1):
        return Current(both.measured.read, (f"{why}; the measured current is used",))
    reason = f"{why}, and the potential does not follow the measured current"
    return Current(_refusing(path, reason), (reason,))
