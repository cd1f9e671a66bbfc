"""From the archive to a cohort table, as a user types it; the archive is on this machine."""

from __future__ import annotations

import json
import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest

from crosspatch.cohorts import table
from crosspatch.cohorts.dataset import source_files
from crosspatch.features.layouts import load_layout
from crosspatch.prediction.batches import ReadSettings
from crosspatch.prediction.table_cells import read_table
from crosspatch.prediction.training import train
from tests import made
from tests.archive_server import ArchiveServer, Faults
from tests.command import crosspatch
from tests.features.made_files import folder_of

CELLS = 6


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> Path:
    """Recordings on disk, with labels of all but one."""
    folder = folder_of(tmp_path_factory.mktemp("cells"), CELLS)
    names = [f"cell-{number:04d}" for number in range(CELLS - 1)]
    subclasses = ["Sst", "Pvalb", "Vip", "Sst", "Lamp5"]
    labels = pd.DataFrame({"file": names, "subclass": subclasses, "t_type": subclasses})
    labels.to_csv(folder / "labels.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def server(cells):
    with ArchiveServer() as server:
        files = {f"sub-{path.stem}/{path.name}": path for path in sorted(cells.glob("*.nwb"))}
        server.add_dandiset("000008", files)
        server.add_dandiset("000020", files)
        yield server


@pytest.fixture
def run(server, tmp_path):
    """A command with this archive, in an empty folder."""
    server.faults = None
    server.restore()
    server.clear_log()

    def run(*arguments, **environment):
        environment = {
            "CROSSPATCH_DANDI": server.api,
            "CROSSPATCH_TABLES": server.tables,
            "CROSSPATCH_TIMEOUT": "2",
        } | environment
        return crosspatch(*arguments, cwd=tmp_path, **environment)

    return run


def test_streamed_and_local_tables_are_the_same(run, cells, tmp_path, server):
    labels = cells / "labels.csv"
    done = run("extract", "dandi:000008", "--labels", labels, "--out", "far.h5ad", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert "5 cells have a label, 0 have none" in done.stdout  # the sixth has none: not asked for
    assert re.search(r"MB read of .* MB \(", done.stdout)
    run("extract", cells, "--labels", labels, "--out", "near.h5ad", "--jobs", "2")
    far, near = table.read(tmp_path / "far.h5ad"), table.read(tmp_path / "near.h5ad")
    near = near[list(far.obs_names)]
    np.testing.assert_array_equal(far.X, near.X)
    told = ["recording_source", "bytes_read", "file_bytes", "requests"]
    pd.testing.assert_frame_equal(
        far.obs.drop(columns=told),
        near.obs.drop(columns=told, errors="ignore"),
        check_categorical=False,
    )
    assert far.obs["recording_source"].astype(str).str.startswith("dandi:000008@").all()
    assert (far.obs["bytes_read"] > 0).all()
    server.clear_log()
    again = run("extract", "dandi:000008", "--labels", labels, "--out", "far.h5ad")
    assert "5 recordings, 5 of them done before" in again.stdout
    assert not server.requests(where="/blobs/")


def test_a_subclass_is_fetched_with_its_labels_and_extracted(run, cells, tmp_path, server):
    options = ["--dandiset", "000008", "--subclass", "Sst", "--labels", cells / "labels.csv"]
    dry = run("fetch", "recordings", *options, "--dry-run")
    assert "2 recordings" in dry.stdout
    assert not server.requests(where="/blobs/")
    done = run("fetch", "recordings", *options, "--out", "here")
    assert done.returncode == 0, done.stderr
    assert "verified (0 were there)" in done.stdout
    found = sorted(path.name for path in (tmp_path / "here").rglob("*.nwb"))
    assert found == ["cell-0000.nwb", "cell-0003.nwb"]
    assert "verified (2 were there)" in run("fetch", "recordings", *options, "--out", "here").stdout
    run("extract", "here", "--layout", "shared", "--out", "c.h5ad")
    cohort = table.read(tmp_path / "c.h5ad")
    assert list(cohort.obs["subclass"].astype(str)) == ["Sst", "Sst"]


def test_some_fail_and_the_same_command_gets_the_rest(run, cells, tmp_path, server):
    options = ["--dandiset", "000008", "--unlabelled", "--out", "here"]
    lost = server.asset("000008", "sub-cell-0002/cell-0002.nwb")
    server.faults = Faults(("404",), where=lost.blob_path)
    done = run("fetch", "recordings", *options)
    assert done.returncode == 1
    assert "1 of 6 recordings could not be had; give the same command again" in done.stderr
    assert len(list((tmp_path / "here").rglob("*.nwb"))) == 5
    server.faults = None
    done = run("fetch", "recordings", *options)
    assert done.returncode == 0
    assert "6 recordings in here/, verified (5 were there)" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fetch", "recordings", "--dandiset", "20"], "is no dandiset; write dandi:000636"),
        (["fetch", "recordings", "--dandiset", "999999", "--unlabelled"], "404 Not Found"),
        (
            ["fetch", "recordings", "--dandiset", "000008"],
            "the labels of dandi:000008 cannot be read",
        ),
        (["fetch", "recordings", "--dandiset", "000020"], "`crosspatch fetch tables`"),
        (
            ["fetch", "recordings", "--dandiset", "000008", "--unlabelled", "--cells", "none"],
            "no recording of cell none",
        ),
        (["extract", "dandi:8", "--out", "c.h5ad"], "is no dandiset"),
        (["extract", ".", "--unlabelled", "--out", "c.h5ad"], "choose among the recordings"),
        (["cite", "nowhere"], "nowhere does not exist"),
        (["cohort", "export", "c.h5ad", "--out", "c.doc"], "the ending says the format"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run, arguments, message, tmp_path):
    done = run(*arguments, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_network_is_said_in_one_line(run, tmp_path):
    nobody = "http://127.0.0.1:9/api"
    done = run("fetch", "tables", "--data-dir", "d", "--time-limit", "1", CROSSPATCH_TABLES=nobody)
    assert done.returncode == 2
    assert "nobody answers at this address" in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("crosspatch")]) == 1
    assert not list(tmp_path.rglob("*.csv"))


def test_tables_are_fetched_and_the_cohorts_built_from_them(run, real_data, tmp_path, server):
    for source in source_files().values():
        owner, repository, _, commit, path = source.place.split("/", 4)
        server.add_table(owner, repository, commit, path, real_data / source.path)
    server.faults = Faults(("cut", "503", "drop"), share=0.3, seed=1)
    done = run("fetch", "tables", "--data-dir", "data")
    assert done.returncode == 0, done.stderr
    assert "8 tables fetched" in done.stdout
    server.faults = None
    built = run(
        *("cohort", "build", "--dataset", "allen-human", "--data-dir", "data", "--out", "h.h5ad")
    )
    assert built.returncode == 0, built.stderr
    assert table.read(tmp_path / "h.h5ad").uns["crosspatch"]["verified"]
    server.clear_log()
    assert "0 tables fetched" in run("fetch", "tables", "--data-dir", "data").stdout
    assert not server.log
    cited = run("cite", "h.h5ad").stdout
    assert "@article{lee2023," in cited
    assert "gouwens2020" not in cited


def test_the_list_says_what_how_large_and_under_which_licence(run):
    listed = " ".join(run("fetch", "--list").stdout.split())
    for number in ("000020", "000636", "000570", "000008", "000035"):
        assert number in listed
    for word in ("141.9", "CC-BY-4.0", "15.2 MB", "commercial", "efeature.csv"):
        assert word in listed


def test_everything_cited_is_bibtex(run):
    text = run("cite").stdout
    keys = re.findall(r"^@\w+\{(\w+),$", text, flags=re.MULTILINE)
    assert len(keys) == len(set(keys)) == text.count("@")
    assert {"crosspatch", "schwider2026", "gouwens2020", "lee2023", "ipfx"} <= set(keys)
    assert text.count("{") == text.count("}")
    assert "VERSION" not in text


@pytest.fixture
def cohort(run, cells, tmp_path) -> Path:
    run("extract", cells, "--layout", "shared", "--out", "c.h5ad", "--labels", cells / "labels.csv")
    return tmp_path / "c.h5ad"


def test_a_cohort_is_exported_with_its_origin(run, cohort, tmp_path):
    import zarr

    original = table.read(cohort)
    for ending in ("csv", "parquet", "zarr", "h5ad"):
        done = run("cohort", "export", cohort, "--out", f"e.{ending}")
        assert done.returncode == 0, done.stderr
    names = list(original.var_names)
    as_csv = pd.read_csv(tmp_path / "e.csv", comment="#")
    as_parquet = pd.read_parquet(tmp_path / "e.parquet")
    for frame in (as_csv, as_parquet):
        assert list(frame["cell_id"]) == list(original.obs_names)
        np.testing.assert_allclose(frame[names].to_numpy(np.float32), original.X, rtol=1e-6)
        assert frame["recording_source"].str.endswith(".nwb").all()
        assert (frame["sha256"].str.len() == 64).all()
        assert frame["extracted_with"].str.contains(r"crosspatch .*, as IPFX .*, settings").all()
    head = [line for line in (tmp_path / "e.csv").read_text().splitlines() if line[0] == "#"]
    assert head[0].startswith("# crosspatch ")
    assert any('"quality": "default"' in line for line in head)
    stored = pyarrow.parquet.read_schema(tmp_path / "e.parquet").metadata[b"crosspatch"]
    assert json.loads(stored)["extraction"]["layout"] == "shared"
    for again in (anndata.read_zarr(tmp_path / "e.zarr"), table.read(tmp_path / "e.h5ad")):
        np.testing.assert_array_equal(again.X, original.X)
        assert again.uns["crosspatch"]["layout"] == "shared"
    assert zarr.open(tmp_path / "e.zarr", mode="r")
    assert run("cohort", "export", cohort, "--out", "e.zarr").returncode == 0  # written anew
    assert not list(tmp_path.glob(".*part*"))


def test_an_exported_csv_is_read_as_a_table_of_cells(run, cohort, tmp_path):
    run("cohort", "export", cohort, "--out", "e.csv")
    said: list[str] = []
    (batch,) = read_table(tmp_path / "e.csv", ReadSettings(load_layout("shared")), said.append)
    original = table.read(cohort)
    assert batch.cell_ids == list(original.obs_names)
    assert batch.species == ["mouse"] * original.n_obs
    np.testing.assert_allclose(batch.X, original.X, rtol=1e-6)


def test_cells_of_the_archive_are_predicted_and_explained_like_local_ones(run, cells, tmp_path):
    counts = {"Lamp5": 30, "Pvalb": 45, "Sst": 40, "Vip": 35}
    train(made.cohort("mouse", counts, donors=30), model="logistic", out=tmp_path / "model")
    options = ["--model", "model", "--species", "mouse"]
    done = run("predict", "dandi:000008", *options, "--out", "far.csv")
    assert done.returncode == 0, done.stderr
    run("predict", cells, *options, "--out", "near.csv")
    far, near = (pd.read_csv(tmp_path / name, comment="#") for name in ("far.csv", "near.csv"))
    pd.testing.assert_frame_equal(far, near)
    assert (tmp_path / "far.csv").read_text().splitlines()[3].startswith("# trained on: ")
    one = ["explain", "dandi:000008/sub-cell-0001", *options, "--out", "pages"]
    done = run(*one)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "pages").rglob("*.png"))
