"""Patch-clamp recordings as NWB 2 files, in the layout of the DANDI archive's Patch-seq sets.

Series are named as MIES names them. pynwb writes the head of the file. The series go through h5py,
which is several times faster, and so do the tables: the icephys tables of NWB, or the sweep table,
deprecated but what IPFX reads and pynwb 3 no longer writes. The tests hold the result to pynwb's
validator.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray
from pynwb import NWBHDF5IO, NWBFile
from pynwb.file import Subject

from crosspatch.errors import RecordingError
from crosspatch.recordings.model import CURRENT_CLAMP, VOLTAGE_CLAMP
from crosspatch.recordings.nwb_series import ICEPHYS
from crosspatch.recordings.nwb_tables import (
    WrittenRow,
    add_icephys_tables,
    add_sweep_table,
    describe_item,
)
from crosspatch.species import SPECIES
from crosspatch.writing import replacing

#: Volts a step of the stored integers: 0.01 mV, finer than the noise of an amplifier.
VOLTAGE_STEP = 1e-5


@dataclass(frozen=True)
class WrittenSweep:
    """One sweep to write."""

    #: Of the stimulus, as the Allen stimulus ontology has it (C1LSCOARSE150216_DA_0) or otherwise.
    description: str
    #: Injected current, pA, empty where it was not recorded; in voltage clamp the response.
    current: NDArray[np.floating]
    #: Response, mV, as long as the current; zeros from where the acquisition was stopped. In
    #: voltage clamp the command, empty where it was not recorded.
    voltage: NDArray[np.floating]
    rate: float  #: samples per second
    start: float  #: start within the session, s
    bridge_balance: float  #: MOhm; not written if it is NaN or in voltage clamp
    bias_current: float  #: pA; not written if it is NaN or in voltage clamp
    clamp: str = CURRENT_CLAMP  #: ``current clamp`` or ``voltage clamp``
    electrode: int = 0  #: number of its electrode
    #: Whether another electrode recorded the sweep before at the same time.
    simultaneous: bool = False
    number: int | None = None  #: of the sweep, where they are not counted from 0


class Stored(NamedTuple):
    """Samples of a series as the file holds them, and what they stand for."""

    samples: NDArray[np.generic]
    unit: str
    conversion: float


def as_floats(sweep: WrittenSweep) -> Stored:
    """A response as it is, to seven digits."""
    clamped = sweep.clamp == VOLTAGE_CLAMP
    samples = sweep.current if clamped else sweep.voltage
    return _floats(samples, is_current=clamped)


def _floats(samples: NDArray[np.floating], *, is_current: bool) -> Stored:
    unit, conversion = ("amperes", 1e-12) if is_current else ("volts", 1e-3)
    return Stored(np.asarray(samples, np.float32), unit, conversion)


def _as_integers(sweep: WrittenSweep) -> Stored:
    """Potentials as 16-bit integers, currents as they are."""
    if sweep.clamp == VOLTAGE_CLAMP:
        return as_floats(sweep)
    limits = np.iinfo(np.int16)
    steps = np.rint(np.asarray(sweep.voltage) * np.float32(1e-3 / VOLTAGE_STEP))
    samples = np.clip(steps, limits.min, limits.max).astype(np.int16)
    return Stored(samples, "volts", VOLTAGE_STEP)


@dataclass(frozen=True)
class Storage:
    """How series are stored."""

    samples: int = 65_536  #: per chunk: a sweep of two seconds is read in two chunks
    level: int = 1  #: of deflate
    growing: bool = False  #: whether the series may grow
    response: Callable[[WrittenSweep], Stored] = _as_integers  # how a response is kept
    #: Whether the sweep table is written, rather than the icephys tables.
    sweep_table: bool = True


INTEGERS = Storage()


@dataclass(frozen=True)
class ElectrodeNotes:
    """What is known of an electrode and its cell."""

    cell_id: str
    description: str
    seal: float | None = None  #: GOhm
    access_resistance: float | None = None  #: MOhm
    location: str | None = None


@dataclass(frozen=True)
class SessionNotes:
    """What is known of a recording besides its samples."""

    identifier: str  #: of the session
    description: str
    start: datetime  #: with time zone
    electrodes: tuple[ElectrodeNotes, ...]
    device: str  #: what the amplifier is
    experiment: str | None = None
    keywords: tuple[str, ...] = ()
    species: str | None = None  #: mouse or human
    donor: str | None = None
    about_donor: str | None = None
    sex: str | None = None  #: M, F or U
    age: str | None = None  #: ISO 8601 duration
    origin: str | None = None  #: laboratory and institution
    notes: str | None = None


def write_nwb(
    path: str | Path,
    notes: SessionNotes,
    sweeps: Iterable[WrittenSweep],
    storage: Storage = INTEGERS,
) -> None:
    """Write a patch-clamp recording as NWB 2; an existing file is replaced.

    A `RecordingError` if there are no sweeps, a sweep's current and voltage differ in length, or
    the file cannot be written; nothing is left behind then.
    """
    path = Path(path)
    with replacing(path, RecordingError) as temporary:
        _write_header(temporary, notes)
        rows: list[WrittenRow] = []
        with h5py.File(temporary, "r+") as file:
            for number, sweep in enumerate(sweeps):
                _require_samples(path, number, sweep)
                own = number if sweep.number is None else sweep.number
                rows.append(_add_series(file, own, sweep, storage))
            if not rows:
                raise RecordingError(f"{path}: a recording needs at least one sweep")
            (add_sweep_table if storage.sweep_table else add_icephys_tables)(file, rows)
            _add_specifications(file)


def _require_samples(path: Path, number: int, sweep: WrittenSweep) -> None:
    counts = [len(sweep.current), len(sweep.voltage)]
    if all(counts) and counts[0] != counts[1]:
        raise RecordingError(
            f"{path}: sweep {number} has {counts[0]} samples of current and {counts[1]} of voltage"
        )


def _write_header(path: Path, notes: SessionNotes) -> None:
    subject = None
    if any((notes.species, notes.donor, notes.sex, notes.age)):
        subject = Subject(
            subject_id=notes.donor,
            description=notes.about_donor,
            species=SPECIES[notes.species].latin if notes.species else None,
            sex=notes.sex,
            age=notes.age,
        )
    file = NWBFile(
        session_description=notes.description,
        identifier=notes.identifier,
        session_start_time=notes.start,
        file_create_date=notes.start if notes.origin else None,
        experiment_description=notes.experiment,
        keywords=list(notes.keywords) or None,
        institution=notes.origin,
        lab=notes.origin,
        experimenter=["Crosspatch, Simulation"] if notes.origin else None,
        session_id=notes.identifier,
        notes=notes.notes,
        subject=subject,
    )
    device = file.create_device(name="amplifier", description=notes.device)
    for number, each in enumerate(notes.electrodes):
        seal, access = each.seal, each.access_resistance
        file.create_icephys_electrode(
            name=f"electrode_{number}",
            description=each.description,
            device=device,
            cell_id=each.cell_id,
            location=each.location,
            seal=None if seal is None else f"{seal:.3f} GOhm",
            initial_access_resistance=None if access is None else f"{access:.2f} MOhm",
        )
    with _names_allowed(), NWBHDF5IO(str(path), "w") as io:
        io.write(file, cache_spec=False)


@contextmanager
def _names_allowed() -> Iterator[None]:
    """No warning of pynwb about a temporary name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not end in '.nwb'")
        yield


