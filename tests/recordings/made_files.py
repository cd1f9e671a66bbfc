"""Small valid recordings of a made-up cell, as NWB in several layouts, ABF 1 and ABF 2."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

RATE = 10_000
REST = -70.0
RESISTANCE = 0.2  # GOhm
STEPS = (-100, -60, -20, 60, 140, 180)


@dataclass
class MadeSweep:
    """Current in pA and voltage in mV at `rate` Hz."""

    current: NDArray[np.float64]
    voltage: NDArray[np.float64]
    rate: float = RATE
    description: str = ""
    clamp: str = "CurrentClamp"


def step(
    amplitude: float, start: float = 0.2, length: float = 0.4, after: float = 0.3, rate: int = RATE
) -> NDArray[np.float64]:
    current = np.zeros(round((start + length + after) * rate))
    current[round(start * rate) : round((start + length) * rate)] = amplitude
    return current


def respond(current: NDArray[np.float64], rate: int = RATE, seed: int = 0) -> NDArray[np.float64]:
    """A leaky integrator whose spikes are drawn in, with a little noise."""
    spike = np.concatenate(
        [
            np.linspace(-45, 35, round(4e-4 * rate), endpoint=False),
            np.linspace(35, -62, round(1e-3 * rate)),
            np.full(round(2e-3 * rate), -62.0),
        ]
    )
    voltage = np.empty(len(current))
    v, k, decay = REST, 0, np.exp(-1 / (0.015 * rate))
    while k < len(current):
        v = REST + (v - REST) * decay + RESISTANCE * current[k] * (1 - decay)
        if v > -46:
            part = spike[: len(current) - k]
            voltage[k : k + len(part)] = part
            k, v = k + len(part), -62.0
            continue
        voltage[k] = v
        k += 1
    return voltage + np.random.default_rng(seed).normal(0, 0.03, len(current))


def cell(steps: Sequence[float] = STEPS, rate: int = RATE) -> list[MadeSweep]:
    """Long squares, two short squares and a ramp, all after a test pulse."""
    commands = [(step(amplitude, rate=rate), "C1LSCOARSE150216_DA_0") for amplitude in steps]
    commands += [(step(1600, length=0.003, rate=rate), "C1SSFINEST150112_DA_0") for _ in range(2)]
    ramp = step(0, length=0.3, rate=rate)
    rising = slice(round(0.2 * rate), round(0.5 * rate))
    ramp[rising] = np.linspace(0, 300, rising.stop - rising.start)
    commands.append((ramp, "C1RP25PR1S141203_DA_0"))
    for current, _ in commands:
        current[round(0.02 * rate) : round(0.03 * rate)] = -20
    return [
        MadeSweep(current, respond(current, rate, seed), rate, name)
        for seed, (current, name) in enumerate(commands)
    ]


def membrane_test(rate: int = RATE) -> MadeSweep:
    """Three pulses in voltage clamp, at the break-in, through 15 MOhm and then the membrane."""
    voltage = np.full(round(0.5 * rate), REST)
    current = np.zeros(len(voltage))
    for start in (0.05, 0.2, 0.35):
        pulse = slice(round(start * rate), round((start + 0.05) * rate))
        voltage[pulse] += 10
        time = np.arange(pulse.stop - pulse.start) / rate
        current[pulse] = 10 / RESISTANCE + 10 / 0.015 * np.exp(-time / 5e-4)
    return MadeSweep(current, voltage, rate, "EXTPBREAKN141203_DA_0", "VoltageClamp")


#: How a file says which response belongs to which stimulus.
PAIRINGS = ("sweep_number", "sweep_table", "tables", "names", "order")


def write_nwb(
    path: Path,
    sweeps: Sequence[MadeSweep] | None = None,
    *,
    pairing: str = "sweep_number",
    timestamps: bool = False,
    compressed: bool = False,
    integers: bool = False,
    with_stimulus: bool = True,
    voltage_unit: str = "volts",
    current_unit: str = "amperes",
    offset: float = 0.0,
) -> Path:
    """Write NWB 2 on the schema's layout, byte for byte the same each time.

    Parameters
    ----------
    voltage_unit, current_unit : str
        Samples are stored in this unit.
    offset : float
        Taken off what is stored, in the stored unit, and said in the file.
    """
    to_file = {"volts": 1e-3, "V": 1e-3, "mV": 1.0, "amperes": 1e-12, "A": 1e-12, "pA": 1.0}
    to_file |= {"nA": 1e-3}
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = "2.8.0"
        file["session_description"] = "made up"
        file["session_start_time"] = "2020-01-01T00:00:00+00:00"
        file["general/subject/species"] = "Mus musculus"
        file["general/subject/subject_id"] = "donor-1"
        electrode = file.create_group("general/intracellular_ephys/electrode_0")
        electrode["seal"] = "2.5 GOhm"
        electrode["initial_access_resistance"] = "12 MOhm"
        pairs = []
        for number, sweep in enumerate(sweeps if sweeps is not None else cell()):
            pair = []
            measured = (voltage_unit, sweep.voltage)
            injected = (current_unit, sweep.current)
            if sweep.clamp == "VoltageClamp":
                measured, injected = injected, measured
            for folder, role, (unit, samples) in (
                ("acquisition", "", measured),
                ("stimulus/presentation", "Stimulus", injected),
            ):
                if role and not with_stimulus:
                    continue
                suffix = chr(ord("a") + number) if pairing in ("order", "tables") else f"{number}"
                group = file.create_group(f"{folder}/{role or 'Response'}_{suffix}")
                _write_series(
                    group,
                    samples * to_file[unit] - offset,
                    unit,
                    offset,
                    sweep,
                    f"{sweep.clamp}{role}Series",
                    integers and not role,
                    compressed,
                    timestamps,
                )
                if pairing in ("sweep_number", "sweep_table"):
                    group.attrs["sweep_number"] = np.uint32(number)
                group["electrode"] = h5py.SoftLink(electrode.name)
                pair.append(group)
            pairs.append(pair)
        if pairing == "sweep_table":
            _add_sweep_table(file, pairs)
        if pairing == "tables":
            _add_tables(file, pairs)
    return path


def _write_series(
    group: h5py.Group,
    values: NDArray[np.float64],
    unit: str,
    offset: float,
    sweep: MadeSweep,
    kind: str,
    integers: bool,
    compressed: bool,
    timestamps: bool,
) -> None:
    conversion = 1.0
    options: dict[str, Any] = {}
    if integers:
        conversion = float(np.max(np.abs(values))) / 30_000
        values = np.round(values / conversion).astype(np.int16)
    if compressed:
        options = {"compression": "gzip", "shuffle": True, "chunks": (min(len(values), 4096),)}
    kept = values if integers else values.astype(np.float32)
    data = group.create_dataset("data", data=kept, **options)
    data.attrs.update({"unit": unit, "conversion": conversion, "offset": offset})
    if timestamps:
        group["timestamps"] = 3.0 + np.arange(len(values)) / sweep.rate
    else:
        group["starting_time"] = 3.0
        group["starting_time"].attrs.update({"rate": sweep.rate, "unit": "seconds"})
    group.attrs.update({"neurodata_type": kind, "stimulus_description": sweep.description})
    if not kind.endswith("StimulusSeries"):
        group["bridge_balance"] = 1e7
        group["bias_current"] = 0.0


def _add_sweep_table(file: h5py.File, pairs: list[list[h5py.Group]]) -> None:
    table = file.create_group("general/intracellular_ephys/sweep_table")
    rows = [(number, series.ref) for number, pair in enumerate(pairs) for series in pair]
    table["sweep_number"] = np.array([number for number, _ in rows], dtype=np.uint32)
    table["series_index"] = np.arange(1, len(rows) + 1, dtype=np.uint32)
    series = table.create_dataset("series", (len(rows),), dtype=h5py.ref_dtype)
    series[:] = [reference for _, reference in rows]


def _add_tables(file: h5py.File, pairs: list[list[h5py.Group]]) -> None:
    kind = np.dtype([("idx_start", "i4"), ("count", "i4"), ("timeseries", h5py.ref_dtype)])
    table = file.create_group("general/intracellular_ephys/intracellular_recordings")
    for column, which in (("responses/response", 0), ("stimuli/stimulus", 1)):
        rows = [(0, len(pair[which]["data"]), pair[which].ref) for pair in pairs]
        table.create_dataset(column, data=np.array(rows, dtype=kind))


def abf_samples(sweeps: Sequence[MadeSweep], voltage_scale: float = 100.0) -> bytes:
    """Voltages as int16, `voltage_scale` steps a mV."""
    voltage = np.concatenate([sweep.voltage for sweep in sweeps])
    return np.round(voltage * voltage_scale).astype("<i2").tobytes()


def abf_cell(steps: Sequence[float] = STEPS) -> list[MadeSweep]:
    """Long squares that an ABF epoch table can describe."""
    points = 0.9 * RATE
    lead = int(points / 64) / RATE
    sweeps = []
    for seed, amplitude in enumerate(steps):
        current = step(amplitude, start=lead + 0.2, length=0.4, after=0.3 - lead)
        sweeps.append(MadeSweep(current, respond(current, seed=seed)))
    return sweeps


def write_abf1(path: Path, sweeps: Sequence[MadeSweep] | None = None) -> Path:
    """Write ABF 1.8 with an epoch table: a delay, a step of even spacing, a delay."""
    sweeps = abf_cell() if sweeps is None else sweeps
    samples = abf_samples(sweeps)
    points = len(sweeps[0].voltage)
    first, spacing = _levels(sweeps)
    head = bytearray(6144)
    struct.pack_into("<4sfhihi", head, 0, b"ABF ", 1.8, 5, points * len(sweeps), 0, len(sweeps))
    struct.pack_into("<ii", head, 20, 20200101, 3600)
    struct.pack_into("<i", head, 40, len(head) // 512)
    struct.pack_into("<h", head, 100, 0)
    struct.pack_into("<hf", head, 120, 1, 1e6 / sweeps[0].rate)
    struct.pack_into("<i", head, 138, points)
    struct.pack_into("<ffii", head, 244, 10.0, 10.0, 32768, 32768)
    struct.pack_into("<16h", head, 378, *range(16))
    struct.pack_into("<16h", head, 410, *range(16))
    for k in range(16):
        struct.pack_into("<8s", head, 602 + 8 * k, b"mV      ")
        struct.pack_into("<f", head, 730 + 4 * k, 1.0)
        struct.pack_into("<f", head, 922 + 4 * k, 100.0 * 10 / 32768)
        struct.pack_into("<f", head, 1050 + 4 * k, 1.0)
    for k in range(4):
        struct.pack_into("<8s", head, 1346 + 8 * k, b"pA      ")
    struct.pack_into("<2h2h", head, 2296, 1, 0, 1, 0)
    durations = (0.2, 0.4, 0.1)
    for k, duration in enumerate(durations):
        struct.pack_into("<h", head, 2308 + 2 * k, 1)
        struct.pack_into("<i", head, 2508 + 4 * k, round(duration * RATE))
    struct.pack_into("<f", head, 2348 + 4, first)
    struct.pack_into("<f", head, 2428 + 4, spacing)
    path.write_bytes(bytes(head) + samples)
    return path


def write_abf2(
    path: Path,
    sweeps: Sequence[MadeSweep] | None = None,
    *,
    units: tuple[str, str] = ("mV", "pA"),
    waveform: bool = True,
) -> Path:
    """Write ABF 2.6 with the same epoch table.

    Parameters
    ----------
    units : tuple of str
        Of the samples and of the command; values are those of mV and pA.
    """
    sweeps = abf_cell() if sweeps is None else sweeps
    lengths = [len(sweep.voltage) for sweep in sweeps]
    first, spacing = _levels(sweeps)
    strings = ["Clampex", "protocol.pro", "IN 0", units[0], "OUT 0", units[1], "made up"]
    text = b"SSCH" + bytes(40) + "\0".join(strings).encode() + b"\0"

    protocol = bytearray(512)
    struct.pack_into("<hf", protocol, 0, 5 if len(set(lengths)) == 1 else 1, 1e6 / sweeps[0].rate)
    struct.pack_into("<i", protocol, 22, lengths[0])
    struct.pack_into("<ffii", protocol, 110, 10.0, 10.0, 32768, 32768)
    struct.pack_into("<i", protocol, 132, 7)
    adc = bytearray(128)
    struct.pack_into("<f", adc, 28, 1.0)
    struct.pack_into("<fff", adc, 40, 100.0 * 10 / 32768, 0.0, 1.0)
    struct.pack_into("<ii", adc, 74, 3, 4)
    dac = bytearray(256)
    struct.pack_into("<ii", dac, 24, 5, 6)
    struct.pack_into("<hh", dac, 40, waveform, waveform)
    epochs = b"".join(
        struct.pack("<hhhffiiii", number, 0, 1, level, more, round(length * RATE), 0, 0, 0).ljust(
            48, b"\0"
        )
        for number, (level, more, length) in enumerate(
            ((0.0, 0.0, 0.2), (first, spacing, 0.4), (0.0, 0.0, 0.1))
        )
    )
    digital = b"".join(struct.pack("<hh", number, 0).ljust(32, b"\0") for number in range(3))
    starts = np.cumsum([0, *lengths[:-1]])
    synch = b"".join(struct.pack("<ii", *each) for each in zip(starts, lengths, strict=True))
    samples = abf_samples(sweeps)

    head = bytearray(512)
    struct.pack_into("<4s4BIIII", head, 0, b"ABF2", 0, 0, 6, 2, 512, len(sweeps), 20200101, 3600)
    struct.pack_into("<III", head, 60, 1, 0, 0)
    struct.pack_into("<I", head, 72, 2)
    body = b""
    for section, width, content in (
        (0, 512, bytes(protocol)),
        (1, 128, bytes(adc)),
        (2, 256, bytes(dac)),
        (3, 32, digital),
        (5, 48, epochs),
        (9, len(text), text),
        (10, 2, samples),
        (15, 8, synch),
    ):
        block = 1 + len(body) // 512
        struct.pack_into("<IIq", head, 76 + 16 * section, block, width, len(content) // width)
        body += content + bytes(-len(content) % 512)
    path.write_bytes(bytes(head) + body)
    return path


def _levels(sweeps: Sequence[MadeSweep]) -> tuple[float, float]:
    """First step and spacing of an epoch table, from the sweeps' commands."""
    amplitudes = [sweep.current[np.argmax(np.abs(sweep.current))] for sweep in sweeps]
    spacing = amplitudes[1] - amplitudes[0] if len(amplitudes) > 1 else 0.0
    return float(amplitudes[0]), float(spacing)


