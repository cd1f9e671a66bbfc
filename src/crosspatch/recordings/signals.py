"""Signals as recording programs store them become sweeps.

Which is the potential and which the command is told by their units, their names and their shape.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crosspatch.errors import RecordingError
from crosspatch.recordings.clamp_seen import clamp_seen
from crosspatch.recordings.model import (
    CURRENT_CLAMP,
    MAX_RATE,
    MIN_RATE,
    VOLTAGE_CLAMP,
    Recorded,
    Recording,
    Samples,
    Sweep,
    named_cell,
    refusing,
    to_millivolts,
    to_picoamperes,
)

if TYPE_CHECKING:
    from crosspatch.recordings.reading_options import Reading

#: A membrane potential is never farther from zero, mV.
_MEMBRANE = 500.0
#: A cell at rest lies between, mV.
_REST = (-120.0, -20.0)
_POTENTIAL_NAME = re.compile(r"v_?m|mem|volt|potential|primary|(?<![a-z])v(?![a-z])", re.IGNORECASE)
_COMMAND_NAME = re.compile(r"cmd|command|inj|stim|dac|(?<![a-z])(ao|da)_?\d", re.IGNORECASE)
#: So many sweeps are looked at to tell what their inputs are.
_LOOKED_AT = 8


@dataclass(frozen=True, eq=False)
class InputSignal:
    """What one input recorded during one sweep."""

    name: str  # of the input
    unit: str  # as the file writes it; empty where it does not say
    rate: float  # Hz
    points: int
    read: Callable[[], NDArray[np.generic]] = field(repr=False)  # in that unit


@dataclass(frozen=True)
class Episode:
    """One sweep as the file has it: what its inputs recorded at the same time."""

    number: int
    signals: tuple[InputSignal, ...]
    description: str = ""


@dataclass(frozen=True)
class OpenedSignals:
    """A file in another format than NWB and ABF, whose headers were read."""

    path: Path
    cell_id: str
    format: str
    episodes: Sequence[Episode]
    recorded: Recorded = field(default_factory=Recorded)
    notes: tuple[str, ...] = ()
    unreadable: dict[str, str] = field(default_factory=dict)
    close_file: Callable[[], None] = field(default=lambda: None, repr=False)


@dataclass(frozen=True)
class _Input:
    """An input of the amplifier: all its signals are alike."""

    name: str
    unit: str
    signals: dict[int, InputSignal]  # by number of the sweep
    factor: float  # to mV or pA
    is_potential: bool
    guessed: bool = False  # whether the unit was told by the values

    @property
    def called(self) -> str:
        """What messages call it."""
        told = ", told by its values" if self.guessed else ""
        return f"{self.name} ({self.unit or 'no unit'}{told})"

    @property
    def is_current(self) -> bool:
        """Whether it is known to be in amperes."""
        return not self.is_potential and bool(np.isfinite(self.factor))

    def read(self, number: int) -> NDArray[np.float64]:
        """Its samples of a sweep, mV or pA."""
        with np.errstate(all="ignore"):  # what damage makes is judged later
            return np.asarray(self.signals[number].read(), np.float64) * self.factor

    def seen(self) -> list[NDArray[np.float64]]:
        """Finite samples of a few sweeps."""
        chosen = list(self.signals)[:: max(1, len(self.signals) // _LOOKED_AT)][:_LOOKED_AT]
        found = (self.read(number) for number in chosen)
        return [each for each in found if each.size and np.isfinite(each).all()]


#: Inputs of the potential, of the command, and of its measurement beside it.
_Cell = tuple[_Input, _Input | None, _Input | None]


def recordings_of(opened: OpenedSignals, reading: Reading) -> list[Recording]:
    """The cells that signals make; a `RecordingError` if none can be a membrane potential."""
    unreadable = dict(opened.unreadable)
    inputs = _inputs(opened, unreadable)
    cells = _cells(opened, inputs, reading)
    used = [each for cell in cells for each in cell]
    others = [each.called for each in inputs if each not in used]
    notes = [f"inputs that were not read: {', '.join(others)}"] if others else []
    several = len(cells) > 1
    return [_recording(opened, cell, reading, notes, unreadable, several) for cell in cells]


def _recording(
    opened: OpenedSignals,
    cell: _Cell,
    reading: Reading,
    others: list[str],
    unreadable: dict[str, str],
    several: bool,
) -> Recording:
    potential, command, _ = cell
    notes = [*opened.notes, f"potential: input {potential.called}"]
    if command is None:
        notes.append("command: none recorded")
    else:
        notes.append(f"command: input {command.called}, as it was recorded")
    clamp = CURRENT_CLAMP
    if reading.clamp == "current":
        notes.append("taken for current clamp, as asked")
    elif command is not None:
        clamp = _clamp(opened, potential, command)
    sweeps = [
        _sweep(opened, episode, cell, clamp, unreadable)
        for episode in opened.episodes
        if episode.number in potential.signals
    ]
    electrode = potential.name if several else None
    return Recording(
        name=str(opened.path),
        cell_id=named_cell(opened.cell_id, electrode),
        format=opened.format,
        sweeps=tuple(sweeps),
        unreadable=unreadable,
        recorded=opened.recorded,
        notes=(*notes, *others),
        close_file=opened.close_file,
        electrode=electrode,
    )


def _sweep(
    opened: OpenedSignals, episode: Episode, inputs: _Cell, clamp: str, unreadable: dict[str, str]
) -> Sweep:
    number, name = episode.number, f"{opened.path}, sweep {episode.number}"

    def reader(each: _Input | None) -> Callable[[], Samples] | None:
        """Reads an input, if it was recorded as long and at the same rate."""
        ours = None if each is None else each.signals.get(number)
        if each is None or ours is None:
            return None
        if ours.points != signal.points or not np.isclose(ours.rate, signal.rate, rtol=1e-3):
            unreadable[f"sweep {number}, {each.name}"] = (
                f"it has {ours.points:,} samples at {ours.rate:g} Hz, the potential "
                f"{signal.points:,} at {signal.rate:g} Hz"
            )
            return None
        return lambda: _read(name, each, number)

    potential, command, monitor = inputs
    signal = potential.signals[number]
    clamped = clamp == VOLTAGE_CLAMP
    missing = refusing(f"{name}: voltage clamp, there is no voltage to read")
    return Sweep(
        number=number,
        rate=signal.rate,
        points=signal.points,
        clamp=clamp,
        description=episode.description,
        read_voltage=missing if clamped else (lambda: _read(name, potential, number)),
        read_current=reader(command),
        read_monitor=reader(monitor),
    )


def _read(name: str, each: _Input, number: int) -> Samples:
    try:
        return each.read(number)
    except Exception as error:  # damaged samples; libraries raise many kinds
        raise RecordingError(f"{name}: {each.name} cannot be read: {error}") from error


def _inputs(opened: OpenedSignals, unreadable: dict[str, str]) -> list[_Input]:
    """Every input whose signals can be used, in the file's order."""
    units: dict[str, str] = {}
    signals: dict[str, dict[int, InputSignal]] = {}
    for episode in opened.episodes:
        for signal in episode.signals:
            unit = units.setdefault(signal.name, signal.unit)
            problem = None
            if not MIN_RATE <= signal.rate <= MAX_RATE:
                problem = f"its sampling rate is {signal.rate:g} Hz"
            elif signal.points < 1:
                problem = "it has no samples"
            elif signal.unit != unit:
                problem = f"its unit is '{signal.unit}', in other sweeps '{unit}'"
            if problem is None:
                signals.setdefault(signal.name, {})[episode.number] = signal
            else:
                unreadable[f"sweep {episode.number}, {signal.name}"] = problem
    if not signals:
        first, reason = next(iter(unreadable.items()), ("", "it has no signal"))
        raise RecordingError(f"{opened.path} has no readable sweep; {first}: {reason}")
    return [_input(name, units[name], found) for name, found in signals.items()]


