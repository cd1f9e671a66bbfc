"""Sweeps kept so that any stretch of them can be drawn quickly.

Samples are codes of 16 bits: a value is ``base + step * code``. A step is a hundredth of a mV or
pA, finer than any amplifier, or what 16 bits allow where a sweep spans more than 655 of them. Of a
command, which hardly ever changes, the first samples of runs of equal ones are kept.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from crosspatch.errors import RecordingError
from crosspatch.recordings.model import Recording, Samples
from crosspatch.recordings.quality import SweepQuality, recorded_points
from crosspatch.recordings.stimuli import Stimulus, current_that_counts
from crosspatch.recordings.sweeps_figure import shown_kinds, until_last
from crosspatch.service.messages import StimulusSweeps

MOST_SWEEPS = 60  #: sweeps of a kind of stimulus that are kept
MOST_SAMPLES = 64_000_000  #: samples kept of a recording: 128 MB
STRETCHES = 600  #: stretches of a sweep of which the lowest and highest value are given
SAMPLES, INDEX = "traces.i16", "traces.json"

_MOST, _MISSING = 2**15 - 1, -(2**15)  #: the largest code, and that of a sample without a value
_ABSURD = 1e9  #: values beyond are damage, and are not drawn

Codes = NDArray[np.int16]
#: In the file of samples: place in codes; number of samples; of runs, if they stand there in place
#: of samples (numbers of 32 bits, where they begin, then codes); base and step.
Signal = tuple[int, int, int, float, float]


@dataclass(frozen=True)
class KeptSweep:
    """A sweep whose samples are kept; voltage in mV, current in pA."""

    number: int
    kind: str
    rate: float  #: Hz, of the samples kept
    amplitude: float | None
    voltage: Signal
    current: Signal
    passed: bool = True
    reasons: Sequence[str] = ()


def keep_samples(
    recording: Recording, stimuli: Mapping[int, Stimulus], folder: Path
) -> list[KeptSweep]:
    """Keep the samples of a recording's sweeps in a folder; the recording is open.

    Every sample is kept; of a recording with more than `MOST_SAMPLES`, the lowest and highest
    value of short stretches. Sweeps that cannot be read are left out.
    """
    chosen = []
    for numbers in _by_kind(stimuli).values():
        chosen += numbers[:: max(1, -(-len(numbers) // MOST_SWEEPS))]
    coarse = math.ceil(2 * sum(recording.sweep(n).points for n in chosen) / MOST_SAMPLES)
    # A new file: whoever looks at what was kept before goes on seeing it.
    for name in (INDEX, SAMPLES):
        (folder / name).unlink(missing_ok=True)
    kept = []
    with (folder / SAMPLES).open("xb") as file:
        for number in chosen:
            sweep, stimulus = recording.sweep(number), stimuli[number]
            try:
                voltage, current = sweep.voltage, current_that_counts(sweep, stimulus)
            except RecordingError:
                continue
            recorded = voltage[: recorded_points(voltage, sweep.rate)]
            kept.append(
                KeptSweep(
                    number=number,
                    kind=stimulus.kind,
                    rate=sweep.rate / coarse,
                    amplitude=float(stimulus.amplitude)
                    if math.isfinite(stimulus.amplitude)
                    else None,
                    voltage=_written(file, recorded, coarse),
                    current=_written(file, current, coarse),
                )
            )
    return kept


def keep_index(
    kept: Sequence[KeptSweep],
    stimuli: Mapping[int, Stimulus],
    qualities: Mapping[int, SweepQuality],
    folder: Path,
) -> tuple[StimulusSweeps, ...]:
    """Keep what is known of sweeps, so that they can be read; how many there are of each kind."""
    shown, rejected, rows = Counter[str](), Counter[str](), []
    for each in kept:
        quality = qualities.get(each.number, SweepQuality())
        shown[each.kind] += 1
        rejected[each.kind] += not quality.passed
        rows.append(asdict(replace(each, passed=quality.passed, reasons=quality.reasons)))
    temporary = folder / f"{INDEX}.part"
    temporary.write_text(json.dumps(rows, allow_nan=False), encoding="utf-8")
    temporary.replace(folder / INDEX)
    return tuple(
        StimulusSweeps(kind, len(numbers), shown[kind], rejected[kind])
        for kind, numbers in _by_kind(stimuli).items()
    )


def _by_kind(stimuli: Mapping[int, Stimulus]) -> dict[str, list[int]]:
    """Numbers of the sweeps of the kinds of stimulus that are shown."""
    return {
        kind: [number for number, stimulus in stimuli.items() if stimulus.kind == kind]
        for kind in shown_kinds(stimuli)
    }


def _written(file: BinaryIO, values: Samples, coarse: int) -> Signal:
    """Write samples, of which the extremes of stretches of so many are kept."""
    codes, base, step = _coded(until_last(values))
    codes = _extremes(codes, 2 * coarse if coarse > 1 else 1)
    place, count, runs = file.tell() // 2, len(codes), 0
    changes = codes[1:] != codes[:-1]
    if 3 * np.count_nonzero(changes) + 3 < count:
        starts = np.append(0, np.flatnonzero(changes) + 1)
        runs, codes = len(starts), codes[starts]
        file.write(starts.astype("<u4").tobytes())
    file.write(codes.astype("<i2", copy=False).tobytes())
    return place, count, runs, base, step


def _coded(values: Samples) -> tuple[Codes, float, float]:
    """Values as codes, and the base and step that they are in."""
    if not len(values):
        return np.zeros(0, dtype=np.int16), 0.0, 0.01
    low, high = float(values.min()), float(values.max())
    sound: NDArray[np.bool_] | None = None
    if not -_ABSURD < low <= high < _ABSURD:
        sound = np.abs(values) < _ABSURD
        values = np.where(sound, values, 0)
        low, high = float(values.min()), float(values.max())
    base = 0.0 if max(-low, high) <= _MOST / 100 else round((low + high) / 2, 2)
    step = max(0.01, (high - low) / (2 * _MOST - 2))
    codes = np.rint((values - base) * (1 / step)).astype(np.int16)
    if sound is not None:
        codes[~sound] = _MISSING
    return codes, base, step


def _extremes(codes: Codes, width: int) -> Codes:
    """Lowest and highest of every stretch of so many; the last, which may be shorter, counts."""
    if width <= 1:
        return codes
    whole, last = np.split(codes, [len(codes) // width * width])
    parts = whole.reshape(-1, width)
    ends = np.stack([parts.min(axis=1), parts.max(axis=1)], axis=1)
    if len(last):
        ends = np.append(ends, [[last.min(), last.max()]], axis=0)
    ends[ends[:, 0] == _MISSING] = _MISSING
    return ends.ravel()


def _part(samples: Codes, kept: Signal, first: int, last: int) -> Codes:
    """Codes of a signal from one sample to another."""
    place, count, runs, _, _ = kept
    if not runs:
        return samples[place + first : place + last]
    middle = place + 2 * runs
    ends = np.append(samples[place:middle].view("<u4"), count).clip(first, last)
    return np.repeat(samples[middle : middle + runs], np.diff(ends))


def read_traces(
    folder: Path,
    kind: str,
    *,
    start: float | None = None,
    end: float | None = None,
    stretches: int = STRETCHES,
) -> bytes:
    """The sweeps of one kind of stimulus, thinned to the extremes of so many stretches each.

    They may be cut to what lies between two times, in s from the start of a sweep. As
    `crosspatch.service.api.get_sweeps` describes it; empty where there is none of this kind.
    """
    # An empty file cannot be mapped.
    samples: Codes = np.zeros(0, dtype=np.int16)
    if (folder / SAMPLES).stat().st_size:
        samples = np.memmap(folder / SAMPLES, dtype="<i2", mode="r")
    contents: list[bytes] = []

    def signal(kept: Signal, rate: float) -> dict[str, float]:
        _, count, _, base, step = kept
        first = 0 if start is None else max(math.floor(min(start * rate, count)) - 1, 0)
        last = count if end is None else max(math.ceil(min(end * rate, count)), first)
        part = _part(samples, kept, first, min(last + 1, count))
        width = max(1, len(part) // stretches)
        codes = _extremes(part, width)
        contents.append(codes.tobytes())
        # The lowest value of a stretch stands at its first quarter, the highest at its third.
        t0 = (first + (width / 4 if width > 1 else 0)) / rate
        dt = (width / 2 if width > 1 else 1) / rate
        return {"t0": t0, "dt": dt, "count": len(codes), "base": base, "step": step}

    told = ("number", "amplitude", "passed", "reasons")
    found = [
        {name: row[name] for name in told}
        | {name: signal(row[name], row["rate"]) for name in ("voltage", "current")}
        for row in json.loads((folder / INDEX).read_bytes())
        if row["kind"] == kind
    ]
    head = json.dumps(found, allow_nan=False).encode()
    head += b" " * (-len(head) % 4)  # codes begin where numbers may
    return len(head).to_bytes(4, "little") + head + b"".join(contents) if found else b""
