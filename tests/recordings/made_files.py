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


def abf_cell(steps: Sequence[float] = STEPS) -> list[MadeSweep]:
    """Long squares that an ABF epoch table can describe."""
    points = 0.9 * RATE
    lead = int(points / 64) / RATE
    sweeps = []
    for seed, amplitude in enumerate(steps):
        current = step(amplitude, start=lead + 0.2, length=0.4, after=0.3 - lead)
        sweeps.append(MadeSweep(current, respond(current, seed=seed)))
    return sweeps


@dataclass
class MadeEpoch:
    """A step of an epoch table unless `kind` says otherwise; times in samples."""

    level: float = 0.0
    more: float = 0.0
    points: int = 0
    longer: int = 0
    kind: int = 1
    period: int = 0
    width: int = 0


@dataclass
class MadeInput:
    """What an input recorded in each sweep, in its unit."""

    name: str
    unit: str
    sweeps: Sequence[NDArray[np.float64]]
    number: int | None = None  # its place if None
    mode: int | None = None  # of a MultiClamp
    scale: float = 0.0  # integer steps a unit; as fine as can be if 0
    gain: float = 1.0  # by telegraph


@dataclass
class MadeOutput:
    """An output and what its protocol says."""

    name: str = "Cmd 0"
    unit: str = "pA"
    epochs: Sequence[MadeEpoch] = ()
    enabled: bool = True
    source: int = 1
    holding: float = 0.0
    keeps_last: bool = False
    user_list: tuple[int, str, bool] | None = None  # parameter, values, whether it repeats
    after_train: tuple[float, float] | None = None
    file: tuple[str, float, float, int] = ("", 1.0, 0.0, 0)  # path, scale, offset, sweep
    leak_subtracted: bool = False


def step_epochs(
    first: float, spacing: float, lengths: Sequence[float] = (0.2, 0.4, 0.1), rate: int = RATE
) -> list[MadeEpoch]:
    """A delay, a step of even spacing, a delay."""
    delay, length, rest = (round(each * rate) for each in lengths)
    return [MadeEpoch(points=delay), MadeEpoch(first, spacing, length), MadeEpoch(points=rest)]


def _counts(made: MadeInput) -> tuple[NDArray[np.int16], float]:
    """All sweeps as integers, and their scale factor."""
    values = np.concatenate(made.sweeps)
    scale = made.scale or 32_000 / max(float(np.max(np.abs(values))), 1e-9)
    return np.round(values * scale).astype("<i2"), scale * 10 / 32768 / made.gain


def _interleaved(inputs: Sequence[MadeInput]) -> bytes:
    return np.column_stack([_counts(each)[0] for each in inputs]).tobytes()


@dataclass(frozen=True)
class MadeProtocol:
    """What an ABF file says of all its inputs and outputs."""

    rate: float = RATE
    mode: int = 5
    in_run: int = 0  # sweeps of a run
    active: int = 0  # the output that digital patterns belong to
    alternates: bool = False


