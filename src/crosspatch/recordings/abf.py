"""Axon ABF 1 and 2, by pyabf."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crosspatch.errors import RecordingError, in_words
from crosspatch.recordings.model import (
    CURRENT_CLAMP,
    DESCRIBE_STEP,
    MAX_RATE,
    MIN_RATE,
    VOLTAGE_CLAMP,
    Recorded,
    Recording,
    Samples,
    Sweep,
    refusing,
    to_millivolts,
    to_picoamperes,
)
from crosspatch.recordings.reading_options import Reading

if TYPE_CHECKING:
    from pyabf import ABF
    from pyabf.waveform import EpochSweepWaveform

#: ABF 2 keeps a table of sections from this byte on: block, bytes per entry, entries.
_SECTIONS_AT = 76
_SECTIONS = 18
_BLOCK = 512
#: Bytes that pyabf reads of an entry: protocol, inputs, outputs, epochs, epochs of an output, user
#: lists, strings, samples, tags, sweeps.
_ENTRY = {0: 208, 1: 82, 2: 132, 3: 4, 5: 30, 6: 10, 9: 1, 10: 2, 11: 64, 15: 8}
_STRINGS, _SAMPLES = 9, 10
_TAG_ENTRY, _SYNCH_ENTRY = 64, 8
#: More than a recording has; pyabf handles entries one by one.
_MAX_ENTRIES = 50_000
_MAX_TEXT = 1 << 20
#: Where an output's waveform comes from.
_FROM_EPOCHS, _FROM_FILE = 1, 2

_Reader = Callable[[], Samples]
#: First sample and number of samples of every sweep.
_Bounds = list[tuple[int, int]]

_kept_to_the_file = False


def keep_to_the_file() -> None:
    """From now on follow no file that another one names: files come from other people."""
    global _kept_to_the_file
    _kept_to_the_file = True


def read_abf(path: Path, reading: Reading | None = None) -> Recording:
    """Open an ABF file; its header is read, its samples are not.

    A `RecordingError` if the file is damaged or holds no channel of voltage or current.
    """
    import pyabf

    try:
        _check_header(path)
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        with warnings.catch_warnings(action="ignore"):
            header = pyabf.ABF(path, loadData=False, cacheStimulusFiles=False)
        return _recording(path, header)
    except RecordingError:
        raise
    except Exception as error:  # pyabf raises whatever it meets; damaged fields may be anything
        raise _damaged(path, in_words(error)) from error


def _damaged(path: Path, problem: str) -> RecordingError:
    return RecordingError(f"{path} is a damaged ABF file: {problem}")


def _check_header(path: Path) -> None:
    """Refuse counts that cannot be true before pyabf makes lists of that length."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_SECTIONS_AT + _SECTIONS * 16)
    if len(head) < _SECTIONS_AT + _SECTIONS * 16:
        problem: str | None = f"it ends after {len(head)} bytes, inside its header"
    elif head[:4] == b"ABF2":
        problem = _problem_of_2(head, size)
    else:
        problem = _problem_of_1(head, size)
    if problem:
        raise _damaged(path, problem)


def _problem_of_2(head: bytes, size: int) -> str | None:
    sweeps = struct.unpack_from("<I", head, 12)[0]
    if sweeps > _MAX_ENTRIES:
        return f"its header names {sweeps:,} sweeps"
    for section in range(_SECTIONS):
        block, width, count = struct.unpack_from("<IIq", head, _SECTIONS_AT + 16 * section)
        end = block * _BLOCK + width * count
        if not 0 <= count <= size or width > size or end > size:
            return f"section {section} of its header lies outside the file; it was cut short"
        if count and width < _ENTRY.get(section, 0):
            return f"section {section} of its header has entries of {width} bytes"
        if section in _ENTRY and section != _SAMPLES and count > _MAX_ENTRIES:
            return f"section {section} of its header has {count:,} entries"
        if section == _STRINGS and width * count > _MAX_TEXT:
            return f"its header has {width * count:,} bytes of text"
    return None


