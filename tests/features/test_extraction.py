"""Many files into one table: what is done is kept, what fails is listed, nothing stops the rest."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from crosspatch.cohorts import table
from crosspatch.cohorts.cells import layers_of
from crosspatch.cohorts.extracted import cohort_of, read_labels, without_species, write_failures
from crosspatch.errors import CohortError, RecordingError
from crosspatch.features.extraction import ExtractionSettings, extract_file
from crosspatch.features.finding import find_recordings
from crosspatch.features.layouts import load_layout
from crosspatch.features.many import ExtractionProgress, Readers, extract_many, store_beside
from crosspatch.features.outcome import CellFeatures, Failure
from crosspatch.features.store import CellStore
from crosspatch.recordings.opening import open_recording
from crosspatch.recordings.reading_options import Reading
from crosspatch.recordings.thresholds import ALLEN, ANY, QualityThresholds
from tests.features.made_files import folder_of, write_small

SHARED = ExtractionSettings("shared")


@pytest.fixture(scope="module")
def five(tmp_path_factory) -> Path:
    return folder_of(tmp_path_factory.mktemp("five"), 5)


def table_of(folder: Path, store: Path, **given) -> anndata.AnnData:
    cohort = cohort_of(find_recordings([folder]), store, SHARED, **given).cohort
    assert cohort is not None
    return cohort


def rows(store: Path) -> dict[str, tuple[int, float]]:
    """File name to when its row was written, by the store's own order."""
    with sqlite3.connect(store) as base:
        found = base.execute("SELECT source, rowid, vector FROM cells").fetchall()
    return {Path(path).name: (number, vector) for path, number, vector in found}


def test_a_file_becomes_a_row(five):
    cell = extract_file(five / "cell-0003.nwb", SHARED)
    found = dict(zip(load_layout("shared").feature_names, cell.values, strict=True))
    assert cell.cell_id == "cell-0003"
    assert {value.dtype for value in found.values()} == {np.dtype(np.float32)}
    assert found["input_resistance"] == pytest.approx(153, rel=0.01)
    assert np.isnan(found["threshold_i_ramp"])
    assert cell.head["species"] == "mouse"
    assert cell.head["donor"] == "donor-3"
    assert "no usable ramps" in "; ".join(cell.head["notes"])


@pytest.mark.parametrize("layout", ["gouwens", "paper", "shared", "full"])
def test_a_folder_becomes_a_valid_cohort_table(five, tmp_path, layout):
    out = tmp_path / "cohort.h5ad"
    settings = ExtractionSettings(layout)
    state = extract_many([five], store_beside(out), settings)
    assert state == ExtractionProgress(5, 5, 0, 0)
    result = cohort_of(find_recordings([five]), store_beside(out), settings)
    assert result.failures.empty
    table.write(result.cohort, out)
    cohort = table.read(out)
    assert table.layout_of(cohort).features == load_layout(layout).features
    assert list(cohort.obs["donor"]) == [f"donor-{k}" for k in range(5)]
    assert cohort.obs["recording_file"].iloc[0] == "cell-0000.nwb"
    assert len(cohort.obs["sha256"].iloc[0]) == 64
    assert '"definitions": "IPFX 2.' in cohort.uns["crosspatch"]["extraction"]


def test_only_what_is_new_or_changed_is_done_again(tmp_path):
    folder = folder_of(tmp_path / "cells", 4)
    store = tmp_path / "cells.sqlite"
    extract_many([folder], store, SHARED)
    before = rows(store)
    write_small(folder / "cell-0009.nwb", 9)
    write_small(folder / "cell-0001.nwb", 31)
    state = extract_many([folder], store, SHARED)
    assert (state.done, state.kept) == (5, 3)
    after = rows(store)
    assert {name for name in before if before[name] != after[name]} == {"cell-0001.nwb"}
    assert "cell-0009.nwb" in after
    # Other settings are other cells.
    assert extract_many([folder], store, ExtractionSettings("paper")).kept == 0


