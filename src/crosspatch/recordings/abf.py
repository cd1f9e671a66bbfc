"""Axon ABF 1 and 2, by pyabf."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crosspatch.errors import RecordingError, in_words
from crosspatch.recordings.abf_cells import ClampedCell, cells_in_abf
from crosspatch.recordings.abf_header import BLOCK, check_header, damaged
from crosspatch.recordings.abf_inputs import AnalogInput
from crosspatch.recordings.abf_protocol import (
    EPISODIC,
    LONG_HEADER,
    MODES,
    AnalogOutput,
    fixed_text,
    outputs_of,
)
from crosspatch.recordings.model import (
    CURRENT_CLAMP,
    DESCRIBE_STEP,
    MAX_RATE,
    MIN_RATE,
    Recorded,
    Recording,
    Samples,
    Sweep,
    named_cell,
    to_millivolts,
    to_picoamperes,
)
from crosspatch.recordings.reading_options import Reading

if TYPE_CHECKING:
    from pyabf import ABF

#: First sample and number of samples of every sweep.
_Bounds = list[tuple[int, int]]

#: Sampling intervals are 32-bit floats, which make a rate whole to this share.
_WHOLE = 1e-6
#: How a telegraph names a MultiClamp.
_MULTICLAMP = 24


def read_abf(path: Path, reading: Reading | None = None) -> list[Recording]:
    """Open an ABF file: one recording for each of its cells in current clamp, none of them closed.

    Samples are read only where evidence is needed. A `RecordingError` if the file holds no cell in
    current clamp.
    """
    import pyabf

    check_header(path)
    with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
        header = pyabf.ABF(path, loadData=False, cacheStimulusFiles=False)
        return _recordings(path, header, reading or Reading())


def _recordings(path: Path, header: ABF, reading: Reading) -> list[Recording]:
    rate, channels = _rate(path, header), int(header.channelCount)
    if not MIN_RATE <= rate <= MAX_RATE or not 0 < channels <= 64:
        raise damaged(path, f"{channels} channels at {rate:g} Hz cannot be")
    bounds = _bounds(path, header, channels)
    inputs, outputs = _inputs(path, header, bounds, rate), outputs_of(header, path)
    mode = int(header.nOperationMode)
    missing = f"it was recorded in {MODES.get(mode, f'mode {mode}')}, which plays no epochs"
    if mode == EPISODIC:
        missing = _why_no_command(inputs, outputs)
        if header.abfVersion["major"] == 1 and header.dataByteStart < LONG_HEADER:
            missing = "its header is that of ABF before 1.6, of which epochs are not read"
    cells = cells_in_abf(str(path), inputs, outputs if mode == EPISODIC else [], reading)
    return [_recording(path, header, cell, cells, bounds, missing) for cell in cells]


def _recording(
    path: Path,
    header: ABF,
    cell: ClampedCell,
    cells: Sequence[ClampedCell],
    bounds: _Bounds,
    missing: str,
) -> Recording:
    _refuse_leak_subtraction(path, cell.output)
    run = header._headerV1 if header.abfVersion["major"] == 1 else header._protocolSection
    command = _command(path, cell, [n for _, n in bounds], int(run.lEpisodesPerRun), missing)
    varied = cell.output.note(len(bounds)) if cell.output is not None else None
    others = ", ".join(str(other.electrode) for other in cells if other is not cell)
    also = f"electrode {cell.electrode}; this file holds also {others}" if others else None
    return Recording(
        name=str(path),
        cell_id=named_cell(path.stem, cell.electrode),
        format=f"ABF {header.abfVersion['major']}.{header.abfVersion.get('minor', 0)}",
        sweeps=tuple(_sweeps(cell, command, bounds)),
        recorded=Recorded(session=str(getattr(header, "abfDateTimeString", "")) or None),
        notes=(*cell.notes, *filter(None, [also, varied, command.note])),
        electrode=cell.electrode,
    )


def _refuse_leak_subtraction(path: Path, output: AnalogOutput | None) -> None:
    if output is not None and output.leak_subtracted:
        raise RecordingError(
            f"{path}: {output.label} has leak subtraction (P/N) switched on, so that what is "
            "stored is not the membrane potential; record it without"
        )


@dataclass(frozen=True)
class _Command:
    """Where the current of sweeps comes from: what was put out, or else what was measured."""

    read: Callable[[int], Samples]  # of a sweep, pA
    note: str = ""
    measured_beside: bool = False


def _command(
    path: Path, cell: ClampedCell, points: Sequence[int], in_run: int, missing: str
) -> _Command:
    """The command of a cell; `missing` says why no output gives one, where none does.

    Of sweeps with so many points, and of a protocol of so many sweeps, 0 where that is not known.
    """
    output, measured = cell.output, cell.measured
    if output is not None:
        played = partial(_played, output, points, in_run)
        if measured is None:
            return _Command(partial(_known, path, output, played))
        try:
            for sweep in range(len(points)):
                played(sweep)
        except Exception as error:  # pyabf raises whatever it meets
            missing = f"the command of {output.label} cannot be known ({in_words(error)})"
        else:
            note = f"the command is that of {output.label}, {measured.label} measured the current"
            return _Command(played, note, measured_beside=True)
    if measured is not None:
        return _Command(measured.read, f"the current is that of {measured.label}: {missing}")
    return _Command(partial(_unknown, path, missing))


def _unknown(path: Path, reason: str, sweep: int) -> Samples:
    raise RecordingError(f"{path}, sweep {sweep}: {reason}", hint=DESCRIBE_STEP)


def _played(output: AnalogOutput, points: Sequence[int], in_run: int, sweep: int) -> Samples:
    """The waveform of an output in a sweep, pA; a ValueError where it cannot be known."""
    if 0 < in_run <= sweep:
        raise ValueError(f"its protocol has {in_run} sweeps, this one was added later")
    waveform = output.waveform(sweep, points[sweep])
    return np.asarray(waveform, dtype=np.float64) * (to_picoamperes(output.unit) or 1.0)


def _known(
    path: Path, output: AnalogOutput, played: Callable[[int], Samples], sweep: int
) -> Samples:
    try:
        return played(sweep)
    except Exception as error:  # pyabf raises whatever it meets
        reason = f"the command of {output.label} cannot be known: {in_words(error)}"
        return _unknown(path, reason, sweep)


def _sweeps(cell: ClampedCell, command: _Command, bounds: _Bounds) -> list[Sweep]:
    monitor = cell.measured if command.measured_beside else None
    return [
        Sweep(
            number,
            cell.voltage.rate,
            points,
            CURRENT_CLAMP,
            "",
            partial(cell.voltage.read, number),
            partial(command.read, number),
            read_voltage_until=partial(cell.voltage.read, number),
            read_monitor=None if monitor is None else partial(monitor.read, number),
        )
        for number, (_, points) in enumerate(bounds)
    ]


def _why_no_command(inputs: Sequence[AnalogInput], outputs: Sequence[AnalogOutput]) -> str:
    """Why no output says what current was injected, where none does."""
    on = [each for each in outputs if each.enabled and not each.injects]
    what = " and ".join(f"{each.label} in {each.unit or 'no unit'}" for each in on)
    why = f"its waveform is that of {what}, not of a current"
    odd = [each for each in inputs if not each.is_current and each.is_named_current]
    said = [f"{each.label} is in {each.unit}, not in pA or nA" for each in odd]
    return "; ".join([why if on else "no output has its waveform switched on", *said])


def _rate(path: Path, header: ABF) -> float:
    if header.abfVersion["major"] == 2:
        interval = float(header._protocolSection.fADCSequenceInterval)
    else:
        with path.open("rb") as file:
            head = file.read(198)
        first, second = struct.unpack_from("<ff", head, 122)
        change, points = (
            struct.unpack_from("<i", head, 194)[0],
            header._headerV1.lNumSamplesPerEpisode,
        )
        if second not in (0, first) and 0 < change < points:
            raise RecordingError(
                f"{path} changes its sampling interval within each sweep, from {first:g} to "
                f"{second:g} us, which is not read"
            )
        interval = first * max(int(header.channelCount), 1)
    rate = 1e6 / interval if interval > 0 else 0.0
    return float(round(rate)) if abs(rate - round(rate)) <= _WHOLE * rate else rate


def _bounds(path: Path, header: ABF, channels: int) -> _Bounds:
    count, total = int(header.sweepCount), int(header.dataPointCount)
    lengths = [int(header.sweepPointCount)] * count
    kept = _kept_lengths(path, header, count)
    if count > 1 and len(set(kept)) > 1:
        lengths = [length // channels for length in kept]
    elif count > 1 and total != lengths[0] * count * channels:
        raise damaged(
            path,
            f"its {total:,} samples are not {count} sweeps of {channels} channels and equal length",
        )
    starts = [int(start) for start in np.cumsum([0, *lengths[:-1]])]
    size = path.stat().st_size - int(header.dataByteStart)
    needed = (starts[-1] + lengths[-1]) * channels * np.dtype(header._dtype).itemsize
    if min(lengths) <= 0 or needed > size or header.dataByteStart <= 0:
        raise damaged(
            path,
            f"its {count} sweeps need {needed:,} bytes of samples, the file has {max(size, 0):,}; "
            "it was cut short",
        )
    return list(zip(starts, lengths, strict=True))


def _kept_lengths(path: Path, header: ABF, count: int) -> list[int]:
    """Samples of each sweep and all channels, as far as the file lists them."""
    if header.abfVersion["major"] == 2:
        unit, lengths = header._protocolSection.fSynchTimeUnit, header._synchArraySection.lLength
    else:
        v1 = header._headerV1
        with path.open("rb") as file:
            file.seek(v1.lSynchArrayPtr * BLOCK)
            content = file.read(8 * v1.lSynchArraySize)
        unit, lengths = v1.fSynchTimeUnit, [n for _, n in struct.iter_unpack("<ii", content)]
    lengths = [int(length) for length in lengths[:count]]
    if len(lengths) < count:
        return []
    total = int(header.dataPointCount)
    if unit > 0 and abs(sum(lengths) / unit - total) < abs(sum(lengths) - total):
        return [round(length / unit) for length in lengths]  # kept as times
    return lengths


def _inputs(path: Path, header: ABF, bounds: _Bounds, rate: float) -> list[AnalogInput]:
    inputs = []
    for k in range(int(header.channelCount)):
        number, mode = k, None
        gain = float(header._dataGain[k])
        if header.abfVersion["major"] == 1:
            fields, at = header._headerV1, header._headerV1.nADCSamplingSeq[k]
            number, known = at, header.dataByteStart >= LONG_HEADER
            if not known and fields.nTelegraphEnable[at] == 1:  # these are samples, not telegraphs
                gain *= fields.fTelegraphAdditGain[at]
        else:
            fields, at, known = header._adcSection, k, True
            number = fields.nADCNum[k]
        if (
            known
            and fields.nTelegraphEnable[at] == 1
            and fields.nTelegraphInstrument[at] == _MULTICLAMP
        ):
            mode = fields.nTelegraphMode[at]
        name, unit = fixed_text(header.adcNames[k]), fixed_text(header.adcUnits[k])
        read = partial(_read, path, header, k, gain, bounds)
        inputs.append(AnalogInput(number, name, unit, mode, rate, len(bounds), read))
    return inputs


def _read(
    path: Path,
    header: ABF,
    channel: int,
    gain: float,
    bounds: _Bounds,
    sweep: int,
    most: int | None = None,
) -> Samples:
    """The samples of one sweep and channel, at most so many, in mV, pA or its own unit."""
    (start, points), channels = bounds[sweep], int(header.channelCount)
    points = points if most is None else min(points, most)
    dtype, unit = np.dtype(header._dtype), fixed_text(header.adcUnits[channel])
    at = int(header.dataByteStart) + start * channels * dtype.itemsize
    try:
        raw = np.fromfile(path, dtype, points * channels, offset=at)
    except OSError as error:
        raise RecordingError(f"{path}, sweep {sweep}: {in_words(error)}") from error
    if len(raw) != points * channels:
        raise RecordingError(
            f"{path}, sweep {sweep}: expected {points * channels:,} samples, found {len(raw):,}; "
            "the file was cut short"
        )
    factor = to_millivolts(unit) or to_picoamperes(unit) or 1.0
    values = raw.reshape(points, channels)[:, channel].astype(np.float64)
    if dtype.kind == "i":
        return values * (gain * factor) + float(header._dataOffset[channel]) * factor
    return values * factor
