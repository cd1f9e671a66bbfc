"""Patch-clamp recordings as NWB 2 files, in the layout of the DANDI archive's Patch-seq sets.

Series are named as MIES names them, and the sweep table, deprecated in NWB but what IPFX reads, is
the one those files have. pynwb writes the head of the file. The series go through h5py, which is
several times faster, and so does the sweep table, which pynwb 3 no longer writes; the tests hold
the result to pynwb's validator.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
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
from crosspatch.species import SPECIES
from crosspatch.writing import replacing

#: Volts a step of the stored integers: 0.01 mV, finer than the noise of an amplifier.
VOLTAGE_STEP = 1e-5
_ELECTRODE = "electrode_0"


@dataclass(frozen=True)
class WrittenSweep:
    """One sweep to write."""

    stimulus_code: str  #: in the Allen stimulus ontology, such as C1LSCOARSE150216
    current: NDArray[np.float32]  #: injected current, pA; in voltage clamp the response
    #: Response, mV, as long as the current; zeros from where the acquisition was stopped. In
    #: voltage clamp the command.
    voltage: NDArray[np.float32]
    rate: float  #: samples per second
    start: float  #: start within the session, s
    bridge_balance: float  #: MOhm; not written in voltage clamp
    bias_current: float  #: pA; not written in voltage clamp
    clamp: str = CURRENT_CLAMP  #: ``current clamp`` or ``voltage clamp``


class Stored(NamedTuple):
    """Samples of a series as the file holds them, and what they stand for."""

    samples: NDArray[np.generic]
    unit: str
    conversion: float


def _current(sweep: WrittenSweep) -> Stored:
    return Stored(np.asarray(sweep.current, np.float32), "amperes", 1e-12)


def _voltage(sweep: WrittenSweep) -> Stored:
    return Stored(np.asarray(sweep.voltage, np.float32), "volts", 1e-3)


def _response(sweep: WrittenSweep) -> Stored:
    """Potentials as 16-bit integers, currents as they are."""
    if sweep.clamp == VOLTAGE_CLAMP:
        return _current(sweep)
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
    response: Callable[[WrittenSweep], Stored] = _response  # what is kept of a sweep's response


INTEGERS = Storage()


@dataclass(frozen=True)
class SessionNotes:
    """What is known of a recording besides its samples."""

    identifier: str  #: of the session
    description: str
    experiment: str
    keywords: tuple[str, ...]
    start: datetime  #: with time zone
    species: str  #: mouse or human
    donor: str  # sex as M, F or U; age as ISO 8601 duration
    sex: str
    age: str
    seal: float  #: GOhm
    access_resistance: float  #: MOhm


def write_nwb(
    path: str | Path,
    notes: SessionNotes,
    sweeps: Sequence[WrittenSweep],
    storage: Storage = INTEGERS,
) -> None:
    """Write a patch-clamp recording as NWB 2; an existing file is replaced.

    A `RecordingError` if there are no sweeps, a sweep's current and voltage differ in length, or
    the file cannot be written; nothing is left behind then.
    """
    path = Path(path)
    if not sweeps:
        raise RecordingError(f"{path}: a recording needs at least one sweep")
    for number, sweep in enumerate(sweeps):
        if len(sweep.current) != len(sweep.voltage):
            raise RecordingError(
                f"{path}: sweep {number} has {len(sweep.current)} samples of current and "
                f"{len(sweep.voltage)} of voltage"
            )
    with replacing(path, RecordingError) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_header(temporary, notes)
        with h5py.File(temporary, "r+") as file:
            for number, sweep in enumerate(sweeps):
                _add_series(file, number, sweep, storage)
            _add_sweep_table(file, len(sweeps))
            _add_specifications(file)


def _series_of(sweep: int) -> tuple[str, str]:
    """Where the response and the stimulus of a sweep stand in a file."""
    return f"acquisition/data_{sweep:05d}_AD0", f"stimulus/presentation/data_{sweep:05d}_DA0"


def _write_header(path: Path, notes: SessionNotes) -> None:
    file = NWBFile(
        session_description=notes.description,
        identifier=notes.identifier,
        session_start_time=notes.start,
        file_create_date=notes.start,
        experiment_description=notes.experiment,
        keywords=list(notes.keywords),
        institution="none: simulated",
        lab="none: simulated",
        experimenter=["Crosspatch, Simulation"],
        session_id=notes.identifier,
        subject=Subject(
            subject_id=notes.donor,
            description="Simulated donor, no animal or person",
            species=SPECIES[notes.species].latin,
            sex=notes.sex,
            age=notes.age,
        ),
    )
    device = file.create_device(name="amplifier", description="a simulated patch-clamp amplifier")
    file.create_icephys_electrode(
        name=_ELECTRODE,
        description="a simulated whole-cell electrode",
        device=device,
        cell_id=notes.identifier,
        seal=f"{notes.seal:.3f} GOhm",
        initial_access_resistance=f"{notes.access_resistance:.2f} MOhm",
    )
    with _names_allowed(), NWBHDF5IO(str(path), "w") as io:
        io.write(file, cache_spec=False)


@contextmanager
def _names_allowed() -> Iterator[None]:
    """No warning of pynwb about a temporary name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not end in '.nwb'")
        yield


