"""Open a recording, whatever its format."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from crosspatch.errors import RecordingError
from crosspatch.recordings.cell_quality import is_unmeasured
from crosspatch.recordings.formats import (
    FIRST_BYTES,
    HDF5_SIGNATURE,
    Format,
    format_of,
    format_of_folder,
    read_with,
    refused,
)
from crosspatch.recordings.gapfree import cut_into_steps
from crosspatch.recordings.hdf5 import LocalBytes
from crosspatch.recordings.model import Recording
from crosspatch.recordings.reading_options import Reading

if TYPE_CHECKING:
    from crosspatch.recordings.nwb_series import Unwanted


def open_recording(
    source: str | Path, reading: Reading | None = None, *, measured_only: bool = False
) -> Recording:
    """Open a current-clamp recording of one cell: NWB 2, ABF, or a format of docs/recordings.md.

    The file is opened read-only and its samples are read sweep by sweep when they are asked for.
    The format is told by the first bytes, not by the name, where they tell it.

    Parameters
    ----------
    source : path
        A file; or a folder of Igor waves (.ibw), which is one cell.
    reading : Reading, optional
        What the file does not say, or says wrong.
    measured_only : bool
        Whether sweeps that are never measured are left out of NWB files: by their names noise,
        chirps and the like, and in voltage clamp all but the tests of the seal and the access.

    Returns
    -------
    Recording
        Close it, or use it in a ``with`` block.

    Raises
    ------
    RecordingError
        If the file cannot be read, is not a recording, holds no current-clamp sweep, or holds
        several cells.

    Examples
    --------
    >>> import crosspatch
    >>> with crosspatch.open_recording("simulated/sim-human-0001.nwb") as recording:
    ...     sweep = recording.current_clamp[0]
    ...     recording.cell_id, sweep.rate, sweep.voltage.dtype
    ('sim-human-0001', 50000.0, dtype('float64'))
    """
    return only(open_recordings(source, reading, measured_only=measured_only))


def open_recordings(
    source: str | Path, reading: Reading | None = None, *, measured_only: bool = False
) -> list[Recording]:
    """Open a file, one recording for each of its cells; else as `open_recording`."""
    unwanted = is_unmeasured if measured_only else None
    reading = reading or Reading()
    return as_read(_open_file(Path(source), reading, unwanted), reading)


def only(recordings: list[Recording]) -> Recording:
    """The recording of a file of one cell; else all are closed: a `RecordingError`."""
    if len(recordings) == 1:
        return recordings[0]
    close_all(recordings)
    raise several_cells(recordings[0].name, (each.electrode for each in recordings))


def several_cells(name: str, electrodes: Iterable[str | None]) -> RecordingError:
    """What is raised where one cell is wanted of a file of several, by their electrodes."""
    names = [str(each) for each in electrodes]
    return RecordingError(
        f"{name} holds {len(names)} cells (electrodes {', '.join(names)})",
        hint="give the name of one with {electrode}",
    )


def close_all(recordings: Iterable[Recording]) -> None:
    """Close the recordings of a file."""
    for each in recordings:
        each.close()


def as_read(recordings: list[Recording], reading: Reading) -> list[Recording]:
    """The cells of an opened file in which something can be measured, with what a reading adds.

    If there is none, or the step does not fit, all are closed: a `RecordingError`.
    """
    found = [each for each in recordings if each.current_clamp]
    try:
        if not found:
            raise _nothing_in(recordings[0])
        applied = [reading.applied(cut_into_steps(each)) for each in found]
    except RecordingError:
        close_all(recordings)
        raise
    close_all(each for each in recordings if each not in found)
    return applied


def _nothing_in(recording: Recording) -> RecordingError:
    wanted, found, hint = "current-clamp sweep", "no sweeps", ""
    if recording.left_out:
        wanted += " that is measured"
        found = f"its {recording.left_out} sweeps are noise, chirps or the like"
    elif recording.sweeps:
        clamp = min(sweep.clamp for sweep in recording.sweeps)
        found = f"its {len(recording.sweeps)} sweeps are in {clamp}"
        hint = "where the file says that wrong, give {clamp} current"
    return RecordingError(f"{recording.name} has no {wanted} ({found}); nothing to analyse", hint)


def _open_file(path: Path, reading: Reading, unwanted: Unwanted | None) -> list[Recording]:
    if path.is_dir() and (found := format_of_folder(path)):
        return read_with(found, path, reading)
    told = _told(path)
    if isinstance(told, Format):
        return read_with(told, path, reading)
    from crosspatch.recordings.nwb import read_nwb

    return read_nwb(told, str(path), unwanted, reading)


def species_of_file(path: Path) -> str | None:
    """What a file says the species is, read and nothing else; any exception if it is damaged."""
    found = None if path.is_dir() else _told(path)
    if found is None or isinstance(found, Format):
        return None  # it has no place for it
    from crosspatch.recordings.nwb import species_in_nwb

    return species_in_nwb(found)


def _told(path: Path) -> Format | LocalBytes:
    """The format of a file, or its content if it is HDF5; a `RecordingError` if it is not read."""
    content = _bytes_of(path)
    start = content.read_at(0, FIRST_BYTES)
    if start.startswith(HDF5_SIGNATURE):
        return content
    content.close()
    if not start:
        raise RecordingError(f"{path} is empty (0 bytes)")
    found = format_of(path, start)
    if found is None or not found.is_read:
        raise refused(path, start, found)
    return found


def _bytes_of(path: Path) -> LocalBytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():  # a pipe would block
            raise RecordingError(f"{path} is not a regular file; give a file on disk")
        return LocalBytes(path)
    except FileNotFoundError as error:
        raise RecordingError(f"{path} does not exist") from error
    except IsADirectoryError as error:
        raise RecordingError(f"{path} is a folder; give a file") from error
    except OSError as error:
        raise RecordingError(f"{path} cannot be opened: {error.strerror or error}") from error
