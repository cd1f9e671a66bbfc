"""Axon ABF 1 and 2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from crosspatch.errors import RecordingError, in_words
from crosspatch.recordings.abf_cells import ClampedCell, cells_in_abf
from crosspatch.recordings.abf_header import AbfHeader, read_header
from crosspatch.recordings.abf_inputs import AnalogInput
from crosspatch.recordings.abf_protocol import EPISODIC, MODES, AnalogOutput, outputs_of
from crosspatch.recordings.model import (
    CURRENT_CLAMP,
    DESCRIBE_STEP,
    Recorded,
    Recording,
    Samples,
    Sweep,
    named_cell,
    to_millivolts,
    to_picoamperes,
)
from crosspatch.recordings.reading_options import Reading


def read_abf(path: Path, reading: Reading | None = None) -> list[Recording]:
    """Open an ABF file: one recording for each of its cells in current clamp, none of them closed.

    Samples are read only where evidence is needed. A `RecordingError` if the file holds no cell in
    current clamp.
    """
    with np.errstate(all="ignore"):
        return _recordings(read_header(path), reading or Reading())


def _recordings(header: AbfHeader, reading: Reading) -> list[Recording]:
    _ = header.bounds  # a file that was cut short is refused
    inputs, outputs = _inputs(header), outputs_of(header)
    missing = (
        f"it was recorded in {MODES.get(header.mode, f'mode {header.mode}')}, which plays no epochs"
    )
    if header.mode == EPISODIC:
        missing = _why_no_command(inputs, outputs)
        if header.is_short:
            missing = "its header is that of ABF before 1.6, of which epochs are not read"
    played = outputs if header.mode == EPISODIC else []
    cells = cells_in_abf(str(header.path), inputs, played, reading)
    return [_recording(header, cell, cells, missing) for cell in cells]


def _recording(
    header: AbfHeader, cell: ClampedCell, cells: Sequence[ClampedCell], missing: str
) -> Recording:
    path, points = header.path, [count for _, count in header.bounds]
    _refuse_leak_subtraction(path, cell.output)
    command = _command(path, cell, points, header.in_run, missing)
    varied = cell.output.note(len(points)) if cell.output is not None else None
    others = ", ".join(str(other.electrode) for other in cells if other is not cell)
    also = f"electrode {cell.electrode}; this file holds also {others}" if others else None
    return Recording(
        name=str(path),
        cell_id=named_cell(path.stem, cell.electrode),
        format=f"ABF {header.version}",
        sweeps=tuple(_sweeps(cell, command, points)),
        recorded=Recorded(session=header.session),
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
        except Exception as error:  # a stimulus file may be damaged in any way
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
    except Exception as error:  # a stimulus file may be damaged in any way
        reason = f"the command of {output.label} cannot be known: {in_words(error)}"
        return _unknown(path, reason, sweep)


def _sweeps(cell: ClampedCell, command: _Command, points: Sequence[int]) -> list[Sweep]:
    monitor = cell.measured if command.measured_beside else None
    return [
        Sweep(
            number,
            cell.voltage.rate,
            count,
            CURRENT_CLAMP,
            "",
            partial(cell.voltage.read, number),
            partial(command.read, number),
            read_voltage_until=partial(cell.voltage.read, number),
            read_monitor=None if monitor is None else partial(monitor.read, number),
        )
        for number, count in enumerate(points)
    ]


def _why_no_command(inputs: Sequence[AnalogInput], outputs: Sequence[AnalogOutput]) -> str:
    """Why no output says what current was injected, where none does."""
    on = [each for each in outputs if each.enabled and not each.injects]
    what = " and ".join(f"{each.label} in {each.unit or 'no unit'}" for each in on)
    why = f"its waveform is that of {what}, not of a current"
    odd = [each for each in inputs if not each.is_current and each.is_named_current]
    said = [f"{each.label} is in {each.unit}, not in pA or nA" for each in odd]
    return "; ".join([why if on else "no output has its waveform switched on", *said])


def _inputs(header: AbfHeader) -> list[AnalogInput]:
    return [
        AnalogInput(
            each.number,
            each.name,
            each.unit,
            each.mode,
            header.rate,
            header.sweeps,
            partial(_read, header, k),
        )
        for k, each in enumerate(header.inputs)
    ]


def _read(header: AbfHeader, place: int, sweep: int, most: int | None = None) -> Samples:
    """The samples of one sweep and input, at most so many, in mV, pA or its own unit."""
    unit = header.inputs[place].unit
    factor = to_millivolts(unit) or to_picoamperes(unit) or 1.0
    return header.read(place, sweep, most) * factor
