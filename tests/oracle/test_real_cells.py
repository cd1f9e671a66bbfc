"""Features of real recordings, beside a plain measurement of their samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from crosspatch.errors import RecordingError
from crosspatch.features.analysis import Analysis, analyse
from crosspatch.features.scalars import scalar_features
from crosspatch.recordings.model import Recording
from crosspatch.recordings.opening import open_recording
from crosspatch.recordings.reading_options import Reading
from tests.features.made_cell import made_sweep
from tests.oracle import plain_cell
from tests.oracle.plain_cell import PlainSweep, step_sweep

RAMPS = ("171116sh_0016", "17o05027_ic_ramp")


def plain_sweeps(
    recording: Recording, numbers: Sequence[int], start: float, end: float
) -> dict[int, PlainSweep]:
    """Sweeps by number, with the step that is between two times in s; none without a step."""
    found = {}
    for number in numbers:
        sweep = recording.sweep(number)
        edges = (round(start * sweep.rate), round(end * sweep.rate))
        plain = step_sweep(sweep.voltage, sweep.current, sweep.rate, *edges)
        if abs(plain.amplitude) > 1:
            found[number] = plain
    return found


def require_spikes_alike(analysis: Analysis, sweeps: dict[int, PlainSweep]) -> None:
    """The same spike counts in every sweep, rheobase, and threshold and width at rheobase."""
    long = analysis.long_square
    assert long is not None
    counts = {
        cut.number: len(spikes)
        for cut, spikes in zip(long.cuts, long.spikes, strict=True)
        if cut.amplitude > 0
    }
    assert counts == {number: len(sweeps[number].peaks()) for number in counts}
    found = scalar_features(analysis)
    measured = [sweeps[number] for number in counts]
    assert found["rheobase_i"] == pytest.approx(plain_cell.rheobase(measured), rel=0.01)
    at = next(
        s for s in measured if len(s.peaks()) and s.amplitude == plain_cell.rheobase(measured)
    )
    mean = plain_cell.upstroke(at.voltage, at.rate, at.peaks())
    threshold, width = plain_cell.first_spike(at.voltage, at.rate, at.peaks()[0], mean)
    assert found["threshold_v_rheo"] == pytest.approx(threshold, abs=1)
    assert found["width_rheo"] == pytest.approx(width * 1e3, rel=0.05)


@pytest.mark.parametrize(
    ("file", "offset", "rheobase", "step"),
    [
        ("recordings/18713001.abf", 0, 80, (0.8234, 1.3234)),
        ("recordings/171116sh_0018.abf", 0, 50, (0.1469, 0.6469)),
        ("recordings/190619B_0003.abf", 0, 120, (1.0478, 2.0478)),
        ("formats/99111002.nwb", 55, 200, (0.0312, 0.4312)),
    ],
)
def test_steps(real_data: Path, file: str, offset: float, rheobase: float, step):
    with open_recording(real_data / file, reading=Reading(offset_mv=offset)) as recording:
        shifted = recording.remembered(10**9)
        analysis = analyse(shifted)
        assert analysis.long_square is not None
        sweeps = plain_sweeps(shifted, analysis.long_square.numbers, *step)
        pulses = {
            s.number: PlainSweep(
                s.voltage, s.rate, round(test[0] * s.rate), round(test[1] * s.rate), test[2]
            )
            for s in shifted.current_clamp
            if (test := analysis.stimuli[s.number].test_pulse)
        }
    require_spikes_alike(analysis, sweeps)
    found = scalar_features(analysis)
    assert found["rheobase_i"] == pytest.approx(rheobase, abs=0.1)
    below = [s for s in sweeps.values() if s.amplitude < 0 and not len(s.peaks())]
    below = below or list(pulses.values())
    largest = max(max(s.amplitude for s in below) * 1.01, -1e9)
    small = [s for s in below if s.amplitude > min(-99.9, largest)]
    resistance = plain_cell.input_resistance(small)
    assert found["input_resistance"] == pytest.approx(resistance, rel=0.05)
    assert found["tau"] == pytest.approx(plain_cell.time_constant(small) * 1e3, rel=0.1)


def test_an_offset_of_a_real_file_is_told(real_data: Path):
    with open_recording(real_data / "formats" / "99111002.nwb") as recording:
        analysis = analyse(recording)
    assert analysis.cell.reasons[0].startswith("the potential is probably offset by about +55 mV")
    assert "baseline outside -110 to -35 mV (15 of 15)" in analysis.cell.reasons[1]


def test_igor_waves_of_potential_and_current(real_data: Path):
    binarywave = pytest.importorskip("igor2.binarywave")
    sweeps, plain = [], {}
    for number in range(181, 186):
        current, voltage = (
            np.asarray(
                binarywave.load(real_data / "formats" / f"B6_Ch{channel}_IDRest_{number}.ibw")[
                    "wave"
                ]["wData"],
                dtype=np.float64,
            )
            for channel in (0, 3)
        )
        plain[number] = step_sweep(voltage, current, 4000.0, 2801, 10801)
        sweeps.append(made_sweep(number, 4000.0, voltage, None))
    recording = Recording("B6", "B6", "Igor", tuple(sweeps))
    at = plain[181]
    steps = [each.amplitude for each in plain.values()]
    analysis = analyse(recording.with_steps(at.first / 4000, at.last / 4000, steps))
    require_spikes_alike(analysis, plain)
    assert scalar_features(analysis)["rheobase_i"] == pytest.approx(119, abs=3)


@pytest.mark.parametrize("name", RAMPS)
def test_ramps(real_data: Path, name: str):
    with open_recording(real_data / "recordings" / f"{name}.abf") as recording:
        analysis = analyse(recording)
        assert analysis.ramp is not None
        assert analysis.ramp.numbers
        firsts = []
        for cut, spikes in zip(analysis.ramp.cuts, analysis.ramp.spikes, strict=True):
            sweep = recording.sweep(cut.number)
            voltage, rate = np.asarray(sweep.voltage, dtype=np.float64), sweep.rate
            stimulus = analysis.stimuli[cut.number]
            # Spikes are counted until 0.1 s after the end of the ramp.
            last = round((stimulus.end + 0.1) * rate)
            plain = PlainSweep(voltage, rate, round(stimulus.start * rate), last, 1.0)
            peaks = plain.peaks(10.0)
            assert len(spikes) == len(peaks), cut.number
            if len(peaks):
                mean = plain_cell.upstroke(voltage, rate, peaks)
                firsts.append(plain_cell.first_spike(voltage, rate, peaks[0], mean))
    found = scalar_features(analysis)
    threshold, width = np.mean(firsts, axis=0)
    assert found["threshold_v_ramp"] == pytest.approx(threshold, abs=1)
    assert found["width_ramp"] == pytest.approx(width * 1e3, rel=0.05)


def test_voltage_clamp_is_refused(real_data: Path):
    path = real_data / "recordings" / "171116sh_0013_voltage_clamp.abf"
    with pytest.raises(RecordingError, match="voltage clamp"), open_recording(path) as recording:
        analyse(recording)
