"""Stimulus files, which the outputs of an ABF file may name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PureWindowsPath

import numpy as np

from crosspatch.recordings.abf_header import read_header
from crosspatch.recordings.model import Samples
from crosspatch.recordings.text import AxonText, name_and_unit

_kept_to_the_file = False


def keep_to_the_file() -> None:
    """From now on follow no file that another one names: files come from other people."""
    global _kept_to_the_file
    _kept_to_the_file = True


@dataclass(frozen=True)
class StimulusFile:
    """A file that holds a waveform."""

    path: str  # as the recording has it
    folder: Path  # of the recording
    scale: float
    offset: float
    sweep: int  # counted from 1; 0 stands for one after the other

    @property
    def name(self) -> str:
        """Without its folder."""
        return PureWindowsPath(self.path).name

    def read(self) -> tuple[Samples, str]:
        """Its sweeps, shape (sweeps, points), and their unit; a ValueError if it cannot be read."""
        if _kept_to_the_file:
            raise ValueError("it lies in another file, which is not followed")
        places = (Path(self.path), self.folder / self.name)
        found = next((place for place in places if self.name and place.is_file()), None)
        if found is None:
            raise ValueError(f"its stimulus file {self.name or 'without a name'} was not found")
        if self.scale == 0:
            raise ValueError(f"its stimulus file {self.name} is scaled by 0")
        read = _read_abf if found.suffix.lower() == ".abf" else _read_atf
        return read(found, found.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read_abf(path: Path, _changed: int) -> tuple[Samples, str]:
    header = read_header(path)
    if len(header.inputs) != 1:
        raise ValueError(f"its stimulus file {path.name} has {len(header.inputs)} channels")
    if len({points for _, points in header.bounds}) > 1:
        raise ValueError(f"the sweeps of its stimulus file {path.name} differ in length")
    sweeps = [header.read(0, sweep) for sweep in range(header.sweeps)]
    return np.array(sweeps), header.inputs[0].unit


@lru_cache(maxsize=1)
def _read_atf(path: Path, _changed: int) -> tuple[Samples, str]:
    content = path.read_bytes()
    if not content.startswith(b"ATF"):
        raise ValueError(f"its stimulus file {path.name} is not Axon text (ATF)")
    table = AxonText.of(content)
    signals = {name.strip('"') for name in table.header.get("Signals", "").split("\t")}
    if len(signals) > 1:
        raise ValueError(f"its stimulus file {path.name} has several signals")
    units = [unit for _, unit in map(name_and_unit, table.titles[1:])]
    return table.values.T[1:], next(filter(None, units), "")
