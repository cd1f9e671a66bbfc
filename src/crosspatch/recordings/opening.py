"""Open a recording, whatever its format."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

from crosspatch.errors import RecordingError
from crosspatch.recordings.dandi import Asset
from crosspatch.recordings.hdf5 import LocalBytes
from crosspatch.recordings.model import Recording
from crosspatch.recordings.quality import is_unmeasured
from crosspatch.web import Web

#: Endings of files that are taken for recordings when a folder is searched.
RECORDING_SUFFIXES = (".nwb", ".abf")

_HDF5 = b"\x89HDF\r\n\x1a\n"


def open_recording(
    source: str | Path | Asset,
    *,
    measured_only: bool = False,
    verified: bool = False,
    web: Web | None = None,
) -> Recording:
    """Open a current-clamp recording: NWB 2, or ABF 1 or 2.

    The file is opened read-only and its samples are read sweep by sweep when they are asked for.
    The format is told by the first bytes, not by the name. Of a file of the DANDI archive only
    the bytes that are used are fetched.

    Parameters
    ----------
    source : path or Asset
    measured_only : bool
        Whether sweeps that are never measured are left out of NWB files: by their names noise,
        chirps and the like, and in voltage clamp all but the tests of the seal and the access.
    verified : bool
        Whether a file of the archive is fetched whole and compared with its checksums first.
    web : Web, optional
        For files of the archive; counts what comes.

    Returns
    -------
    Recording
        Close it, or use it in a ``with`` block.

    Raises
    ------
    RecordingError
        If the file cannot be read, is no recording, or holds no current-clamp sweep.
    NetworkError
        If a file of the archive cannot be had; a `crosspatch.recordings.nwb.DoubtfulBytesError`
        if it looks damaged, which `verified` settles.
    """
    unwanted = is_unmeasured if measured_only else None
    if isinstance(source, Asset):
        recording = _open_asset(source, unwanted, verified, web)
    else:
        recording = _open_file(Path(source), unwanted)
    if not recording.current_clamp:
        recording.close()
        wanted, found = "current-clamp sweep", "no sweeps"
        if recording.left_out:
            wanted += " that is measured"
            found = f"its {recording.left_out} sweeps are noise, chirps or the like"
        elif recording.sweeps:
            clamp = min(sweep.clamp for sweep in recording.sweeps)
            found = f"its {len(recording.sweeps)} sweeps are in {clamp}"
        raise RecordingError(f"{recording.name} has no {wanted} ({found}); nothing to analyse")
    return recording


def _open_asset(
    asset: Asset,
    unwanted: Callable[[str, str], bool] | None,
    verified: bool,
    web: Web | None,
) -> Recording:
    from crosspatch.recordings.nwb import DoubtfulBytesError, read_nwb
    from crosspatch.recordings.remote import RemoteBytes

    content = RemoteBytes(asset, verified=verified, web=web)
    try:
        start = content.read_at(0, len(_HDF5))
        if start != _HDF5:
            if content.doubtful():
                raise DoubtfulBytesError(f"{asset} begins with {start!r}")
            raise RecordingError(f"{asset} is no NWB 2 (HDF5) file: it begins with {start!r}")
        recording = read_nwb(content, str(asset), unwanted)
    except BaseException:
        content.close()
        raise
    return recording


def _open_file(path: Path, unwanted: Callable[[str, str], bool] | None) -> Recording:
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

        return read_abf(path)
    if start == _HDF5:
        from crosspatch.recordings.nwb import read_nwb

        try:
            content = LocalBytes(path)
        except OSError as error:
            raise RecordingError(f"{path} cannot be opened: {error.strerror or error}") from error
        return read_nwb(content, str(path), unwanted)
    raise RecordingError(
        f"{path} is neither NWB 2 (HDF5) nor ABF: it begins with {start[:4]!r}; "
        "export it as NWB or ABF"
    )
