"""Stimuli are told by the command, with the file's name for them as a second witness."""

from __future__ import annotations

import numpy as np
import pytest

from crosspatch.errors import RecordingError
from crosspatch.recordings.model import Recording
from crosspatch.recordings.opening import open_recording
from crosspatch.recordings.stimuli import ontology_kind, recognise
from tests.features.made_cell import made_recording, made_sweep

RATES = (10_000.0, 20_000.0, 50_000.0, 200_000.0)


def recording_of(*currents, rate=50_000.0, description=""):
    sweeps = [
        made_sweep(k, rate, np.full(len(current), -70.0), np.asarray(current, float), description)
        for k, current in enumerate(currents)
    ]
    return Recording("made", "made", "made", tuple(sweeps))


def pulse(amplitude, start, end, *, rate=50_000.0, length=2.0, holding=0.0, test=True):
    current = np.full(round(length * rate), float(holding))
    current[round(start * rate) : round(end * rate)] += amplitude
    if test:
        current[round(0.02 * rate) : round(0.03 * rate)] += -30
    return current


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("holding", [0.0, -42.5])
def test_long_and_short_squares(rate, holding):
    recording = recording_of(
        pulse(-110, 0.6, 1.6, rate=rate, holding=holding),
        pulse(90, 0.6, 1.6, rate=rate, holding=holding),
        pulse(400, 0.6, 0.603, rate=rate, holding=holding),
        rate=rate,
    )
    found = recognise(recording)
    assert [found[k].kind for k in range(3)] == ["long square", "long square", "short square"]
    assert [found[k].amplitude for k in range(3)] == pytest.approx([-110, 90, 400])
    assert found[1].start == pytest.approx(0.6)
    assert found[1].duration == pytest.approx(1.0)
    assert found[2].duration == pytest.approx(0.003)
    assert found[0].holding == holding
    assert found[0].test_pulse == pytest.approx((0.02, 0.03, -30))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("grain", [0.0, 0.5])
def test_ramps_fine_and_coarse(rate, grain):
    current = pulse(0, 0, 0, rate=rate, length=6)
    first, last = round(0.6 * rate), round(5 * rate)
    current[first:last] = np.linspace(0, 110, last - first)
    if grain:
        current = np.round(current / grain) * grain
    found = recognise(recording_of(current, current, rate=rate))[0]
    assert found.kind == "ramp"
    assert found.amplitude == pytest.approx(110, abs=1)
    assert found.start == pytest.approx(0.6, abs=0.03 if grain else 1e-3)


def test_waves_are_not_taken_for_something_else():
    time = np.arange(100_000) / 50_000
    chirp = pulse(0, 0, 0)
    chirp[30_000:90_000] = 20 * np.sin(40 * time[:60_000] ** 2)
    noise = pulse(0, 0, 0)
    noise[30_000:90_000] = np.random.default_rng(0).normal(50, 20, 60_000)
    stairs = pulse(50, 0.6, 0.9)
    stairs[45_000:60_000] = 100
    found = recognise(recording_of(chirp, noise, stairs, pulse(0, 0, 0)))
    assert [found[k].kind for k in range(4)] == ["other", "other", "other", "none"]


def test_a_pulse_that_is_always_there_is_a_test_pulse_even_if_long():
    sweeps = [pulse(level, 0.8, 1.3, test=False) for level in range(0, 100, 10)]
    for current in sweeps:
        current[1_000:16_000] = -100
    found = recognise(recording_of(*sweeps))
    assert [found[k].amplitude for k in range(1, 10)] == pytest.approx(range(10, 100, 10))
    assert found[0].kind == "none"
    assert found[0].test_pulse == pytest.approx((0.02, 0.32, -100))


def test_the_same_step_in_every_sweep_is_no_test_pulse():
    found = recognise(recording_of(*[pulse(50, 0.1, 0.35, test=False)] * 4))
    assert {stimulus.kind for stimulus in found.values()} == {"long square"}


def test_a_measured_command_is_read_through_its_noise():
    rng = np.random.default_rng(0)
    levels = (-100, -50, 50, 150)
    sweeps = [pulse(level, 0.5, 1.5) + rng.normal(0, 1.5, 100_000) for level in levels]
    found = recognise(recording_of(*sweeps))
    assert [found[k].kind for k in range(4)] == ["long square"] * 4
    assert [found[k].amplitude for k in range(4)] == pytest.approx(levels, abs=1)
    assert [found[k].duration for k in range(4)] == pytest.approx([1.0] * 4, abs=0.002)


def test_the_files_name_for_a_stimulus_is_a_second_witness():
    assert ontology_kind("C1LSCOARSE150216_DA_0") == "long square"
    assert ontology_kind("C1RP25PR1S141203[0]") == "ramp"
    assert ontology_kind("C1SSFINEST150112") == "short square"
    assert ontology_kind("my protocol") is None
    step = pulse(50, 0.5, 1.5)
    assert not recognise(recording_of(step, description="C1LSCOARSE150216_DA_0"))[0].disagrees
    assert not recognise(recording_of(step, description="my protocol"))[0].disagrees
    assert recognise(recording_of(step, description="C1SSFINEST150112"))[0].disagrees


def test_no_command_at_all():
    sweeps = [made_sweep(k, 1e4, np.full(20_000, -70.0), None) for k in range(3)]
    recording = Recording("rig.abf", "rig", "made", tuple(sweeps))
    with pytest.raises(RecordingError, match=r"rig\.abf has no command waveform .* 'step_start'"):
        recognise(recording)
    described = recording.with_steps(0.5, 1.5, [-50, 0, 50])
    found = recognise(described)
    assert [found[k].amplitude for k in range(3)] == [-50, 0, 50]
    assert [found[k].kind for k in range(3)] == ["long square", "none", "long square"]
    for wrong in ([1, 2], [1, 2, 3, 4]):
        with pytest.raises(RecordingError, match="3 current-clamp sweeps"):
            recording.with_steps(0.5, 1.5, wrong)
    with pytest.raises(RecordingError, match="does not lie inside the sweep of 2 s"):
        recording.with_steps(500, 1500, [50])


def test_made_recordings_round_trip():
    found = recognise(made_recording())
    assert [found[k].amplitude for k in range(3)] == [-110, -90, -70]


def test_real_files(real_data):
    folder = real_data / "recordings"
    expected = {
        "18713001": ("long square", 29, 0.5),
        "171116sh_0018": ("long square", 17, 0.5),
        "190619B_0003": ("long square", 9, 1.0),
        "171116sh_0016": ("ramp", 10, 0.965),
        "17o05027_ic_ramp": ("ramp", 1, 0.965),
    }
    for name, (kind, count, duration) in expected.items():
        with open_recording(folder / f"{name}.abf") as recording:
            found = recognise(recording)
        stimulated = [stimulus for stimulus in found.values() if stimulus.kind != "none"]
        assert {stimulus.kind for stimulus in stimulated} == {kind}
        assert len(stimulated) == count
        assert {round(stimulus.duration, 3) for stimulus in stimulated} == {duration}
