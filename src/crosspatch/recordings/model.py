"""What a recording is: sweeps of voltage and current, in mV, pA, s and Hz."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crosspatch.drawing.notebook import as_html
from crosspatch.errors import RecordingError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURRENT_CLAMP = "current clamp"
VOLTAGE_CLAMP = "voltage clamp"

#: Sampling rates outside are damage, Hz.
MIN_RATE = 100.0
MAX_RATE = 5e6

#: What to do about a command that a file lacks.
DESCRIBE_STEP = "describe the step with {step_start}, {step_end} and {amplitudes}"

Samples = NDArray[np.floating]


def _nothing_noted() -> tuple[float, float]:
    return float("nan"), float("nan")


@dataclass(frozen=True, eq=False)
class Sweep:
    """One sweep; its samples are read when they are asked for, each time."""

    number: int  # the sweep's number in its file
    rate: float  # sampling rate, Hz
    points: int  # number of samples
    clamp: str  # ``current clamp`` or ``voltage clamp``
    description: str  # what the file calls the stimulus; empty if it says nothing
    #: Read the samples: mV and pA. ``read_current`` is None where a file has no command.
    read_voltage: Callable[[], Samples] = field(repr=False)
    read_current: Callable[[], Samples] | None = field(repr=False)
    #: Reads the bridge balance in MOhm and the bias (holding) current in pA that the command leaves
    #: out; NaN where the file does not say.
    read_noted: Callable[[], tuple[float, float]] = field(default=_nothing_noted, repr=False)
    #: Reads the first so many samples, where a file allows it.
    read_voltage_until: Callable[[int], Samples] | None = field(default=None, repr=False)
    #: Reads the current in pA as it was measured, where a file has it beside the command.
    read_monitor: Callable[[], Samples] | None = field(default=None, repr=False)

    @property
    def in_current_clamp(self) -> bool:
        """Whether current was injected and the potential recorded."""
        return self.clamp == CURRENT_CLAMP

    @property
    def bridge_balance(self) -> float:
        """In MOhm, NaN where the file does not say."""
        return self.read_noted()[0]

    @property
    def bias_current(self) -> float:
        """Holding current in pA that the command leaves out, NaN where the file does not say."""
        return self.read_noted()[1]

    @property
    def duration(self) -> float:
        """Length in s."""
        return self.points / self.rate

    @property
    def time(self) -> NDArray[np.float64]:
        """Time of every sample in s, shape (points,)."""
        return np.arange(self.points) / self.rate

    @property
    def voltage(self) -> Samples:
        """Membrane potential in mV, shape (points,); a `RecordingError` if it cannot be read."""
        return self.read_voltage()

    def voltage_until(self, points: int) -> Samples:
        """The first samples of `voltage`, which read no more of the file where it allows that."""
        if self.read_voltage_until is None or points >= self.points:
            return self.voltage[:points]
        return self.read_voltage_until(points)

    @property
    def current(self) -> Samples:
        """Current in pA, shape (points,); in current clamp this is the command.

        A `RecordingError` if it cannot be read, or the file has no command for this sweep.
        """
        if self.read_current is None:
            raise RecordingError(f"sweep {self.number} has no command waveform", hint=DESCRIBE_STEP)
        return self.read_current()


@dataclass(frozen=True)
class Recorded:
    """What a file says about the cell; None where it says nothing."""

    species: str | None = None  # ``mouse`` or ``human``
    donor: str | None = None
    session: str | None = None  # start of the session, as the file writes it
    location: str | None = None  # where the cell lies, in the words of the file
    seal: float | None = None  # seal resistance noted for the electrode, GOhm
    #: Initial access resistance noted for the electrode, MOhm.
    access_resistance: float | None = None
    simulated: bool = False  # whether the file says it was simulated


@dataclass(frozen=True, eq=False, repr=False)
class Recording:
    """A cell's sweeps, read lazily from a file that stays open until `close`."""

    name: str  # path or name of the file
    cell_id: str  # the file's name without its ending
    format: str  # for example ``NWB 2.8.0`` or ``ABF 2.6``
    sweeps: tuple[Sweep, ...]  # in the file's order
    #: Sweep or series to the reason why it is left out.
    unreadable: dict[str, str] = field(default_factory=dict)
    recorded: Recorded = field(default_factory=Recorded)
    notes: tuple[str, ...] = ()  # what was decided when it was read, and why
    close_file: Callable[[], None] = field(default=lambda: None, repr=False)
    #: Current-clamp sweeps that are in the file but not here, because they are never measured.
    left_out: int = 0
    electrode: str | None = None  # of several in the file, the one of this cell

    @cached_property
    def current_clamp(self) -> tuple[Sweep, ...]:
        """The sweeps in current clamp."""
        return tuple(sweep for sweep in self.sweeps if sweep.in_current_clamp)

    def sweep(self, number: int) -> Sweep:
        """The current-clamp sweep of this number; a `RecordingError` if there is none."""
        sweeps = {sweep.number: sweep for sweep in self.current_clamp}
        if number not in sweeps:
            numbers = f"its numbers are {min(sweeps)} to {max(sweeps)}"
            raise RecordingError(f"{self.name} has no current-clamp sweep {number}; {numbers}")
        return sweeps[number]

    def with_steps(self, start: float, end: float, amplitudes: Sequence[float]) -> Recording:
        """The same recording with a command that the user describes.

        A step in s from the start of a sweep, and its amplitudes in pA, one per current-clamp
        sweep, or a single one for all. A `RecordingError` if they do not fit the sweeps.
        """
        sweeps = self.current_clamp
        if len(amplitudes) == 1:
            amplitudes = list(amplitudes) * len(sweeps)
        if len(amplitudes) != len(sweeps):
            raise RecordingError(
                f"{self.name} has {len(sweeps)} current-clamp sweeps, but {len(amplitudes)} "
                "amplitudes are given",
                hint="give one a sweep, or one for all",
            )
        described = []
        for sweep, amplitude in zip(sweeps, amplitudes, strict=True):
            if not 0 <= start < end <= sweep.duration:
                raise RecordingError(
                    f"{self.name}, sweep {sweep.number}: a step from {start:g} to {end:g} s does "
                    f"not lie inside the sweep of {sweep.duration:g} s",
                    hint="give both in seconds",
                )
            current = _step(sweep, start, end, amplitude)
            described.append(replace(sweep, read_current=current, read_monitor=None))
        return replace(self, sweeps=tuple(described))

    def remembered(self, most: int) -> Recording:
        """The same recording, whose samples stay in memory once read, if there are no more."""
        if 2 * sum(sweep.points for sweep in self.sweeps) > most:
            return self
        sweeps = (
            replace(
                sweep,
                read_voltage=cache(sweep.read_voltage),
                read_current=sweep.read_current and cache(sweep.read_current),
                read_voltage_until=None,
            )
            for sweep in self.sweeps
        )
        return replace(self, sweeps=tuple(sweeps))

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        label = ", SIMULATED" if self.recorded.simulated else ""
        return f"{self.cell_id} ({self.format}{label})"

    def __repr__(self) -> str:
        said = self.recorded
        about = [f"{len(self.current_clamp)} of {len(self.sweeps)} sweeps in current clamp"]
        about += [f"{said.species} cell"] if said.species else []
        about += [f"donor {said.donor}"] if said.donor else []
        about += [f"electrode {self.electrode}"] if self.electrode else []
        about += [f"{len(self.unreadable)} unreadable"] if self.unreadable else []
        return f"Recording {self.title}: {', '.join(about)}"

    def _repr_html_(self) -> str:
        """What is in it, for notebooks; no samples are read."""
        import pandas as pd

        alike = Counter((s.clamp, s.description, s.rate / 1e3, s.duration) for s in self.sweeps)
        columns = ["clamp", "stimulus in the file", "rate (kHz)", "duration (s)"]
        sweeps = pd.DataFrame([*alike], columns=columns)
        sweeps.insert(0, "sweeps", list(alike.values()))
        notes = [*self.notes, *(f"{name}: {why}" for name, why in self.unreadable.items())]
        return as_html(repr(self), sweeps, notes=notes)

    def plot(self) -> Figure:
        """Its sweeps by stimulus, potential above and command below.

        From the smallest step (dark) to the largest; those that quality control rejects are grey.

        Raises
        ------
        RecordingError
            If the file is closed, or no sweep has a command waveform.
        """
        from crosspatch.recordings.sweeps_figure import sweeps_figure

        return sweeps_figure(self)

    def close(self) -> None:
        """Close the file; sweeps cannot be read afterwards."""
        self.close_file()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def named_cell(file: str, electrode: str | None) -> str:
    """The name of a cell: its file's, and that of its electrode where a file has several cells.

    It can stand in a table, in the name of a file and in an address.
    """
    return file if electrode is None else f"{file}_{re.sub(r'[^0-9A-Za-z.-]+', '_', electrode)}"


