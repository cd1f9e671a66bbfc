"""Waves of Igor Pro, by igor2: binary waves (.ibw) and packed experiments (.pxp).

A wave is one input during one sweep; what belongs together is told by the waves' names, such as
``B6_Ch0_IDRest_181`` and ``B6_Ch3_IDRest_181``, ``cell2_Vm_4`` and ``cell2_Im_4``, or, of
NeuroMatic, ``RecordA0`` and ``RecordB0``.
"""

from __future__ import annotations

import io
import logging
import re
import struct
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crosspatch.errors import RecordingError, in_words
from crosspatch.recordings.formats import whole_content
from crosspatch.recordings.model import MIN_RATE, Recorded, Recording, to_seconds
from crosspatch.recordings.signals import Episode, InputSignal, OpenedSignals, recordings_of

if TYPE_CHECKING:
    from crosspatch.recordings.reading_options import Reading

#: A word for the input within a name, between separators: a channel, or what it records.
_INPUT = re.compile(
    r"(?:^|(?<=[_\-. ]))(?P<input>(?:ch|chan|channel|adc?|in)[_ ]?(?:\d+|[a-z])"
    r"|vm?|im?|volt(?:age)?|curr(?:ent)?|potential|cmd|command|[vi]mon)(?=$|[_\-. ]|\d)",
    re.IGNORECASE,
)
#: A letter for the input before the number of the sweep, as NeuroMatic names waves.
_LETTER = re.compile(
    r"^(?P<cell>.*?)(?P<run>(?:record|rec|wave|data)_?)(?P<input>[a-h])(?P<number>\d+)$",
    re.IGNORECASE,
)
#: What a note says of the unit: NeuroMatic's label of the y-axis.
_LABEL = re.compile(r"y_?label:\s*([^;\r\n]*)", re.IGNORECASE)
#: Igor counts seconds from here.
_EPOCH = datetime(1904, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class _Name:
    """What the name of a wave says."""

    cell: str
    input: str
    run: str  # what the waves of one run have in common beside the cell
    number: int | None  # of the sweep


def _name(text: str) -> _Name:
    found = _INPUT.search(text)
    if found:
        cell, rest = text[: found.start()], text[found.end() :]
        numbers = list(re.finditer(r"\d+", rest))
        if numbers:
            last = numbers[-1]
            run = rest[: last.start()] + rest[last.end() :]
            return _Name(cell.strip("_-. "), found["input"], run, int(last.group()))
        last_one = re.search(r"(\d+)\D*$", cell)  # the number of the sweep stands before
        if last_one:
            before = cell[: last_one.start()]
            return _Name(before.strip("_-. "), found["input"], rest, int(last_one.group(1)))
        return _Name(cell.strip("_-. "), found["input"], rest, None)
    found = _LETTER.match(text)
    if found:
        cell = found["cell"].strip("_-. ")
        return _Name(cell, found["input"], found["run"], int(found["number"]))
    found = re.search(r"(\d+)\D*$", text)
    if found:
        run = text[: found.start(1)] + text[found.end(1) :]
        return _Name(run.strip("_-. "), "", run, int(found.group(1)))
    return _Name(text, "", "", None)


@dataclass(frozen=True, eq=False)
class _Wave:
    """What one input recorded during one sweep."""

    name: str
    unit: str
    rate: float  # Hz
    points: int
    read: Callable[[], NDArray[np.generic]]
    created: str | None
    note: str | None  # what was assumed


#: The inputs of every sweep, by its run and number.
_Sweeps = dict[tuple[str, int | None], dict[str, _Wave]]


def siblings(path: Path) -> list[Path]:
    """The .ibw files beside one that belong to the same cell by their names, itself among them."""
    cell = _name(path.stem).cell
    return [each for each in waves_in(path.parent) if _name(each.stem).cell == cell]


def waves_in(folder: Path) -> list[Path]:
    """The .ibw files of a folder, by name; a hidden one is none."""
    return sorted(
        each
        for each in folder.iterdir()
        if each.suffix.lower() == ".ibw" and not each.name.startswith(".") and each.is_file()
    )


def read_ibw(path: Path, reading: Reading) -> list[Recording]:
    """Open the cell that a binary wave belongs to: it, its partner, and the cell's other sweeps.

    The files are those beside it whose names begin alike. Of a folder, all waves, which must be of
    one cell. A `RecordingError` if it is damaged or nothing in it is a potential.
    """
    files = waves_in(path) if path.is_dir() else siblings(path)
    cells = sorted({_name(each.stem).cell for each in files})
    if len(cells) > 1:
        raise RecordingError(
            f"{path} holds waves of {len(cells)} cells: {', '.join(cells)[:200]}",
            hint="give one wave of a cell, or a folder a cell",
        )
    waves, unreadable = _loaded(path, files)
    folder = path if path.is_dir() else path.parent
    cell = cells[0] or folder.resolve().name
    notes = (f"{len(files)} files {cells[0]}*.ibw were taken for the waves of one cell",)
    opened = _opened(path, cell, "Igor binary waves", waves, notes, unreadable)
    return recordings_of(opened, reading)


def _loaded(path: Path, files: list[Path]) -> tuple[dict[str, _Wave], dict[str, str]]:
    """The waves of files, and why others cannot be read; an error if all, or the one asked for."""
    unreadable: dict[str, str] = {}
    waves: dict[str, _Wave] = {}
    for file in files:
        try:
            waves[file.stem] = replace(_load(file), read=partial(_samples, file))
        except RecordingError as error:
            if file == path or len(files) == 1:
                raise
            unreadable[file.name] = error.message.removeprefix(f"{file} ")
    if not waves:
        first, reason = next(iter(unreadable.items()))
        raise RecordingError(f"{path} has no readable wave; {first}: {reason}")
    return waves, unreadable


def read_pxp(path: Path, reading: Reading) -> list[Recording]:
    """Open a packed experiment; its waves of potential and current must lie in one data folder.

    Where several have some, `Reading.electrode` names the one. A `RecordingError` if nothing in it
    is a potential.
    """
    recorded: dict[str, dict[str, _Wave]] = defaultdict(dict)
    for folder, waves in _folders(whole_content(path)).items():
        for wave in waves:
            if not wave.unit or wave.rate < MIN_RATE or wave.points < 2:
                continue
            place = ":".join(filter(None, (folder, _name(wave.name).cell)))
            recorded[place or "root"][wave.name] = wave
    wanted = reading.electrode
    if len(recorded) > 1 and wanted is not None and wanted in recorded:
        recorded, reading = {wanted: recorded[wanted]}, replace(reading, electrode=None)
    if not recorded:
        raise RecordingError(
            f"{path} holds no recording: no wave of it is in volts or amperes",
            hint='set the waves\' units, or save them with SetScale d 0, 0, "mV", WAVE',
        )
    if len(recorded) > 1:
        raise RecordingError(
            f"{path} holds {len(recorded)} cells or data folders: {', '.join(recorded)[:300]}",
            hint="name one with {electrode}",
        )
    ((place, signals),) = recorded.items()
    notes = (f"{len(signals)} waves of {place}",)
    opened = _opened(path, path.stem, "Igor packed experiment", signals, notes, {})
    return recordings_of(opened, reading)


#: Types of the records of a packed experiment (Igor's technical note PTN003); Igor 8 writes long
#: names of folders in records of their own, after their length.
_WAVE, _FOLDER, _FOLDER_END, _LONG_FOLDER = 3, 9, 10, 101


def _folders(content: bytes) -> dict[str, list[_Wave]]:
    """The data folders of an experiment with their waves of numbers; a ValueError if cut short."""
    # The type of the first record is less than 256.
    head = struct.Struct(">HhI" if content[:1] == b"\0" else "<HhI")
    at, folders, path = 0, {"": list[_Wave]()}, list[str]()
    while at + head.size <= len(content):
        kind, _, size = head.unpack_from(content, at)
        at += head.size
        if at + size > len(content):
            raise ValueError("it was cut short")
        record = content[at : at + size]
        at += size
        if kind & 0x7FFF == _FOLDER:
            path.append(_text(record))
        elif kind & 0x7FFF == _LONG_FOLDER:
            path.append(_text(record[4:]))
        elif kind & 0x7FFF == _FOLDER_END and path:
            path.pop()
        elif kind & 0x7FFF == _WAVE:
            with suppress(ValueError):  # text, or no samples
                folders.setdefault(":".join(path), []).append(_parsed(record))
    return folders


def _load(file: Path) -> _Wave:
    content = whole_content(file)
    try:
        return _parsed(content)
    except Exception as error:  # igor2 raises whatever it meets
        raise RecordingError(f"{file} is a damaged Igor wave: {in_words(error)}") from error


#: Sizes in bytes that the header of a wave has, by version: of its header, samples and texts.
_SIZES = {2: "h2i", 3: "h3i", 5: "4xi3i4i4ii"}


def _parsed(content: bytes) -> _Wave:
    """A wave; igor2 would make room for whatever sizes its header names."""
    import igor2.binarywave

    logging.getLogger("igor2").setLevel(logging.CRITICAL + 1)
    for order in "<>":
        version = struct.unpack_from(f"{order}h", content)[0]
        if version in _SIZES:
            sizes = struct.unpack_from(order + _SIZES[version], content)
            if version != 5:
                sizes = sizes[1:]
            if min(sizes) < 0 or sum(sizes) > len(content):
                raise ValueError("its header names more than it holds; it was cut short")
            break
    else:
        raise ValueError(f"version {version} is not known")
    return _wave(igor2.binarywave.load(io.BytesIO(content))["wave"])


def _samples(file: Path) -> NDArray[np.generic]:
    return _load(file).read()


def _wave(stored: Mapping[str, Any]) -> _Wave:
    """A wave as igor2 gives it; a ValueError if it is not one input's samples."""
    header, samples = stored["wave_header"], np.asarray(stored["wData"])
    if samples.ndim != 1 or samples.dtype.kind not in "iuf" or not samples.size:
        raise ValueError(f"it is no list of numbers (shape {samples.shape}, {samples.dtype})")
    rate, note = _rate(stored)
    seconds = int(header.get("creationDate", 0))
    created = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    name = _text(header["bname"])
    started = created if seconds > 0 else None
    return _Wave(name, _unit(stored), rate, samples.size, lambda: samples, started, note)


def _unit(stored: Mapping[str, Any]) -> str:
    """The unit of a wave's samples, if need be by the label in its note."""
    unit = _text(stored.get("data_units", b"")) or _text(stored["wave_header"]["dataUnits"])
    if not unit and (label := _LABEL.search(_text(stored.get("note", b"")))):
        unit = (re.findall(r"\(([^()]*)\)", label.group(1)) or [label.group(1)])[-1].strip()
    return unit


def _rate(stored: Mapping[str, Any]) -> tuple[float, str | None]:
    """Samples of a wave in a second, NaN if unknown, and what was assumed; or a ValueError."""
    header = stored["wave_header"]
    if "sfA" in header:
        interval, of_time = float(header["sfA"][0]), _text(np.asarray(header["dimUnits"])[0])
        of_time = of_time or _text(stored.get("dimension_units", b""))
    else:
        interval, of_time = float(header["hsA"]), _text(header["xUnits"])
    factor, note = to_seconds(of_time), None
    if factor is None and of_time:
        raise ValueError(f"the unit of its time is '{of_time}'")
    if factor is None:
        # Igor's own unit is s; a wave at less than 100 samples a second was scaled in ms.
        factor = 1.0
        if interval > 0 and 1 / interval < MIN_RATE <= 1e3 / interval:
            factor, note = 1e-3, f"time scale without unit, {interval:g}: taken for ms"
    return 1 / (interval * factor) if interval > 0 else float("nan"), note


def _text(value: Any) -> str:
    """Text in one of the ways igor2 hands it over."""
    if not isinstance(value, bytes):
        value = b"".join(np.ravel(np.asarray(value, "S")).tolist())
    text = value.decode("utf-8", "replace")
    return str(text).split("\0", 1)[0].strip()


def _opened(
    path: Path,
    cell: str,
    version: str,
    waves: Mapping[str, _Wave],
    notes: tuple[str, ...],
    unreadable: dict[str, str],
) -> OpenedSignals:
    """Waves put together to sweeps by their names."""
    sweeps: _Sweeps = {}
    for text, wave in waves.items():
        name = _name(text)
        sweep = sweeps.setdefault((name.run, name.number), {})
        if name.input in sweep:
            unreadable[text] = f"sweep {name.number} has its input {name.input} already"
        else:
            sweep[name.input] = wave
    assumed = dict.fromkeys(each.note for each in waves.values() if each.note)
    created = min((each.created for each in waves.values() if each.created), default=None)
    recorded, episodes = Recorded(session=created), _episodes(sweeps)
    return OpenedSignals(path, cell, version, episodes, recorded, (*notes, *assumed), unreadable)


def _episodes(sweeps: _Sweeps) -> list[Episode]:
    """Sweeps run by run; counted anew where not every one has a number of its own."""
    runs = list(dict.fromkeys(run for run, _ in sweeps))
    order = sorted(sweeps, key=lambda key: (runs.index(key[0]), key[1] or 0))
    numbers = [number for _, number in order if number is not None]
    if len(set(numbers)) < len(order):
        numbers = list(range(len(order)))
    episodes = []
    for number, key in zip(numbers, order, strict=True):
        signals = [
            InputSignal(called or "wave", wave.unit, wave.rate, wave.points, wave.read)
            for called, wave in sweeps[key].items()
        ]
        episodes.append(Episode(number, tuple(signals), key[0].strip("_-. ")))
    return episodes
