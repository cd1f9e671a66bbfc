"""Where the current was commanded and measured, they are compared, and what counts is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from crosspatch.features.analysis import analyse
from crosspatch.recordings.model import Recording
from crosspatch.recordings.stimuli import recognise
from tests.features.made_cell import made_sweep
from tests.recordings import made_files
from tests.recordings.made_currents import Dirt, Protocol

HEIGHTS = (-100.0, -60.0, -20.0, 0.0, 60.0, 100.0, 140.0)


def cell(
    flowed: Sequence[float] = HEIGHTS,
    said: Sequence[float] | None = None,
    *,
    gain: float = 1.0,
    delay: float = 0.0,
    rate: float = 20e3,
    only_measured: bool = False,
    deaf: bool = False,
    noise: float = 1.0,
) -> Recording:
    """A cell with what flowed, what the command says, and what the amplifier made of the first."""
    true = Protocol(rate=rate, length=0.5, heights=tuple(flowed))
    told = replace(true, heights=tuple(said or flowed), onset=0.3 - delay, after=0.4 + delay)
    rng = np.random.default_rng(0)
    sweeps = []
    for k, (current, command) in enumerate(zip(true.commands(), told.commands(), strict=True)):
        resting = np.zeros_like(current)
        voltage = made_files.respond(resting if deaf else current, int(rate), seed=k)
        measured = Dirt(noise=noise).on(gain * current, rate, slice(0, 1), rng)
        sweep = made_sweep(k, rate, voltage, measured if only_measured else command)
        sweeps.append(replace(sweep, read_monitor=partial(np.asarray, measured)))
    return Recording("made", "made", "made", tuple(sweeps))


def amplitudes(recording: Recording) -> list[float]:
    return [each.amplitude for each in recognise(recording).values()]


@pytest.mark.parametrize("rate", [10e3, 50e3])
def test_command_and_measurement_that_agree(rate):
    found = recognise(cell(rate=rate, gain=1.03))
    assert [each.amplitude for each in found.values()] == list(HEIGHTS)
    assert not any(each.note or each.reason for each in found.values())


@pytest.mark.parametrize("gain", [0.87, 1.3, 20.0, -1.0])
def test_a_measurement_of_another_scale(gain):
    recording = cell(gain=gain)
    assert amplitudes(recording) == list(HEIGHTS)
    notes = analyse(recording).notes
    (note,) = [note for note in notes if "times the command" in note]
    assert f"{gain:.2g}"[:4] in note
    assert note.endswith("the command counts")


def test_a_command_of_nothing_though_current_flows():
    recording = cell(said=[0.0] * len(HEIGHTS))
    assert amplitudes(recording) == pytest.approx(HEIGHTS, abs=1)
    notes = [each.note for each in recognise(recording).values()]
    assert all("disagree in 6 of 7 sweeps" in note for note in notes)
    assert all("the measured current counts: the potential follows it" in note for note in notes)


def test_a_list_of_levels_that_the_command_does_not_know():
    flowed = (-100.0, -60.0, 30.0, 90.0, -20.0, 150.0, 0.0)
    recording = cell(flowed, said=[-100.0 + 20 * k for k in range(7)])
    assert amplitudes(recording) == pytest.approx(flowed, abs=1)
    assert any("the measured current counts" in note for note in analyse(recording).notes)


def test_a_command_that_comes_at_another_time():
    found = recognise(cell(delay=0.02))
    assert {round(each.start, 3) for each in found.values() if each.height} == {0.3}
    assert all("the measured current counts" in each.note for each in found.values())


@pytest.mark.parametrize("gain", [0.0, 0.001])
def test_a_monitor_that_is_not_connected(gain):
    recording = cell(gain=gain)
    assert amplitudes(recording) == list(HEIGHTS)
    assert all("shows no stimulus" in each.note for each in recognise(recording).values())


@pytest.mark.parametrize("gain", [0.05, -0.08])
def test_a_measurement_of_a_small_part_does_not_count(gain):
    recording = cell(gain=gain)
    assert amplitudes(recording) == list(HEIGHTS)
    assert all("hardly shows" in each.note for each in recognise(recording).values())


def test_what_the_potential_does_not_decide_is_refused():
    recording = cell(said=[0.0] * len(HEIGHTS), deaf=True)
    analysis = analyse(recording)
    assert {each.kind for each in analysis.stimuli.values()} == {"other"}
    assert "the potential does not tell which is true" in analysis.cell.reasons[0]


def test_a_measured_current_of_the_wrong_sign_is_turned_over():
    recording = cell(gain=-1.0, only_measured=True)
    found = recognise(recording)
    assert [each.amplitude for each in found.values()] == pytest.approx(HEIGHTS, abs=1)
    assert all("it is turned over" in each.note for each in found.values())
    assert not any(each.note for each in recognise(cell(only_measured=True)).values())


def test_a_measured_current_in_a_wrong_unit_is_told():
    recording = cell(gain=0.001, only_measured=True, noise=0.001)
    analysis = analyse(recording)
    assert {each.kind for each in analysis.stimuli.values()} == {"other", "none"}
    assert "pA, which moves no cell: its unit or gain is wrong" in analysis.cell.reasons[0]