def _add_series(file: h5py.File, number: int, sweep: WrittenSweep, storage: Storage) -> WrittenRow:
    clamped = sweep.clamp == VOLTAGE_CLAMP
    kind = "VoltageClamp" if clamped else "CurrentClamp"
    response = f"acquisition/data_{number:05d}_AD{sweep.electrode}"
    group = file.create_group(response)
    about = "clamp current" if clamped else "membrane potential"
    describe_item(group, "core", f"{kind}Series", about)
    stored = storage.response(sweep)
    _fill(group, number, sweep, stored, storage)
    noted = (
        ()
        if clamped
        else (
            ("bias_current", sweep.bias_current * 1e-12, "amperes"),
            ("bridge_balance", sweep.bridge_balance * 1e6, "ohms"),
        )
    )
    for name, value, unit in noted:
        if np.isfinite(value):
            group[name] = np.float32(value)
            group[name].attrs["unit"] = unit
    command = sweep.voltage if clamped else sweep.current
    stimulus = None
    if len(command):
        stimulus = f"stimulus/presentation/data_{number:05d}_DA{sweep.electrode}"
        group = file.create_group(stimulus)
        about = "command potential" if clamped else "injected current"
        describe_item(group, "core", f"{kind}StimulusSeries", about)
        _fill(group, number, sweep, _floats(command, is_current=not clamped), storage)
    simultaneous = sweep.simultaneous
    return WrittenRow(
        sweep.description, sweep.electrode, simultaneous, len(stored.samples), response, stimulus
    )


def _fill(
    group: h5py.Group, number: int, sweep: WrittenSweep, stored: Stored, storage: Storage
) -> None:
    """Add what every series has."""
    group.attrs.update(
        comments="no comments",
        stimulus_description=sweep.description,
        sweep_number=np.uint32(number),
    )
    group["electrode"] = h5py.SoftLink(f"/{ICEPHYS}/electrode_{sweep.electrode}")
    group["gain"] = np.float32(1.0)
    data = group.create_dataset(
        "data",
        data=stored.samples,
        chunks=(min(len(stored.samples), storage.samples),),
        maxshape=(None,) if storage.growing else None,
        compression="gzip",
        compression_opts=storage.level,
        shuffle=True,
    )
    data.attrs.update(conversion=stored.conversion, offset=0.0, resolution=-1.0, unit=stored.unit)
    group["starting_time"] = float(sweep.start)
    group["starting_time"].attrs.update(rate=float(sweep.rate), unit="seconds")


def _add_specifications(file: h5py.File) -> None:
    """Add the schema the file follows, as pynwb does but without building it for every file."""
    group = file.create_group("specifications")
    for name, text in _specifications().items():
        group.create_dataset(name, data=text, dtype=h5py.string_dtype())
    file.attrs[".specloc"] = group.ref


@cache
def _specifications() -> dict[str, str]:
    """What pynwb writes into an empty file, by path."""
    empty = NWBFile("empty", "empty", datetime(2020, 1, 1, tzinfo=UTC))
    found: dict[str, str] = {}

    def keep(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item.asstr()[()]

    with (
        h5py.File("empty", "w", driver="core", backing_store=False) as file,
        _names_allowed(),
        NWBHDF5IO(file=file, mode="w") as io,
    ):
        io.write(empty)
        file["specifications"].visititems(keep)
    return found
