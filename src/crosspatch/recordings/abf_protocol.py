"""What Clampex put out: the outputs of an ABF file, their epochs, user lists and stimulus files.

The rules are those of Axon's own library, AxABFFIO32 (abfhwave.cpp and UserList.cpp, 1993-2004),
from which pyabf 2.3.8 departs: it takes the first epochs for the holding levels of ABF 1, has no
user lists, pulse trains of ABF 1, alternating outputs or presweep trains, and takes every sweep of
a stimulus file for its first.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from crosspatch.recordings.abf_stimulus import StimulusFile
from crosspatch.recordings.model import Samples, to_picoamperes

if TYPE_CHECKING:
    from pyabf import ABF

#: Bytes of the header of ABF 1.6 and later; older files end before epochs, lists and telegraphs.
LONG_HEADER = 6144
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
#: Kinds of epochs, as pyabf names them.
_KINDS = {1: "Step", 2: "Ramp", 3: "Pulse", 4: "Tri", 5: "Cos", 7: "BiPhsc"}
_TRAINS = (3, 4, 7)
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
        from pyabf.waveform import EpochSweepWaveform

        shape, start = EpochSweepWaveform(), 0
        for end, epoch in self._parts(sweep, points):
            if not start <= end <= points:
                raise ValueError("its epochs do not lie inside the sweep")
            if epoch.kind not in _KINDS:
                raise ValueError(f"an epoch is of kind {epoch.kind}, which is not understood")
            if epoch.kind in _TRAINS and not 0 <= epoch.width <= max(epoch.period, 0):
                raise ValueError(f"a pulse of {epoch.width} samples every {epoch.period}")
            train = (_KINDS[epoch.kind], epoch.width, epoch.period)
            shape.addEpoch(start, end, float(epoch.level), *train, [0] * 8)
            start = end
        return shape.getWaveform()

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


def outputs_of(header: ABF, path: Path) -> list[AnalogOutput]:
    """The outputs that a file describes; those of an ABF 1 before 1.6 have no waveform."""
    with path.open("rb") as file:
        if header.abfVersion["major"] == 1:
            return _outputs_of_1(header, file.read(LONG_HEADER), path.parent)
        return _outputs_of_2(header, _lists_of_2(header, file), path.parent)


def _outputs_of_1(header: ABF, head: bytes, folder: Path) -> list[AnalogOutput]:
    v1 = header._headerV1
    names = list(map(fixed_text, v1.sDACChannelName))
    units = list(map(fixed_text, v1.sDACChannelUnit))
    if header.dataByteStart < LONG_HEADER:
        return [AnalogOutput(k, names[k], units[k], False) for k in range(len(names))]

    columns = (v1.nEpochType, v1.fEpochInitLevel, v1.fEpochLevelInc, v1.lEpochInitDuration)
    trains = (_numbers(head, "20i", 2136), _numbers(head, "20i", 2216))  # periods and widths
    rows = list(zip(*columns, v1.lEpochDurationInc, *trains, strict=True))
    lists = _lists_of_1(head)
    after = list(zip(_numbers(head, "2f", 3304), _numbers(head, "2f", 3312), strict=True))
    conditioned = _numbers(head, "2h", 3260)
    outputs = [AnalogOutput(k, names[k], units[k], False, lists=lists) for k in range(len(names))]
    for k in range(2):  # only these have waveforms
        epochs = (
            WaveformEpoch(at % 10, *row) for at, row in enumerate(rows) if at // 10 == k and row[0]
        )
        file = StimulusFile(
            fixed_text(v1.sDACFilePath[k]),
            folder,
            v1.fDACFileScale[k],
            v1.fDACFileOffset[k],
            v1.lDACFileEpisodeNum[k],
        )
        outputs[k] = replace(
            outputs[k],
            enabled=bool(v1.nWaveformEnable[k] and v1.nWaveformSource[k]),
            source=v1.nWaveformSource[k],
            holding=_numbers(head, "4f", 1394)[k],
            keeps_last=bool(v1.nInterEpisodeLevel[k]),
            epochs=tuple(epochs),
            after_train=after[k] if conditioned[k] else None,
            is_active=v1.nActiveDACChannel == k,
            alternates=bool(_numbers(head, "h", 5876)[0]),
            file=file,
            leak_subtracted=bool(_numbers(head, "2h", 4456)[k]),
            epochs_named=_EPOCHS[1],
        )
    return outputs


def _lists_of_1(head: bytes) -> dict[int, UserList]:
    enabled, parameters, repeats = (_numbers(head, "4h", at) for at in (3360, 3368, 4400))
    return {
        k: UserList(int(parameters[k]), _values(head[3376 + 256 * k :][:256]), bool(repeats[k]))
        for k in range(4)
        if enabled[k]
    }


def _numbers(head: bytes, kind: str, at: int) -> tuple[float, ...]:
    return struct.unpack_from(f"<{kind}", head, at)


def _outputs_of_2(header: ABF, lists: dict[int, UserList], folder: Path) -> list[AnalogOutput]:
    dac, table, protocol = header._dacSection, header._epochPerDacSection, header._protocolSection
    columns = (table.nDACNum, table.nEpochNum, table.nEpochType, table.fEpochInitLevel)
    times = (table.lEpochInitDuration, table.lEpochDurationInc)
    trains = (table.lEpochPulsePeriod, table.lEpochPulseWidth)
    rows = list(zip(*columns, table.fEpochLevelInc, *times, *trains, strict=True))
    outputs = []
    for k, number in enumerate(dac.nDACNum):
        epochs = (WaveformEpoch(*row) for of, *row in rows if of == number and row[1])
        after = (dac.fPostTrainPeriod[k], dac.fPostTrainLevel[k])
        file = StimulusFile(
            _text(header, dac.lDACFilePathIndex[k]),
            folder,
            dac.fDACFileScale[k],
            dac.fDACFileOffset[k],
            dac.lDACFileEpisodeNum[k],
        )
        outputs.append(
            AnalogOutput(
                number,
                _text(header, dac.lDACChannelNameIndex[k]),
                _text(header, dac.lDACChannelUnitsIndex[k]),
                enabled=bool(dac.nWaveformEnable[k] and dac.nWaveformSource[k]),
                source=dac.nWaveformSource[k],
                holding=dac.fDACHoldingLevel[k],
                keeps_last=bool(dac.nInterEpisodeLevel[k]),
                epochs=tuple(epochs),
                after_train=after if dac.nConditEnable[k] else None,
                lists=lists,
                is_active=protocol.nActiveDACChannel == number,
                alternates=bool(protocol.nAlternateDACOutputState),
                file=file,
                leak_subtracted=bool(dac.nLeakSubtractType[k]),
                epochs_named=_EPOCHS[2],
            )
        )
    return outputs


def _lists_of_2(header: ABF, file: BinaryIO) -> dict[int, UserList]:
    """By output; a list that is in the file is in use, whatever its flag says."""
    section = header._userListSection
    lists = {}
    for k in range(section._entryCount):
        file.seek(section._byteStart + k * section._entrySize)
        number, _, parameter, repeats, text = struct.unpack("<4hi", file.read(12))
        values = _values(_text(header, text).encode("ascii", "replace"))
        lists[number] = UserList(parameter, values, bool(repeats))
    return lists


def _values(text: bytes) -> tuple[str, ...]:
    """Separated by commas and spaces."""
    plain = text.split(b"\0")[0].decode("ascii", "replace")
    return tuple(plain.replace(",", " ").split())


def fixed_text(text: object) -> str:
    """A field of fixed length, without what fills it."""
    return str(text).split("\0")[0].strip()


def _text(header: ABF, index: int) -> str:
    texts = header._stringsSection._indexedStrings
    return str(texts[index]) if 0 < index < len(texts) else ""
