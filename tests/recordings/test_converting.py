"""What is converted is valid NWB, and measures the same."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from nwbinspector import Importance, inspect_nwbfile, load_config
from pynwb import NWBHDF5IO, validate

from crosspatch.errors import CohortError, RecordingError
from crosspatch.features.extraction import ExtractionSettings, extract_file
from crosspatch.recordings.converting import Donor, convert_recordings
from crosspatch.recordings.opening import open_recording, open_recordings
from crosspatch.recordings.reading_options import Reading
from tests.recordings import made_files, made_formats

DONOR = Donor("mouse", "m1", "P60D", "F", "2024-01-15T14:30+01:00")
SHARED = ExtractionSettings("shared")


def atf(path: Path, sweeps: list[made_files.MadeSweep] | None = None) -> Path:
    sweeps = made_files.cell()[:6] if sweeps is None else sweeps
    return made_formats.write_atf(path, made_formats.inputs_of(sweeps), sweeps[0].rate)


def criticals(path: Path) -> list[str]:
    found = inspect_nwbfile(
        nwbfile_path=str(path),
        config=load_config("dandi"),
        importance_threshold=Importance.BEST_PRACTICE_VIOLATION,
    )
    return [f"{each.importance.name} {each.check_function_name}: {each.message}" for each in found]


def test_a_cell_is_written_and_read_back(tmp_path: Path):
    source, out = atf(tmp_path / "c.atf"), tmp_path / "c.nwb"
    found = convert_recordings([source], out, DONOR)
    assert (found.sweeps, found.electrodes, found.missing, found.left_out) == (6, 1, (), ())
    assert criticals(out) == []
    assert not validate(path=str(out))
    with open_recording(source) as theirs, open_recording(out) as ours:
        assert (ours.recorded.species, ours.recorded.donor) == ("mouse", "m1")
        for sweep, other in zip(ours.sweeps, theirs.sweeps, strict=True):
            assert (sweep.rate, sweep.clamp) == (other.rate, other.clamp)
            np.testing.assert_allclose(sweep.voltage, other.voltage, rtol=1e-6)
            np.testing.assert_allclose(sweep.current, other.current, rtol=1e-6)
    before, after = extract_file(source, SHARED), extract_file(out, SHARED)
    np.testing.assert_allclose(after.values, before.values, rtol=1e-3, equal_nan=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["c.atf", "c.nwb"]


def test_cells_become_electrodes_and_runs_sequences(tmp_path: Path):
    first = atf(tmp_path / "a.atf")
    folder = tmp_path / "b"
    folder.mkdir()
    sweeps = made_files.cell()[:3]
    waves = made_formats.inputs_of(sweeps, ("Vm", "mV"), ("Im", "pA"))
    for run, start in (("IV", 0), ("FI", 10)):
        made_formats.write_ibw(
            folder, waves, sweeps[0].rate, "b_{input}_" + run + "_{sweep}", start
        )
    out = tmp_path / "both.nwb"
    found = convert_recordings([first, folder], out, DONOR)
    assert (found.sweeps, found.electrodes) == (12, 2)
    assert criticals(out) == []
    with NWBHDF5IO(str(out), "r") as io:
        file = io.read()
        assert [each.cell_id for each in file.icephys_electrodes.values()] == ["a", "b"]
        recordings = file.intracellular_recordings.to_dataframe()
        assert len(recordings) == 12
        response = recordings[("responses", "response")].iloc[-1]
        assert (response.idx_start, response.count) == (0, 9000)
        np.testing.assert_allclose(
            response.timeseries.data[:] * response.timeseries.conversion * 1e3,
            sweeps[-1].voltage,
            rtol=1e-5,
        )
        assert len(file.icephys_simultaneous_recordings) == 12
        runs = file.icephys_sequential_recordings.to_dataframe()
        assert list(runs["stimulus_type"]) == ["not said", "FI", "IV"]
        assert [len(each) for each in runs["simultaneous_recordings"]] == [6, 3, 3]


def test_cells_of_one_file_are_simultaneous(tmp_path: Path):
    sweeps, rate = made_files.cell()[:4], made_files.RATE
    inputs = [
        *made_formats.inputs_of(sweeps, ("Vm1", "mV"), ("Im1", "pA")),
        *made_formats.inputs_of(sweeps, ("Vm2", "mV"), ("Im2", "pA")),
    ]
    source = made_formats.write_atf(tmp_path / "pair.atf", inputs, rate)
    out = tmp_path / "pair.nwb"
    found = convert_recordings([source], out, DONOR)
    assert (found.sweeps, found.electrodes) == (8, 2)
    assert criticals(out) == []
    with NWBHDF5IO(str(out), "r") as io:
        pairs = io.read().icephys_simultaneous_recordings.to_dataframe()["recordings"]
        assert [len(each) for each in pairs] == [2, 2, 2, 2]
    both = open_recordings(out)
    assert [len(each.sweeps) for each in both] == [4, 4]
    for each in both:
        np.testing.assert_allclose(each.sweeps[3].voltage, sweeps[3].voltage, atol=0.01)
        each.close()


def test_what_files_say_is_kept_and_the_user_wins(tmp_path: Path):
    source = made_files.write_nwb(
        tmp_path / "c.nwb", [made_files.membrane_test(), *made_files.cell()[:3]]
    )
    with h5py.File(source, "a") as file:
        file["general/intracellular_ephys/electrode_0/location"] = "V1, layer 5"
    found = convert_recordings([source], tmp_path / "d.nwb")
    assert found.missing == ("age", "sex")
    with open_recording(tmp_path / "d.nwb") as recording:
        assert recording.recorded.donor == "donor-1"
        assert recording.recorded.species == "mouse"
        assert recording.recorded.seal == pytest.approx(2.5)
        assert recording.recorded.location == "V1, layer 5"
        assert [sweep.clamp for sweep in recording.sweeps].count("voltage clamp") == 1
        assert str(recording.recorded.session).startswith("2020-01-01T00:00:00")
    convert_recordings([source], tmp_path / "e.nwb", DONOR)
    with open_recording(tmp_path / "e.nwb") as recording:
        assert recording.recorded.donor == "m1"


def test_a_described_step_and_a_shift_are_written(tmp_path: Path):
    sweeps = made_files.cell()[:6]
    inputs = made_formats.inputs_of(sweeps, command=None)
    source = made_formats.write_stimfit(tmp_path / "c.h5", inputs, sweeps[0].rate)
    bare, described = tmp_path / "bare.nwb", tmp_path / "described.nwb"
    convert_recordings([source], bare, DONOR)
    assert criticals(bare) == []
    with open_recording(bare) as recording, pytest.raises(RecordingError, match="no command"):
        recording.sweeps[0].current
    step = Reading(step_start=0.2, step_end=0.6, amplitudes=made_files.STEPS, offset_mv=10)
    convert_recordings([source], described, DONOR, step)
    with open_recording(described) as recording:
        assert recording.sweeps[0].current.min() == pytest.approx(-100)
        moved = recording.sweeps[0].voltage - sweeps[0].voltage
        np.testing.assert_allclose(moved, -10, atol=1e-3)


@pytest.mark.parametrize(
    ("out", "donor", "message"),
    [
        ("c.h5", DONOR, "is not a name for NWB; end it with .nwb"),
        ("there.nwb", DONOR, "there.nwb exists; give another name"),
        ("c.nwb", Donor("mouse"), r"does not say when it was recorded; give 'session_start'"),
        ("nowhere\0/c.nwb", DONOR, "cannot be written|embedded null"),
    ],
)
def test_what_cannot_be_written_is_said(out: str, donor: Donor, message: str, tmp_path: Path):
    source = atf(tmp_path / "c.atf")
    (tmp_path / "there.nwb").write_bytes(b"kept")
    if "\0" in out:
        (tmp_path / "nowhere").write_bytes(b"")
        out = "nowhere/c.nwb"
    with pytest.raises(RecordingError, match=message):
        convert_recordings([source], tmp_path / out, donor)
    assert (tmp_path / "there.nwb").read_bytes() == b"kept"
    assert not list(tmp_path.glob(".*"))


def test_several_donors_are_refused(tmp_path: Path):
    first = made_files.write_nwb(tmp_path / "a.nwb", made_files.cell()[:2])
    second = made_files.write_nwb(tmp_path / "b.nwb", made_files.cell()[:2])
    with h5py.File(second, "r+") as file:
        del file["general/subject/subject_id"]
        file["general/subject/subject_id"] = "donor-2"
    with pytest.raises(RecordingError, match=r"several donors: donor-1, donor-2; .*'subject'"):
        convert_recordings([first, second], tmp_path / "c.nwb")


@pytest.mark.parametrize(
    "given", [{"age": "60 days"}, {"age": "P"}, {"sex": "female"}, {"session_start": "yesterday"}]
)
def test_what_is_not_understood_is_said(given: dict[str, str]):
    with pytest.raises(RecordingError, match="not understood; write"):
        Donor(**given)


def test_an_unknown_species_is_said():
    with pytest.raises(CohortError, match="no species 'rat'"):
        Donor("rat")


def test_real_igor_waves_convert(real_data: Path, tmp_path: Path):
    source, out = real_data / "formats" / "B6_Ch0_IDRest_183.ibw", tmp_path / "b6.nwb"
    found = convert_recordings([source], out, Donor("mouse", "B6", "P14D", "U"))
    assert (found.sweeps, found.missing) == (5, ())
    assert criticals(out) == []
    with open_recording(out) as recording:
        assert [sweep.number for sweep in recording.sweeps] == [181, 182, 183, 184, 185]
    before, after = extract_file(source, SHARED), extract_file(out, SHARED)
    np.testing.assert_allclose(after.values, before.values, rtol=1e-3, equal_nan=True)