def test_a_file_that_fails_is_listed_and_stops_nothing(tmp_path):
    folder = folder_of(tmp_path / "cells", 3)
    (folder / "empty.nwb").touch()
    (folder / "text.abf").write_text("not a recording at all")
    whole = (folder / "cell-0000.nwb").read_bytes()
    (folder / "cut.nwb").write_bytes(whole[: len(whole) // 2])
    store = tmp_path / "c.cells.sqlite"
    state = extract_many([folder], store, SHARED, jobs=2)
    assert (state.done, state.failed) == (6, 3)
    result = cohort_of(find_recordings([folder]), store, SHARED)
    assert result.cohort is not None
    assert result.cohort.n_obs == 3
    reasons = dict(
        zip(
            result.failures["file"].map(lambda f: Path(f).name),
            result.failures["reason"],
            strict=True,
        )
    )
    assert "0 bytes" in reasons["empty.nwb"]
    assert "is no ABF file" in reasons["text.abf"]
    assert "cut.nwb" in reasons
    write_failures(result.failures, tmp_path / "failures.csv")
    assert len(pd.read_csv(tmp_path / "failures.csv")) == 3
    # A failure that will not change is not tried again.
    assert extract_many([folder], store, SHARED).kept == 6
    assert result.cohort.uns["crosspatch"]["dropped"] == {"gave no features": 3}


def test_a_file_that_takes_too_long_is_given_up_and_tried_again(five, tmp_path):
    store = tmp_path / "c.sqlite"
    one = [five / "cell-0000.nwb"]
    assert extract_many(one, store, SHARED, limit=1e-6).failed == 1
    with CellStore(store) as opened:
        ((_, outcome),) = opened.cells(find_recordings(one), SHARED.key)
    assert isinstance(outcome, Failure)
    assert "gave up after" in outcome.reason
    assert (
        outcome.error.in_words("--{}".format)
        == "gave up after 1e-06 s; give it more time with --limit"
    )
    assert extract_many(one, store, SHARED).failed == 0


def test_a_process_that_dies_costs_its_file_only(five):
    good = five / "cell-0000.nwb"
    with closing(Readers()) as readers:
        assert isinstance(readers.extract(good, SHARED, 60)[0], CellFeatures)
        (child,) = readers.idle
        os.kill(child.process.pid, signal.SIGSTOP)
        timer = subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {child.process.pid}"])
        (outcome,) = readers.extract(good, SHARED, 60)
        timer.wait()
        assert isinstance(outcome, Failure)
        assert "signal 9" in outcome.reason
        assert outcome.again
        assert isinstance(readers.extract(good, SHARED, 60)[0], CellFeatures)


def test_one_file_needs_neither_a_store_nor_dask_nor_a_guarded_script(five, tmp_path):
    """A script without ``if __name__ == "__main__"`` is not run again by the child."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from crosspatch.features.extraction import ExtractionSettings\n"
        "from crosspatch.features.many import extract_many, extract_one\n"
        "print('once')\n"
        f"files = [Path({str(five)!r}) / f'cell-000{{k}}.nwb' for k in range(3)]\n"
        "print(extract_one(files[0], ExtractionSettings('shared'))[0].cell_id)\n"
        "print(extract_one(files[0], ExtractionSettings('shared'), limit=1e-6)[0].reason)\n"
        "print(extract_many(files, 'c.sqlite', ExtractionSettings('shared'), jobs=2).done)\n"
        "print('dask' in sys.modules, 'distributed' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    once, cell, reason, count, dask = done.stdout.splitlines()
    assert (once, count, dask) == ("once", "3", "False False")
    assert cell == "cell-0000"
    assert reason == "gave up after 1e-06 s; give it more time with 'limit'"


def test_killed_in_the_middle_it_goes_on_where_it_was(tmp_path):
    folder = folder_of(tmp_path / "cells", 60)
    out = tmp_path / "cohort.h5ad"
    command = [sys.executable, "-m", "crosspatch", "extract", str(folder), "--out", str(out)]
    command += ["--layout", "shared", "--jobs", "2"]
    store = store_beside(out)
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        time.sleep(0.1)
        if store.exists() and len(_rows_or_none(store)) >= 10:
            break
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    before = rows(store)
    assert 10 <= len(before) < 60
    assert not out.exists()
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    after = rows(store)
    assert len(after) == 60
    assert all(after[name] == before[name] for name in before)  # nothing lost, nothing twice
    assert f"60 recordings, {len(before)} of them done before" in done.stdout
    assert table.read(out).n_obs == 60


def _rows_or_none(store: Path) -> dict:
    try:
        return rows(store)
    except sqlite3.Error:
        return {}


def test_two_dask_workers_one_killed_all_cells_arrive(tmp_path):
    folder = folder_of(tmp_path / "cells", 24)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1"]
    worker += ["--no-dashboard", "--no-nanny", "--death-timeout", "60"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    processes = [
        subprocess.Popen(
            [*dask, "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"], **quiet
        )
    ]
    try:
        processes += [subprocess.Popen([*worker, "--name", f"w{k}"], **quiet) for k in range(2)]
        killed: list[int] = []

        def kill_one(state: ExtractionProgress) -> None:
            if state.done >= 5 and not killed:
                processes[1].kill()
                killed.append(state.done)

        store = tmp_path / "c.sqlite"
        state = extract_many([folder], store, SHARED, scheduler=address, progress=kill_one)
        assert killed
        assert (state.done, state.failed) == (24, 0)
        assert table_of(folder, store).n_obs == 24
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


def test_no_scheduler_there(five, tmp_path):
    with pytest.raises(RecordingError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"):
        extract_many([five], tmp_path / "c.sqlite", SHARED, scheduler="tcp://127.0.0.1:1")


def test_labels_come_from_beside_the_recordings_or_from_a_file(five, tmp_path):
    folder = folder_of(tmp_path / "cells", 3)
    names = ["cell-0000.nwb", "cell-0001.nwb", "cell-0002.nwb"]
    labels = pd.DataFrame(
        {"file": names, "subclass": ["Sst", "Vip", None], "donor": ["a", "b", "b"]}
    )
    labels.to_csv(folder / "cells.csv", index=False)
    store = tmp_path / "c.sqlite"
    extract_many([folder], store, SHARED)
    cohort = table_of(folder, store)
    assert list(cohort.obs["subclass"].astype(object).fillna("none")) == ["Sst", "Vip", "none"]
    assert list(cohort.obs["donor"]) == ["a", "b", "b"]
    other = tmp_path / "other.csv"
    labels.assign(file=[Path(name).stem for name in names], subclass="Pvalb").to_csv(
        other, index=False
    )
    given = table_of(folder, store, labels=read_labels(other))
    assert set(given.obs["subclass"]) == {"Pvalb"}
    pd.concat([labels, labels]).to_csv(other, index=False)
    with pytest.raises(CohortError, match="stands in more than one row"):
        read_labels(other)
    with pytest.raises(CohortError, match="no labels in"):
        read_labels(tmp_path / "none.csv")


def test_labels_of_the_archives_are_found_by_session(real_data):
    for name in ("allen-mouse", "allen-human"):
        labels = read_labels(name, real_data)
        assert labels.index.is_unique
        assert labels["subclass"].notna().all()
        assert labels.index.str.fullmatch(r"\d+").all()
        assert len(labels) > 600


def test_real_files_without_a_species_ask_for_it(real_data, tmp_path):
    store = tmp_path / "c.sqlite"
    folder = real_data / "recordings"
    state = extract_many([folder], store, SHARED, jobs=2)
    assert (state.total, state.failed) == (6, 1)
    files = find_recordings([folder])
    unsaid = without_species(files)
    assert list(unsaid) == files
    assert all("give 'species' mouse or human" in str(reason) for reason in unsaid.values())
    assert not without_species(files, species="mouse")
    assert cohort_of(files, store, SHARED).cohort is None
    result = cohort_of(files, store, SHARED, species="mouse")
    assert result.cohort is not None
    assert result.cohort.n_obs == 5
    assert "voltage clamp" in result.failures["reason"].iloc[0]


def test_what_is_searched(five, tmp_path):
    assert len(find_recordings([five])) == 5
    assert len(find_recordings([five / "cell-0000.nwb", five])) == 5
    assert len(find_recordings([f"{five}/cell-000[12].nwb"])) == 2
    with pytest.raises(RecordingError, match="does not exist"):
        find_recordings([tmp_path / "nowhere"])
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RecordingError, match="no recording in"):
        find_recordings([tmp_path])


def test_steps_that_a_user_describes():
    step = Reading(step_start=0.1, step_end=0.6, amplitudes="-100:100:50")
    assert step.amplitudes == (-100, -50, 0, 50, 100)
    assert Reading().amplitudes is None
    with pytest.raises(RecordingError, match="go together"):
        Reading(step_start=0.1)
    for wrong in ("a,b", "0:10:0", "0:10:3", "1,nan"):
        with pytest.raises(RecordingError, match="not understood"):
            Reading(step_start=0.1, step_end=0.2, amplitudes=wrong)


def test_a_shift_of_the_potential_is_taken_off_and_said(tmp_path):
    path = write_small(tmp_path / "a.nwb")
    with open_recording(path) as plain:
        raw = plain.current_clamp[0].voltage
    reading = Reading(junction_potential=14, offset_mv=4)
    with open_recording(path, reading) as recording:
        assert np.allclose(recording.current_clamp[0].voltage, raw + 10)
        assert np.allclose(recording.current_clamp[0].voltage_until(7), raw[:7] + 10)
    cell = extract_file(path, ExtractionSettings("shared", reading))
    before = extract_file(path, ExtractionSettings("shared"))
    at = load_layout("shared").feature_names.index("v_baseline")
    assert list(cell.values)[at] == pytest.approx(list(before.values)[at] + 10, abs=1e-3)
    assert "+10 mV were added to the potentials of the file" in cell.head["notes"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"clamp": "voltage"}, "clamp voltage: not understood"),
        ({"offset_mv": float("nan")}, "shift of the potential"),
        ({"quality": "drift=x"}, "quality drift=x: not a number"),
        ({"quality": "drfit=3"}, "no quality settings 'drfit=3'; .*drift"),
        ({"quality": "drift=3,any"}, "no quality settings 'any'"),
    ],
)
def test_readings_that_are_refused(given, says):
    with pytest.raises(RecordingError, match=says):
        Reading(**given)


def test_single_limits_of_quality_replace_those_of_a_set():
    assert Reading("drift=5, access_high=30").thresholds == QualityThresholds(
        drift=5, access_high=30
    )
    assert Reading("allen,seal=0.5").thresholds == replace(ALLEN, seal=0.5)
    assert Reading("any").thresholds == ANY


def test_unknown_settings():
    with pytest.raises(RecordingError, match="no quality settings 'strict'; choose from"):
        Reading(quality="strict")
    with pytest.raises(Exception, match="no layout 'gouwen'"):
        ExtractionSettings("gouwen")


def test_layers_are_from_labels_else_from_where_the_electrode_was(tmp_path):
    for name, place in {"a": "V1, layer 2/3", "b": "V1, layer 2/3", "c": "V1"}.items():
        with h5py.File(write_small(tmp_path / f"{name}.nwb"), "a") as file:
            file["general/intracellular_ephys/electrode_0/location"] = place
    (tmp_path / "cells.csv").write_text("file,layer\na,5\nb,\nc,\n")
    extract_many(find_recordings([tmp_path]), tmp_path / "store", SHARED)
    cohort = table_of(tmp_path, tmp_path / "store")
    assert cohort.obs["layer"].astype(object).tolist() == ["5", "2/3", np.nan]
    np.testing.assert_array_equal(layers_of(cohort), [5, 2.5, np.nan])