def _problem_of_1(head: bytes, size: int) -> str | None:
    points = struct.unpack_from("<i", head, 10)[0]
    sweeps = struct.unpack_from("<i", head, 16)[0]
    if not 0 <= points <= size:
        return f"its header names {points:,} samples; it was cut short"
    if not 0 <= sweeps <= _MAX_ENTRIES:
        return f"its header names {sweeps:,} sweeps"
    for name, at, width in (("tags", 44, _TAG_ENTRY), ("sweep times", 92, _SYNCH_ENTRY)):
        block, count = struct.unpack_from("<ii", head, at)
        if not 0 <= count <= _MAX_ENTRIES:
            return f"its header names {count:,} {name}"
        if count and not 0 <= block * _BLOCK + width * count <= size:
            return f"its {name} lie outside the file; it was cut short"
    return None


def _recording(path: Path, header: ABF) -> Recording:
    rate, channels = float(header.dataRate), int(header.channelCount)
    if not MIN_RATE <= rate <= MAX_RATE or not 0 < channels <= 64:
        raise _damaged(path, f"{channels} channels at {rate:g} Hz cannot be")
    bounds = _bounds(path, header, channels)
    voltages, currents = _sources(path, header, bounds)
    clamp = CURRENT_CLAMP if voltages else VOLTAGE_CLAMP
    sweeps = []
    for number, (_, points) in enumerate(bounds):
        missing = f"{path}, sweep {number}: voltage clamp, there is no voltage to read"
        voltage_of = voltages.reader(number) if voltages else refusing(missing)
        current_of = currents.reader(number) if currents else None
        sweeps.append(Sweep(number, rate, points, clamp, "", voltage_of, current_of))
    return Recording(
        name=str(path),
        cell_id=path.stem,
        format=f"ABF {header.abfVersion['major']}.{header.abfVersion.get('minor', 0)}",
        sweeps=tuple(sweeps),
        recorded=Recorded(session=str(getattr(header, "abfDateTimeString", "")) or None),
    )


def _sources(
    path: Path, header: ABF, bounds: _Bounds
) -> tuple[_Channel | None, _Channel | _Command | None]:
    """What gives the voltage, None in voltage clamp, and the current, None if there is none."""
    units = [str(unit) for unit in header.adcUnits]
    voltage, measured = _first(units, to_millivolts), _first(units, to_picoamperes)
    if voltage is None and measured is None:
        raise RecordingError(
            f"{path}: no channel has a unit of voltage or current; found {', '.join(units)}"
        )
    current = None if measured is None else _Channel(path, header, measured, bounds)
    driven = measured == 0 and any(to_millivolts(str(unit)) for unit in header.dacUnits[:1])
    if voltage is None or driven:
        return None, current
    return _Channel(path, header, voltage, bounds), _command(
        path, header, voltage, bounds
    ) or current


def _first(units: list[str], factor: Callable[[str], float | None]) -> int | None:
    return next((k for k, unit in enumerate(units) if factor(unit)), None)


