"""Open a recording, whatever its format."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

from crosspatch.errors import RecordingError
from crosspatch.recordings.formats import (
    FIRST_BYTES,
    HDF5_SIGNATURE,
    format_of,
    format_of_folder,
    read_with,
    refused,
)
from crosspatch.recordings.hdf5 import LocalBytes
from crosspatch.recordings.model import Recording
from crosspatch.recordings.quality import is_unmeasured
from crosspatch.recordings.reading_options import Reading


def open_recording(
    source: str | Path, reading: Reading | None = None, *, measured_only: bool = False
) -> Recording:
    """Open a current-clamp recording: NWB 2, ABF 1 or 2, or another format of docs/recordings.md.

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
        If the file cannot be read, is not a recording, or holds no current-clamp sweep.

    Examples
    --------
    >>> import crosspatch
    >>> with crosspatch.open_recording("simulated/sim-human-0001.nwb") as recording:
    ...     sweep = recording.current_clamp[0]
    ...     recording.cell_id, sweep.rate, sweep.voltage.dtype
    ('sim-human-0001', 50000.0, dtype('float64'))
    """
    unwanted = is_unmeasured if measured_only else None
    reading = reading or Reading()
    return as_read(_open_file(Path(source), reading, unwanted), reading)


def as_read(recording: Recording, reading: Reading) -> Recording:
    """An opened recording with what its reading adds.

    If nothing in it can be measured, or the step does not fit, it is closed: a `RecordingError`.
    """
    try:
        return reading.applied(_require_current_clamp(recording))
    except RecordingError:
        recording.close()
        raise


def _require_current_clamp(recording: Recording) -> Recording:
    if not recording.current_clamp:
        wanted, found = "current-clamp sweep", "no sweeps"
        if recording.left_out:
            wanted += " that is measured"
            found = f"its {recording.left_out} sweeps are noise, chirps or the like"
        elif recording.sweeps:
            clamp = min(sweep.clamp for sweep in recording.sweeps)
            found = f"its {len(recording.sweeps)} sweeps are in {clamp}"
        raise RecordingError(f"{recording.name} has no {wanted} ({found}); nothing to analyse")
    return recording


def _open_file(
    path: Path, reading: Reading, unwanted: Callable[[str, str], bool] | None
) -> Recording:
    if path.is_dir() and (found := format_of_folder(path)):
        return read_with(found, path, reading)
    content = _bytes_of(path)
    start = content.read_at(0, FIRST_BYTES)
    if start.startswith(HDF5_SIGNATURE) and not _is_other_hdf5(path):
        from crosspatch.recordings.nwb import read_nwb

        return read_nwb(content, str(path), unwanted, reading)
    content.close()
    if not start:
        raise RecordingError(f"{path} is empty (0 bytes)")
    found = format_of(path, start)
    if found is None or not found.is_read:
        raise refused(path, start, found)
    return read_with(found, path, reading)


def _is_other_hdf5(path: Path) -> bool:
    """Whether an HDF5 file is of another program, which is looked up where it is not named NWB."""
    if path.suffix.lower() == ".nwb":
        return False
    from crosspatch.recordings.hdf5_formats import is_other_hdf5

    return is_other_hdf5(path)


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
