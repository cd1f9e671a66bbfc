"""NWB as converters write it: many sweeps in one series, tables that say where each one lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pynwb
from numpy.typing import NDArray
from pynwb.icephys import CurrentClampSeries, CurrentClampStimulusSeries

from crosspatch.recordings.model import Recording
from tests.features.made_cell import MadeCell, made_recording

#: Steps in pA of a cell whose rheobase is 180 pA.
STEPS = (-100, -60, -20, 20, 60, 100, 140, 180, 220, 260)


def steps_of(
    rate: float = 20_000.0, amplitudes: Sequence[float] = STEPS, **cell: float
) -> Recording:
    """Steps of 1 s: 200 MOhm, 20 ms, rheobase 180 pA."""
    made = MadeCell(**({"resistance": 200.0, "tau": 0.02, "rheobase": 180.0} | cell))
    return made_recording(
        made, amplitudes=tuple(amplitudes), rate=rate, onset=0.3, after=0.6, test_pulse=False
    )


@dataclass
class Run:
    """One protocol with one electrode."""

    electrode: str
    recording: Recording = field(default_factory=steps_of)
    name: str = "steps"  # of the protocol
    gap: float = 0.0  # s between sweeps; with it there are time stamps
    start: float = 0.0  # s
    stimulated: bool = True
    #: Samples that lack at the end of every stimulus, put end to end without them.
    short: int = 0


def write_converted(
    path: Path,
    runs: Sequence[Run],
    *,
    species: str = "Mus musculus",
    together: bool = False,
    cell_ids: Sequence[str] = (),
    compressed: bool = True,
) -> Path:
    """One series for every run, in int16; rows with start and count; the tables above them.

    `together` makes rows of one sweep of all electrodes one simultaneous recording.
    """
    session = pynwb.NWBFile("made", "id", datetime(2026, 1, 1, tzinfo=UTC))
    session.subject = pynwb.file.Subject(subject_id="m1", species=species)
    device = session.create_device("amplifier")
    names = list(dict.fromkeys(run.electrode for run in runs))
    electrodes = {
        name: session.create_icephys_electrode(
            name=name,
            description="Patch-clamp electrode.",
            device=device,
            cell_id=cell_ids[k] if cell_ids else None,
        )
        for k, name in enumerate(names)
    }
    table = session.get_intracellular_recordings()
    for name in ("sequence", "stimulus_type"):
        table.add_column(name=name, description=name)
    sequences: list[list[list[int]]] = []
    for number, run in enumerate(runs):
        rows = _add_run(session, run, number, electrodes[run.electrode], compressed)
        if together and sequences:
            for both, row in zip(sequences[0], rows, strict=True):
                both.append(row)
        else:
            sequences.append([[row] for row in rows])
    for rows_of, run in zip(sequences, runs, strict=False):
        sweeps = [session.add_icephys_simultaneous_recording(recordings=rows) for rows in rows_of]
        session.add_icephys_sequential_recording(
            simultaneous_recordings=sweeps, stimulus_type=run.name
        )
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(session)
    return path


def _add_run(session: Any, run: Run, number: int, electrode: Any, compressed: bool) -> list[int]:
    sweeps = run.recording.sweeps
    rate = sweeps[0].rate
    voltage = np.concatenate([sweep.voltage for sweep in sweeps])
    lengths = [sweep.points for sweep in sweeps]
    ends = [sweep.points - run.short for sweep in sweeps]
    current = np.concatenate([sweep.current[:end] for sweep, end in zip(sweeps, ends, strict=True)])
    starts = run.start + np.cumsum([0, *(sweep.duration + run.gap for sweep in sweeps[:-1])])
    stamps = np.concatenate(
        [start + np.arange(n) / rate for start, n in zip(starts, lengths, strict=True)]
    )
    common: dict[str, Any] = {"electrode": electrode, "gain": np.nan}
    if run.gap:
        common["timestamps"] = stamps
    else:
        common |= {"rate": rate, "starting_time": float(run.start)}
    name = f"{electrode.name}Run{number}"
    response = CurrentClampSeries(
        name=f"CurrentClampSeries{name}",
        data=_stored(voltage, 0.01, compressed),
        conversion=1e-5,
        **common,
    )
    session.add_acquisition(response)
    stimulus = None
    if run.stimulated:
        stimulus = CurrentClampStimulusSeries(
            name=f"CurrentClampStimulusSeries{name}",
            data=_stored(current, 0.1, compressed),
            conversion=1e-13,
            **common,
        )
        session.add_stimulus(stimulus)
    rows = []
    for first, count, other, end in zip(
        np.cumsum([0, *lengths]), lengths, np.cumsum([0, *ends]), ends, strict=False
    ):
        row: dict[str, Any] = {
            "electrode": electrode,
            "response": response,
            "response_start_index": int(first),
            "response_index_count": count,
            "sequence": str(number),
            "stimulus_type": run.name,
        }
        if stimulus is not None:
            row |= {
                "stimulus": stimulus,
                "stimulus_start_index": int(other),
                "stimulus_index_count": end,
            }
        rows.append(session.add_intracellular_recording(**row))
    return rows


def _stored(values: NDArray, step: float, compressed: bool) -> Any:
    raw = np.rint(values / step).astype(np.int16)
    return pynwb.H5DataIO(data=raw, compression="gzip", chunks=(10_000,)) if compressed else raw


@dataclass
class Written:
    """A series as it is to be written."""

    values: NDArray  # mV or pA
    rate: float = 20_000.0
    start: float = 0.0
    stamps: NDArray | None = None
    electrode: str | None = "electrode_0"
    number: int | None = None
    unit: str | None = None  # volts or amperes; another one is written over values in these


def write_series(
    path: Path,
    responses: dict[str, Written],
    stimuli: dict[str, Written],
    *,
    species: str = "Mus musculus",
    clamp: str = "CurrentClamp",
) -> Path:
    """One series for every sweep, in the schema's layout and no more."""
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = "2.7.0"
        file["general/subject/species"] = species
        for place, kind, unit, factor, series in (
            ("acquisition", f"{clamp}Series", "volts", 1e-3, responses),
            ("stimulus/presentation", f"{clamp}StimulusSeries", "amperes", 1e-12, stimuli),
        ):
            file.require_group(place)
            for name, each in series.items():
                group = file.create_group(f"{place}/{name}")
                group.attrs["neurodata_type"] = kind
                if each.number is not None:
                    group.attrs["sweep_number"] = np.uint32(each.number)
                data = group.create_dataset("data", data=(each.values * factor).astype("f4"))
                data.attrs.update({"unit": each.unit or unit, "conversion": 1.0})
                if each.stamps is not None:
                    group["timestamps"] = each.stamps
                else:
                    group["starting_time"] = each.start
                    group["starting_time"].attrs["rate"] = each.rate
                if each.electrode is not None:
                    electrode = f"general/intracellular_ephys/{each.electrode}"
                    file.require_group(electrode)
                    group["electrode"] = h5py.SoftLink("/" + electrode)
    return path