def cut_abf2(source: Path, path: Path, every: int) -> Path:
    """Every so many sweeps of an ABF 2 file, with the increments of its epochs to match."""
    content = bytearray(source.read_bytes())
    sections = [list(struct.unpack_from("<IIq", content, 76 + 16 * k)) for k in range(18)]
    (sweeps,) = struct.unpack_from("<I", content, 12)
    kept = range(0, sweeps, every)
    block, width, count = sections[10]
    size = width * count // sweeps
    samples = b"".join(content[512 * block :][size * k : size * (k + 1)] for k in kept)
    after = block + -(-width * count // 512)
    shift = after - block - -(-len(samples) // 512)
    epochs, step_width, steps = sections[5]
    for k in range(steps):
        at = 512 * epochs + step_width * k
        (more,) = struct.unpack_from("<f", content, at + 10)
        (longer,) = struct.unpack_from("<i", content, at + 18)
        struct.pack_into("<f", content, at + 10, more * every)
        struct.pack_into("<i", content, at + 18, longer * every)
    for k, (start, entry, entries) in enumerate(sections):
        entries = {10: len(samples) // width, 15: len(kept)}.get(k, entries)
        start -= shift if start >= after else 0
        struct.pack_into("<IIq", content, 76 + 16 * k, start, entry, entries)
    struct.pack_into("<I", content, 12, len(kept))
    samples += bytes(-len(samples) % 512)
    path.write_bytes(content[: 512 * block] + samples + content[512 * after :])
    return path
