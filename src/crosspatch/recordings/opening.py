"""Open a recording, whatever its format."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

from crosspatch.errors import RecordingError
from crosspatch.recordings.gapfree import cut_into_steps
from crosspatch.recordings.hdf5 import LocalBytes
from crosspatch.recordings.model import Recording
from crosspatch.recordings.quality import is_unmeasured
from crosspatch.recordings.reading_options import Reading

#: Endings of files that are taken for recordings when a folder is searched.
RECORDING_SUFFIXES = (".nwb", ".abf")

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def open_recording(
    source: str | Path, reading: Reading | None = None, *, measured_only: bool = False
) -> Recording:
    """Open a current-clamp recording: NWB 2, or ABF 1 or 2.

    The file is opened read-only and its samples are read sweep by sweep when they are asked for.
    The format is told by the first bytes, not by the name.

    Parameters
    ----------
    source : path
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
        return reading.applied(cut_into_steps(_require_current_clamp(recording)))
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
    content = _bytes_of(path)
    start = content.read_at(0, len(HDF5_SIGNATURE))
    if start == HDF5_SIGNATURE:
        from crosspatch.recordings.nwb import read_nwb

        return read_nwb(content, str(path), unwanted, reading)
    content.close()
    if not start:
        raise RecordingError(f"{path} is empty (0 bytes)")
    if start[:4] in (b"ABF ", b"ABF2"):
        from crosspatch.recordings.abf import read_abf

        return read_abf(path, reading)
    raise RecordingError(
        f"{path} is neither NWB 2 (HDF5) nor ABF: it begins with {start[:4]!r}; "
        "export it as NWB or ABF"
    )


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