def write_abf1_of(
    path: Path, inputs: Sequence[MadeInput], outputs: Sequence[MadeOutput] = (), **how: Any
) -> Path:
    """Write ABF 1.8; of the outputs, the first two have waveforms, as `MadeProtocol` has it."""
    made_with = MadeProtocol(**how)
    count, channels = len(inputs[0].sweeps), len(inputs)
    lengths = [len(sweep) * channels for sweep in inputs[0].sweeps]
    head = bytearray(6144)

    def put(kind: str, at: int, *values: Any) -> None:
        struct.pack_into(f"<{kind}", head, at, *values)

    put("4sfhihi", 0, b"ABF ", 1.8, made_with.mode, sum(lengths), 0, count)
    put("ii", 20, 20200101, 3600)
    put("i", 40, len(head) // 512)
    put("hf", 120, channels, 1e6 / made_with.rate / channels)
    put("i", 138, lengths[0])
    put("i", 146, made_with.in_run)
    put("ffii", 244, 10.0, 10.0, 32768, 32768)
    put("16h", 378, *range(16))
    put("16h", 410, *range(16))
    for k in range(16):
        put("8s", 602 + 8 * k, b"mV      ")
        put("f", 730 + 4 * k, 1.0)
        put("f", 922 + 4 * k, 1.0)
        put("f", 1050 + 4 * k, 1.0)
    for k, made in enumerate(inputs):
        number = k if made.number is None else made.number
        put("h", 410 + 2 * k, number)
        put("10s", 442 + 10 * number, made.name.encode().ljust(10))
        put("8s", 602 + 8 * number, made.unit.encode().ljust(8))
        put("f", 922 + 4 * number, _counts(made)[1])
        put("f", 4576 + 4 * number, made.gain)
        if made.mode is not None or made.gain != 1:
            put("h", 4512 + 2 * number, 1)
            put("h", 4544 + 2 * number, 24 if made.mode is not None else 0)
            put("h", 4768 + 2 * number, made.mode or 0)
    for k in range(4):
        put("8s", 1346 + 8 * k, b"mV      ")
    put("h", 1440, made_with.active)
    put("h", 5876, made_with.alternates)
    for k, made_output in enumerate(outputs):
        _put_output1(put, k, made_output)
    samples = _interleaved(inputs)
    samples += bytes(-len(samples) % 512)
    starts = np.cumsum([0, *lengths[:-1]])
    put("ii", 92, (len(head) + len(samples)) // 512, count)
    synch = b"".join(struct.pack("<ii", *each) for each in zip(starts, lengths, strict=True))
    path.write_bytes(bytes(head) + samples + synch)
    return path


def _put_output1(put: Any, k: int, made: MadeOutput) -> None:
    put("10s", 1306 + 10 * k, made.name.encode().ljust(10))
    put("8s", 1346 + 8 * k, made.unit.encode().ljust(8))
    put("f", 1394 + 4 * k, made.holding)
    if k > 1:
        return
    put("h", 2296 + 2 * k, made.enabled)
    put("h", 2300 + 2 * k, made.source)
    put("h", 2304 + 2 * k, made.keeps_last)
    for at, epoch in enumerate(made.epochs, 10 * k):
        put("i", 2136 + 4 * at, epoch.period)
        put("i", 2216 + 4 * at, epoch.width)
        put("h", 2308 + 2 * at, epoch.kind)
        put("f", 2348 + 4 * at, epoch.level)
        put("f", 2428 + 4 * at, epoch.more)
        put("i", 2508 + 4 * at, epoch.points)
        put("i", 2588 + 4 * at, epoch.longer)
    name, scale, offset, sweep = made.file
    put("f", 2708 + 4 * k, scale)
    put("f", 2716 + 4 * k, offset)
    put("i", 2724 + 4 * k, sweep)
    put("256s", 2736 + 256 * k, name.encode())
    if made.after_train is not None:
        put("h", 3260 + 2 * k, 1)
        put("f", 3304 + 4 * k, made.after_train[0])
        put("f", 3312 + 4 * k, made.after_train[1])
    if made.user_list is not None:
        parameter, values, repeats = made.user_list
        put("h", 3360 + 2 * k, 1)
        put("h", 3368 + 2 * k, parameter)
        put("256s", 3376 + 256 * k, values.encode())
        put("h", 4400 + 2 * k, repeats)
    put("h", 4456 + 2 * k, made.leak_subtracted)


def write_abf2_of(
    path: Path, inputs: Sequence[MadeInput], outputs: Sequence[MadeOutput] = (), **how: Any
) -> Path:
    """Write ABF 2.6, as `MadeProtocol` has it."""
    made_with = MadeProtocol(**how)
    count, channels = len(inputs[0].sweeps), len(inputs)
    lengths = [len(sweep) * channels for sweep in inputs[0].sweeps]
    texts = ["Clampex", "protocol.pro"]

    def text(of: str) -> int:
        """Its number; an empty one is not kept."""
        if of:
            texts.append(of)
        return len(texts) if of else 0

    adcs, dacs, epochs, lists = [], [], [], []
    for k, made in enumerate(inputs):
        adc = bytearray(128)
        struct.pack_into("<h", adc, 0, k if made.number is None else made.number)
        by_telegraph = made.mode is not None or made.gain != 1
        instrument = 24 if made.mode is not None else 0
        struct.pack_into("<hhf", adc, 2, by_telegraph, instrument, made.gain)
        struct.pack_into("<h", adc, 18, made.mode or 0)
        struct.pack_into("<f", adc, 28, 1.0)
        struct.pack_into("<fff", adc, 40, _counts(made)[1], 0.0, 1.0)
        struct.pack_into("<ii", adc, 74, text(made.name), text(made.unit))
        adcs.append(adc)
    for k, made_output in enumerate(outputs):
        dac = bytearray(256)
        struct.pack_into("<h", dac, 0, k)
        struct.pack_into("<f", dac, 12, made_output.holding)
        struct.pack_into("<ii", dac, 24, text(made_output.name), text(made_output.unit))
        struct.pack_into(
            "<hhh", dac, 40, made_output.enabled, made_output.source, made_output.keeps_last
        )
        name, scale, offset, sweep = made_output.file
        struct.pack_into("<ffi", dac, 46, scale, offset, sweep)
        struct.pack_into("<i", dac, 118, text(name))
        if made_output.after_train is not None:
            struct.pack_into("<h", dac, 60, 1)
            struct.pack_into("<ff", dac, 82, *made_output.after_train)
        struct.pack_into("<h", dac, 92, made_output.leak_subtracted)
        dacs.append(dac)
        for number, epoch in enumerate(made_output.epochs):
            levels = (epoch.level, epoch.more, epoch.points, epoch.longer)
            whole = (number, k, epoch.kind, *levels, epoch.period, epoch.width)
            epochs.append(struct.pack("<hhhffiiii", *whole).ljust(48, b"\0"))
        if made_output.user_list is not None:
            parameter, values, repeats = made_output.user_list
            numbers = (k, 1, parameter, repeats, text(values))
            lists.append(struct.pack("<4hi", *numbers).ljust(64, b"\0"))
    protocol = bytearray(512)
    struct.pack_into("<hf", protocol, 0, made_with.mode, 1e6 / made_with.rate)
    struct.pack_into("<i", protocol, 22, lengths[0])
    struct.pack_into("<i", protocol, 30, made_with.in_run)
    struct.pack_into("<ffii", protocol, 110, 10.0, 10.0, 32768, 32768)
    struct.pack_into("<i", protocol, 132, text("made up"))
    struct.pack_into("<h", protocol, 142, made_with.active)
    struct.pack_into("<h", protocol, 182, made_with.alternates)
    strings = b"SSCH" + bytes(40) + "\0".join(texts).encode() + b"\0"
    digital = b"".join(struct.pack("<hh", number, 0).ljust(32, b"\0") for number in range(10))
    starts = np.cumsum([0, *lengths[:-1]])
    synch = b"".join(struct.pack("<ii", *each) for each in zip(starts, lengths, strict=True))

    head = bytearray(512)
    struct.pack_into("<4s4BIIII", head, 0, b"ABF2", 0, 0, 6, 2, 512, count, 20200101, 3600)
    struct.pack_into("<III", head, 60, 1, 0, 0)
    struct.pack_into("<I", head, 72, 2)
    body = b""
    for section, width, content in (
        (0, 512, bytes(protocol)),
        (1, 128, b"".join(adcs)),
        (2, 256, b"".join(dacs)),
        (3, 32, digital),
        (5, 48, b"".join(epochs)),
        (6, 64, b"".join(lists)),
        (9, len(strings), strings),
        (10, 2, _interleaved(inputs)),
        (15, 8, synch),
    ):
        block = 1 + len(body) // 512 if content else 0
        struct.pack_into("<IIq", head, 76 + 16 * section, block, width, len(content) // width)
        body += content + bytes(-len(content) % 512)
    path.write_bytes(bytes(head) + body)
    return path


def write_abf1(path: Path, sweeps: Sequence[MadeSweep] | None = None) -> Path:
    """Write ABF 1.8 with an epoch table: a delay, a step of even spacing, a delay."""
    sweeps = abf_cell() if sweeps is None else sweeps
    made = MadeInput("IN 0", "mV", [sweep.voltage for sweep in sweeps], scale=100.0)
    return write_abf1_of(path, [made], [MadeOutput(epochs=step_epochs(*_levels(sweeps)))])


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
    made = MadeInput("IN 0", units[0], [sweep.voltage for sweep in sweeps], scale=100.0)
    epochs = step_epochs(*_levels(sweeps))
    output = MadeOutput("OUT 0", units[1], epochs, enabled=waveform, source=int(waveform))
    lengths = {len(sweep.voltage) for sweep in sweeps}
    return write_abf2_of(path, [made], [output], mode=5 if len(lengths) == 1 else 1)


def _levels(sweeps: Sequence[MadeSweep]) -> tuple[float, float]:
    """First step and spacing of an epoch table, from the sweeps' commands."""
    amplitudes = [sweep.current[np.argmax(np.abs(sweep.current))] for sweep in sweeps]
    spacing = amplitudes[1] - amplitudes[0] if len(amplitudes) > 1 else 0.0
    return float(amplitudes[0]), float(spacing)


def write_abf_rig(path: Path, version: int) -> Path:
    """Two cells, the current of one, a trigger, user lists, a train, and odds and ends."""
    sweeps = abf_cell()[::2]
    currents = [sweep.current for sweep in sweeps]
    inputs = [
        MadeInput(
            "trigger", "V", [np.where(np.arange(len(each)) < 99, 5.0, 0) for each in currents]
        ),
        MadeInput("IN 1", "mV", [sweep.voltage for sweep in sweeps], mode=1, gain=2.0),
        MadeInput("Im", "pA", currents),
        MadeInput("IN 3", "mV", [respond(each, seed=9 + k) for k, each in enumerate(currents)]),
    ]
    first = 21 if version == 1 else 61
    table = step_epochs(*_levels(sweeps))
    train = [*table, MadeEpoch(90.0, 0, 800, kind=3, period=200, width=20)]
    outputs = [
        MadeOutput(epochs=table, user_list=(first + 1, "-100,-20,140", True)),
        MadeOutput("Cmd 1", epochs=train, user_list=(first + 12, "200,100", False), holding=1.0),
        MadeOutput("Cmd 2", "mV", source=2, file=("wave.atf", 1.0, 0.0, 0)),
    ]
    write = write_abf1_of if version == 1 else write_abf2_of
    return write(path, inputs, outputs, in_run=len(sweeps))


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
