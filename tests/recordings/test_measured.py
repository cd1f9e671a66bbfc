"""Commands that were measured: steps, short squares and ramps are found whatever rides on them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from crosspatch.features.analysis import analyse
from crosspatch.features.scalars import scalar_features
from crosspatch.recordings.model import Recording
from crosspatch.recordings.opening import open_recording
from crosspatch.recordings.stimuli import Stimulus, recognise
from tests.recordings import made_files
from tests.recordings.made_currents import Dirt, Protocol, recording_of

RATES = (5e3, 10e3, 20e3, 25e3, 40e3, 50e3, 100e3, 200e3)


@dataclass(frozen=True)
class Made:
    """A family of sweeps and what rides on them."""

    protocol: Protocol
    dirt: Dirt
    seed: int

    @property
    def floor(self) -> float:
        """What cannot be told from what rides on it, pA."""
        dirt, protocol = self.dirt, self.protocol
        level = 5 * dirt.noise / np.sqrt(0.02 * protocol.rate)
        if protocol.kind == "short square":
            level = max(level, 7 * dirt.noise / np.sqrt(protocol.length * protocol.rate))
        return max(0.5, level, 3 * dirt.flicker, dirt.grain)

    def verdicts(self) -> Counter[str]:
        """How many sweeps were told right, left out with a reason, or told wrong."""
        found = recognise(self.protocol.measured(self.dirt, self.seed))
        return Counter(
            self._verdict(height, found[k]) for k, height in enumerate(self.protocol.heights)
        )

    def _verdict(self, height: float, stimulus: Stimulus) -> str:
        near_noise = abs(height) < 4 * self.floor
        if stimulus.kind == "none":
            return "right" if near_noise else f"wrong: none for {height} pA"
        if stimulus.kind == "other" and stimulus.reason:
            return "near noise" if near_noise else "left out"
        protocol = self.protocol
        start, end = protocol.part.start / protocol.rate, protocol.part.stop / protocol.rate
        late = 1e-3 if protocol.kind != "ramp" else max(1e-3, 0.01 * protocol.length)
        right = (
            stimulus.kind == protocol.kind
            and abs(stimulus.start - start) <= late
            and abs(stimulus.end - end) <= 1e-3
            and abs(stimulus.amplitude - height) <= max(0.03 * abs(height), self.floor)
        )
        return "right" if right else f"wrong: {height} pA, {stimulus}"


@st.composite
def families(draw: st.DrawFn, kind: str) -> Made:
    """A family, with all that an amplifier adds, each thing in some of them."""
    rate = draw(st.sampled_from(RATES))
    count = draw(st.integers(3, 8 if rate <= 50e3 else 3))
    tallest = draw(st.floats(40, 800) if kind != "short square" else st.floats(100, 2000))
    lowest = {"long square": -0.5, "short square": 0.5, "ramp": 1 / count}[kind]
    length = {
        "long square": st.floats(0.201, 3.0 if rate <= 50e3 else 1.0),
        "short square": st.floats(0.001, 0.0099),
        "ramp": st.floats(0.2, 2.0),
    }[kind]
    onset, after = draw(st.floats(0.05, 0.6)), draw(st.floats(0.05, 0.5))
    test = None
    if draw(st.booleans()):
        longest = draw(st.sampled_from((0.01, 0.05, 0.25)))
        test = (draw(st.floats(0.01, 0.08)), longest, -draw(st.floats(0.05, 0.3)) * tallest)
        onset = max(onset, test[0] + test[1] + 0.06)
    holding = tuple(draw(st.lists(st.floats(-100, 100), min_size=1, max_size=count)))
    seconds = round(draw(length) * rate) / rate
    heights = tuple(float(each) for each in np.linspace(lowest, 1, count) * tallest)
    protocol = Protocol(kind, rate, onset, seconds, after, heights, holding, test)

    def sometimes(least: float, most: float) -> float:
        return draw(st.one_of(st.just(0.0), st.floats(least, most)))

    dirt = Dirt(
        noise=draw(st.floats(0.05, 0.04 * tallest)),
        flicker=sometimes(0.0, 0.008 * tallest),
        hum=sometimes(0.1, 0.08 * tallest),
        mains=draw(st.sampled_from((50.0, 60.0))) + draw(st.floats(-0.1, 0.1)),
        drift=sometimes(-0.1 * tallest, 0.1 * tallest),
        bend=sometimes(-0.02 * tallest, 0.02 * tallest),
        crosstalk=sometimes(0.02 * tallest, 0.4 * tallest),
        firing=draw(st.floats(2, 140)),
        transient=sometimes(-0.2, 0.4),
        fading=draw(st.floats(0.0003, 0.004)) if kind != "short square" else 0.1 * seconds,
        smooth=sometimes(2e-5, 3e-4),
        grain=draw(st.sampled_from((0.0, 0.03, 0.3, 0.6))),
    )
    return Made(protocol, dirt, draw(st.integers(0, 2**32 - 1)))


@pytest.mark.parametrize(
    ("kind", "examples"), [("long square", 30), ("short square", 20), ("ramp", 15)]
)
def test_what_rides_on_a_current_does_not_change_what_it_is(kind, examples):
    counts: Counter[str] = Counter()

    @settings(
        max_examples=examples, derandomize=True, deadline=None, database=None,
        phases=[Phase.generate],
    )  # fmt: skip
    @given(families(kind))
    def told(made: Made) -> None:
        found = made.verdicts()
        wrong = [each for each in found if each.startswith("wrong")]
        assert not wrong, f"{wrong} of {made}"
        counts.update(found)

    told()
    assert counts["right"] >= 0.99 * (counts["right"] + counts["left out"])


def waves() -> dict[str, np.ndarray]:
    """What is no step and no ramp, 1 pA high, a second at 20 kHz."""
    time = np.arange(20_000) / 20_000
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(size=len(time)))
    slow = np.interp(time, np.arange(0, 1.01, 0.01), rng.normal(0, 1, 101))
    return {
        "sine": np.sin(2 * np.pi * 3 * time),
        "fast sine": np.sin(2 * np.pi * 150 * time),
        "chirp": np.sin(2 * np.pi * (time + 20 * time**2)),
        "slow noise": slow,
        "random walk": walk / np.ptp(walk),
        "noise on a step": 1 + 0.3 * rng.normal(size=len(time)),
        "slow noise on a step": 1 + 0.3 * slow,
        "sine on a step": 1 + 0.3 * np.sin(2 * np.pi * 10 * time),
        "stairs": np.floor(1 + 3 * time) / 3,
        "triangle": 1 - np.abs(2 * time - 1),
        "step and ramp": 0.5 + 0.5 * time,
        "synaptic": time / 0.01 * np.exp(1 - time / 0.01),
        "pulses": (time % 0.02 < 0.008).astype(float),
    }


@pytest.mark.parametrize("name", waves())
@pytest.mark.parametrize("height", [30.0, 300.0])
@pytest.mark.parametrize("alone", [True, False])
def test_other_waves_stay_other(name, height, alone):
    rng = np.random.default_rng(1)
    dirt = Dirt(noise=1.0, hum=1.0, drift=2.0)
    steps = Protocol(heights=() if alone else (-50.0, 50.0, 100.0)).commands()
    command = np.zeros(34_000)
    command[6_000:26_000] = height * waves()[name]
    measured = [dirt.on(each, 20e3, slice(0, 1), rng) for each in [command, *steps]]
    found = recognise(recording_of(measured, 20e3))
    assert found[0].kind == "other"
    assert found[0].reason
    assert all(found[k].kind == "long square" for k in range(1, len(measured)))


def test_small_steps_take_their_time_from_their_siblings():
    protocol = Protocol(rate=10e3, heights=(-3.0, 0.0, 3.0, 60.0, 120.0))
    found = recognise(protocol.measured(Dirt(noise=4.0), 0))
    assert [each.kind for each in found.values()] == ["long square", "none", *["long square"] * 3]
    assert {(each.start, each.end) for each in found.values() if each.kind != "none"} == {
        (0.3, 1.3)
    }
    assert found[0].amplitude == pytest.approx(-3, abs=0.5)


def test_each_sweep_has_its_own_holding_current():
    protocol = Protocol(heights=(-50.0, 50.0, 100.0), holding=(-30.0, 0.0, 45.0))
    found = recognise(protocol.measured(Dirt(noise=1.0), 0))
    assert [each.holding for each in found.values()] == pytest.approx([-30, 0, 45], abs=0.3)
    assert [each.amplitude for each in found.values()] == pytest.approx([-50, 50, 100], abs=0.5)


def dirty_cell(steps, rate: int, dirt: Dirt, crosstalk: float, seed: int = 0):
    """Sweeps whose command was measured, with the crosstalk of the potential."""
    rng = np.random.default_rng(seed)
    sweeps = []
    for k, amplitude in enumerate(steps):
        command = made_files.step(amplitude, start=0.3, length=1.0, after=0.6, rate=rate)
        voltage = made_files.respond(command, rate, seed=k)
        measured = dirt.on(command, rate, slice(0, 1), rng)
        measured += crosstalk * np.gradient(voltage)
        sweeps.append(made_files.MadeSweep(measured, voltage, rate, "N/A"))
    return sweeps


@pytest.mark.parametrize("rate", [10_000, 20_000, 50_000])
@pytest.mark.parametrize(
    ("steps", "dirt", "crosstalk"),
    [
        pytest.param(range(40, 401, 40), Dirt(noise=0.5), 0.5, id="crosstalk"),
        pytest.param(range(-100, 261, 40), Dirt(noise=4.0), 1.5, id="noise and crosstalk"),
        pytest.param(range(-100, 261, 40), Dirt(noise=0.3, drift=7.0), 0.0, id="drift"),
    ],
)
def test_cells_whose_command_was_measured(tmp_path, rate, steps, dirt, crosstalk):
    sweeps = dirty_cell(steps, rate, dirt, crosstalk)
    path = made_files.write_nwb(tmp_path / "cell.nwb", sweeps)
    with open_recording(path) as recording:
        analysis = analyse(recording)
    found = list(analysis.stimuli.values())
    assert {each.kind for each in found} == {"long square"}
    assert [each.amplitude for each in found] == pytest.approx(list(steps), abs=1.5)
    clean = [
        replace(sweep, current=made_files.step(each, 0.3, 1.0, 0.6, rate))
        for sweep, each in zip(sweeps, steps, strict=True)
    ]
    made_files.write_nwb(path, clean)
    with open_recording(path) as recording:
        expected = scalar_features(analyse(recording))
    values = scalar_features(analysis)
    assert values["rheobase_i"] == pytest.approx(expected["rheobase_i"], abs=1.5)
    if min(steps) < 0:
        assert values["input_resistance"] == pytest.approx(200, rel=0.05)


def test_steps_that_are_too_short_are_said(tmp_path):
    steps = [made_files.step(each, 0.1, 0.1, 0.3, 20_000) for each in range(-100, 261, 20)]
    sweeps = [
        made_files.MadeSweep(each, made_files.respond(each, 20_000), 20_000) for each in steps
    ]
    with open_recording(made_files.write_nwb(tmp_path / "short.nwb", sweeps)) as recording:
        analysis = analyse(recording)
    (reason,) = analysis.cell.reasons
    assert "its step lasts 0.1 s; long squares need 0.2 s" in reason
    assert any("18 sweeps" in note and "0.1 s" in note for note in analysis.notes)


@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize("test", [None, (0.1, 0.05, -20.0)])
def test_one_long_sweep_is_cut_where_steps_repeat(tmp_path, measured, test):
    heights = (-60.0, -20.0, 0.0, 60.0, 140.0, 180.0)
    commands = Protocol("long square", 10e3, 0.3, 0.5, 0.4, heights, test=test).commands()
    command = np.concatenate([np.zeros(3_000), *commands])
    voltage = made_files.respond(command, 10_000)
    current = Dirt(hum=1.0).on(command, 10e3, slice(0, 1), np.random.default_rng(0))
    sweep = made_files.MadeSweep(current if measured else command, voltage, 10_000)
    with open_recording(made_files.write_nwb(tmp_path / "free.nwb", [sweep])) as recording:
        analysis = analyse(recording)
        assert "every 1.2 s: it is cut into 6 sweeps" in recording.notes[0]
        assert sum(each.points for each in recording.sweeps) > 0.9 * len(command)
    kinds = [each.kind for each in analysis.stimuli.values()]
    assert kinds == ["long square", "long square", "none", *["long square"] * 3]
    found = [each.amplitude for each in analysis.stimuli.values()]
    assert found == pytest.approx(heights, abs=1.0)
    assert scalar_features(analysis)["rheobase_i"] > 0


def test_one_long_sweep_with_uneven_steps_is_told(tmp_path):
    command = np.zeros(60_000)
    for first, last in ((5_000, 10_000), (18_000, 23_000), (41_000, 46_000)):
        command[first:last] = 50
    sweep = made_files.MadeSweep(command, made_files.respond(command, 10_000), 10_000)
    with open_recording(made_files.write_nwb(tmp_path / "free.nwb", [sweep])) as recording:
        assert len(recording.sweeps) == 1
        assert "do not come with one period and length" in recording.notes[0]


def test_what_is_measured_is_never_silent():
    found = recognise(recording_of([np.zeros(200) + 0.1 * (np.arange(200) % 2)], 20e3))
    assert isinstance(found[0], Stimulus)
    empty: Recording = recording_of([np.full(20_000, 3.0)], 20e3)
    assert recognise(empty)[0].kind == "none"


@pytest.mark.parametrize(
    ("protocol", "dirt", "seed"),
    [
        (  # the last sweep's pulse is too short for a window, those of the others are not
            Protocol("short square", 25e3, 0.386, 0.0086, 0.132,
                     tuple(np.linspace(0.5, 1, 8) * 1356.4), (-83.4, 0.0, 76.1, 95.2, -32.9, -21.1),
                     (0.0187, 0.01, -339.1)),
            Dirt(noise=1.9, hum=58.1, mains=50.1, drift=58.1, crosstalk=292.2, firing=117.2,
                 fading=0.00086),
            135,
        ),
        (  # what is left of the hum is no pulse before the test pulse
            Protocol("ramp", 40e3, 1 / 3, 0.2, 0.24, tuple(np.linspace(1 / 6, 1, 6) * 535.4),
                     (26.9, 43.6, 26.9), (0.03, 0.01, -143.0)),
            Dirt(noise=0.05, hum=22.84, mains=50.0, drift=-13.6, crosstalk=100.0, firing=39.0,
                 fading=0.0023),
            19453,
        ),
    ],
    ids=["a pulse among fitted ones", "hum"],
)  # fmt: skip
def test_draws_that_were_told_wrong(protocol, dirt, seed):
    found = Made(protocol, dirt, seed).verdicts()
    assert not [each for each in found if each.startswith("wrong")], found
    assert found["right"] >= len(protocol.heights) - 1
