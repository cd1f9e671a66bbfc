"""Every rejected sweep and cell has its reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosspatch.features.analysis import analyse
from crosspatch.recordings.cell_quality import assess_cell
from crosspatch.recordings.model import Recorded
from crosspatch.recordings.quality import assess_sweep
from crosspatch.recordings.stimuli import recognise
from crosspatch.recordings.thresholds import ALLEN, ANY, QualityThresholds
from tests.features.made_cell import MadeCell, made_recording

RATE = 50_000


def assessed(change, settings=None, amplitude=-50.0):
    recording = made_recording(amplitudes=(amplitude,), test_pulse=False)
    sweep = recording.sweeps[0]
    voltage = np.array(sweep.voltage)
    change(voltage)
    return assess_sweep(sweep, voltage, recognise(recording)[0], settings)


def nothing(voltage):
    pass


def test_a_good_sweep_passes_and_is_measured():
    quality = assessed(nothing)
    assert quality.passed
    assert quality.baseline == pytest.approx(-70)
    assert quality.drift == pytest.approx(0, abs=0.01)
    assert quality.bridge == pytest.approx(0, abs=1.0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda v: v.__setitem__(slice(80_000, None), -50.0), "drift 20.00 mV above 10 mV"),
        (lambda v: v.__iadd__(3 * np.sin(np.arange(len(v)) / 500)), "slow noise"),
        (lambda v: v.__iadd__(np.random.default_rng(0).normal(0, 1.5, len(v))), "fast noise"),
        (lambda v: v.__iadd__(45.0), "baseline -25.0 mV, outside -110 to -35 mV"),
        (lambda v: v.__setitem__(slice(60_000, None), 0.0), "before the stimulus ended"),
        (lambda v: v.__setitem__(slice(80_000, None), 0.0), "0.2 s are needed"),
        (lambda v: v.__setitem__(slice(40_000, 41_000), 100.0), "saturated: 20.0 ms at 100 mV"),
        (lambda v: v.__setitem__(40_000, np.inf), "1 samples are not finite"),
        (lambda v: v.__setitem__(slice(None), 0.0), "no samples"),
    ],
)
def test_a_bad_sweep_says_why(change, reason):
    quality = assessed(change)
    assert not quality.passed
    assert reason in "; ".join(quality.reasons)


def test_limits_are_the_users_choice():
    def drifting(voltage):
        voltage[80_000:] += 3

    assert assessed(drifting).passed
    assert "drift 3.00 mV above 1 mV" in assessed(drifting, ALLEN).reasons
    assert assessed(lambda v: v.__iadd__(45.0), ANY).passed


def test_an_unbalanced_bridge_is_seen_and_fails_the_cell():
    def unbalanced(voltage):
        voltage[25_000:75_000] += -50.0 * 30 * 1e-3  # 30 MOhm

    quality = assessed(unbalanced)
    assert quality.bridge == pytest.approx(30, abs=1.5)
    cell = assess_cell(made_recording(), {0: quality})
    assert cell.reasons == (f"bridge off by {quality.bridge:.1f} MOhm, above 20 MOhm",)
    balanced = assess_cell(made_recording(), {0: assessed(nothing)})
    assert balanced.passed


def test_what_a_file_notes_of_the_electrode_counts():
    recording = made_recording()
    good = {0: assessed(nothing)}
    for said, reason in (
        (Recorded(seal=0.5), "seal 0.50 GOhm below 1 GOhm"),
        (Recorded(access_resistance=35.0), "access resistance 35.0 MOhm outside 1 to 20 MOhm"),
        (Recorded(access_resistance=18.0), "access resistance is 18% of the input resistance"),
    ):
        noted = replace(recording, recorded=said)
        assert reason in "; ".join(assess_cell(noted, good, 100.0).reasons)


def test_rejected_sweeps_are_not_measured_and_are_noted():
    recording = made_recording(MadeCell(noise=0.02))
    sweeps = list(recording.sweeps)
    broken = np.array(sweeps[3].voltage)
    broken[40_000] = np.nan
    sweeps[3] = replace(sweeps[3], read_voltage=lambda: broken)
    analysis = analyse(replace(recording, sweeps=tuple(sweeps)), QualityThresholds())
    assert analysis.long_square is not None
    assert 3 not in analysis.long_square.numbers
    assert "sweep 3 rejected: 1 samples are not finite" in analysis.notes
