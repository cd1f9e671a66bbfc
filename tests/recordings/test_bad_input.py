"""What is wrong with a recording is said in one line: what, where and what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from crosspatch.errors import RecordingError
from crosspatch.features.extraction import ExtractionSettings, extract_file, extract_recording
from crosspatch.recordings.opening import open_recording
from crosspatch.recordings.reading_options import Reading
from tests.recordings import made_files

SHARED = ExtractionSettings("shared")


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def no_nwb(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = 1


def nwb_1(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["nwb_version"] = "NWB-1.0.6"


def only_a_heading(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = "2.8.0"


def cut_nwb(path: Path) -> None:
    cut(made_files.write_nwb(path), 0.5)


def cut_abf1(path: Path) -> None:
    cut(made_files.write_abf1(path), 0.7)


def cut_abf2(path: Path) -> None:
    cut(made_files.write_abf2(path), 0.7)


def cut_header(path: Path) -> None:
    cut(made_files.write_abf2(path), 0.002)


def never_ending_heap(path: Path) -> None:
    """Without a guard, HDF5 never comes back from the first text in this file."""
    content = bytearray(made_files.write_nwb(path).read_bytes())
    heap = content.index(b"GCOL")
    content[heap + 16 : heap + 32] = bytes(16)
    path.write_bytes(content)


def more_samples_than_the_file(path: Path) -> None:
    with h5py.File(made_files.write_nwb(path), "r+") as file:
        for series in file["acquisition"].values():
            kept = dict(series["data"].attrs)
            del series["data"]
            data = series.create_dataset("data", (150_000_000,), "f8", chunks=(10_000,))
            data.attrs.update(kept)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is a folder; give a file"),
        (lambda path: os.mkfifo(path), "is not a regular file; give a file"),
        (lambda path: path.touch(), r"is empty \(0 bytes\)"),
        (lambda path: path.write_text("1,2\n"), "is no NWB file: it begins with b'1,2"),
        (no_nwb, "HDF5 file but no NWB file: it has no nwb_version; export it as NWB 2"),
        (nwb_1, r"is NWB 1 \(NWB-1.0.6\); convert it to NWB 2"),
        (only_a_heading, "has no patch-clamp series"),
        (cut_nwb, "is a damaged HDF5 file: .*truncated.*; copy it again"),
        (never_ending_heap, "is a damaged NWB file: .*heap"),
        (more_samples_than_the_file, "150,000,000 samples are not in the file"),
        (cut_abf1, "is a damaged ABF file: .* it was cut short"),
        (cut_abf2, "is a damaged ABF file: .* it was cut short"),
        (cut_header, "is a damaged ABF file: it ends after .* bytes, inside its header"),
    ],
)
def test_files_that_cannot_be_opened(make, message: str, tmp_path: Path):
    path = tmp_path / "cell.nwb"
    make(path)
    with pytest.raises(RecordingError, match=message) as caught:
        open_recording(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = made_files.write_nwb(tmp_path / "cell.nwb")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(RecordingError, match=r"cell\.nwb cannot be opened: Permission denied"):
        open_recording(path)


def test_without_a_stimulus_it_can_be_described(tmp_path: Path):
    steps = made_files.cell()[:6]
    path = made_files.write_nwb(tmp_path / "cell.nwb", steps, with_stimulus=False)
    with pytest.raises(RecordingError, match="'step_start', 'step_end' and 'amplitudes'"):
        extract_file(path, SHARED)
    step = Reading(step_start=0.2, step_end=0.6, amplitudes=made_files.STEPS)
    described = extract_file(path, ExtractionSettings("shared", step))
    known = extract_file(made_files.write_nwb(path, steps), SHARED)
    np.testing.assert_allclose(described.values, known.values, rtol=1e-3)


def test_abf_sweeps_of_different_length_need_a_described_step(tmp_path: Path):
    sweeps = made_files.abf_cell()
    sweeps[1].voltage = sweeps[1].voltage[:-500]
    with open_recording(made_files.write_abf2(tmp_path / "cell.abf", sweeps)) as recording:
        assert [sweep.points for sweep in recording.sweeps] == [9000, 8500, *[9000] * 4]
        assert recording.sweep(2).voltage == pytest.approx(sweeps[2].voltage, abs=0.01)
        with pytest.raises(RecordingError, match="'step_start'"):
            extract_recording(recording, SHARED)


@pytest.mark.parametrize(
    ("units", "factor"), [(("mV", "pA"), (1, 1)), (("V", "nA"), (1e3, 1e3)), (("uV", "A"), ())]
)
def test_units_of_abf(units, factor, tmp_path: Path):
    sweeps = made_files.abf_cell()
    path = made_files.write_abf2(tmp_path / "cell.abf", sweeps, units=units)
    if not factor:  # 1e14 pA: the unit is wrong, and that is said
        with pytest.raises(RecordingError, match="which no amplifier does: a wrong unit"):
            extract_file(path, SHARED)
        return
    with open_recording(path) as recording:
        np.testing.assert_allclose(
            recording.sweep(0).voltage, sweeps[0].voltage * factor[0], atol=0.01 * factor[0]
        )
        np.testing.assert_allclose(recording.sweep(0).current, sweeps[0].current * factor[1])


def test_one_sweep_gives_what_it_can(tmp_path: Path):
    path = made_files.write_nwb(tmp_path / "cell.nwb", made_files.cell()[4:5])
    row = extract_file(path, SHARED)
    assert row.head["sweeps"] == 1
    assert 0 < np.isfinite(row.values).sum() < len(row.values)
    assert "no hyperpolarising long square" in "; ".join(row.head["notes"])


def test_sweeps_of_another_rate_are_left_out_and_longer_ones_count(tmp_path: Path):
    sweeps = made_files.cell()
    sweeps.append(made_files.cell([80], rate=20_000)[0])
    current = made_files.step(80, length=0.6)
    sweeps.append(made_files.MadeSweep(current, made_files.respond(current)))
    whole = extract_file(made_files.write_nwb(tmp_path / "a.nwb"), SHARED)
    assert whole.head["families_missing"] == ""  # also at 10 kHz
    assert "short squares" not in "; ".join(whole.head["notes"])
    mixed = extract_file(made_files.write_nwb(tmp_path / "b.nwb", sweeps), SHARED)
    np.testing.assert_allclose(mixed.values, whole.values, rtol=1e-5)
    assert "sweep 9: left out, it lasts 0.4 s at 20000 Hz" in "; ".join(mixed.head["notes"])
    assert "steps last 0.4 to 0.6 s; their first 0.4 s are measured" in "; ".join(
        mixed.head["notes"]
    )


def not_finite(voltage: np.ndarray) -> None:
    voltage[3000], voltage[3001] = np.nan, np.inf


def saturated(voltage: np.ndarray) -> None:
    voltage[3000:3100] = 100.0


def noise(voltage: np.ndarray) -> None:
    voltage[2000:6000] += np.random.default_rng(0).normal(0, 80, 4000)


def wrong_unit(voltage: np.ndarray) -> None:
    voltage *= 1e3


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (not_finite, "2 samples are not finite"),
        (saturated, "saturated: 10.0 ms at 100 mV"),
        (noise, "spikes follow another within 0.8 ms: it is noise"),
        (wrong_unit, "mV, which no amplifier does: a wrong unit, or damage"),
        (lambda voltage: voltage.fill(0), "the voltage is zero or missing throughout"),
        (lambda voltage: voltage[4000:].fill(0), "before the stimulus ended"),
    ],
)
def test_a_bad_sweep_is_rejected_with_its_reason(damage, reason: str, tmp_path: Path):
    sweeps = made_files.cell()
    damage(sweeps[2].voltage)  # of a hyperpolarising step, which does not bear on the rheobase
    row = extract_file(made_files.write_nwb(tmp_path / "cell.nwb", sweeps), SHARED)
    assert row.head["sweeps_rejected"] == 1
    assert "sweep 2 rejected: " in "; ".join(row.head["notes"])
    assert reason in "; ".join(row.head["notes"])
    others = [*sweeps[:2], *sweeps[3:]]
    without = extract_file(made_files.write_nwb(tmp_path / "rest.nwb", others), SHARED)
    np.testing.assert_array_equal(row.values, without.values)


def test_a_cell_that_never_spikes(tmp_path: Path):
    sweeps = made_files.cell()[:3]
    row = extract_file(made_files.write_nwb(tmp_path / "cell.nwb", sweeps), SHARED)
    assert np.isfinite(row.values).any()
    assert "spike_train" in row.head["families_missing"]


@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("pairing", made_files.PAIRINGS)
def test_every_layout_gives_the_same_cell(pairing, timestamps, compressed, tmp_path: Path):
    """Also by order alone, where only the electrode's link tells series apart."""
    sweeps = made_files.cell((-60, 140))
    path = made_files.write_nwb(
        tmp_path / "cell.nwb",
        sweeps,
        pairing=pairing,
        timestamps=timestamps,
        compressed=compressed,
        offset=0.0 if compressed else 0.5,
        voltage_unit="mV",
        current_unit="nA",
    )
    with open_recording(path) as recording:
        assert len(recording.sweeps) == len(sweeps)
        for read, made in zip(recording.sweeps, sweeps, strict=True):
            assert read.rate == pytest.approx(made.rate)
            np.testing.assert_allclose(read.voltage, made.voltage, atol=1e-4)
            np.testing.assert_allclose(read.current, made.current, atol=1e-3)


def test_a_full_disk_is_said(tmp_path: Path):
    code = """
import resource, sys
from pathlib import Path
from crosspatch.errors import RecordingError
from crosspatch.features.outcome import Failure
from crosspatch.features.store import CellStore
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
try:
    with CellStore(sys.argv[1]) as store:
        for number in range(1000):
            store.put(Path(str(number)), "x", [Failure("reason " * 100)], "now")
except RecordingError as error:
    print(error)
"""
    file = tmp_path / "cells.sqlite"
    run = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True
    )
    assert f"{file} cannot be used as the store of finished cells" in run.stdout
    assert "free space, or give another 'out'" in run.stdout