def _input(name: str, unit: str, signals: dict[int, InputSignal]) -> _Input:
    millivolts, picoamperes = to_millivolts(unit), to_picoamperes(unit)
    if millivolts is not None:
        return _Input(name, unit, signals, millivolts, is_potential=True)
    if picoamperes is not None:
        return _Input(name, unit, signals, picoamperes, is_potential=False)
    unknown = _Input(name, unit, signals, float("nan"), is_potential=False)
    if unit.strip():
        return unknown
    # Without a unit: a cell at rest is some -70 mV; currents tell themselves only in amperes.
    raw = _Input(name, unit, signals, 1.0, is_potential=False).seen()
    middle, reach = _middle(raw), _reach(raw)
    for told, factor in (("mV", 1.0), ("V", 1e3)):
        if _REST[0] <= middle * factor <= _REST[1] and reach * factor <= _MEMBRANE:
            return _Input(name, told, signals, factor, is_potential=True, guessed=True)
    if 0 < reach < 1e-7:
        return _Input(name, "A", signals, 1e12, is_potential=False, guessed=True)
    return unknown


def _middle(seen: Sequence[NDArray[np.float64]]) -> float:
    """The middle of samples of sweeps; 0 of none."""
    return float(np.median([np.median(part) for part in seen])) if seen else 0.0


def _reach(seen: Sequence[NDArray[np.float64]]) -> float:
    """How far samples of sweeps go from zero; 0 of none."""
    return max((float(np.abs(part).max()) for part in seen), default=0.0)


def _named(inputs: Sequence[_Input], wanted: str) -> _Input | None:
    """The input of a name, whatever its case, or of a number, counted from 0."""
    for each in inputs:
        if each.name.casefold() == wanted.strip().casefold():
            return each
    number = int(wanted) if wanted.strip().isdecimal() else len(inputs)
    return inputs[number] if number < len(inputs) else None


