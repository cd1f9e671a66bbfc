"""Small recordings on disk, for tests of the extraction."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np

from crosspatch.recordings.model import Recording
from tests.features.made_cell import MadeCell, made_recording

#: Few sweeps at a low rate: a file is measured in a tenth of a second.
AMPLITUDES = (-90.0, -50.0, -10.0, 40.0, 60.0, 80.0, 100.0)


def small_recording(number: int = 0, rate: float = 20_000.0) -> Recording:
    """A made cell whose resistance tells it from others."""
    cell = MadeCell(resistance=150.0 + number, rheobase=60)
    return made_recording(cell, amplitudes=AMPLITUDES, rate=rate, onset=0.3, after=0.25)


def write_small(path: Path, number: int = 0, species: str = "Mus musculus") -> Path:
    """Write a made cell as NWB 2, in the schema's layout and no more."""
    recording = small_recording(number)
    temporary = path.with_suffix(".part")
    with h5py.File(temporary, "w") as file:
        file.attrs["nwb_version"] = "2.6.0"
        file["general/subject/species"] = species
        file["general/subject/subject_id"] = f"donor-{number % 5}"
        for sweep in recording.sweeps:
            for place, kind, values, unit in (
                ("acquisition", "CurrentClampSeries", sweep.voltage, "volts"),
                ("stimulus/presentation", "CurrentClampStimulusSeries", sweep.current, "amperes"),
            ):
                end = "AD0" if place == "acquisition" else "DA0"
                group = file.create_group(f"{place}/data_{sweep.number:05d}_{end}")
                group.attrs["neurodata_type"] = kind
                group.attrs["sweep_number"] = np.uint32(sweep.number)
                step = 0.01 if unit == "volts" else 0.1
                data = group.create_dataset("data", data=np.rint(values / step).astype(np.int16))
                data.attrs["unit"] = unit
                data.attrs["conversion"] = step * (1e-3 if unit == "volts" else 1e-12)
                start = group.create_dataset("starting_time", data=0.0)
                start.attrs["rate"] = sweep.rate
    temporary.replace(path)
    return path


def folder_of(folder: Path, cells: int) -> Path:
    """A folder of small recordings; most are links to a few files, which are one cell each."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(cells):
        path = folder / f"cell-{number:04d}.nwb"
        if number < 5:
            write_small(path, number)
        else:
            os.link(folder / f"cell-{number % 5:04d}.nwb", path)
    return folder
