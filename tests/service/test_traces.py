"""Sweeps as they are kept and sent, beside the way that came before: float32, rounded as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from crosspatch import open_recording
from crosspatch.features.analysis import analyse
from crosspatch.recordings.model import CURRENT_CLAMP, Recording, Sweep
from crosspatch.recordings.stimuli import LONG_SQUARE, Stimulus, recognise
from crosspatch.recordings.sweeps_figure import thinned, until_last
from crosspatch.service import messages, traces
from crosspatch.service.queue import QueuedTask
from tests.recordings.made_files import cell, write_nwb
from tests.service.conftest import PATIENCE, Service, unpacked

Values = NDArray[np.floating]
RATE = 10_000.0


def sweep_of(voltage: Values, current: Values, number: int = 0) -> Sweep:
    return Sweep(number, RATE, len(voltage), CURRENT_CLAMP, "", lambda: voltage, lambda: current)


def kept(folder: Path, voltage: Values, current: Values) -> list[traces.KeptSweep]:
    recording = Recording("x", "x", "made", (sweep_of(voltage, current),))
    stimuli = {0: Stimulus(LONG_SQUARE, 0.1, 0.4, 50.0)}
    found = traces.keep_samples(recording, stimuli, folder)
    traces.keep_index(found, stimuli, {}, folder)
    return found


def before(values: Values, first: int, last: int, stretches: int) -> Values:
    """What was drawn of samples before they were kept as 16 bits."""
    part = until_last(values).astype(np.float32)[first:last]
    width = max(1, len(part) // stretches)
    filled = np.append(part, np.repeat(part[-1:], -len(part) % width))
    found = np.round(thinned(filled, width), 2)
    return np.where(np.isfinite(found), found, np.nan)


def noise(scale: float, dtype: str) -> Values:
    rng = np.random.default_rng(1)
    return (rng.normal(size=5000) * scale - 60).astype(dtype)


def steps(dtype: str) -> Values:
    current = np.zeros(5000, dtype=dtype)
    current[300:500], current[1000:4000] = -20, 123.456
    return current


def with_gaps(values: Values) -> Values:
    values = values.copy()
    values[[17, 2500, 2501]], values[4990:] = np.nan, np.inf
    return values


SIGNALS: dict[str, Values] = {
    "potential": noise(5, "f4"),
    "potential in double": noise(30, "f8"),
    "whole numbers": np.round(noise(30, "f8")).astype("i2"),
    "steps": steps("f4"),
    "ramp": np.linspace(-100, 900, 5000),
    "constant": np.full(5000, 7.25),
    "gaps": with_gaps(noise(5, "f4")),
    "gaps in steps": with_gaps(steps("f8")),
    "far": noise(5000, "f8"),
    "one sample": np.array([-61.5]),
}


@pytest.mark.parametrize("stretches", [10, 613, 5000])
@pytest.mark.parametrize("name", SIGNALS)
def test_what_is_drawn_is_what_was_drawn_before(tmp_path, name, stretches):
    values = SIGNALS[name]
    (sweep,) = kept(tmp_path, SIGNALS["potential"], values)
    step = sweep.current[-1]
    span = np.ptp(values[np.isfinite(values)])
    assert step == pytest.approx(max(0.01, span / 65532))
    for start, end in ((None, None), (0.1, 0.2), (0.0003, 0.0307), (0.49, 0.5)):
        content = traces.read_traces(
            tmp_path, LONG_SQUARE, start=start, end=end, stretches=stretches
        )
        (found,) = unpacked(content)
        drawn, count = found["current"], len(until_last(values))
        first = 0 if start is None else min(max(int(np.floor(start * RATE)) - 1, 0), count - 1)
        last = count if end is None else int(np.ceil(end * RATE)) + 1
        expected = before(values, first, last, stretches)
        assert len(drawn["values"]) == len(expected)
        assert np.array_equal(np.isnan(drawn["values"]), np.isnan(expected))
        apart = np.abs(drawn["values"] - expected)
        # Halves of a step may be rounded either way.
        assert not (apart > step + 0.0051 * (step > 0.01) + 1e-6).any()
        if step == 0.01:
            assert np.sum(apart > 1e-6) <= max(1, 0.01 * len(apart))


def test_a_recording_takes_about_a_quarter_of_the_room(tmp_path):
    with open_recording(write_nwb(tmp_path / "x.nwb", cell(rate=50_000))) as recording:
        stimuli = recognise(recording)
        found = traces.keep_samples(recording, stimuli, tmp_path)
    floats = 4 * sum(each.voltage[1] + each.current[1] for each in found)
    assert (tmp_path / traces.SAMPLES).stat().st_size < 0.29 * floats


def test_what_is_looked_at_stays_while_samples_are_kept_anew(tmp_path):
    kept(tmp_path, SIGNALS["potential"], SIGNALS["steps"])
    mapped = np.memmap(tmp_path / traces.SAMPLES, dtype="<i2", mode="r")
    copied = mapped.copy()
    kept(tmp_path, np.full(10, -70.0), np.zeros(10))
    assert np.array_equal(mapped, copied)


# Read once


def counted(recording: Recording, seen: Counter[str]) -> Recording:
    def counting(name: str, read: Callable[..., Any] | None) -> Any:
        def reading(*given: Any) -> Any:
            assert read is not None
            seen[name] += 1
            return read(*given)

        return reading

    sweeps = (
        replace(
            each,
            read_voltage=counting(f"voltage {each.number}", each.read_voltage),
            read_current=counting(f"current {each.number}", each.read_current),
            read_voltage_until=counting(f"voltage {each.number}", each.read_voltage_until),
        )
        for each in recording.sweeps
    )
    return replace(recording, sweeps=tuple(sweeps))


def test_drawing_and_measuring_read_samples_once(tmp_path):
    made, seen = cell(), Counter[str]()
    with open_recording(write_nwb(tmp_path / "x.nwb", made)) as opened:
        alone = analyse(opened)
        recording = counted(opened, seen).remembered(traces.MOST_SAMPLES)
        stimuli = recognise(recording)
        traces.keep_samples(recording, stimuli, tmp_path)
        analysis = analyse(recording, None, stimuli)
    assert set(seen.values()) == {1}
    assert len(seen) == 2 * len(made)
    assert analysis.qualities.keys() == alone.qualities.keys()
    assert (analysis.notes, analysis.stimuli) == (alone.notes, alone.stimuli)


def test_more_samples_than_memory_is_meant_for_are_not_remembered(tmp_path):
    with open_recording(write_nwb(tmp_path / "x.nwb", cell())) as opened:
        points = sum(each.points for each in opened.sweeps)
        assert opened.remembered(2 * points - 1) is opened
        assert opened.remembered(2 * points) is not opened


# As it comes


def test_a_worker_says_that_sweeps_can_be_drawn_before_it_measures(
    service: Service, client, tmp_path
):
    batch = service.batch(client, species="mouse")
    service.give(client, batch, "x.nwb", write_nwb(tmp_path / "x.nwb").read_bytes())
    service.finished(client, batch)
    file = service.jobs.batches.get(batch).file(1)
    said: list[messages.Told] = []
    task = QueuedTask(batch, messages.Measure(file.given), said.append)
    service.jobs.workers.put(task)
    assert isinstance(task.outcome.result(PATIENCE), messages.Predicted)
    kinds = [each.stage if isinstance(each, messages.Doing) else "drawn" for each in said]
    assert kinds == ["reading", "drawn", "measuring", "predicting"]
    assert said[1] == file.drawn
    assert [each.kind for each in file.drawn.stimuli] == ["long square", "short square", "ramp"]
