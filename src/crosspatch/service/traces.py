"""Sweeps kept so that any stretch of them can be drawn quickly."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, TypeAdapter

from crosspatch.errors import RecordingError
from crosspatch.features.analysis import Analysis
from crosspatch.recordings.model import Recording
from crosspatch.recordings.quality import recorded_points
from crosspatch.reporting.cell_view import rounded
from crosspatch.reporting.recording_figures import shown_kinds, thinned, until_last

MOST_SWEEPS = 60  #: sweeps of a kind of stimulus that are kept
MOST_SAMPLES = 64_000_000  #: samples kept of a recording: 256 MB
STRETCHES = 600  #: stretches of a sweep of which the lowest and highest value are given
SAMPLES, INDEX = "traces.f32", "traces.json"


@dataclass(frozen=True)
class StimulusSweeps:
    """How many sweeps of a kind of stimulus there are, are kept, and were rejected."""

    kind: str
    sweeps: int
    shown: int
    rejected: int


class Signal(BaseModel):
    """Samples at even times; where many fall together, their lowest and highest value in turn."""

    t0: float = Field(description="s")
    dt: float = Field(description="s")
    values: list[float | None]


class _Sweep(BaseModel):
    """What is known of a sweep."""

    number: int
    amplitude: float | None = Field(description="pA")
    passed: bool
    reasons: list[str]


class SweepTrace(_Sweep):
    """A sweep; voltage in mV, current in pA."""

    voltage: Signal
    current: Signal


class _KeptSweep(_Sweep):
    """A sweep in the file of samples; of its signals the first sample there, and how many."""

    kind: str
    rate: float  #: Hz, of the samples kept
    voltage: tuple[int, int]
    current: tuple[int, int]


_KEPT = TypeAdapter(list[_KeptSweep])


def write_traces(recording: Recording, analysis: Analysis, folder: Path) -> list[StimulusSweeps]:
    """Keep a recording's sweeps in a folder; the recording is open.

    Every sample is kept, as float32; of a recording with more than `MOST_SAMPLES`, the lowest and
    highest value of short stretches.
    """
    by_kind = {
        kind: [number for number, stimulus in analysis.stimuli.items() if stimulus.kind == kind]
        for kind in shown_kinds(analysis)
    }
    chosen = []
    for numbers in by_kind.values():
        chosen += numbers[:: max(1, -(-len(numbers) // MOST_SWEEPS))]
    coarse = math.ceil(2 * sum(recording.sweep(n).points for n in chosen) / MOST_SAMPLES)
    with (folder / SAMPLES).open("wb") as file:
        kept = [_kept(recording, analysis, number, coarse, file) for number in chosen]
    sweeps = [each for each in kept if each is not None]
    (folder / INDEX).write_bytes(_KEPT.dump_json(sweeps))
    shown = Counter(each.kind for each in sweeps)
    passed = Counter(each.kind for each in sweeps if each.passed)
    return [
        StimulusSweeps(kind, len(each), shown[kind], shown[kind] - passed[kind])
        for kind, each in by_kind.items()
    ]


def _kept(
    recording: Recording, analysis: Analysis, number: int, coarse: int, file: BinaryIO
) -> _KeptSweep | None:
    """Write the samples of a sweep, of stretches of so many; None where it cannot be read."""
    sweep, stimulus = recording.sweep(number), analysis.stimuli[number]
    try:
        voltage, current = sweep.voltage, sweep.current
    except RecordingError:
        return None
    voltage = voltage[: recorded_points(voltage, sweep.rate)]
    places = []
    for values in (voltage, current):
        kept = until_last(values)
        if coarse > 1:
            kept = thinned(_filled(kept, 2 * coarse), 2 * coarse)
        places.append((file.tell() // 4, len(kept)))
        file.write(kept.astype("<f4").tobytes())
    quality = analysis.qualities.get(number)
    return _KeptSweep(
        number=number,
        kind=stimulus.kind,
        rate=sweep.rate / coarse,
        amplitude=float(stimulus.amplitude) if math.isfinite(stimulus.amplitude) else None,
        passed=quality is None or quality.passed,
        reasons=[] if quality is None else list(quality.reasons),
        voltage=places[0],
        current=places[1],
    )


def read_traces(
    folder: Path,
    kind: str,
    *,
    start: float | None = None,
    end: float | None = None,
    stretches: int = STRETCHES,
) -> list[SweepTrace]:
    """The sweeps of one kind of stimulus, thinned to the extremes of so many stretches each.

    They may be cut to what lies between two times, in s from the start of a sweep.
    """
    # An empty file cannot be mapped.
    samples: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
    if (folder / SAMPLES).stat().st_size:
        samples = np.memmap(folder / SAMPLES, dtype="<f4", mode="r")

    def signal(place: tuple[int, int], rate: float) -> Signal:
        offset, count = place
        first = 0 if start is None else max(math.floor(min(start * rate, count)) - 1, 0)
        last = count if end is None else max(math.ceil(min(end * rate, count)), first)
        part = samples[offset + first : offset + min(last + 1, count)]
        width = max(1, len(part) // stretches)
        # The lowest value of a stretch stands at its first quarter, the highest at its third.
        return Signal(
            t0=(first + (width / 4 if width > 1 else 0)) / rate,
            dt=(width / 2 if width > 1 else 1) / rate,
            # A hundredth of a unit is finer than any amplifier.
            values=rounded(thinned(_filled(part, width), width), 2),
        )

    return [
        SweepTrace(
            **each.model_dump(include=set(_Sweep.model_fields)),
            voltage=signal(each.voltage, each.rate),
            current=signal(each.current, each.rate),
        )
        for each in _KEPT.validate_json((folder / INDEX).read_bytes())
        if each.kind == kind
    ]


def _filled(values: NDArray[np.floating], width: int) -> NDArray[np.floating]:
    """Values whose last stretch is whole: a spike at the very end must not be lost either."""
    return np.append(values, np.repeat(values[-1:], -len(values) % width))
