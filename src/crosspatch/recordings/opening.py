"""Open a recording, whatever its format."""

from __future__ import annotations

import stat
from pathlib import Path

from crosspatch.errors import RecordingError
from crosspatch.recordings.model import Recording

#: Endings of files that are taken for recordings when a folder is searched.
RECORDING_SUFFIXES = (".nwb", ".abf")

_HDF5 = b"\x89HDF\r\n\x1a\n"


def open_recording(path: str | Path) -> Recording:
    """Open a current-clamp recording: NWB 2, or ABF 1 or 2.

    The file is opened read-only and its samples are read sweep by sweep when they are asked for.
    The format is told by the first bytes, not by the name.

    Parameters
    ----------
    path : path

    Returns
    -------
    Recording
        Close it, or use it in a ``with`` block.

    Raises
    ------
    RecordingError
        If the file cannot be read, is no recording, or holds no current-clamp sweep.
    """
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():  # a pipe would block
            raise RecordingError(f"{path} is not a regular file; give a file on disk")
        with path.open("rb") as file:
            start = file.read(8)
    except FileNotFoundError as error:
        raise RecordingError(f"{path} does not exist") from error
    except IsADirectoryError as error:
        raise RecordingError(f"{path} is a folder; give a file") from error
    except OSError as error:
        raise RecordingError(f"{path} cannot be opened: {error.strerror or error}") from error
    if not start:
        raise RecordingError(f"{path} is empty (0 bytes)")
    if start[:4] in (b"ABF ", b"ABF2"):
        from crosspatch.recordings.abf import read_abf

        recording = read_abf(path)
    elif start == _HDF5:
        from crosspatch.recordings.nwb import read_nwb

        recording = read_nwb(path)
    else:
        raise RecordingError(
            f"{path} is neither NWB 2 (HDF5) nor ABF: it begins with {start[:4]!r}; "
            "export it as NWB or ABF"
        )
    if not recording.current_clamp:
        recording.close()
        clamps = sorted({sweep.clamp for sweep in recording.sweeps})
        found = f"its {len(recording.sweeps)} sweeps are in {clamps[0]}" if clamps else "no sweeps"
        raise RecordingError(f"{path} has no current-clamp sweep ({found}); nothing to analyse")
    return recording
