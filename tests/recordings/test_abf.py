"""ABF 1 and 2, against pyabf's own loading of the whole file."""

from __future__ import annotations

import numpy as np
import pyabf
import pytest

from crosspatch.errors import RecordingError
from crosspatch.recordings.opening import open_recording

FILES = ("18713001", "171116sh_0018", "190619B_0003", "171116sh_0016", "17o05027_ic_ramp")


@pytest.mark.parametrize("name", FILES)
def test_samples_and_commands_are_pyabfs(real_data, name):
    path = real_data / "recordings" / f"{name}.abf"
    whole = pyabf.ABF(path)
    with open_recording(path) as recording:
        assert len(recording.sweeps) == whole.sweepCount
        for sweep in recording.sweeps:
            whole.setSweep(sweep.number)
            np.testing.assert_allclose(sweep.voltage, whole.sweepY, atol=1e-4)
            np.testing.assert_array_equal(sweep.current, whole.sweepC)
            assert sweep.rate == whole.dataRate
        assert recording.format.startswith(f"ABF {whole.abfVersion['major']}")


def test_voltage_clamp_is_refused(real_data):
    path = real_data / "recordings" / "171116sh_0013_voltage_clamp.abf"
    with pytest.raises(
        RecordingError, match=r"no current-clamp sweep .*13 sweeps are in voltage clamp"
    ):
        open_recording(path)


def test_a_file_without_a_command_can_be_described(tmp_path):
    from pyabf.abfWriter import writeABF1

    path = tmp_path / "rig.abf"
    traces = np.tile(np.linspace(-70, -69, 20_000), (3, 1))
    writeABF1(traces, str(path), 20_000, "mV")
    with open_recording(path) as recording:
        np.testing.assert_allclose(recording.sweep(0).voltage, traces[0], atol=0.01)
        with pytest.raises(RecordingError, match="step_start"):
            recording.sweep(0).current
        described = recording.with_steps(0.2, 0.7, [-50, 0, 50])
        assert described.sweep(2).current.max() == 50


def test_what_is_in_no_clamp_at_all(tmp_path):
    from pyabf.abfWriter import writeABF1

    path = tmp_path / "temperature.abf"
    writeABF1(np.zeros((2, 1_000)), str(path), 1_000, "C")
    with pytest.raises(RecordingError, match="no channel has a unit of voltage or current"):
        open_recording(path)
