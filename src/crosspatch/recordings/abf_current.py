"""The current that went into a cell of an ABF file: put out, measured, or not known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    return _judged(path, cell.voltage, output, measured, played, compared)


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
        width = max(round(_BEFORE[0] * rate), 1)
        whole = len(measured) // width * width
        moves = np.ptp(np.median(measured[:whole].reshape(-1, width), axis=1)) if whole else 0.0
        return _Compared(0.0, float(moves), float("nan"), noise)
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


def _delay(measured: Samples, rise: float, first: int, rate: float) -> float:
    """When the measurement passes half its height, from the beginning of the step, s."""
    width = round(_BEFORE[0] * rate)
    start = max(first - width, 0)
    over = measured[start : first + width] * np.sign(rise) > abs(rise) / 2
    crossings = np.flatnonzero(over[1:] & ~over[:-1]) + 1 + start - first
    return float(np.min(np.abs(crossings))) / rate if len(crossings) else width / rate


def _judged(
    path: Path,
    voltage: AnalogInput,
    output: AnalogOutput,
    measured: AnalogInput,
    played: _Played,
    compared: Sequence[_Compared],
) -> Current:
    """The command if the measurement does not speak against it."""
    command = _reading(path, played)
    names = f"the current of {measured.label} and the command of {output.label}"
    large = [each for each in compared if abs(each.command) >= _SMALL]
    if not large:
        most = max(each.measured - 8 * each.noise for each in compared)
        if most < 2 * _SMALL:
            return Current(command)
        return _measured_instead(
            path, voltage, measured, played, f"the command of {output.label} is flat"
        )
    sizes = np.array([each.command for each in large])
    ratio = float(np.dot(sizes, [each.measured for each in large]) / np.dot(sizes, sizes))
    apart = [
        sweep
        for sweep, each in enumerate(compared)
        if _is_apart(each, ratio) or each.delay > _DELAY
    ]
    if not apart and abs(ratio - 1) <= _SCALE:
        return Current(command, (f"{names} agree",))
    moves = any(abs(each.measured) > 8 * each.noise for each in large)
    if not apart and (moves or abs(ratio) > _NOTHING):
        said = f"{names} agree in all but scale: it measures {ratio:.2g} of it; the command is used"
        return Current(command, (said,))
    if abs(ratio) <= _NOTHING and follows(voltage, played) >= FOLLOWS:
        return Current(
            command, (f"{measured.label} does not measure the command of {output.label}",)
        )
    where = f"sweep {apart[0]}" if len(apart) == 1 else f"{len(apart)} of {len(compared)} sweeps"
    first = compared[apart[0] if apart else 0]
    why = f"{names} disagree in {where} ({first.measured:.3g} against {first.command:.3g} pA"
    why += f", {first.delay * 1000:.1f} ms late)" if first.delay > _DELAY else ")"
    return _measured_instead(path, voltage, measured, played, why)


def _is_apart(compared: _Compared, ratio: float) -> bool:
    allowed = max(_HEIGHT * abs(compared.command), _HEIGHT_PA, 2 * compared.noise)
    if compared.command == 0:
        return compared.measured > 8 * compared.noise + 2 * _SMALL
    return abs(compared.measured - ratio * compared.command) > allowed * max(abs(ratio), 1.0)


def _measured_instead(
    path: Path, voltage: AnalogInput, measured: AnalogInput, played: _Played, why: str
) -> Current:
    """The measured current, if the potential follows it no worse than the command."""
    by_measured, by_command = follows(voltage, measured.read), follows(voltage, played)
    if by_measured >= max(FOLLOWS, by_command - 0.1):
        return Current(measured.read, (f"{why}; the measured current is used",))
    reason = f"{why}, and the potential does not follow the measured current"
    return Current(_refusing(path, reason), (reason,))
