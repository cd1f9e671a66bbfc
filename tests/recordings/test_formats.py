"""Recordings of other programs become the same sweeps; what is not read is refused by its name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path

import h5py
import numpy as np
import pytest

from crosspatch.errors import MissingLibraryError, RecordingError
from crosspatch.features.extraction import ExtractionSettings
from crosspatch.features.finding import find_recordings
from crosspatch.features.many import extract_many
from crosspatch.recordings import hdf5_formats
from crosspatch.recordings.formats import RECORDING_FORMATS, RECORDING_SUFFIXES
from crosspatch.recordings.model import Recording
from crosspatch.recordings.opening import open_recording, open_recordings
from crosspatch.recordings.reading_options import Reading
from tests.recordings import made_formats as made
from tests.recordings.made_files import MadeSweep, membrane_test, respond, step

STEPS = (-100.0, -40.0, 80.0, 160.0, 240.0)


def steps(rate: int = 20_000, noise: float = 0.0) -> list[MadeSweep]:
    """Steps whose command was measured with so much noise, pA."""
    rng = np.random.default_rng(rate)
    found = []
    for seed, amplitude in enumerate(STEPS):
        current = step(amplitude, rate=rate)
        voltage = respond(current, rate, seed)
        found.append(MadeSweep(current + rng.normal(0, noise, len(current)), voltage, rate))
    return found


def ibw(path: Path, inputs: made.Inputs, rate: float) -> Path:
    path = path.with_suffix("")
    path.mkdir()
    return made.write_ibw(path, inputs, rate)[0]


def pxp(path: Path, inputs: made.Inputs, rate: float) -> Path:
    return made.write_pxp(path, {"cell": (inputs, rate)}, "{input}_{sweep}")


WRITERS: dict[str, Callable[[Path, made.Inputs, float], Path]] = {
    ".atf": made.write_atf,
    ".ibw": ibw,
    ".pxp": pxp,
    ".axgx": made.write_axgx,
    ".wcp": made.write_wcp,
    "-wavesurfer.h5": made.write_wavesurfer,
    "-stimfit.h5": made.write_stimfit,
}


def require_same(recording: Recording, sweeps: list[MadeSweep]) -> None:
    assert len(recording.current_clamp) == len(sweeps)
    for ours, theirs in zip(recording.current_clamp, sweeps, strict=True):
        assert ours.rate == pytest.approx(theirs.rate, rel=1e-5)
        span = np.ptp(theirs.current)
        np.testing.assert_allclose(ours.voltage, theirs.voltage, atol=0.01)
        np.testing.assert_allclose(ours.current, theirs.current, atol=0.01 + 1e-3 * span)


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize(
    ("rate", "potential", "command", "current_first", "noise"),
    [
        (20_000, ("Vm", "mV"), ("Im", "pA"), False, 0.0),
        (5_000, ("Channel B", "V"), ("Channel A", "nA"), True, 1.0),
        (50_000, ("IN 1", "mV"), ("IN 0", "A"), True, 3.0),
    ],
)
def test_every_format_gives_the_same_sweeps(
    ending: str,
    rate: int,
    potential: tuple[str, str],
    command: tuple[str, str],
    current_first: bool,
    noise: float,
    tmp_path: Path,
):
    sweeps = steps(rate, noise)
    inputs = made.inputs_of(sweeps, potential, command, current_first=current_first)
    path = WRITERS[ending](tmp_path / f"cell{ending}", inputs, rate)
    with open_recording(path) as recording:
        require_same(recording, sweeps)
        assert f"potential: input {potential[0]} ({potential[1]})" in recording.notes
        told = f"command: input {command[0]} ({command[1]}), as it was recorded"
        assert told in recording.notes
        assert recording.recorded.session is None or recording.recorded.session[:2] == "20"


@pytest.mark.parametrize("ending", WRITERS)
def test_without_a_command_the_step_is_asked_for(ending: str, tmp_path: Path):
    sweeps = steps()
    inputs = made.inputs_of(sweeps, command=None)
    path = WRITERS[ending](tmp_path / f"cell{ending}", inputs, sweeps[0].rate)
    with open_recording(path) as recording:
        assert "command: none recorded" in recording.notes
        with pytest.raises(RecordingError, match="'step_start'"):
            recording.sweeps[0].current


@pytest.mark.parametrize("ending", WRITERS)
def test_voltage_clamp_is_refused(ending: str, tmp_path: Path):
    rng = np.random.default_rng(0)
    clamped = [membrane_test() for _ in range(3)]
    for each in clamped:
        each.voltage = each.voltage + rng.normal(0, 0.1, len(each.voltage))
        each.current = each.current + rng.normal(0, 3, len(each.current))
    path = WRITERS[ending](tmp_path / f"cell{ending}", made.inputs_of(clamped), clamped[0].rate)
    with pytest.raises(RecordingError, match="its 3 sweeps are in voltage clamp"):
        open_recording(path)
    with open_recording(path, Reading(clamp="current")) as recording:
        assert "taken for current clamp, as asked" in recording.notes
    only_current: made.Inputs = [("Im", "pA", [each.current for each in clamped])]
    path = WRITERS[ending](tmp_path / f"im{ending}", only_current, clamped[0].rate)
    with pytest.raises(RecordingError, match=r"holds no potential, only .*voltage clamp"):
        open_recording(path)


def test_what_was_clamped_is_asked_for_where_both_are_steps(tmp_path: Path):
    sweeps = [MadeSweep(step(a), -70 + step(a) * 0.1) for a in STEPS]
    path = made.write_stimfit(tmp_path / "cell.h5", made.inputs_of(sweeps), 10_000)
    with pytest.raises(RecordingError, match=r"which was clamped.*give 'clamp' current"):
        open_recording(path)
    with open_recording(path, Reading(clamp="current")) as recording:
        assert len(recording.current_clamp) == len(STEPS)


def test_the_membrane_is_told_from_other_inputs(tmp_path: Path):
    """Triggers and photodiodes in volts come first; a command comes after its measurement."""
    sweeps, rate = steps(), 20_000
    trigger = [5.0 * (step(1, rate=rate) > 0) for _ in STEPS]
    light = [0.1 + 0.05 * (step(1, rate=rate) > 0) for _ in STEPS]
    second = [np.full(len(each.voltage), -65.0) for each in sweeps]
    measured = [each.current + 7 for each in sweeps]
    (vm, im) = made.inputs_of(sweeps, ("Vm_1", "mV"), ("Cmd_1", "pA"))
    inputs: made.Inputs = [
        ("Trigger", "V", trigger),
        ("Photodiode", "V", light),
        ("Im_1", "pA", measured),
        vm,
        ("Vm_2", "mV", second),
        im,
    ]
    path = made.write_atf(tmp_path / "cell.atf", inputs, rate)
    with open_recording(path) as recording:
        require_same(recording, sweeps)
        monitor = recording.sweeps[0].read_monitor
        assert monitor is not None
        np.testing.assert_allclose(monitor(), measured[0], atol=0.01)
        (others,) = [note for note in recording.notes if "not read" in note]
        assert "Trigger (V), Photodiode (V), Vm_2 (mV)" in others
    for name in ("vm_2", "4"):
        with open_recording(path, Reading(channel=name)) as recording:
            np.testing.assert_allclose(recording.sweeps[0].voltage, second[0])
    with open_recording(path, Reading(electrode="Im_1")) as recording:
        np.testing.assert_allclose(recording.sweeps[0].current, measured[0], atol=0.01)
    with pytest.raises(RecordingError, match=r"no input Vm_3; its inputs are Trigger .*'channel'"):
        open_recording(path, Reading(channel="Vm_3"))
    with pytest.raises(RecordingError, match=r"Im_1 .pA. is not in volts"):
        open_recording(path, Reading(channel="Im_1"))
    with pytest.raises(RecordingError, match="no electrode X; there are: Im_1"):
        open_recording(path, Reading(electrode="X"))
    path = made.write_atf(tmp_path / "daq.atf", [("AI0", "V", trigger)], rate)
    with pytest.raises(RecordingError, match=r"no membrane potential: AI0 \(V\) reaches 5e\+03 mV"):
        open_recording(path)


@pytest.mark.parametrize("ending", WRITERS)
def test_two_cells_in_a_file_are_two_recordings(ending: str, tmp_path: Path):
    first, second = steps(), steps(noise=2.0)
    for each in second:
        each.voltage = each.voltage - 4
    inputs = [
        *made.inputs_of(first, ("ch1", "mV"), ("ad1", "pA")),
        *made.inputs_of(second, ("ch2", "mV"), ("ad2", "pA")),
    ]
    path = WRITERS[ending](tmp_path / f"cell{ending}", inputs, 20_000)
    both = open_recordings(path)
    for recording, sweeps, name in zip(both, (first, second), ("ch1", "ch2"), strict=True):
        assert recording.electrode == name
        assert recording.cell_id.endswith(f"_{name}")
        require_same(recording, sweeps)
        recording.close()
    with pytest.raises(RecordingError, match=r"2 cells \(electrodes ch1, ch2\)"):
        open_recording(path)
    for electrode in ("ch2", "ad2", "1"):
        with open_recording(path, Reading(electrode=electrode)) as recording:
            require_same(recording, second)


def test_without_units_a_cell_at_rest_tells_itself(tmp_path: Path):
    sweeps = steps()
    inputs = made.inputs_of(sweeps, ("ch0", ""), ("ch1", ""))
    path = ibw(tmp_path / "cell", inputs, sweeps[0].rate)
    with open_recording(path) as recording:
        assert "potential: input ch0 (mV, told by its values)" in recording.notes
        assert "command: none recorded" in recording.notes
        assert "inputs that were not read: ch1 (no unit)" in recording.notes


def test_axograph_columns_in_either_order(tmp_path: Path):
    sweeps = steps()
    inputs = made.inputs_of(sweeps, ("Vm", "V"), ("Im", "A"), current_first=True)
    path = made.write_axgx(tmp_path / "cell.axgx", inputs, sweeps[0].rate, in_turn=False)
    with open_recording(path) as recording:
        require_same(recording, sweeps)


def test_winwcp_records_have_their_own_scale_and_status(tmp_path: Path):
    sweeps = steps()
    inputs = made.inputs_of(sweeps)
    scales = [10, 5, 10, 20, 10]
    path = made.write_wcp(tmp_path / "c.wcp", inputs, sweeps[0].rate, scales, rejected=[1])
    with open_recording(path) as recording:
        assert recording.unreadable == {"record 2": "it is marked as rejected in WinWCP"}
        require_same(recording, [sweeps[0], *sweeps[2:]])
        assert [sweep.number for sweep in recording.sweeps] == [1, 3, 4, 5]


@pytest.mark.parametrize("time_unit", ["s", "ms", ""])
@pytest.mark.parametrize(
    ("names", "inputs", "cell"),
    [
        ("B6_{input}_IDRest_{sweep}", ("Ch0", "Ch3"), "B6"),
        ("cell 2-{input}-{sweep}", ("vm", "im"), "cell 2"),
        ("20240115_c1_s{sweep}_{input}", ("V", "I"), "20240115_c1_s"),
        ("{input}_{sweep}", ("Voltage", "Current"), "folder"),
        ("Record{input}{sweep}", ("A", "B"), "folder"),
        ("{input}_run_{sweep}", ("AD1", "AD0"), "folder"),
    ],
)
def test_igor_waves_find_their_partners(
    names: str, inputs: tuple[str, str], cell: str, time_unit: str, tmp_path: Path
):
    sweeps, folder = steps(10_000), tmp_path / "folder"
    folder.mkdir()
    (potential, command) = inputs
    waves = made.inputs_of(sweeps, (potential, "mV"), (command, "pA"))
    files = made.write_ibw(folder, waves, 10_000, names, 181, time_unit)
    (folder / ".hidden.ibw").write_bytes(b"")
    for source in (files[0], files[-1], folder):
        with open_recording(source) as recording:
            require_same(recording, sweeps)
            assert recording.cell_id == cell
            assert [sweep.number for sweep in recording.sweeps] == list(range(181, 186))
            ms = any("taken for ms" in note for note in recording.notes)
            assert not ms  # 1e-4 s needs no guess
    assert find_recordings(files) == find_recordings([folder]) == [min(files).resolve()]


def test_igor_waves_in_ms_without_a_unit(tmp_path: Path):
    samples = made.inputs_of(steps(10_000))[0][2][0]
    path = tmp_path / "Vm_0.ibw"
    path.write_bytes(made.wave(samples, "Vm_0", "mV", 0.1, ""))
    with open_recording(path) as recording:
        assert recording.sweeps[0].rate == pytest.approx(10_000)
        assert "time scale without unit, 0.1: taken for ms" in recording.notes


def test_cells_that_share_a_folder_are_told_apart(tmp_path: Path):
    for cell in ("a", "b"):
        made.write_ibw(tmp_path, made.inputs_of(steps()), 20_000, cell + "_{input}_{sweep}")
    assert [each.name for each in find_recordings([tmp_path])] == ["a_Im_0.ibw", "b_Im_0.ibw"]
    with open_recording(tmp_path / "b_Vm_3.ibw") as recording:
        assert recording.cell_id == "b"
        require_same(recording, steps())
    with pytest.raises(RecordingError, match="waves of 2 cells: a, b; give one wave of a cell"):
        open_recording(tmp_path)


def test_a_wave_that_comes_later_is_measured(tmp_path: Path):
    inputs = made.inputs_of(steps())
    files = made.write_ibw(tmp_path, inputs, 20_000)
    files[-1].unlink()
    settings, store = ExtractionSettings("shared"), tmp_path / "c.cells.sqlite"
    assert extract_many(files[:-1], store, settings).kept == 0
    assert extract_many(files[:-1], store, settings).kept == 1
    made.write_ibw(tmp_path, inputs, 20_000)
    assert extract_many(files, store, settings).kept == 0


def test_a_damaged_wave_does_not_hide_the_others(tmp_path: Path):
    files = made.write_ibw(tmp_path, made.inputs_of(steps()), 20_000)
    files[2].write_bytes(files[2].read_bytes()[:1000])
    with open_recording(files[0]) as recording:
        assert len(recording.sweeps) == 4
        (reason,) = recording.unreadable.values()
        assert reason.startswith("is a damaged Igor wave")
    with pytest.raises(RecordingError, match="is a damaged Igor wave"):
        open_recording(files[2])


def test_cells_of_an_experiment_are_chosen_by_their_folder(tmp_path: Path):
    first, second = steps(20_000), steps(10_000)
    folders = {
        "cell1": (made.inputs_of(first, ("A", "mV"), ("B", "pA")), 20_000.0),
        "cell2": (made.inputs_of(second, ("A", "mV"), ("B", "pA")), 10_000.0),
    }
    path = made.write_pxp(tmp_path / "day.pxp", folders, "Record{input}{sweep}")
    with pytest.raises(RecordingError, match=r"holds 2 cells .*: cell1, cell2; .*'electrode'"):
        open_recording(path)
    with open_recording(path, Reading(electrode="cell2")) as recording:
        require_same(recording, second)


@pytest.mark.parametrize(
    ("name", "start", "message"),
    [
        ("cell.dat", b"DAT2\0\0\0\0", "recording of HEKA, which is not read; .*PatchMaster"),
        ("renamed.abf", b"DAT2\0\0\0\0", "recording of HEKA"),
        ("cell.smr", b"\x06\0(C) CED 87", "recording of CED Spike2, which is not read; .*text"),
        ("cell.smrx", b"S64\0", "recording of CED Spike2"),
        ("cell.cfs", b"CEDFILE\0", "recording of CED Signal"),
        ("cell.mat", b"MATLAB 5.0 MAT-file", "recording of MATLAB"),
        ("cell.abf", b"1,2,3", "is no ABF file: it begins with b'1,2,"),
        ("cell.xyz", b"1,2,3", "in no format that is read .*NWB, ABF, Axon text, Igor"),
        ("cell.axgx", b"1,2,3", "is no AxoGraph file"),
        ("cell.ibw", b"\x05\0\0\0", "is a damaged Igor wave"),
        ("cell.pxp", b"\x02\0\0\0\xff\0\0\0", "is a damaged Igor experiment"),
        ("cell.wcp", b"VER=9\r\n", "is a damaged WinWCP file"),
        ("cell.axgx", b"axgx\0\0\0\x06", "is a damaged AxoGraph file"),
        ("cell.atf", b"ATF\t1.0\n", "is a damaged ATF file"),
        ("cell.h5", b"\x89HDF\r\n\x1a\n", "is a damaged HDF5 file"),
    ],
)
def test_refusals_name_the_format(name: str, start: bytes, message: str, tmp_path: Path):
    path = tmp_path / name
    path.write_bytes(start.ljust(64, b"\0") if b"," not in start else start)
    with pytest.raises(RecordingError, match=message) as caught:
        open_recording(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", [".ibw", ".pxp", ".axgx", ".wcp"])
def test_a_missing_package_is_named(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = WRITERS[ending](tmp_path / f"cell{ending}", made.inputs_of(steps()), 20_000)
    package = "igor2" if ending in (".ibw", ".pxp") else "neo"
    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(
        sys, "meta_path", [each for each in sys.meta_path if each is not PathFinder]
    )
    with pytest.raises(MissingLibraryError, match=f"{package} is not installed") as told:
        open_recording(path)
    assert told.value.hint == "pip install 'crosspatch[formats]'"


def test_a_folder_is_searched_for_every_format_that_is_read(tmp_path: Path):
    assert {".nwb", ".abf", ".atf", ".ibw", ".pxp", ".axgx", ".axgd", ".wcp", ".h5"} == set(
        RECORDING_SUFFIXES
    )
    assert not {".dat", ".smr", ".mat"} & set(RECORDING_SUFFIXES)
    for ending, write in WRITERS.items():
        write(tmp_path / f"cell{ending}", made.inputs_of(steps()), 20_000)
    (tmp_path / "cell.dat").write_bytes(b"DAT2")
    found = find_recordings([tmp_path])
    assert len(found) == len(WRITERS)


def test_the_only_files_being_of_a_format_that_is_not_read_is_said(tmp_path: Path):
    (tmp_path / "a.dat").write_bytes(b"DAT2")
    (tmp_path / "b.dat").write_bytes(b"DAT2")
    with pytest.raises(RecordingError, match="2 files of HEKA, which is not read; export its"):
        find_recordings([tmp_path])


def test_every_format_says_what_to_do():
    for each in RECORDING_FORMATS:
        assert each.export
        assert each.is_read or not each.package


@pytest.fixture
def real(real_data: Path) -> Path:
    return real_data / "formats"


def test_real_igor_waves(real: Path):
    with open_recording(real / "B6_Ch0_IDRest_183.ibw") as recording:
        assert [sweep.number for sweep in recording.sweeps] == [181, 182, 183, 184, 185]
        assert recording.cell_id == "B6"
        for sweep in recording.sweeps:
            assert (sweep.rate, sweep.points) == (4000, 12000)
            held, stepped = sweep.current[400:2700], sweep.current[3000:10_600]
            # The protocol says 50, 75, … at the stimulator, which gave more (28 pA of hold off).
            asked = 50 + 25 * (sweep.number - 181)
            assert stepped.mean() - held.mean() == pytest.approx(2.36 * asked, rel=0.02)
            assert -80 < np.median(sweep.voltage[:2000]) < -60
            assert sweep.voltage.max() > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("axograph_x.axgx", r"holds no potential, only Current \(A\)"),
        ("winwcp.wcp", "does not say which was clamped, and both Vm and Im are steps"),
        ("wavesurfer_multiple_sweeps_0001-0010.h5", r"AI0 \(V\) reaches 8e\+03 mV"),
        ("18702001-step.atf", r"holds no potential, only IN 0 \(pA\), IN 1 \(A\)"),
    ],
)
def test_real_files_without_a_current_clamped_cell(real: Path, name: str, message: str):
    with pytest.raises(RecordingError, match=message):
        open_recording(real / name)


def test_real_winwcp_is_read_as_asked(real: Path):
    with open_recording(real / "winwcp.wcp", Reading(clamp="current")) as recording:
        assert len(recording.sweeps) == 11
        sweep = recording.sweeps[0]
        assert (sweep.rate, sweep.points) == (1000, 256)
        assert np.median(sweep.voltage[20:100]) == pytest.approx(-20, abs=0.5)
        assert np.median(sweep.voltage[150:]) == pytest.approx(-80, abs=0.5)


def test_real_wavesurfer_has_the_amplitudes_of_its_protocol(real: Path):
    """A sine of 1, 2, … V was played into the input."""
    file = real / "wavesurfer_multiple_sweeps_0001-0010.h5"
    with h5py.File(file) as opened:
        for episode in hdf5_formats._wavesurfer(file, opened).episodes[:7]:
            (signal,) = episode.signals
            assert np.abs(signal.read()).max() == pytest.approx(episode.number, rel=0.01)
