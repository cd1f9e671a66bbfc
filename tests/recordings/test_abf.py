"""ABF 1 and 2, against what pyabf reads of them, which has nothing of our reader."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pyabf
import pytest
from neo.rawio.axonrawio import AxonRawIO
from pyabf.waveform import EpochSweepWaveform

from crosspatch.errors import RecordingError
from crosspatch.recordings.abf_header import read_header
from crosspatch.recordings.abf_protocol import WaveformEpoch
from crosspatch.recordings.opening import open_recording
from tests.recordings import made_files

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


def require_as_pyabf_has_it(path: Path) -> None:
    """Header and samples of all inputs."""
    whole, header = pyabf.ABF(path), read_header(path)
    assert header.sweeps == whole.sweepCount
    assert int(header.rate) == whole.dataRate
    assert [(each.name, each.unit) for each in header.inputs] == [
        *zip(whole.adcNames, whole.adcUnits, strict=True)
    ]
    assert header.session == whole.abfDateTimeString
    for place in whole.channelList:
        read = np.concatenate([header.read(place, sweep) for sweep in range(header.sweeps)])
        np.testing.assert_allclose(read, whole.data[place], rtol=1e-6, atol=1e-5)


def test_real_files(real_data: Path):
    files = sorted(real_data.rglob("*.abf"))
    assert len(files) > len(FILES)
    for path in files:
        require_as_pyabf_has_it(path)


def test_made_files(tmp_path: Path):
    made_files.write_abf1(tmp_path / "1.abf")
    made_files.write_abf2(tmp_path / "2.abf")
    made_files.write_abf2(tmp_path / "lengths.abf", made_files.abf_cell()[::3])
    for version in (1, 2):
        made_files.write_abf_rig(tmp_path / f"rig {version}.abf", version)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 5
    for path in files:
        require_as_pyabf_has_it(path)


def test_floating_point_samples_are_as_they_stand(tmp_path: Path):
    traces = np.random.default_rng(3).normal(-60, 9, (2, 3, 4_000)).astype("<f4")
    made = [made_files.MadeInput(f"IN {k}", "mV", [*each]) for k, each in enumerate(traces)]
    path = made_files.write_abf1_of(tmp_path / "float.abf", made)
    head = bytearray(path.read_bytes()[:6144])
    struct.pack_into("<h", head, 100, 1)
    struct.pack_into("<ii", head, 92, 0, 0)
    path.write_bytes(bytes(head) + traces.transpose(1, 2, 0).tobytes())
    header = read_header(path)
    found = [
        np.column_stack([header.read(place, sweep) for place in range(2)]) for sweep in range(3)
    ]
    np.testing.assert_array_equal(found, traces.transpose(1, 2, 0))
    theirs = AxonRawIO(str(path))
    theirs.parse_header()
    whole = theirs.get_analogsignal_chunk(0, 0, stream_index=0)  # not cut into sweeps
    np.testing.assert_array_equal(np.concatenate(found), whole)


@pytest.mark.parametrize(
    ("kind", "name"), [*enumerate(["Step", "Ramp", "Pulse", "Tri", "Cos"], 1), (7, "BiPhsc")]
)
def test_epochs_of_every_kind(kind: int, name: str):
    random = np.random.default_rng(kind)
    for _ in range(40):
        before, level = random.uniform(-200, 200, 2)
        points, period = map(int, random.integers((1, 1), (900, 300)))
        width = int(random.integers(period + 1))
        epoch = WaveformEpoch(0, kind, level, 0.0, points, 0, period, width)
        theirs = EpochSweepWaveform()
        theirs.addEpoch(0, 10, before, "Step", 0, 0, [0] * 8)
        theirs.addEpoch(10, 10 + points, level, name, width, period, [0] * 8)
        np.testing.assert_allclose(
            epoch.samples(points, before), theirs.getWaveform()[10:], atol=1e-9
        )


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
