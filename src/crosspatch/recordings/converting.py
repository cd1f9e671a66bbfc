"""Recordings of any format that is read become one NWB 2 file with the icephys tables."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

import numpy as np

from crosspatch.errors import RecordingError
from crosspatch.recordings.model import Recording, Samples, Sweep
from crosspatch.recordings.nwb_writer import (
    ElectrodeNotes,
    SessionNotes,
    Storage,
    WrittenSweep,
    as_floats,
    write_nwb,
)
from crosspatch.recordings.opening import open_recordings
from crosspatch.recordings.reading_options import Reading
from crosspatch.recordings.stimuli import Stimulus, recognise, remarks
from crosspatch.species import require_species

_STORAGE = Storage(level=4, response=as_floats, sweep_table=False)
_AGE = re.compile(r"P\d+(\.\d+)?[YMWD]|P(\d+Y)?(\d+M)?(\d+D)?(T.+)?")


@dataclass(frozen=True)
class Donor:
    """What the user says of the animal or person, and when it was recorded; it wins over files."""

    species: str | None = None
    subject: str | None = None  # its name
    age: str | None = None  # ISO 8601 duration: P60D, P34Y
    sex: str | None = None  # M, F, U or O
    session_start: str | None = None  # ISO 8601, with time zone or in local time

    def __post_init__(self) -> None:
        require_species(self.species)
        if self.age is not None and not (_AGE.fullmatch(self.age) and self.age != "P"):
            problem = f"age {self.age}: not understood"
            raise RecordingError(problem, "write P60D for 60 days, P34Y for 34 years")
        if self.sex not in (None, "M", "F", "U", "O"):
            raise RecordingError(f"sex {self.sex}: not understood", "write M, F, U or O")
        if self.session_start is not None and _when(self.session_start) is None:
            raise RecordingError(
                f"session start {self.session_start}: not understood",
                "write 2024-01-15T14:30 or 2024-01-15T14:30+01:00",
            )


@dataclass(frozen=True)
class Converted:
    """What was written."""

    sweeps: int
    electrodes: int
    missing: tuple[str, ...]  # parameters of what an archive asks for and nobody said
    left_out: tuple[str, ...]  # sweeps that could not be read, and why


def convert_recordings(
    sources: Sequence[str | Path],
    out: str | Path,
    donor: Donor | None = None,
    reading: Reading | None = None,
) -> Converted:
    """Write recordings, one cell each, as one NWB 2 file with an electrode for every cell.

    A `RecordingError` if one cannot be read, they are of several donors, nobody says when they were
    recorded, or the file cannot be written or is there already.
    """
    out, donor = Path(out), donor or Donor()
    _require_free(out)
    with ExitStack() as opened:
        recordings = [
            _as_it_flowed(opened.enter_context(cell))
            for each in sources
            for cell in open_recordings(each, reading)
        ]
        starts = [_when(each.recorded.session or "") for each in recordings]
        notes = _notes(recordings, starts, donor)
        left_out = [
            f"{each.cell_id}, {name}: {reason}"
            for each in recordings
            for name, reason in each.unreadable.items()
        ]
        written = []

        def sweeps() -> Iterator[WrittenSweep]:
            for each in _sweeps(recordings, starts, left_out):
                written.append(each.electrode)
                yield each

        write_nwb(out, notes, sweeps(), _STORAGE)
    known = {"species": notes.species, "subject": notes.donor, "age": notes.age, "sex": notes.sex}
    missing = tuple(name for name, value in known.items() if value is None)
    return Converted(len(written), len(set(written)), missing, tuple(left_out))


def _as_it_flowed(cell: Recording) -> Recording:
    """A cell with the measured currents where they count, and none where it is not known which."""
    if not any(sweep.read_monitor for sweep in cell.current_clamp):
        return cell
    try:
        stimuli = recognise(cell)
    except RecordingError:
        return cell
    sweeps = tuple(_that_flowed(sweep, stimuli.get(sweep.number)) for sweep in cell.sweeps)
    return replace(cell, sweeps=sweeps, notes=(*cell.notes, *remarks(stimuli)))


def _that_flowed(sweep: Sweep, stimulus: Stimulus | None) -> Sweep:
    if stimulus is None or stimulus.by_monitor is False or not sweep.in_current_clamp:
        return sweep
    return replace(sweep, read_current=sweep.read_monitor if stimulus.by_monitor else None)


def _require_free(out: Path) -> None:
    if out.suffix.lower() != ".nwb":
        raise RecordingError(f"{out} is not a name for NWB", "end it with .nwb")
    if out.exists():
        raise RecordingError(f"{out} exists", "give another name, or remove it")


def _when(text: str) -> datetime | None:
    """A date and time, in local time where it has no zone."""
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError, OSError):
        return None


def _one(what: str, said: Iterable[str | None], parameter: str) -> str | None:
    """What all recordings say that say it; a `RecordingError` if they do not agree."""
    known = {each for each in said if each}
    if len(known) > 1:
        raise RecordingError(
            f"the recordings are of several {what}: {', '.join(sorted(known))}",
            f"write a file for each, or say which with {{{parameter}}}",
        )
    return next(iter(known), None)


def _start(
    recordings: Sequence[Recording], starts: Sequence[datetime | None], donor: Donor
) -> datetime:
    """When the session began: as the user says, else the first recording."""
    known = [each for each in starts if each is not None]
    start = _when(donor.session_start) if donor.session_start else min(known, default=None)
    if start is None:
        first = recordings[0].name
        raise RecordingError(f"{first} does not say when it was recorded", "give {session_start}")
    return start


def _electrode(cell: Recording) -> ElectrodeNotes:
    about, recorded = f"whole-cell electrode of cell {cell.cell_id}", cell.recorded
    return ElectrodeNotes(
        cell.cell_id, about, recorded.seal, recorded.access_resistance, recorded.location
    )


def _notes(
    recordings: Sequence[Recording], starts: Sequence[datetime | None], donor: Donor
) -> SessionNotes:
    start = _start(recordings, starts, donor)
    decided = [f"{each.cell_id}: {note}" for each in recordings for note in each.notes]
    species = (each.recorded.species for each in recordings)
    donors = (each.recorded.donor for each in recordings)
    files = ", ".join(f"{Path(each.name).name} ({each.format})" for each in recordings)
    simulated = all(each.recorded.simulated for each in recordings)
    return SessionNotes(
        identifier=str(uuid.uuid4()),
        description=f"{'Simulated' if simulated else 'Patch-clamp'} recording, converted by "
        f"crosspatch {version('crosspatch')} from {files}",
        start=start,
        species=donor.species or _one("species", species, "species"),
        donor=donor.subject or _one("donors", donors, "subject"),
        sex=donor.sex,
        age=donor.age,
        electrodes=tuple(map(_electrode, recordings)),
        device="patch-clamp amplifier; the file that was converted does not say which",
        keywords=("patch-clamp", *(("simulated",) if simulated else ())),
        notes="\n".join([*decided, "The sweeps follow one another: when each began was not kept."]),
    )


def _sweeps(
    recordings: Sequence[Recording], starts: Sequence[datetime | None], left_out: list[str]
) -> Iterator[WrittenSweep]:
    """All sweeps; where a file does not say when each began, one after another.

    Of the cells of one file, sweeps of the same number were recorded at the same time.
    """
    clock, last = 0.0, 0.0
    numbers = [sweep.number for sweep in recordings[0].sweeps]
    begun, kept = _begun(starts), len(recordings) == 1 and len(set(numbers)) == len(numbers)
    for _, cells in groupby(enumerate(recordings), key=lambda each: each[1].name):
        of_file = list(cells)
        clock = max(clock, begun[of_file[0][0]])
        before: int | None = None
        for sweep, electrode in _in_order(of_file):
            together = len(of_file) > 1 and sweep.number == before
            try:
                written = _written(sweep, last if together else clock)
            except RecordingError as error:
                cell_id = recordings[electrode].cell_id
                left_out.append(f"{cell_id}, sweep {sweep.number}: {error.message}")
                continue
            own = sweep.number if kept else None
            yield replace(written, electrode=electrode, simultaneous=together, number=own)
            if not together:
                before, last = sweep.number, clock
                clock += sweep.duration


def _begun(starts: Sequence[datetime | None]) -> list[float]:
    """By how many s recordings began after the first; 0 where that is not known."""
    known = [each for each in starts if each is not None]
    return [0.0 if each is None else (each - min(known)).total_seconds() for each in starts]


def _in_order(cells: Sequence[tuple[int, Recording]]) -> list[tuple[Sweep, int]]:
    """The sweeps of the cells of one file, and their electrodes; of several cells by number."""
    sweeps = [(sweep, place) for place, cell in cells for sweep in cell.sweeps]
    if len(cells) > 1:
        sweeps.sort(key=lambda each: (each[0].number, each[1]))
    return sweeps


def _written(sweep: Sweep, start: float) -> WrittenSweep:
    """A sweep with its samples; a `RecordingError` if its response cannot be read."""
    current = _samples(sweep.read_current, required=not sweep.in_current_clamp)
    voltage = _samples(sweep.read_voltage, required=sweep.in_current_clamp)
    return WrittenSweep(
        description=sweep.description or "not said",
        current=current,
        voltage=voltage,
        rate=sweep.rate,
        start=start,
        bridge_balance=sweep.bridge_balance,
        bias_current=sweep.bias_current,
        clamp=sweep.clamp,
    )


def _samples(read: Callable[[], Samples] | None, *, required: bool) -> Samples:
    if read is None:
        return np.zeros(0)
    try:
        return read()
    except RecordingError:
        if required:
            raise
        return np.zeros(0)
