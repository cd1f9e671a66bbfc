"""Small valid files of other recording programs: the made-up cell in each of their formats."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from tests.recordings.made_files import MadeSweep

#: An input of a file: name, unit, and its samples of every sweep in that unit.
Inputs = Sequence[tuple[str, str, Sequence[NDArray[np.floating]]]]


def inputs_of(
    sweeps: Sequence[MadeSweep],
    potential: tuple[str, str] = ("Vm", "mV"),
    command: tuple[str, str] | None = ("Im", "pA"),
    *,
    current_first: bool = False,
) -> Inputs:
    """The two inputs of a cell, in these units."""
    factors = {"mV": 1.0, "V": 1e-3, "pA": 1.0, "nA": 1e-3, "A": 1e-12, "": 1.0}
    found = [(*potential, [each.voltage * factors[potential[1]] for each in sweeps])]
    if command is not None:
        found.append((*command, [each.current * factors[command[1]] for each in sweeps]))
    return found[::-1] if current_first else found


#: How a trace of AxoGraph is drawn, after its columns and its group.
_TRACE = bytes(struct.calcsize(">l3d2ld3dxBBBld14l"))


def wave(
    samples: NDArray[np.floating], name: str, unit: str, interval: float, time_unit: str = "s"
) -> bytes:
    """An Igor binary wave of version 5, after Igor's technical note 3."""
    data = samples.astype("<f4").tobytes()
    header = struct.pack("<4xIIiHh6xh", 3_500_000_000, 3_500_000_000, len(samples), 2, 0, 1)
    header += struct.pack("<32s8x4i", name.encode()[:31], len(samples), 0, 0, 0)
    header += struct.pack("<4d4d4s16s", interval, 1, 1, 1, 0, 0, 0, 0, unit.encode(),
                          time_unit.encode())  # fmt: skip
    header = header.ljust(320, b"\0")
    head = struct.pack("<hhi", 5, 0, 320 + len(data)).ljust(64, b"\0")
    total = sum(struct.unpack("<192h", head + header)) & 0xFFFF
    head = head[:2] + struct.pack("<H", -total & 0xFFFF) + head[4:]
    return head + header + data


def write_ibw(
    folder: Path,
    inputs: Inputs,
    rate: float,
    name: str = "B6_{input}_IDRest_{sweep}",
    first: int = 0,
    time_unit: str = "s",
) -> list[Path]:
    """A wave a file."""
    scale = {"s": 1.0, "ms": 1e3, "": 1.0}[time_unit]
    written = []
    for called, unit, sweeps in inputs:
        for number, samples in enumerate(sweeps, first):
            text = name.format(input=called, sweep=number)
            path = folder / f"{text}.ibw"
            path.write_bytes(wave(samples, text, unit, scale / rate, time_unit))
            written.append(path)
    return written


def write_pxp(path: Path, folders: Mapping[str, tuple[Inputs, float]], name: str) -> Path:
    """A packed experiment with a data folder for every cell."""

    def record(kind: int, content: bytes) -> bytes:
        return struct.pack("<HhI", kind, 0, len(content)) + content

    content = record(2, b"history of the session\r")
    for folder, (inputs, rate) in folders.items():
        content += record(9, folder.encode().ljust(32, b"\0"))
        for called, unit, sweeps in inputs:
            for number, samples in enumerate(sweeps):
                text = name.format(input=called, sweep=number)
                content += record(3, wave(samples, text, unit, 1 / rate))
        content += record(10, b"")
    path.write_bytes(content)
    return path


def write_atf(path: Path, inputs: Inputs, rate: float, *, with_signals: bool = True) -> Path:
    """Axon text, as Clampex writes it: the inputs of one sweep after another."""
    count = len(inputs[0][2])
    columns = [inputs[k][2][sweep] for sweep in range(count) for k in range(len(inputs))]
    titles = [f"Trace #{sweep + 1} ({unit})" for sweep in range(count) for _, unit, _ in inputs]
    header = ['"AcquisitionMode=Episodic Stimulation"', '"Comment=a=b"']
    if with_signals:
        names = "\t".join(f'"{name}"' for _ in range(count) for name, _, _ in inputs)
        header.append(f'"Signals="\t{names}')
    time = np.arange(len(columns[0])) / rate
    lines = ["ATF\t1.0", f"{len(header)}\t{len(columns) + 1}     ", *header]
    lines.append("\t".join(f'"{title}"' for title in ("Time (s)", *titles)))
    for row in np.column_stack([time, *columns]):
        lines.append("\t".join(f"{value:.6g}" for value in row))
    path.write_text("\r\n".join(lines) + "\r\n", encoding="latin-1")
    return path


