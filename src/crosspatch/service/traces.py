"""Sweeps kept so that any stretch of them can be drawn quickly."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosspatch.errors import RecordingError
from crosspatch.features.analysis import Analysis
from crosspatch.recordings.model import Recording
from crosspatch.recordings.quality import recorded_points
from crosspatch.reporting.cell_view import listed
from crosspatch.reporting.recording_figures import shown_kinds, thinned, until_last

#: Sweeps of a kind of stimulus that are kept.
MOST_SWEEPS = 60

#: Samples kept of a recording: 256 MB.
MOST_SAMPLES = 64_000_000

#: Stretches of a sweep of which the lowest and highest value are given.
STRETCHES = 600

SAMPLES, INDEX = "traces.f32", "traces.json"


def write_traces(recording: Recording, analysis: Analysis, folder: Path) -> list[dict[str, Any]]:
    """Keep a recording's sweeps in a folder.

    Every sample is kept, as float32; of a recording with more than `MOST_SAMPLES`, the lowest and
    highest value of short stretches.

    Parameters
    ----------
    recording : Recording
        Open.
    analysis : Analysis
    folder : Path

    Returns
    -------
    list of dict
        Of each kind of stimulus its name, its sweeps, how many of them are kept, and how many
        quality control rejected.
    """
    kinds = shown_kinds(analysis)
    numbers = {
        kind: [n for n, stimulus in analysis.stimuli.items() if stimulus.kind == kind]
        for kind in kinds
    }
    chosen = {kind: each[:: max(1, -(-len(each) // MOST_SWEEPS))] for kind, each in numbers.items()}
    points = sum(recording.sweep(n).points for each in chosen.values() for n in each)
    coarse = math.ceil(2 * points / MOST_SAMPLES)
    sweeps: list[dict[str, Any]] = []
    offset = 0
    with (folder / SAMPLES).open("wb") as file:
        for kind in kinds:
            for number in chosen[kind]:
                sweep, stimulus = recording.sweep(number), analysis.stimuli[number]
                try:
                    voltage, current = sweep.voltage, sweep.current
                except RecordingError:
                    continue
                voltage = voltage[: recorded_points(voltage, sweep.rate)]
                quality = analysis.qualities.get(number)
                entry: dict[str, Any] = {
                    "number": number,
                    "kind": kind,
                    "rate": sweep.rate / coarse,
                    "amplitude": _finite(stimulus.amplitude),
                    "passed": quality is None or quality.passed,
                    "reasons": [] if quality is None else list(quality.reasons),
                }
                for name, values in (("voltage", voltage), ("current", current)):
                    kept = until_last(values)
                    if coarse > 1:
                        kept = thinned(_filled(kept, 2 * coarse), 2 * coarse)
                    kept = kept.astype("<f4")
                    kept.tofile(file)
                    entry[name] = [offset, len(kept)]
                    offset += len(kept)
                sweeps.append(entry)
    found = [
        {
            "kind": kind,
            "sweeps": len(numbers[kind]),
            "shown": sum(each["kind"] == kind for each in sweeps),
            "rejected": sum(each["kind"] == kind and not each["passed"] for each in sweeps),
        }
        for kind in kinds
    ]
    (folder / INDEX).write_text(json.dumps(sweeps), encoding="utf-8")
    return found


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def read_traces(
    folder: Path,
    kind: str,
    *,
    start: float | None = None,
    end: float | None = None,
    stretches: int = STRETCHES,
) -> list[dict[str, Any]]:
    """The sweeps of one kind of stimulus, or a stretch of them, thinned to be drawn.

    Parameters
    ----------
    folder : Path
        Where `write_traces` put them.
    kind : str
        A kind of stimulus.
    start, end : float, optional
        s from the start of a sweep.
    stretches : int
        Of which the lowest and highest value are given, each sweep.

    Returns
    -------
    list of dict
        ``number``, ``amplitude`` (pA), ``passed``, ``reasons``, and for ``voltage`` (mV) and
        ``current`` (pA) the time of the first value ``t0``, the time between values ``dt``, both
        in s, and the ``values``, None where there is none.
    """
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    # An empty file cannot be mapped.
    samples: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
    if (folder / SAMPLES).stat().st_size:
        samples = np.memmap(folder / SAMPLES, dtype="<f4", mode="r")
    found = []
    for entry in index:
        if entry["kind"] != kind:
            continue
        rate = entry["rate"]
        given = {key: entry[key] for key in ("number", "amplitude", "passed", "reasons")}
        for name in ("voltage", "current"):
            offset, count = entry[name]
            first = 0 if start is None else max(math.floor(min(start * rate, count)) - 1, 0)
            last = count if end is None else max(math.ceil(min(end * rate, count)), first)
            last = min(last + 1, count)
            part = samples[offset + first : offset + last]
            width = max(1, len(part) // stretches)
            values = thinned(_filled(part, width), width)
            # The lowest value of a stretch stands at its first quarter, the highest at its third.
            given[name] = {
                "t0": (first + (width / 4 if width > 1 else 0)) / rate,
                "dt": (width / 2 if width > 1 else 1) / rate,
                # A hundredth of a unit is finer than any amplifier.
                "values": listed(values, 2),
            }
        found.append(given)
    return found


def _filled(values: NDArray[np.floating], width: int) -> NDArray[np.floating]:
    """Values whose last stretch is whole: a spike at the very end must not be lost either."""
    return np.append(values, np.repeat(values[-1:], -len(values) % width))
