"""How recordings are read, where a file does not say something or says it wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from crosspatch.errors import RecordingError
from crosspatch.recordings.model import Recording, Samples, Sweep
from crosspatch.recordings.quality import unrecorded
from crosspatch.recordings.thresholds import QualityThresholds, thresholds_named


@dataclass(frozen=True)
class Reading:
    """How recordings are read, where a file does not say something or says it wrong.

    Parameters
    ----------
    quality : str
        Thresholds of quality control: ``default``, ``allen`` or ``any``, and single limits by their
        names in `crosspatch.recordings.thresholds.QualityThresholds`, such as
        ``drift=5,access_high=30``.
    step_start, step_end : float, optional
        The step in s from the start of a sweep, for files that have no command.
    amplitudes : str or sequence of float, optional
        Of that step in pA, one per current-clamp sweep or one for all; in words
        ``-100,-50,0,50``, or ``-100:300:20`` (the last included).
    clamp : str, optional
        ``current``: the sweeps are in current clamp, whatever the file says.
    channel : str, optional
        Name or number of the input that holds the potential.
    electrode : str, optional
        Name or number of the electrode, or of the output to it, whose sweeps are read.
    junction_potential : float
        Liquid junction potential in mV for which the file's potentials are corrected already. It is
        added back: the reference cells are not corrected.
    offset_mv : float
        By how much the file's potentials are too high, mV; it is subtracted.

    Raises
    ------
    RecordingError
        If a value is not known, or only a part of the step is given.

    Examples
    --------
    >>> import crosspatch
    >>> crosspatch.Reading(step_start=0.1, step_end=0.6, amplitudes="-50:50:50").amplitudes
    (-50.0, 0.0, 50.0)
    """

    quality: str = "default"
    step_start: float | None = None
    step_end: float | None = None
    amplitudes: str | Sequence[float] | None = None
    clamp: str | None = None
    channel: str | None = None
    electrode: str | None = None
    junction_potential: float = 0.0
    offset_mv: float = 0.0

    def __post_init__(self) -> None:
        thresholds_named(self.quality)
        if self.clamp not in (None, "current"):
            raise RecordingError(f"clamp {self.clamp}: not understood", hint="write current")
        if not math.isfinite(self.shift):
            raise RecordingError(
                f"a shift of the potential by {self.shift} mV", hint="give a number of mV"
            )
        if self.step_start is None and self.step_end is None and self.amplitudes is None:
            return
        if self.step_start is None or self.step_end is None or self.amplitudes is None:
            hint = "{step_start}, {step_end} and {amplitudes} go together; give all three"
            raise RecordingError("", hint)
        values = _checked(self.amplitudes, self.step_start, self.step_end)
        object.__setattr__(self, "amplitudes", values)

    @property
    def thresholds(self) -> QualityThresholds:
        """The limits of quality control."""
        return thresholds_named(self.quality)

    @property
    def shift(self) -> float:
        """What is added to the file's potentials, mV."""
        return self.junction_potential - self.offset_mv

    def applied(self, recording: Recording) -> Recording:
        """A recording with the step and the shift of the potential, if any.

        A `RecordingError` if the step does not fit the sweeps.
        """
        if self.shift:
            sweeps = tuple(_shifted(sweep, self.shift) for sweep in recording.sweeps)
            note = f"{self.shift:+g} mV were added to the potentials of the file"
            recording = replace(recording, sweeps=sweeps, notes=(*recording.notes, note))
        if self.step_start is None or self.step_end is None or not self.amplitudes:
            return recording
        return recording.with_steps(self.step_start, self.step_end, _amplitudes(self.amplitudes))


def _checked(given: str | Sequence[float], step_start: float, step_end: float) -> tuple[float, ...]:
    """The amplitudes of a step, pA, that is somewhere."""
    try:
        values = _amplitudes(given)
        if not np.isfinite([step_start, step_end, *values]).all():
            raise ValueError
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise RecordingError(
            f"amplitudes {given}: not understood", hint="write -100,-50,0,50 or -100:300:20"
        ) from error
    return values


def _amplitudes(given: str | Sequence[float]) -> tuple[float, ...]:
    if not isinstance(given, str):
        return tuple(map(float, given))
    if ":" not in given:
        return tuple(map(float, given.split(",")))
    first, last, step = map(float, given.split(":"))
    count = round((last - first) / step)
    if count < 0 or abs(first + count * step - last) > 1e-6 * abs(step):
        raise ValueError
    return tuple(first + step * k for k in range(count + 1))


def _shifted(sweep: Sweep, shift: float) -> Sweep:
    """A sweep whose potential is so many mV higher; where it was not recorded (0), it stays so."""
    if not sweep.in_current_clamp:
        return sweep

    def moved(found: Samples) -> Samples:
        result = found + found.dtype.type(shift)
        for part in unrecorded(found, sweep.rate):
            result[part] = 0
        return result

    return replace(
        sweep,
        read_voltage=lambda: moved(sweep.read_voltage()),
        read_voltage_until=lambda points: moved(sweep.voltage_until(points)),
    )