def write_wcp(
    path: Path,
    inputs: Inputs,
    rate: float,
    full_scales: Sequence[float] | None = None,
    rejected: Sequence[int] = (),
) -> Path:
    """WinWCP 9: records of a head, and of 16-bit samples of all inputs in turn."""
    count, points = len(inputs[0][2]), len(inputs[0][2][0])
    blocks = -(-points * 2 * len(inputs) // 512)
    gains = [5 / max(float(np.abs(each).max()) for each in sweeps) for _, _, sweeps in inputs]
    lines = {"VER": 9, "CTIME": "21/11/2014 12:43:08", "RTIME": "21/11/2014 14:18:28", "NC": 2,
             "NR": count, "NBH": 2, "NBA": 2, "NBD": blocks, "ADCMAX": 32767, "NP": points,
             "DT": 1 / rate, "NZ": 20, "ID": "steps"}  # fmt: skip
    lines["NC"] = len(inputs)
    for k, (name, unit, _) in enumerate(inputs):
        lines |= {f"YO{k}": k, f"YU{k}": unit, f"YN{k}": name, f"YG{k}": gains[k]}
    content = "".join(f"{key}={value}\r\n" for key, value in lines.items()).encode()
    content = content.ljust(1024, b"\0")
    for number in range(count):
        scale = 10.0 if full_scales is None else full_scales[number]
        status = b"REJECTED" if number in rejected else b"ACCEPTED"
        head = struct.pack("<8s4sfff8f", status, b"TEST", 1, number, 1 / rate, *[scale] * 8)
        samples = np.zeros((blocks * 256 // len(inputs), len(inputs)), "<i2")
        for k, (_, _, sweeps) in enumerate(inputs):
            values = np.rint(sweeps[number] * gains[k] * 32767 / scale)
            samples[: len(values), k] = np.clip(values, -32767, 32767)
            samples[len(values) :, k] = samples[len(values) - 1, k]
        content += head.ljust(1024, b"\0") + samples.tobytes().ljust(blocks * 512, b"\0")
    path.write_bytes(content)
    return path


def write_axgx(path: Path, inputs: Inputs, rate: float, *, in_turn: bool = True) -> Path:
    """AxoGraph X, version 5: columns, of which only the first of an input has a title, and groups.

    The inputs of a sweep follow one another (`in_turn`), or the sweeps of an input.
    """
    count, points = len(inputs[0][2]), len(inputs[0][2][0])

    def text(words: str) -> bytes:
        coded = words.encode("utf-16-be")
        return struct.pack(">l", len(coded)) + coded

    columns = [(k, sweep) for sweep in range(count) for k in range(len(inputs))]
    columns = columns if in_turn else sorted(columns)
    content = b"axgx" + struct.pack(">ll", 5, 1 + len(columns))
    content += struct.pack(">ll", points, 9) + text("Time (s)") + struct.pack(">dd", 0, 1 / rate)
    for k, sweep in columns:
        name, unit, sweeps = inputs[k]
        content += struct.pack(">ll", points, 7) + text(f"{name} ({unit})" if sweep == 0 else "")
        content += sweeps[sweep].astype(">f8").tobytes()
    content += text("") + text("notes") + struct.pack(">l", len(columns))
    for column, (k, _) in enumerate(columns, 1):
        content += struct.pack(">4l", 0, column, -1, k) + _TRACE
    content += struct.pack(">l", len(inputs))
    for name, unit, _ in inputs:
        content += text(name) + struct.pack(">h", 0) + text(unit) + struct.pack(">hll", 1, 0, 0)
    path.write_bytes(content)
    return path


def write_wavesurfer(path: Path, inputs: Inputs, rate: float) -> Path:
    """WaveSurfer 0.97: 16-bit samples, and polynomials that make them volts at the input."""
    with h5py.File(path, "w") as file:
        header = file.create_group("header")
        header["VersionString"] = np.array([b"0.97"])
        header["ClockAtRunStart"] = np.array([[2018.0], [9], [13], [15], [22], [54.021]])
        header["AcquisitionSampleRate"] = np.array([[rate]])
        # The last input was switched off.
        header["IsAIChannelActive"] = np.array([[1.0] * len(inputs) + [0.0]])
        header["AIChannelNames"] = np.array([name.encode() for name, _, _ in inputs] + [b"off"])
        header["AIChannelUnits"] = np.array([unit.encode() for _, unit, _ in inputs] + [b"V"])
        reach = [max(float(np.abs(each).max()) for each in sweeps) for _, _, sweeps in inputs]
        scales = [9 / each for each in reach]  # volts a unit
        header["AIChannelScales"] = np.array([[*scales, 1.0]])
        header["AIScalingCoefficients"] = np.array([[0.01, 3e-4, 0, 0]] * len(inputs))
        for number in range(len(inputs[0][2])):
            stored = [
                np.rint((sweeps[number] * scale - 0.01) / 3e-4)
                for (_, _, sweeps), scale in zip(inputs, scales, strict=True)
            ]
            file[f"sweep_{number + 1:04d}/analogScans"] = np.array(stored, np.int16)
            file[f"sweep_{number + 1:04d}/timestamp"] = np.array([[float(number)]])
    return path


def write_stimfit(path: Path, inputs: Inputs, rate: float) -> Path:
    """The layout of Stimfit's own library (stfio 0.16)."""
    with h5py.File(path, "w") as file:
        about = [("channels", "<i4"), ("date", "S11"), ("time", "S9")]
        when = (len(inputs), b"2020-01-02", b"03:04:05")
        file["description"] = np.array([when], dtype=about)
        file["comment/comment"] = np.bytes_(b"made up")
        of_section = [("dt", "<f8"), ("xunits", "S2"), ("yunits", "S2")]
        for k, (name, unit, sweeps) in enumerate(inputs):
            file[f"channels/ch{k}"] = np.array([name.encode()])
            file[f"{name}/description"] = np.array([(len(sweeps),)], dtype=[("n_sections", "<i4")])
            for number, samples in enumerate(sweeps):
                section = file.create_group(f"{name}/section_{number}")
                section["data"] = samples.astype("f4")
                row = (1e3 / rate, b"ms", unit.encode())
                section["description"] = np.array([row], dtype=of_section)
    return path
