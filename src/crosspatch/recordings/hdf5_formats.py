"""HDF5 files of WaveSurfer and Stimfit, through h5py and the guards against damage of NWB."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from crosspatch.errors import RecordingError, in_words
from crosspatch.recordings.hdf5 import Closing, GuardedFile, LocalBytes
from crosspatch.recordings.model import Recorded, Recording, Samples, to_seconds
from crosspatch.recordings.signals import Episode, InputSignal, OpenedSignals, recordings_of

if TYPE_CHECKING:
    from crosspatch.recordings.reading_options import Reading

#: Bytes of a table or text.
_MOST_ABOUT = 1 << 20
_MAX_POINTS = 200_000_000


def is_other_hdf5(path: Path) -> bool:
    """Whether WaveSurfer or Stimfit wrote an HDF5 file; False where it cannot be told."""
    try:
        with h5py.File(GuardedFile(LocalBytes(path)), "r") as file:
            return _program(file) is not None
    except (OSError, RuntimeError, ValueError, KeyError):
        return False


def read_hdf5(path: Path, reading: Reading) -> list[Recording]:
    """Open a file of WaveSurfer or Stimfit; a `RecordingError` if it is damaged."""
    with ExitStack() as opened:
        try:
            source = opened.enter_context(GuardedFile(LocalBytes(path)))
            file = opened.enter_context(h5py.File(source, "r"))
            program = _program(file)
            if program is None:
                raise ValueError("neither WaveSurfer nor Stimfit wrote it")
            recordings = recordings_of(program(path, file), reading)
        except RecordingError:
            raise
        except Exception as error:  # h5py raises many kinds for damaged groups
            raise RecordingError(f"{path} is a damaged HDF5 file: {in_words(error)}") from error
        close = Closing(opened.pop_all().close, len(recordings))
        return [replace(each, close_file=close.once()) for each in recordings]


def _program(file: h5py.File) -> Callable[[Path, h5py.File], OpenedSignals] | None:
    if "nwb_version" in file.attrs:
        return None
    if "header" in file and any(name.startswith("sweep_") for name in file):
        return _wavesurfer
    if "channels" in file and "comment" in file and "description" in file:
        return _stimfit
    return None


def _wavesurfer(path: Path, file: h5py.File) -> OpenedSignals:
    header = _member(file, "header")
    if "AIChannelNames" not in header:  # before version 0.9x its parts lay deeper
        header = _member(header, "Acquisition")

    def of(*names: str) -> Any:
        return _small(next(_member(header, name) for name in names if name in header))

    active = np.ravel(of("IsAIChannelActive", "IsAnalogChannelActive")).astype(bool)
    names = np.array(_texts(of("AIChannelNames", "AnalogChannelNames")))[active]
    units = np.array(_texts(of("AIChannelUnits", "AnalogChannelUnits")))[active]
    scales = np.ravel(of("AIChannelScales", "AnalogChannelScales")).astype(float)[active]
    places = ("AcquisitionSampleRate", "SampleRate")
    rate = float(np.ravel(of(*places))[0])
    coefficients = _coefficients(header, int(active.sum()))
    episodes = []
    for name in sorted(file):
        number = re.fullmatch(r"sweep_(\d+)", name)
        if number is None:
            continue
        sweep = _member(file, name)
        if "analogScans" not in sweep:
            continue
        scans = _samples_of(_member(sweep, "analogScans"), 2, len(names))
        signals = [
            InputSignal(
                str(names[k]),
                str(units[k]),
                rate,
                int(scans.shape[1]),
                partial(_scaled, scans, k, coefficients[:, k], float(scales[k])),
            )
            for k in range(len(names))
        ]
        episodes.append(Episode(int(number.group(1)), tuple(signals)))
    about = _member(file, "header")
    version = "".join(_texts(of("VersionString"))) if "VersionString" in about else ""
    clock = _clock(of("ClockAtRunStart")) if "ClockAtRunStart" in header else None
    return OpenedSignals(
        path, path.stem, f"WaveSurfer {version}".strip(), episodes, Recorded(session=clock)
    )


def _coefficients(header: h5py.Group, count: int) -> np.ndarray:
    """Polynomials from stored numbers to volts at the input, shape (terms, inputs), rising."""
    for name in ("AIScalingCoefficients", "AnalogScalingCoefficients"):
        if name in header:
            # h5py gives what MATLAB wrote as (terms, inputs) the other way round.
            return np.reshape(_small(_member(header, name)), (count, -1)).astype(float).T
    raise ValueError("it does not say how its numbers are scaled")


def _scaled(scans: h5py.Dataset, k: int, coefficients: np.ndarray, scale: float) -> Samples:
    raw = scans[k].astype(np.float64)
    if scans.dtype.kind == "f":  # scaled when it was written
        return raw
    return np.polynomial.polynomial.polyval(raw, coefficients) / scale


def _clock(parts: Any) -> str | None:
    try:
        year, month, day, hour, minute, second = np.ravel(parts).tolist()
        whole = (int(each) for each in (year, month, day, hour, minute, second))
        return datetime(*whole).isoformat()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _stimfit(path: Path, file: h5py.File) -> OpenedSignals:
    channels = _member(file, "channels")
    names = ["".join(_texts(_small(_member(channels, f"ch{k}")))) for k in range(len(channels))]
    sweeps: dict[int, list[InputSignal]] = {}
    for name in names:
        for number, section in _sections(_member(file, name)):
            about = _small(_member(section, "description")).ravel()[0]
            of_time = _text(about["xunits"]) or "ms"
            interval = float(about["dt"]) * (to_seconds(of_time) or float("nan"))
            data = _samples_of(_member(section, "data"), 1)
            rate = 1 / interval if interval > 0 else float("nan")
            read = partial(_all, data)
            signal = InputSignal(name, _text(about["yunits"]), rate, int(data.shape[0]), read)
            sweeps.setdefault(number, []).append(signal)
    when = _small(_member(file, "description")).ravel()[0]
    session = "T".join(filter(None, (_text(when["date"]), _text(when["time"]))))
    episodes = [Episode(number, tuple(signals)) for number, signals in sorted(sweeps.items())]
    return OpenedSignals(path, path.stem, "Stimfit", episodes, Recorded(session=session or None))


def _sections(channel: h5py.Group) -> Iterator[tuple[int, h5py.Group]]:
    for name in channel:
        number = re.fullmatch(r"section_(\d+)", name)
        if number:
            yield int(number.group(1)), _member(channel, name)


def _member(group: h5py.Group, name: str) -> Any:
    """What a group has under a name, which must lie in this file."""
    if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
        raise ValueError(f"{name} lies in another file, which is not followed")
    return group[name]


def _all(data: h5py.Dataset) -> Samples:
    return data[()]


def _samples_of(data: h5py.Dataset, dimensions: int, inputs: int = 1) -> h5py.Dataset:
    """A dataset of samples whose size the file can hold; a ValueError if it cannot."""
    if data.ndim != dimensions or data.dtype.kind not in "iuf" or data.is_virtual or data.external:
        raise ValueError(f"{data.name} has shape {data.shape} and type {data.dtype}")
    if dimensions == 2 and data.shape[0] != inputs:
        raise ValueError(f"{data.name} has {data.shape[0]} inputs, {inputs} are active")
    # Deflate reaches a thousandth, so less was never stored.
    if data.size > _MAX_POINTS or data.nbytes > 5000 * max(data.id.get_storage_size(), 1):
        raise ValueError(f"{data.name} has {data.size:,} samples, which are not in the file")
    return data


_PLAIN = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM)


def _small(data: h5py.Dataset) -> Any:
    """All of a dataset that describes; HDF5 brings the process down over some damaged types."""
    kind = data.id.get_type()
    members = (
        [kind.get_member_type(k) for k in range(kind.get_nmembers())]
        if kind.get_class() == h5py.h5t.COMPOUND
        else [kind]
    )
    if any(each.get_class() not in _PLAIN for each in members):
        raise ValueError(f"{data.name} is neither number nor text")
    if (data.size or 0) * kind.get_size() > _MOST_ABOUT:
        raise ValueError(f"{data.name} has {data.size:,} entries")
    return data[()]


def _texts(value: Any) -> list[str]:
    return [_text(each) for each in np.ravel(np.asarray(value)).tolist()]


def _text(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.split("\0", 1)[0].strip()