def refusing(reason: str) -> Callable[[], Samples]:
    """Stands for samples that there are not: a `RecordingError` says why."""

    def read() -> Samples:
        raise RecordingError(reason)

    return read


def _step(sweep: Sweep, start: float, end: float, amplitude: float) -> Callable[[], Samples]:
    def read() -> Samples:
        current = np.zeros(sweep.points)
        current[round(start * sweep.rate) : round(end * sweep.rate)] = amplitude
        return current

    return read


#: Factors from a unit, as files write it, to mV and to pA.
_MILLIVOLTS = {"volts": 1e3, "volt": 1e3, "v": 1e3, "mv": 1.0, "millivolts": 1.0, "uv": 1e-3}
_PICOAMPERES = {"ma": 1e9, "ua": 1e6, "na": 1e3, "pa": 1.0, "picoamperes": 1.0}
_PICOAMPERES |= dict.fromkeys(("amperes", "ampere", "amps", "amp", "a"), 1e12)
_SECONDS = {"s": 1.0, "sec": 1.0, "ms": 1e-3, "msec": 1e-3, "us": 1e-6}


def to_millivolts(unit: str) -> float | None:
    """Factor from a unit of voltage to mV, None if it is not one."""
    return _MILLIVOLTS.get(_plain(unit))


def to_picoamperes(unit: str) -> float | None:
    """Factor from a unit of current to pA, None if it is not one."""
    return _PICOAMPERES.get(_plain(unit))


def to_seconds(unit: str) -> float | None:
    """Factor from a unit of time to s, None if it is not one."""
    return _SECONDS.get(_plain(unit))


def _plain(unit: str) -> str:
    return re.sub("[\N{MICRO SIGN}\N{GREEK SMALL LETTER MU}]", "u", unit.strip()).lower()
