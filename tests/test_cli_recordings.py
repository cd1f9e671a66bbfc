"""The commands for recordings, as a user types them."""

from __future__ import annotations

import pandas as pd
import pytest

from crosspatch.cohorts import made_up as simulated
from crosspatch.cohorts import table
from tests.command import crosspatch, crosspatch_process
from tests.features.made_files import folder_of, write_small


def test_inspect_prints_and_draws(tmp_path):
    write_small(tmp_path / "cell.nwb")
    done = crosspatch_process("inspect", "cell.nwb", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "long square" in done.stdout
    assert "input_resistance" in done.stdout
    assert "cell: passed" in done.stdout
    assert (tmp_path / "cell.png").read_bytes().startswith(b"\x89PNG")


def test_convert_writes_nwb_once(tmp_path):
    write_small(tmp_path / "cell.nwb")
    command = ("convert", tmp_path / "cell.nwb", tmp_path / "out.nwb", "--sex", "F")
    unknown = crosspatch(*command)
    assert unknown.returncode == 2
    assert "does not say when it was recorded; give --session-start" in unknown.stderr
    done = crosspatch(*command, "--session-start", "2024-01-15T12:00:00+01:00")
    assert done.returncode == 0, done.stderr
    assert "7 sweeps, 1 electrode\n" in done.stdout
    assert "also ask for what no file says: --" in done.stdout
    again = crosspatch("convert", tmp_path / "cell.nwb", tmp_path / "out.nwb")
    assert again.returncode == 2
    assert len(again.stderr.splitlines()) == 1
    assert "out.nwb exists; give another name" in again.stderr
    alone = crosspatch("convert", tmp_path / "cell.nwb")
    assert "last, the NWB file to write" in alone.stderr


def test_inspect_refuses_voltage_clamp_in_one_line(real_data):
    file = real_data / "recordings" / "171116sh_0013_voltage_clamp.abf"
    done = crosspatch("inspect", file, "--no-png")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "no current-clamp sweep (its 13 sweeps are in voltage clamp: input 0" in done.stderr


def test_extract_writes_a_table_and_the_failures(tmp_path):
    folder = folder_of(tmp_path / "cells", 3)
    (folder / "empty.nwb").touch()
    done = crosspatch("extract", folder, "--layout", "shared", "--out", tmp_path / "c.h5ad")
    assert done.returncode == 0, done.stderr
    assert "4 recordings, 0 of them done before" in done.stdout
    assert table.read(tmp_path / "c.h5ad").n_obs == 3
    failures = pd.read_csv(tmp_path / "failures.csv")
    assert list(failures["reason"].str.contains("0 bytes")) == [True]
    (folder / "empty.nwb").unlink()
    again = crosspatch("extract", folder, "--layout", "shared", "--out", tmp_path / "c.h5ad")
    assert "3 recordings, 3 of them done before" in again.stdout
    assert not (tmp_path / "failures.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--out", "c.h5ad"], "nowhere does not exist"),
        ([".", "--out", "c.h5ad"], "no recording in ."),
        ([".", "--out", "c.csv"], "written as .h5ad"),
        ([".", "--out", "c.h5ad", "--layout", "gouwen"], "no layout 'gouwen'"),
        ([".", "--out", "c.h5ad", "--species", "rat"], "no species 'rat'"),
        ([".", "--out", "c.h5ad", "--quality", "good"], "no quality settings 'good'"),
        ([".", "--out", "c.h5ad", "--step-start", "1"], "go together"),
        ([".", "--out", "c.h5ad", "--labels", "none.csv"], "no labels in none.csv"),
    ],
)
def test_extract_says_what_is_wrong_in_one_line(tmp_path, arguments, message):
    done = crosspatch("extract", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("*.h5ad"))


def test_nothing_but_failures_is_an_error(tmp_path):
    (tmp_path / "a.nwb").write_text("no recording")
    done = crosspatch("extract", "a.nwb", "--out", "c.h5ad", cwd=tmp_path)
    assert done.returncode == 2
    assert "no cell in 1 recordings" in done.stderr
    assert (tmp_path / "failures.csv").exists()


def test_without_tables_the_main_job_runs_on_simulated_cells(tmp_path, monkeypatch):
    """The embedded default, end to end, on few cells."""
    # With this seed, cells of five donors in every subclass.
    monkeypatch.setitem(simulated.CELLS, "human", 24)
    empty = tmp_path / "data"
    empty.mkdir()
    done = crosspatch(
        *("run", "--data-dir", empty, "--task", "human", "--features", "shared"),
        *("--models", "logistic", "--protocol", "quick", "--seed", 14),
        *("--out", tmp_path / "results"),
    )
    assert done.returncode == 0, done.stderr
    assert "The Allen tables are not in the data directory" in done.stdout
    assert done.stdout.count("SIMULATED") >= 3
    results = pd.read_csv(tmp_path / "results" / "results.csv")
    assert set(results["task"]) == {"human"}
    assert results["macro_f1"].mean() > 0.5  # four classes, far above chance
