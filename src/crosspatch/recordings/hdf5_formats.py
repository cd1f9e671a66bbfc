"""HDF5 files of WaveSurfer and Stimfit, through h5py and the guards against damage of NWB."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from crosspatch.errors import RecordingError, in_words
from crosspatch.recordings.model import Recorded, Recording, Samples, to_seconds
from crosspatch.recordings.nwb_series import content_of
from crosspatch.recordings.signals import Episode, InputSignal, OpenedSignals, recordings_of

if TYPE_CHECKING:
    from crosspatch.recordings.reading_options import Reading

_MAX_POINTS = 200_000_000


def read_others(path: str, file: h5py.File, reading: Reading) -> list[Recording]:
    """The cells of an open HDF5 file that WaveSurfer or Stimfit wrote; none if neither did."""
    program = None
    with suppress(OSError, RuntimeError, ValueError, KeyError):  # what is wrong is said elsewhere
        program = _program(file)
    if program is None:
        return []
    try:
        return recordings_of(program(Path(path), file), reading)
    except RecordingError:
        raise
    except Exception as error:  # h5py raises many kinds for damaged groups
        raise RecordingError(f"{path} is a damaged HDF5 file: {in_words(error)}") from error


def _program(file: h5py.File) -> Callable[[Path, h5py.File], OpenedSignals] | None:
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
        return content_of(next(_member(header, name) for name in names if name in header))

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
            return np.reshape(content_of(_member(header, name)), (count, -1)).astype(float).T
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
    names = ["".join(_texts(content_of(_member(channels, f"ch{k}")))) for k in range(len(channels))]
    sweeps: dict[int, list[InputSignal]] = {}
    for name in names:
        for number, section in _sections(_member(file, name)):
            about = content_of(_member(section, "description")).ravel()[0]
            of_time = _text(about["xunits"]) or "ms"
            interval = float(about["dt"]) * (to_seconds(of_time) or float("nan"))
            data = _samples_of(_member(section, "data"), 1)
            rate = 1 / interval if interval > 0 else float("nan")
            read = partial(_all, data)
            signal = InputSignal(name, _text(about["yunits"]), rate, int(data.shape[0]), read)
            sweeps.setdefault(number, []).append(signal)
    when = content_of(_member(file, "description")).ravel()[0]
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


def _texts(value: Any) -> list[str]:
    return [_text(each) for each in np.ravel(np.asarray(value)).tolist()]


def _text(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.split("\0", 1)[0].strip()