def _bounds(path: Path, header: ABF, channels: int) -> _Bounds:
    count = int(header.sweepCount)
    lengths = [int(header.sweepPointCount)] * count
    synch = getattr(header, "_synchArraySection", None)
    if synch is not None and count > 1 and len(set(synch.lLength)) > 1:
        lengths = [int(length) // channels for length in synch.lLength[:count]]
    elif count > 1 and int(header.dataPointCount) != lengths[0] * count * channels:
        raise _damaged(
            path,
            f"its {header.dataPointCount:,} samples are not {count} sweeps of {channels} channels "
            "and equal length",
        )
    starts = [int(start) for start in np.cumsum([0, *lengths[:-1]])]
    size = path.stat().st_size - int(header.dataByteStart)
    needed = (starts[-1] + lengths[-1]) * channels * np.dtype(header._dtype).itemsize
    if min(lengths) <= 0 or needed > size or header.dataByteStart <= 0:
        raise _damaged(
            path,
            f"its {count} sweeps need {needed:,} bytes of samples, the file has {max(size, 0):,}; "
            "it was cut short",
        )
    return list(zip(starts, lengths, strict=True))


class _Channel:
    """Reads the samples of one channel, sweep by sweep."""

    def __init__(self, path: Path, header: ABF, channel: int, bounds: _Bounds):
        self.path, self.channel, self.bounds = path, channel, bounds
        unit = str(header.adcUnits[channel])
        factor = to_millivolts(unit) or to_picoamperes(unit) or 1.0
        self.channels = int(header.channelCount)
        self.dtype = np.dtype(header._dtype)
        self.start = int(header.dataByteStart)
        integers = self.dtype.kind == "i"
        self.gain = (float(header._dataGain[channel]) if integers else 1.0) * factor
        self.offset = (float(header._dataOffset[channel]) if integers else 0.0) * factor

    def reader(self, number: int) -> _Reader:
        start, points = self.bounds[number]

        def read() -> Samples:
            at = self.start + start * self.channels * self.dtype.itemsize
            try:
                raw = np.fromfile(self.path, self.dtype, points * self.channels, offset=at)
            except OSError as error:
                raise RecordingError(f"{self.path}, sweep {number}: {in_words(error)}") from error
            if len(raw) != points * self.channels:
                raise RecordingError(
                    f"{self.path}, sweep {number}: expected {points * self.channels:,} samples, "
                    f"found {len(raw):,}; the file was cut short"
                )
            values = raw.reshape(points, self.channels)[:, self.channel].astype(np.float64)
            return values * self.gain + self.offset

        return read


def _outputs(header: ABF) -> Any:
    return header._headerV1 if header.abfVersion["major"] == 1 else header._dacSection


def _command(path: Path, header: ABF, voltage: int, bounds: _Bounds) -> _Command | None:
    """Of the output that drives the cell, if the file describes a waveform of one length for it."""
    if len({points for _, points in bounds}) > 1:
        return None
    section, units = _outputs(header), [str(unit) for unit in header.dacUnits]
    count = min(len(units), len(section.nWaveformEnable))
    for channel in dict.fromkeys([voltage, *range(count)]):
        factor = to_picoamperes(units[channel]) if channel < count else None
        if factor and section.nWaveformEnable[channel] and section.nWaveformSource[channel]:
            return _Command(path, header, channel, bounds[0][1], factor)
    return None


@dataclass
class _Command:
    """The command waveforms of one output, from the epoch table or from a stimulus file."""

    path: Path
    header: ABF
    channel: int
    points: int
    factor: float  # to pA

    def reader(self, number: int) -> _Reader:
        def read() -> Samples:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")  # pyabf warns where a stimulus file is missing
                    waveform = self._waveform(number)
            except Exception as error:  # pyabf raises whatever its parsing meets
                raise RecordingError(
                    f"{self.path}, sweep {number}: the command waveform cannot be read: "
                    f"{in_words(error)}",
                    hint=DESCRIBE_STEP,
                ) from error
            waveform = np.asarray(waveform, dtype=np.float64)[: self.points] * self.factor
            last = waveform[-1] if len(waveform) else 0.0
            return np.append(waveform, np.full(self.points - len(waveform), last))

        return read

    def _waveform(self, number: int) -> Samples:
        source = _outputs(self.header).nWaveformSource[self.channel]
        if source == _FROM_FILE:
            return self._from_file
        if source != _FROM_EPOCHS:
            raise ValueError(f"its source is {source}, neither epochs nor a file")
        epochs = self._epochs[number]
        edges = [*epochs.p1s, *epochs.p2s]
        if min(edges) < 0 or max(edges) > self.points:
            raise ValueError("its epochs do not lie inside the sweep")
        for kind, width, period in zip(
            epochs.types, epochs.pulseWidths, epochs.pulsePeriods, strict=True
        ):
            if kind in ("Pulse", "Tri", "BiPhsc") and not 0 <= width <= max(period, 0):
                raise ValueError(f"a pulse of {width} samples every {period}")
        return epochs.getWaveform()

    @cached_property
    def _epochs(self) -> list[EpochSweepWaveform]:
        """Of every sweep; pyabf's own method builds all of them again for each."""
        import pyabf.waveform

        return pyabf.waveform.EpochTable(self.header, self.channel).epochWaveformsBySweep

    @cached_property
    def _from_file(self) -> Samples:
        import pyabf.stimulus

        if _kept_to_the_file:
            raise ValueError("it lies in another file, which is not followed")
        if self.header.abfVersion["major"] == 1:
            raise ValueError("it comes from a stimulus file, which pyabf cannot find for ABF 1")
        file = pyabf.stimulus.findStimulusWaveformFile(self.header, self.channel)
        if str(file).lower().endswith(".abf"):
            _check_header(Path(file))
        return np.asarray(pyabf.stimulus.stimulusWaveformFromFile(self.header, self.channel))
