"""ABF files that do not say plainly what their inputs and outputs are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from crosspatch.errors import RecordingError
from crosspatch.features.extraction import ExtractionSettings, extract_recording
from crosspatch.features.layouts import load_layout
from crosspatch.recordings.abf import read_abf
from crosspatch.recordings.model import Recording
from crosspatch.recordings.opening import open_recording
from crosspatch.recordings.reading_options import Reading
from tests.recordings.made_files import (
    RESISTANCE,
    REST,
    MadeEpoch,
    MadeInput,
    MadeOutput,
    respond,
    step,
    step_epochs,
    write_abf1_of,
    write_abf2_of,
)

Traces = list[NDArray[np.float64]]
STEPS = tuple(range(-100, 300, 40))
#: Where the steps begin and how long they last, s; before them is the 64th of the sweep.
LENGTHS = (0.3, 0.5, 0.1)
WRITERS = (write_abf1_of, write_abf2_of)


def commands(steps: Sequence[float] = STEPS, rate: int = 10_000, whole: float = 1.2) -> Traces:
    """Steps where `epochs` has them."""
    start = int(whole * rate) // 64 / rate + LENGTHS[0]
    after = whole - start - LENGTHS[1]
    return [step(each, start, LENGTHS[1], after, rate) for each in steps]


def epochs(steps: Sequence[float] = STEPS, rate: int = 10_000) -> list[MadeEpoch]:
    return step_epochs(steps[0], steps[1] - steps[0], LENGTHS, rate)


def potentials(currents: Traces, rate: int = 10_000, seed: int = 0) -> Traces:
    return [respond(each, rate, seed + k) for k, each in enumerate(currents)]


def noisy(traces: Traces, noise: float = 3.0) -> Traces:
    random = np.random.default_rng(5)
    return [trace + random.normal(0, noise, len(trace)) for trace in traces]


def trigger(traces: Traces, high: float = 5.0) -> Traces:
    """A pulse of 5 ms at the start of every sweep, in V."""
    made = [np.zeros(len(trace)) for trace in traces]
    for trace in made:
        trace[50:100] = high
    return made


def amplitudes(recording: Recording, at: float = 0.55, whole: float = 1.2) -> list[float]:
    """Measured here: in the middle of the step, above what is before it."""
    found = []
    for sweep in recording.current_clamp:
        current = sweep.current
        middle = round(at * sweep.rate)
        ends = current[middle - 20 : middle + 20], current[: round(0.02 * sweep.rate)]
        found.append(round(float(np.median(ends[0]) - np.median(ends[1])), 1))
        assert len(current) == sweep.points == round(whole * sweep.rate)
    return found


def assert_steps(recording: Recording, steps: Sequence[float] = STEPS, within: float = 2.0) -> None:
    np.testing.assert_allclose(amplitudes(recording), steps, atol=within)
    for sweep in recording.sweeps:
        assert abs(float(np.median(sweep.voltage[:2000])) - REST) < 1


def said(recording: Recording) -> str:
    return "; ".join(recording.notes)


# --- which input is the potential, and which clamp -------------------------------------------


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("rate", [5_000, 10_000, 50_000])
@pytest.mark.parametrize("unit", ["mV", "pA"])
@pytest.mark.parametrize("first", ["current", "potential"])
def test_the_current_may_come_first(write, rate, unit, first, tmp_path: Path):
    currents = commands(rate=rate)
    inputs = [
        MadeInput("Imemb", "pA", noisy(currents)),
        MadeInput("Vm", "mV", potentials(currents, rate)),
    ]
    if first == "potential":
        inputs.reverse()
    on = unit == "mV"  # a command of voltage that is on says nothing where a cell answers slowly
    made_epochs = [
        MadeEpoch(each.level / 10, each.more / 10, each.points) for each in epochs(rate=rate)
    ]
    outputs = [MadeOutput(unit=unit, epochs=made_epochs, enabled=on)]
    path = write(tmp_path / "cell.abf", inputs, outputs, rate=rate)
    with open_recording(path) as recording:
        assert_steps(recording)
        assert "current clamp: the potential" in said(recording)
        assert "the current is that of input" in said(recording)


def clamped_pair(rate: int = 20_000) -> list[MadeInput]:
    """Voltage clamp with the potential recorded, through 10 MOhm."""
    volts = [each / 10 + REST for each in commands(rate=rate)]
    amps = []
    for k, each in enumerate(volts):
        moved = np.concatenate([[0.0], np.diff(each)])
        kernel = np.exp(-np.arange(round(0.01 * rate)) / (0.001 * rate)) / 0.01
        amps.append((each - REST) / 0.2 + np.convolve(moved, kernel)[: len(each)])
        amps[-1] += np.random.default_rng(k).normal(0, 4, len(each))
    return [MadeInput("IN 0", "pA", amps), MadeInput("IN 1", "mV", volts)]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("swapped", [False, True])
def test_voltage_clamp_with_a_potential_is_refused(write, swapped, tmp_path: Path):
    inputs = clamped_pair()
    if swapped:
        inputs.reverse()
    table = [
        MadeEpoch(each.level / 10, each.more / 10, each.points) for each in epochs(rate=20_000)
    ]
    outputs = [MadeOutput(unit="mV", epochs=table, holding=REST)]
    path = write(tmp_path / "cell.abf", inputs, outputs, rate=20_000)
    with pytest.raises(
        RecordingError, match=r"voltage clamp: the potential of input .* jumps"
    ) as e:
        open_recording(path)
    assert "'clamp'" in str(e.value)
    with open_recording(path, reading=Reading(clamp="current")) as recording:
        assert len(recording.current_clamp) == len(STEPS)
        assert "as told" in said(recording)


def test_voltage_clamp_beside_a_trigger_is_refused(tmp_path: Path):
    amps = clamped_pair()[0]
    inputs = [MadeInput("trigger", "V", trigger(list(amps.sweeps))), amps]
    with pytest.raises(RecordingError, match=r"voltage clamp: input 1 .* in pA, .* no membrane"):
        open_recording(
            write_abf2_of(tmp_path / "x.abf", inputs, [MadeOutput(unit="mV")], rate=20_000)
        )


def test_the_telegraph_counts_where_nothing_moves(tmp_path: Path):
    still = [
        np.full(10_000, REST) + np.random.default_rng(k).normal(0, 0.1, 10_000) for k in range(3)
    ]
    flat = [each - REST for each in still]
    for mode, clamp in ((0, "voltage"), (1, "current")):
        inputs = [
            MadeInput("IN 0", "pA", flat, mode=mode),
            MadeInput("IN 1", "mV", still, mode=mode),
        ]
        path = write_abf2_of(tmp_path / f"{mode}.abf", inputs, [MadeOutput(unit="mV")])
        if clamp == "current":
            assert "telegraph" in said(open_recording(path))
            continue
        with pytest.raises(RecordingError, match="telegraph"):
            open_recording(path)


def photodiode(traces: Traces) -> Traces:
    """Looks like a membrane in V."""
    random = np.random.default_rng(3)
    return [-0.06 + random.normal(0, 1e-3, len(trace)) for trace in traces]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("name", "unit", "make"),
    [
        ("trigger", "V", trigger),
        ("IN 3", "V", trigger),
        ("Photodiode", "V", photodiode),
        ("Temp", "mV", lambda traces: [np.full(len(trace), 320.0) for trace in traces]),
        ("AI 5", "mV", lambda traces: [np.zeros(len(trace)) for trace in traces]),
        ("10Vm", "mV", lambda traces: [10 * trace for trace in potentials(traces)]),
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_other_inputs_in_volts_are_no_membranes(write, name, unit, make, last, tmp_path: Path):
    currents = commands()
    inputs = [
        MadeInput(name, unit, make(currents)),
        MadeInput("Vm_sec", "mV", potentials(currents)),
    ]
    if last:
        inputs.reverse()
    path = write(tmp_path / "cell.abf", inputs, [MadeOutput(epochs=epochs())])
    with open_recording(path) as recording:
        assert_steps(recording)
        assert "the potential is that of input" in said(recording)
        assert name in said(recording)


def test_the_input_can_be_named(tmp_path: Path):
    currents = commands()
    inputs = [
        MadeInput("IN 0", "mV", potentials(currents)),
        MadeInput("IN 4", "mV", photodiode(currents), number=4),
        MadeInput("Im", "pA", currents, number=5),
    ]
    path = write_abf2_of(tmp_path / "cell.abf", inputs, [MadeOutput(epochs=epochs())])
    for channel in ("4", "in 4"):
        with open_recording(path, reading=Reading(channel=channel)) as recording:
            assert abs(float(np.mean(recording.sweep(0).voltage)) + 0.06) < 0.01
    for channel, why in (("Vm", "no input"), ("5", "input 5 'Im' in pA")):
        with pytest.raises(RecordingError) as caught:
            open_recording(path, reading=Reading(channel=channel))
        assert why in str(caught.value)
        assert "0 'IN 0' (mV), 4 'IN 4' (mV), 5 'Im' (pA)" in str(caught.value)


# --- which output is the command -------------------------------------------------------------


@pytest.mark.parametrize("headstage", [1, 2, 3])
def test_the_command_may_be_on_another_output(headstage, tmp_path: Path):
    currents = commands()
    inputs = [MadeInput(f"IN {headstage}", "mV", potentials(currents), number=headstage)]
    outputs = [MadeOutput(f"Cmd {k}", "mV", enabled=k == 0) for k in range(4)]
    outputs[headstage] = MadeOutput(
        f"Cmd {headstage}",
        "nA",
        [MadeEpoch(each.level / 1000, each.more / 1000, each.points) for each in epochs()],
    )
    with open_recording(write_abf2_of(tmp_path / "cell.abf", inputs, outputs)) as recording:
        assert_steps(recording)
        assert f"output {headstage} 'Cmd {headstage}'" in said(recording)


@pytest.mark.parametrize("write", WRITERS)
def test_the_output_that_the_cell_follows_is_its_own(write, tmp_path: Path):
    """Numbers say the other."""
    currents = commands()
    inputs = [MadeInput("IN 0", "mV", potentials(currents), number=0)]
    late = [MadeEpoch(points=100), MadeEpoch(500.0, -20.0, 1000)]
    outputs = [MadeOutput("Cmd 0", epochs=late), MadeOutput("Cmd 1", epochs=epochs())]
    path = write(tmp_path / "cell.abf", inputs, outputs)
    with open_recording(path) as recording:
        assert_steps(recording)
        assert "is driven by output 1" in said(recording)
    with open_recording(path, reading=Reading(electrode="Cmd 0")) as recording:
        assert amplitudes(recording, at=0.07)[:2] == [500.0, 480.0]
    with pytest.raises(
        RecordingError,
        match=r"no electrode 'Cmd 7'; its outputs of current are 0 'Cmd 0' \(pA\), 1",
    ):
        open_recording(path, reading=Reading(electrode="Cmd 7"))


def two_cells(tmp_path: Path, write: Callable[..., Path], **more: Any) -> Path:
    ours, theirs = commands(), commands([each + 15 for each in STEPS])
    inputs = [
        MadeInput("IN 0", "mV", potentials(ours), number=0),
        MadeInput("IN 1", "mV", potentials(theirs, seed=50), number=1),
    ]
    second = epochs([each + 15 for each in STEPS])
    outputs = [MadeOutput("Cmd 0", epochs=epochs()), MadeOutput("Cmd 1", epochs=second)]
    return write(tmp_path / "cells.abf", inputs, outputs, **more)


@pytest.mark.parametrize("write", WRITERS)
def test_two_cells(write, tmp_path: Path):
    path = two_cells(tmp_path, write)
    one, other = read_abf(path)
    assert (one.cell_id, other.cell_id) == ("cells_Cmd_0", "cells_Cmd_1")
    assert_steps(one)
    assert_steps(other, [each + 15 for each in STEPS])
    np.testing.assert_array_equal(one.sweep(9).voltage[:50] == other.sweep(9).voltage[:50], False)
    for wanted in ("1", "Cmd 1", "IN 1"):
        (alone,) = read_abf(path, Reading(electrode=wanted))
        assert_steps(alone, [each + 15 for each in STEPS])
    (alone,) = read_abf(path, Reading(channel="IN 0"))
    assert_steps(alone)


def test_one_cell_recorded_twice_is_one(tmp_path: Path):
    currents = commands()
    once = potentials(currents)
    inputs = [MadeInput("IN 0", "mV", noisy(once, 0.02)), MadeInput("Vm_prim", "mV", once)]
    outputs = [MadeOutput("Cmd 0", epochs=epochs()), MadeOutput("Cmd 1", "mV", epochs())]
    (recording,) = read_abf(write_abf2_of(tmp_path / "cell.abf", inputs, outputs))
    assert_steps(recording)
    assert "input 0 'IN 0' is left out" in said(recording)


def test_the_partner_of_a_stimulated_cell_is_left_out(tmp_path: Path):
    currents = commands()
    quiet = [np.zeros(len(each)) for each in currents]
    inputs = [
        MadeInput("IN 0", "mV", potentials(quiet, seed=70)),
        MadeInput("IN 1", "mV", potentials(currents)),
    ]
    (recording,) = read_abf(
        write_abf2_of(tmp_path / "pair.abf", inputs, [MadeOutput("Cmd 0", epochs=epochs())])
    )
    assert_steps(recording)
    assert "input 0 'IN 0' follows no output, it is left out" in said(recording)


def test_two_cells_whose_currents_are_measured(tmp_path: Path):
    ours, theirs = commands(), commands([each / 2 + 15 for each in STEPS])
    inputs = [
        MadeInput("Vm 0", "mV", potentials(ours), number=0),
        MadeInput("Im 1", "pA", noisy(theirs), number=2),
        MadeInput("Im 0", "pA", noisy(ours), number=1),
        MadeInput("Vm 1", "mV", potentials(theirs, seed=50), number=3),
    ]
    second = epochs([each / 2 + 15 for each in STEPS])
    outputs = [MadeOutput("Cmd 0", epochs=epochs()), MadeOutput("Cmd 1", epochs=second)]
    for one, number in zip(
        read_abf(write_abf2_of(tmp_path / "cells.abf", inputs, outputs)), (0, 1), strict=True
    ):
        assert (
            f"the command is that of output {number} 'Cmd {number}', input {1 + number} "
            f"'Im {number}' measured the current" in said(one)
        )
    outputs = [MadeOutput("Cmd 0", enabled=False), MadeOutput("Cmd 1", enabled=False)]
    one, other = read_abf(write_abf2_of(tmp_path / "cells.abf", inputs, outputs))
    assert_steps(one)
    assert_steps(other, [each / 2 + 15 for each in STEPS])


def test_gap_free_voltage_clamp_is_refused(tmp_path: Path):
    """Events of current at a potential that is held."""
    random = np.random.default_rng(2)
    time = np.arange(200_000)
    amps = random.normal(-40, 3, len(time))
    for at in random.integers(0, len(time) - 500, 80):
        amps[at : at + 500] -= 150 * np.exp(-np.arange(500) / 100)
    volts = random.normal(REST, 0.2, len(time))
    inputs = [MadeInput("IN 0", "pA", [amps]), MadeInput("IN 1", "mV", [volts])]
    with pytest.raises(RecordingError, match=r"voltage clamp: the potential of input 1 .* is held"):
        open_recording(write_abf2_of(tmp_path / "x.abf", inputs, mode=3))


@pytest.mark.parametrize("tau", [0.003, 0.01, 0.04])
@pytest.mark.parametrize("length", [0.002, 0.01, 0.1])
def test_fast_and_slow_membranes_and_short_steps(tau, length, tmp_path: Path):
    rate = 20_000
    steps = [step(each, 0.1, length, 0.3, rate) for each in (-500, -400, 400)]
    kernel = np.exp(-np.arange(rate // 2) / (tau * rate)) / (tau * rate)
    volts = [REST + 0.1 * np.convolve(each, kernel)[: len(each)] for each in steps]
    inputs = [
        MadeInput("I", "nA", [each / 1000 for each in steps]),
        MadeInput("V", "V", [each / 1000 for each in volts]),
    ]
    path = write_abf2_of(tmp_path / "x.abf", inputs, [MadeOutput(unit="mV")], rate=rate)
    with open_recording(path) as recording:
        assert "changes slowly" in said(recording)
        np.testing.assert_allclose(recording.sweep(1).current, steps[1], atol=0.1)


def rigs() -> dict[str, tuple[list[MadeInput], list[MadeOutput]]]:
    """Files of one cell, each of which hides something."""
    ours = commands()
    listed = commands([-100, -60, 0, 30, 90, 115, 140, 150, 200, 250])
    values = "-100,-60,0,30,90,115,140,150,200,250"
    told = MadeOutput(epochs=epochs(), user_list=(62, values, False))
    elsewhere = [MadeOutput("Cmd 0", "mV", enabled=False), MadeOutput("Cmd 1", epochs=epochs())]
    plain = MadeInput("Vm", "mV", potentials(ours))
    return {
        "a user list": ([MadeInput("IN 0", "mV", potentials(listed))], [told]),
        "the current first": (
            [MadeInput("Imemb", "pA", ours), plain],
            [MadeOutput(unit="mV", epochs=epochs((-10.0, -6.0)))],
        ),
        "another output": ([MadeInput("IN 1", "mV", plain.sweeps, number=1)], elsewhere),
        "a trigger first": (
            [MadeInput("trigger", "V", trigger(ours)), plain],
            [MadeOutput(epochs=epochs()), MadeOutput("Cmd 1", "mV", enabled=False)],
        ),
    }


@pytest.mark.parametrize("rig", rigs())
def test_features_of_rigs_that_hide_something(rig, tmp_path: Path):
    inputs, outputs = rigs()[rig]
    with open_recording(write_abf2_of(tmp_path / "cell.abf", inputs, outputs)) as recording:
        features = extract_recording(recording, ExtractionSettings("shared"))
    named = dict(zip(load_layout("shared").feature_names, features.values, strict=True))
    assert abs(named["rheobase_i"] - 140) < 1
    assert abs(named["input_resistance"] / (1000 * RESISTANCE) - 1) < 0.05
    assert abs(named["tau"] - 15) < 1.5
    assert features.head["qc_passed"]


def test_a_potential_that_is_shifted_is_still_the_one(tmp_path: Path):
    currents = commands()
    shifted = [each + 55 for each in potentials(currents)]
    inputs = [
        MadeInput("IN 5", "mV", [np.full(len(each), 320.0) for each in currents]),
        MadeInput("IN 1", "mV", shifted),
    ]
    with open_recording(
        write_abf2_of(tmp_path / "x.abf", inputs, [MadeOutput(epochs=epochs())])
    ) as recording:
        assert abs(float(np.median(recording.sweep(0).voltage)) - REST - 55) < 1
        assert "input 0 'IN 5' is left out: it reaches 320 mV" in said(recording)


def test_cells_whose_outputs_are_named_alike(tmp_path: Path):
    path = two_cells(tmp_path, write_abf2_of)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"Cmd 1", b"Cmd 0"))
    assert [each.electrode for each in read_abf(path)] == ["IN 0", "IN 1"]
    path.write_bytes(content.replace(b"Cmd 1", b"Cmd 0").replace(b"IN 1", b"IN 0"))
    assert [each.electrode for each in read_abf(path)] == ["0", "1"]


def test_two_cells_that_do_the_same_are_two(tmp_path: Path):
    currents = commands()
    inputs = [MadeInput(f"IN {k}", "mV", potentials(currents, seed=40 * k)) for k in range(2)]
    outputs = [MadeOutput(f"Cmd {k}", epochs=epochs()) for k in range(2)]
    one, other = read_abf(write_abf2_of(tmp_path / "x.abf", inputs, outputs))
    assert "input 0 'IN 0' is driven by output 0" in said(one)
    assert "input 1 'IN 1' is driven by output 1" in said(other)
