"""What Clampex put out: the outputs of an ABF file, their epochs, user lists and stimulus files.

The rules are those of Axon's own library, AxABFFIO32 (abfhwave.cpp and UserList.cpp, 1993-2004).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import numpy as np

from crosspatch.recordings.abf_header import (
    EPOCHS,
    OUTPUTS,
    PROTOCOL,
    USER_LISTS,
    AbfHeader,
    fixed_texts,
    numbers,
    section_entries,
    texts,
)
from crosspatch.recordings.abf_stimulus import StimulusFile
from crosspatch.recordings.model import Samples, to_picoamperes

#: In which Clampex plays waveforms; the names of the others.
EPISODIC = 5
MODES = {
    1: "event-driven mode (sweeps of variable length)",
    2: "event-driven mode (sweeps of fixed length)",
    3: "gap-free mode",
    4: "oscilloscope mode",
}
#: Where an output's waveform comes from.
_FROM_EPOCHS, _FROM_FILE = 1, 2
#: The sweep before the first epoch, as a part of all.
_HOLDING = 64
#: Kinds of epochs; those with a width of pulses.
_STEP, _RAMP, _PULSES, _TRIANGLES, _COSINES, _BIPHASIC = 1, 2, 3, 4, 5, 7
_TRAINS = (_PULSES, _TRIANGLES, _BIPHASIC)
#: Parameters that a user list can vary. After these, five times a number for each epoch: digital
#: pattern, level, duration, train period, pulse width.
_GENERAL = 11
_TRAIN_DURATION, _TRAIN_LEVEL, _OTHER_HOLDING = 5, 6, 8
_EPOCHS = {1: 10, 2: 50}


@dataclass(frozen=True)
class WaveformEpoch:
    """A column of the waveform editor; times in samples."""

    number: int
    kind: int
    level: float
    more_level: float  # from sweep to sweep
    points: int
    more_points: int  # from sweep to sweep
    period: int = 0  # of a train
    width: int = 0  # of its pulses

    def varied(self, what: int, value: float) -> WaveformEpoch:
        """With another level (1), duration (2), train period (3) or pulse width (4)."""
        if what == 1:
            return replace(self, level=value)
        if what == 2:
            return replace(self, points=int(value))
        return replace(self, period=int(value)) if what == 3 else replace(self, width=int(value))

    def samples(self, points: int, before: float) -> Samples:
        """What it puts out in so many samples, after a level; a ValueError if not understood."""
        if self.kind in _TRAINS and not 0 <= self.width <= max(self.period, 0):
            raise ValueError(f"a pulse of {self.width} samples every {self.period}")
        step = self.level - before
        if self.kind == _STEP:
            return np.full(points, self.level)
        if self.kind == _RAMP:
            return np.linspace(before, self.level, points)
        trains = points // self.period if self.period > 0 else 0
        if self.kind == _COSINES:
            angle = np.linspace(0, 2 * trains * np.pi, points) + np.pi
            return before + np.cos(angle) * step / 2 + step / 2
        if self.kind not in _TRAINS:
            raise ValueError(f"an epoch is of kind {self.kind}, which is not understood")
        shape = np.full(points, np.nan if self.kind == _TRIANGLES else before)
        if trains:
            shape[: trains * self.period] = np.tile(self._train(before), trains)
        return shape

    def _train(self, before: float) -> Samples:
        """One period of a train."""
        one = np.full(self.period, before)
        if self.kind == _PULSES:
            one[: self.width] = self.level
        elif self.kind == _BIPHASIC:
            one[: self.width] = 2 * before - self.level
            one[: self.width // 2] = self.level
        else:
            one[: self.width] = np.linspace(before, self.level, self.width)
            one[self.width :] = np.linspace(self.level, before, self.period - self.width)
        return one


@dataclass(frozen=True)
class UserList:
    """Values of one parameter, sweep by sweep."""

    parameter: int
    values: tuple[str, ...]
    repeats: bool  # from its beginning; else the last value stays

    def value(self, sweep: int) -> float:
        """In this sweep; a ValueError where there is none."""
        if not self.values:
            raise ValueError("its user list has no values")
        at = sweep % len(self.values) if self.repeats else min(sweep, len(self.values) - 1)
        try:
            value = float(self.values[at])
        except ValueError as error:
            raise ValueError(f"its user list has no number for this sweep: {error}") from error
        if not math.isfinite(value):
            raise ValueError(f"its user list has {value} for this sweep")
        return value


@dataclass(frozen=True)
class AnalogOutput:
    """One output of the digitizer, in the unit of its waveform."""

    number: int
    name: str
    unit: str
    enabled: bool
    source: int = 0
    holding: float = 0.0
    keeps_last: bool = False  # between sweeps, the level of the last epoch
    epochs: tuple[WaveformEpoch, ...] = ()
    #: Length and level of what follows the presweep train, if there is one.
    after_train: tuple[float, float] | None = None
    lists: dict[int, UserList] = field(default_factory=dict)  # of all outputs
    is_active: bool = True  # whether it is the one that digital patterns belong to
    alternates: bool = False  # outputs 0 and 1 take turns
    file: StimulusFile | None = None
    leak_subtracted: bool = False
    epochs_named: int = 50  # epochs that a parameter of a user list can name

    @property
    def label(self) -> str:
        """For messages."""
        return f"output {self.number} {self.name!r}"

    @property
    def injects(self) -> bool:
        """Whether it plays a waveform of current."""
        return self.enabled and to_picoamperes(self.unit) is not None

    def note(self, sweeps: int) -> str | None:
        """What is said about a user list."""
        others = [number for number in self.lists if number != self.number]
        varied = self.lists.get(self.number)
        if self.source != _FROM_EPOCHS or varied is None or not self._varies(varied):
            return f"{self.label} has no user list, output {others[0]} has" if others else None
        says = f"the command of {self.label} follows its user list of {len(varied.values)} values"
        if len(varied.values) < sweeps:
            says += f" for {sweeps} sweeps: "
            says += "it starts again" if varied.repeats else "the last one stays"
        return says

    def _varies(self, varied: UserList) -> bool:
        """Whether a list of this output changes the waveform."""
        if varied.parameter < _GENERAL:
            post = varied.parameter in (_TRAIN_DURATION, _TRAIN_LEVEL)
            return post and self.after_train is not None
        return varied.parameter >= _GENERAL + self.epochs_named

    def in_sweep(self, sweep: int) -> AnalogOutput:
        """The output as it is in one sweep, without increments; a ValueError where unknown."""
        epochs = tuple(
            replace(
                epoch,
                level=epoch.level + epoch.more_level * sweep,
                points=epoch.points + epoch.more_points * sweep,
            )
            for epoch in self.epochs
        )
        result = replace(self, epochs=epochs)
        for number, other in self.lists.items():
            if number != self.number and other.parameter == _OTHER_HOLDING:
                raise ValueError(f"its holding level follows the user list of output {number}")
        varied = self.lists.get(self.number)
        return result if varied is None else result._with_list(varied, sweep)

    def _with_list(self, varied: UserList, sweep: int) -> AnalogOutput:
        if not self._varies(varied):
            return self
        value = varied.value(sweep)
        if varied.parameter < _GENERAL:
            period, level = self.after_train or (0.0, 0.0)
            after = (value, level) if varied.parameter == _TRAIN_DURATION else (period, value)
            return replace(self, after_train=after)
        return self._with_epoch(varied.parameter, value)

    def _with_epoch(self, parameter: int, value: float) -> AnalogOutput:
        """With this value of a parameter that varies an epoch."""
        what, number = divmod(parameter - _GENERAL, self.epochs_named)
        if what > 4 or number not in [epoch.number for epoch in self.epochs]:
            raise ValueError(f"its user list varies parameter {parameter}, which is not understood")
        if what > 1 and not self.is_active:
            raise ValueError("its user list varies times, but it is not the active output")
        changed = [
            epoch.varied(what, value) if epoch.number == number else epoch for epoch in self.epochs
        ]
        return replace(self, epochs=tuple(changed))

    def _starts_from(self, sweep: int) -> float:
        """The level before the first epoch."""
        now = self.in_sweep(sweep)
        if now.after_train is not None:
            return now.after_train[1] if now.after_train[0] > 0 else self.holding
        if not self.keeps_last or sweep == 0 or not self.epochs:
            return self.holding
        return self.in_sweep(sweep - 1).epochs[-1].level

    def _parts(self, sweep: int, points: int) -> Iterator[tuple[int, WaveformEpoch]]:
        """Where each epoch ends, with the holding before and after."""
        level = self._starts_from(sweep)
        end = max(points // _HOLDING, 1)
        yield end, WaveformEpoch(-1, 1, level, 0.0, end, 0)
        rests = self.alternates and self.number == 1 - sweep % 2
        last = level
        for epoch in self.in_sweep(sweep).epochs:
            if epoch.points > 0:
                end, last = end + epoch.points, epoch.level
                yield end, replace(epoch, kind=1, level=level) if rests else epoch
        yield points, WaveformEpoch(-1, 1, last if self.keeps_last else self.holding, 0.0, 0, 0)

    def waveform(self, sweep: int, points: int) -> Samples:
        """What it put out in one sweep, in its unit; a ValueError where that cannot be known."""
        if self.source == _FROM_FILE and self.file is not None:
            return self._of_file(self.file, sweep, points)
        if self.source != _FROM_EPOCHS:
            raise ValueError(f"its source is {self.source}, neither epochs nor a file")
        shape, before = np.full(points, np.nan), None
        start = 0
        for end, epoch in self._parts(sweep, points):
            if not start <= end <= points:
                raise ValueError("its epochs do not lie inside the sweep")
            before = epoch.level if before is None else before
            shape[start:end] = epoch.samples(end - start, before)
            start, before = end, epoch.level
        return shape

    def _of_file(self, file: StimulusFile, sweep: int, points: int) -> Samples:
        sweeps, unit = file.read()
        if to_picoamperes(unit) not in (None, to_picoamperes(self.unit)):
            raise ValueError(
                f"its stimulus file {file.name} is in {unit}, the output in {self.unit}"
            )
        values = sweeps[min(file.sweep - 1 if file.sweep > 0 else sweep, len(sweeps) - 1)]
        values = (values * file.scale + file.offset)[:points]
        if len(values) < points and not np.isclose(values[-1], self.holding, atol=1e-3):
            raise ValueError(f"its stimulus file {file.name} ends before the sweep does")
        return np.append(values, np.full(points - len(values), values[-1]))


def outputs_of(header: AbfHeader) -> list[AnalogOutput]:
    """The outputs that a file describes; those of an ABF 1 before 1.6 have no waveform."""
    if header.is_1:
        return _outputs_of_1(header)
    with header.path.open("rb") as file:
        return _outputs_of_2(header, file)


def _outputs_of_1(header: AbfHeader) -> list[AnalogOutput]:
    head, folder = header.head, header.path.parent
    names, units = fixed_texts(head, 1306, 10, 4), fixed_texts(head, 1346, 8, 4)
    if header.is_short:
        return [AnalogOutput(k, names[k], units[k], False) for k in range(len(names))]

    columns = (("20h", 2308), ("20f", 2348), ("20f", 2428), ("20i", 2508), ("20i", 2588))
    trains = (("20i", 2136), ("20i", 2216))  # periods and widths
    rows = list(zip(*(numbers(head, *each) for each in columns + trains), strict=True))
    lists = _lists_of_1(head)
    after = list(zip(numbers(head, "2f", 3304), numbers(head, "2f", 3312), strict=True))
    conditioned, subtracted = numbers(head, "2h", 3260), numbers(head, "2h", 4456)
    enabled, sources, keeps_last = (numbers(head, "2h", at) for at in (2296, 2300, 2304))
    scales, offsets = numbers(head, "2f", 2708), numbers(head, "2f", 2716)
    of_file, files = numbers(head, "2i", 2724), fixed_texts(head, 2736, 256, 2)
    (active,), (alternates,) = numbers(head, "h", 1440), numbers(head, "h", 5876)
    outputs = [AnalogOutput(k, names[k], units[k], False, lists=lists) for k in range(len(names))]
    for k in range(2):  # only these have waveforms
        epochs = (
            WaveformEpoch(at % 10, *row) for at, row in enumerate(rows) if at // 10 == k and row[0]
        )
        file = StimulusFile(files[k], folder, scales[k], offsets[k], of_file[k])
        outputs[k] = replace(
            outputs[k],
            enabled=bool(enabled[k] and sources[k]),
            source=sources[k],
            holding=numbers(head, "4f", 1394)[k],
            keeps_last=bool(keeps_last[k]),
            epochs=tuple(epochs),
            after_train=after[k] if conditioned[k] else None,
            is_active=active == k,
            alternates=bool(alternates),
            file=file,
            leak_subtracted=bool(subtracted[k]),
            epochs_named=_EPOCHS[1],
        )
    return outputs


def _lists_of_1(head: bytes) -> dict[int, UserList]:
    enabled, parameters, repeats = (numbers(head, "4h", at) for at in (3360, 3368, 4400))
    return {
        k: UserList(int(parameters[k]), _values(head[3376 + 256 * k :][:256]), bool(repeats[k]))
        for k in range(4)
        if enabled[k]
    }


def _outputs_of_2(header: AbfHeader, file: BinaryIO) -> list[AnalogOutput]:
    head, folder = header.head, header.path.parent
    said = texts(head, file)

    def text(index: int) -> str:
        return said[index] if 0 < index < len(said) else ""

    *_, active, alternates = section_entries(head, file, PROTOCOL)[0]
    rows = section_entries(head, file, EPOCHS)
    # By output; a list that is in the file is in use, whatever its flag says.
    lists = {
        number: UserList(parameter, _values(text(values).encode("ascii", "replace")), bool(repeats))
        for number, _, parameter, repeats, values in section_entries(head, file, USER_LISTS)
    }
    outputs = []
    for entry in section_entries(head, file, OUTPUTS):
        number, holding, name, unit, enabled, source, keeps_last, *entry_of_file = entry[:10]
        conditioned, period, level, subtracted, path = entry[10:]
        epochs = (WaveformEpoch(at, *row) for at, of, *row in rows if of == number and row[0])
        outputs.append(
            AnalogOutput(
                number,
                text(name),
                text(unit),
                enabled=bool(enabled and source),
                source=source,
                holding=holding,
                keeps_last=bool(keeps_last),
                epochs=tuple(epochs),
                after_train=(period, level) if conditioned else None,
                lists=lists,
                is_active=active == number,
                alternates=bool(alternates),
                file=StimulusFile(text(path), folder, *entry_of_file),
                leak_subtracted=bool(subtracted),
                epochs_named=_EPOCHS[2],
            )
        )
    return outputs


def _values(text: bytes) -> tuple[str, ...]:
    """Separated by commas and spaces."""
    plain = text.split(b"\0")[0].decode("ascii", "replace")
    return tuple(plain.replace(",", " ").split())