def _add_series(file: h5py.File, number: int, sweep: WrittenSweep, storage: Storage) -> None:
    response, stimulus = _series_of(number)
    clamped = sweep.clamp == VOLTAGE_CLAMP
    kind = "VoltageClamp" if clamped else "CurrentClamp"
    group = file.create_group(response)
    about = "clamp current" if clamped else "membrane potential"
    _describe(group, "core", f"{kind}Series", about)
    _fill(group, number, sweep, storage.response(sweep), storage)
    if not clamped:
        for name, value, unit in (
            ("bias_current", sweep.bias_current * 1e-12, "amperes"),
            ("bridge_balance", sweep.bridge_balance * 1e6, "ohms"),
            ("capacitance_compensation", 0.0, "farads"),
        ):
            group[name] = np.float32(value)
            group[name].attrs["unit"] = unit
    group = file.create_group(stimulus)
    about = "command potential" if clamped else "injected current"
    _describe(group, "core", f"{kind}StimulusSeries", about)
    _fill(group, number, sweep, _voltage(sweep) if clamped else _current(sweep), storage)


def _fill(
    group: h5py.Group, number: int, sweep: WrittenSweep, stored: Stored, storage: Storage
) -> None:
    """Add what every series has."""
    group.attrs.update(
        comments="no comments",
        stimulus_description=f"{sweep.stimulus_code}_DA_0",
        sweep_number=np.uint32(number),
    )
    group["electrode"] = h5py.SoftLink(f"/general/intracellular_ephys/{_ELECTRODE}")
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


def _add_sweep_table(file: h5py.File, sweeps: int) -> None:
    """Add the table in the layout of pynwb 2: one row per series, with its sweep number."""
    rows = [(number, file[path].ref) for number in range(sweeps) for path in _series_of(number)]
    table = file["general/intracellular_ephys"].create_group("sweep_table")
    columns = np.array(["series", "sweep_number"], dtype=h5py.string_dtype())
    _describe(table, "core", "SweepTable", "Sweep number of each series", colnames=columns)
    identifiers = table.create_dataset("id", data=np.arange(len(rows), dtype=np.int64))
    _describe(identifiers, "hdmf-common", "ElementIdentifiers")
    numbers = table.create_dataset(
        "sweep_number", data=np.array([number for number, _ in rows], dtype=np.uint32)
    )
    _describe(numbers, "hdmf-common", "VectorData", "Sweep number of the series in the row")
    series = table.create_dataset("series", (len(rows),), dtype=h5py.ref_dtype)
    series[:] = [reference for _, reference in rows]
    _describe(series, "hdmf-common", "VectorData", "The series with the sweep number of the row")
    index = table.create_dataset("series_index", data=np.arange(1, len(rows) + 1, dtype=np.uint32))
    _describe(index, "hdmf-common", "VectorIndex", "Index for series", target=series.ref)


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


def _describe(
    item: h5py.Group | h5py.Dataset, namespace: str, kind: str, about: str = "", **more: object
) -> None:
    attributes = {"namespace": namespace, "neurodata_type": kind, "object_id": str(uuid.uuid4())}
    if about:
        attributes["description"] = about
    item.attrs.update(attributes | more)