def _cells(opened: OpenedSignals, inputs: Sequence[_Input], reading: Reading) -> list[_Cell]:
    """Every cell: several where several potentials rest like one and each has its own current."""
    currents = [each for each in inputs if each.is_current]
    if reading.channel is not None:
        potentials = [_chosen(opened, inputs, reading.channel)]
    else:
        potentials = _potentials(opened, inputs)
    if reading.electrode is not None:
        return [_cell_named(opened, potentials, currents, reading.electrode)]
    if not all(_own(each, currents) for each in potentials):
        potentials = potentials[:1]
    return [_cell(each, currents) for each in potentials]


def _cell(potential: _Input, currents: Sequence[_Input]) -> _Cell:
    """A potential with its own current, or with any where none is its own."""
    return (potential, *_command(_own(potential, currents) or currents))


def _cell_named(
    opened: OpenedSignals, potentials: Sequence[_Input], currents: Sequence[_Input], wanted: str
) -> _Cell:
    """The cell of the electrode that the user names by its potential or current."""
    named = _named(potentials, wanted) if len(potentials) > 1 else None
    if named is not None:
        return _cell(named, currents)
    current = _named(currents, wanted)
    if current is None:
        known = _listed((*currents, *potentials)) or "none"
        problem = f"has no electrode {wanted}; there are: {known}"
        raise RecordingError(f"{opened.path} {problem}", hint="choose one with {electrode}")
    of_it = [each for each in potentials if current in _own(each, currents)]
    return (of_it or potentials)[0], current, None


def _listed(inputs: Sequence[_Input]) -> str:
    return ", ".join(each.called for each in inputs)


def _own(potential: _Input, currents: Sequence[_Input]) -> list[_Input]:
    """The currents whose names end with the same number as that of a potential."""
    number = _digits(potential.name)
    return [each for each in currents if number and _digits(each.name) == number]


def _command(currents: Sequence[_Input]) -> tuple[_Input | None, _Input | None]:
    """The input of the injected current, and the one that measured it where both are there."""
    commands = [each for each in currents if _COMMAND_NAME.search(each.name)]
    measured = [each for each in currents if each not in commands]
    if not commands:
        return next(iter(measured), None), None
    return commands[0], next(iter(measured), None)


def _chosen(opened: OpenedSignals, inputs: Sequence[_Input], wanted: str) -> _Input:
    """The input of a potential that the user names."""
    found = _named(inputs, wanted)
    if found is None:
        problem = f"has no input {wanted}; its inputs are {_listed(inputs)}"
        raise RecordingError(f"{opened.path} {problem}", hint="choose one with {channel}")
    if not found.is_potential:
        raise RecordingError(f"{opened.path}: input {found.called} is not in volts")
    return found


def _potentials(opened: OpenedSignals, inputs: Sequence[_Input]) -> list[_Input]:
    """The inputs of a membrane: all that rest like one, else the likeliest."""
    candidates = [each for each in inputs if each.is_potential]
    if not candidates:
        raise RecordingError(
            f"{opened.path} holds no potential, only {_listed(inputs)}: it was recorded in voltage "
            "clamp, or its units are wrong",
            hint="give a current-clamp recording, with the units of its inputs set",
        )
    looks: list[tuple[bool, bool, _Input]] = []
    reaches = []
    for each in candidates:
        seen = each.seen()
        reach = _reach(seen)
        if reach > _MEMBRANE:
            reaches.append(f"{each.called} reaches {reach:.3g} mV")
            continue
        rests = _REST[0] <= _middle(seen) <= _REST[1]
        looks.append((rests, bool(_POTENTIAL_NAME.search(each.name)), each))
    if not looks:
        raise RecordingError(
            f"{opened.path} holds no membrane potential: {'; '.join(reaches)}",
            hint="set the unit and the scale of the amplifier's input, or choose one with "
            "{channel}",
        )
    best = sorted(looks, key=lambda look: look[:2], reverse=True)  # equal ones in the file's order
    return [each for rests, _, each in best if rests] or [best[0][2]]


def _digits(name: str) -> str:
    """The number an input's name ends with."""
    found = re.search(r"(\d+)\D*$", name)
    return found.group(1) if found else ""


def _clamp(opened: OpenedSignals, potential: _Input, current: _Input) -> str:
    """Which of the two was commanded: the one made of levels and straight lines.

    A `RecordingError` if both are.
    """
    votes: Counter[str] = Counter()
    numbers = [number for number in potential.signals if number in current.signals]
    for number in numbers[:: max(1, len(numbers) // _LOOKED_AT)][:_LOOKED_AT]:
        try:
            voltage, injected = potential.read(number), current.read(number)
        except Exception:  # noqa: S112  # said when the sweep is read
            continue
        if voltage.size and np.isfinite(voltage).all() and np.isfinite(injected).all():
            rate = potential.signals[number].rate
            votes[clamp_seen(voltage, injected, rate)] += 1
    if votes[VOLTAGE_CLAMP] > votes[CURRENT_CLAMP]:
        return VOLTAGE_CLAMP
    if votes["both"] > votes[CURRENT_CLAMP]:
        raise RecordingError(
            f"{opened.path} does not say which was clamped, and both {potential.name} and "
            f"{current.name} are steps",
            hint="give {clamp} current if it was the current",
        )
    return CURRENT_CLAMP
