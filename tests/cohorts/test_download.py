"""Tables come from where they are published; labels say which recordings are wanted."""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crosspatch.archive.dandi import Asset
from crosspatch.archive.fetching import FetchProgress
from crosspatch.archive.web import Web
from crosspatch.cohorts import dataset, download, sources
from crosspatch.cohorts.dataset import datasets, source_files
from crosspatch.cohorts.download import (
    CellSelection,
    choose,
    dandisets,
    fetch_tables,
    labels_of,
    write_labels,
)
from crosspatch.cohorts.extracted import cohort_of, read_labels
from crosspatch.cohorts.sources import SourceFile
from crosspatch.errors import CohortError, CrosspatchError, NetworkError
from crosspatch.features.extraction import ExtractionSettings
from crosspatch.features.finding import find_recordings
from crosspatch.features.many import extract_many
from tests import made
from tests.archive_server import KINDS, ArchiveServer, Faults
from tests.features.made_files import write_small

SHARED = ExtractionSettings("shared")


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(0)
    found = {}
    for path, size in (("mouse/cells.csv", 300_000), ("mouse/more.csv.gz", 50_000), ("d.csv", 7)):
        found[path] = folder / Path(path).name
        found[path].write_bytes(rng.bytes(size))
    return found


@pytest.fixture
def tables(originals, quick, monkeypatch) -> dict[str, SourceFile]:
    """Tables that are as made up as where they come from."""
    made_up = {
        path: SourceFile(
            path,
            hashlib.sha256(file.read_bytes()).hexdigest(),
            file.stat().st_size,
            f"owner/repository/raw/0123abc/data/{file.name}",
        )
        for path, file in originals.items()
    }
    monkeypatch.setattr(download, "source_files", lambda: made_up)
    return made_up


@pytest.fixture
def server(originals, monkeypatch) -> Iterator[ArchiveServer]:
    with ArchiveServer() as server:
        for file in originals.values():
            server.add_table("owner", "repository", "0123abc", f"data/{file.name}", file)
        monkeypatch.setenv("CROSSPATCH_TABLES", f"{server.tables}/")
        yield server


def require_right(directory: Path, originals: dict[str, Path], whole: bool = True) -> None:
    """Every file that has a table's name is that table."""
    found = {path for path in originals if (directory / path).exists()}
    for path in found:
        assert (directory / path).read_bytes() == originals[path].read_bytes()
    assert found == set(originals) or not whole


# Tables.


def test_tables_are_fetched_once(server, tables, originals, tmp_path):
    directory = tmp_path / "new" / "data"
    told: list[FetchProgress] = []
    assert fetch_tables(directory, progress=told.append) == [directory / path for path in tables]
    require_right(directory, originals)
    size = sum(table.size for table in tables.values())
    assert told[0] == FetchProgress(0, 3, 0, size)
    assert told[-1] == FetchProgress(3, 3, size, size)
    server.clear_log()
    assert fetch_tables(directory) == []
    assert not server.log
    (directory / "mouse/cells.csv").unlink()
    assert fetch_tables(directory) == [directory / "mouse/cells.csv"]
    names = [path.name for path in directory.rglob("*") if path.is_file()]
    assert sorted(names) == ["cells.csv", "d.csv", "more.csv.gz"]


def test_the_real_tables_are_those_that_are_pinned(server, quick, real_data, tmp_path):
    for source in source_files().values():
        owner, repository, _, commit, path = source.place.split("/", 4)
        server.add_table(owner, repository, commit, path, real_data / source.path)
    server.faults = Faults(("cut", "drop", "503"), share=0.3, seed=4)
    web = Web(replace(quick, attempts=20))
    assert len(fetch_tables(tmp_path, web=web)) == len(source_files())
    for path, source in source_files().items():
        assert sources.locate(tmp_path, source) == (tmp_path / path, source.sha256)
        assert (tmp_path / path).stat().st_size == source.size


@pytest.mark.parametrize("kind", KINDS)
def test_tables_survive_what_passes(kind, server, tables, originals, tmp_path):
    server.faults = Faults((kind,), times=1, where="/raw-content/")
    started = time.monotonic()
    if kind in ("403", "404", "changed"):
        with pytest.raises(NetworkError) as error:
            fetch_tables(tmp_path)
        assert "\n" not in str(error.value)
        require_right(tmp_path, originals, whole=False)
        server.restore()
    fetch_tables(tmp_path)
    assert time.monotonic() - started < 60
    require_right(tmp_path, originals)


@pytest.mark.parametrize("kind", KINDS)
def test_fetching_tables_ends_when_it_never_passes(kind, server, tables, originals, tmp_path):
    server.faults = Faults((kind,))
    started = time.monotonic()
    try:
        fetch_tables(tmp_path)
    except CrosspatchError as error:
        assert isinstance(error, NetworkError)
        assert "\n" not in str(error)
        require_right(tmp_path, originals, whole=False)
    else:
        assert kind in ("long", "ignore-range", "other-range", "broken-json")
        require_right(tmp_path, originals)
    assert time.monotonic() - started < 60


def test_what_came_of_a_table_is_not_fetched_again(server, tables, originals, quick, tmp_path):
    server.faults = Faults(("cut",), where="/cells.csv", times=1)
    with pytest.raises(NetworkError, match=r"cells\.csv cannot be had"):
        fetch_tables(tmp_path, web=Web(replace(quick, patience=0.0)))
    assert not list(tmp_path.rglob("*.csv"))
    server.faults = None
    server.settle()
    server.clear_log()
    fetch_tables(tmp_path)
    require_right(tmp_path, originals)
    assert server.sent_bytes("/cells.csv") == 150_000


def test_another_file_under_the_name_of_a_table_is_left_alone(server, tables, tmp_path):
    (tmp_path / "mouse").mkdir()
    (tmp_path / "mouse/more.csv.gz").write_text("mine")
    with pytest.raises(CohortError, match=r"more\.csv\.gz is there, but is not the pinned version"):
        fetch_tables(tmp_path)
    assert (tmp_path / "mouse/more.csv.gz").read_text() == "mine"
    assert not server.log


def test_a_folder_under_the_name_of_a_table(server, tables, tmp_path):
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(CohortError, match=r"d\.csv cannot be read"):
        fetch_tables(tmp_path)


def test_a_directory_that_cannot_be_written(server, tables, tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(CrosspatchError, match=r"taken.* cannot be") as error:
        fetch_tables(tmp_path / "taken")
    assert "\n" not in str(error.value)


def test_a_full_disk_is_said(server, tables, tmp_path, monkeypatch):
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("crosspatch.archive.web._Download.bring", full)
    with pytest.raises(NetworkError, match="the disk is full"):
        fetch_tables(tmp_path)


def test_the_time_limit_is_kept(server, tables, quick, tmp_path):
    server.faults = Faults(("503",))
    patient = replace(quick, attempts=1000, patience=0.5)
    started = time.monotonic()
    with pytest.raises(NetworkError, match="503"):
        fetch_tables(tmp_path, web=Web(patient))
    assert 0.3 < time.monotonic() - started < 20


# Which recordings.


def asset(path: str, dandiset: str = "000008", **of: Any) -> Asset:
    digests = {"sha256": hashlib.sha256(path.encode()).hexdigest()}
    return Asset(dandiset, "0.1.2", f"id-{len(path)}", path, 1000, digests, "http://127.0.0.1:9")


NAMES = {
    "sst": "sub-11/sub-11_ses-601_icephys.nwb",
    "pvalb": "sub-11/sub-11_ses-602_icephys.nwb",
    "vip": "sub-22/sub-22_ses-20180303-sample-5_icephys.nwb",
    "unknown": "sub-33/sub-33_ses-604_icephys.nwb",
    "missing": "sub-44/sub-44_ses-605_icephys.nwb",
}
ASSETS = {name: asset(path) for name, path in NAMES.items()}
LABELS = pd.DataFrame(
    {"subclass": ["Sst", "Pvalb", "Vip", None], "specimen": ["9001", "9002", "9003", "9004"]},
    index=pd.Index(["601", "602", "20180303_sample_5", "604"], name="file"),
)


def chosen(choice: CellSelection, labels: pd.DataFrame | None = LABELS) -> list[str]:
    found = choose(list(ASSETS.values()), labels, choice)
    return [name for name, asset in ASSETS.items() if asset in found]


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (CellSelection(), ["sst", "pvalb", "vip"]),
        (CellSelection(unlabelled=True), list(NAMES)),
        (CellSelection(limit=2), ["sst", "pvalb"]),
        (CellSelection(limit=4, unlabelled=True), ["sst", "pvalb", "vip", "unknown"]),
        (CellSelection(("Vip",)), ["vip"]),
        (CellSelection(("Sst", "Vip")), ["sst", "vip"]),
        (CellSelection(("Vip",), unlabelled=True), ["vip"]),
        (CellSelection(cells=("9002",)), ["pvalb"]),  # specimen
        (CellSelection(cells=("602",)), ["pvalb"]),  # session
        (CellSelection(cells=("11",)), ["sst", "pvalb"]),  # donor
        (CellSelection(cells=("11",), subclasses=("Sst",)), ["sst"]),
        (CellSelection(cells=("20180303_sample_5",)), ["vip"]),
        (CellSelection(cells=("20180303-sample-5",)), ["vip"]),
        (CellSelection(cells=("sub-11_ses-601_icephys.nwb",)), ["sst"]),
        (CellSelection(cells=("sub-11_ses-601_icephys",)), ["sst"]),
        (CellSelection(cells=(NAMES["sst"], "9003")), ["sst", "vip"]),
        (CellSelection(cells=("605",), unlabelled=True), ["missing"]),
    ],
)
def test_recordings_are_chosen(choice, names):
    assert chosen(choice) == names


def test_the_key_of_every_chosen_recording_is_told():
    found = choose(list(ASSETS.values()), LABELS, CellSelection(unlabelled=True))
    assert list(found.values()) == ["601", "602", "20180303_sample_5", "604", None]


@pytest.mark.parametrize(
    ("choice", "labels", "message"),
    [
        (
            CellSelection(),
            None,
            "no labels of dandi:000008 are known; give a csv with 'labels', or take",
        ),
        (
            CellSelection(("Sst",), unlabelled=True),
            None,
            "no labels of .* known, so no subclass can be",
        ),
        (CellSelection(("Martinotti",)), LABELS, "no subclass 'Martinotti'; choose from: .*Sst"),
        (
            CellSelection(("Lamp5",)),
            LABELS,
            "none of the 5 recordings .* none is of subclass Lamp5$",
        ),
        (CellSelection(cells=("777", "601")), LABELS, r"no recording of cell 777 .*\(1 of 2 cells"),
        (CellSelection(cells=("01",)), LABELS, "no recording of cell 01"),  # a part of a name
        (
            CellSelection(cells=("604",)),
            LABELS,
            "cell 604 of dandi:000008 has no label; .*'unlabelled'",
        ),
        (CellSelection(cells=("601", "605")), LABELS, "cell 605 of dandi:000008 has no label"),
        (CellSelection(), LABELS.iloc[3:], "none has a label; take all cells with 'unlabelled'"),
        (CellSelection(), LABELS.drop(columns="subclass"), "none has a label"),
    ],
)
def test_what_cannot_be_chosen_is_said(choice, labels, message):
    with pytest.raises(CohortError, match=message) as error:
        chosen(choice, labels)
    assert "\n" not in str(error.value)


def test_without_labels_all_can_be_taken():
    assert chosen(CellSelection(unlabelled=True), None) == list(NAMES)
    assert chosen(CellSelection(cells=("22",), unlabelled=True), None) == ["vip"]


def test_labels_of_a_dandiset_are_those_of_its_tables(tmp_path, monkeypatch):
    assert labels_of("000035") is None
    assert labels_of("999999") is None
    monkeypatch.delenv("CROSSPATCH_DATA", raising=False)
    with pytest.raises(CohortError, match=r"labels of dandi:000020 .* `crosspatch fetch tables`"):
        labels_of("000020", data_dir=tmp_path / "none")
    (tmp_path / "labels.csv").write_text("file,subclass\n601,Sst\n")
    given = labels_of("000020", str(tmp_path / "labels.csv"))
    assert given is not None
    assert dict(given["subclass"]) == {"601": "Sst"}
    with pytest.raises(CohortError, match="no labels in nothing"):
        labels_of("000008", "nothing")


@pytest.mark.parametrize(("dandiset", "session"), [("000020", 2000), ("000636", 4000)])
def test_the_institutes_labels_are_found_by_session(dandiset, session, tmp_path, monkeypatch):
    directory = made.data_directory(tmp_path)
    for name, known in datasets().items():
        if name not in ("allen-mouse", "allen-human"):
            continue
        files = tuple(
            replace(file, sha256=hashlib.sha256((directory / file.path).read_bytes()).hexdigest())
            for file in known.files
        )
        monkeypatch.setitem(dataset.REGISTERED, name, replace(known, files=files))
    labels = labels_of(dandiset, data_dir=directory)
    assert labels is not None
    recordings = [
        asset(f"sub-{k}/sub-{k}_ses-{session + k}_icephys.nwb", dandiset) for k in range(14)
    ]
    found = choose(recordings, labels, CellSelection())
    assert 0 < len(found) <= 12
    for each, key in found.items():
        assert key == each.stem.split("_")[1].removeprefix("ses-")
        specimen = str(labels.loc[key, "specimen"])
        assert choose(recordings, labels, CellSelection(cells=(specimen,))) == {each: key}


def test_every_known_dandiset_has_what_is_said_of_it():
    for number, each in dandisets().items():
        assert each.dandiset == number
        assert each.species in ("mouse", "human")
        assert each.files > 0
        assert each.licence
        assert each.cite


# Labels beside the recordings.


def test_labels_are_written_for_extraction_and_merged(tmp_path):
    first = {ASSETS["sst"]: "601", ASSETS["pvalb"]: "602"}
    file = write_labels(tmp_path, first, LABELS)
    assert file == tmp_path / "cells.csv"
    changed = LABELS.assign(subclass=["Vip", "Pvalb", "Vip", "Sst"])
    write_labels(tmp_path, {ASSETS["sst"]: "601", ASSETS["missing"]: None}, changed)
    written = pd.read_csv(file, dtype=str).set_index("file")
    assert list(written.index) == sorted(ASSETS[name].name for name in ("sst", "pvalb", "missing"))
    assert list(written["subclass"].fillna("")) == ["Vip", "Pvalb", ""]
    assert set(written["dataset"]) == {"dandi:000008"}
    assert set(written["species"]) == {"mouse"}
    row = written.loc[ASSETS["sst"].name]
    assert row["recording_source"] == f"dandi:000008@0.1.2/{NAMES['sst']}"
    assert row["sha256"] == ASSETS["sst"].digests["sha256"]
    assert row["specimen"] == "9001"
    read = read_labels(file)
    assert read.loc[ASSETS["pvalb"].name, "subclass"] == "Pvalb"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.filterwarnings("error")
def test_labels_of_cells_of_which_little_is_known(tmp_path):
    bare = {replace(ASSETS["sst"], digests={}, dandiset="999999"): None}
    write_labels(tmp_path, bare, None)
    write_labels(tmp_path, {replace(ASSETS["pvalb"], dandiset="999999"): None}, None)
    read = read_labels(tmp_path / "cells.csv")
    assert len(read) == 2
    assert read["subclass"].isna().all() if "subclass" in read else True


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "file\n\xff\n", 'file\n"'])
def test_a_file_of_labels_that_is_none_is_left_alone(content, tmp_path):
    file = tmp_path / "cells.csv"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(CohortError, match=r"cells\.csv is no table of cells: .*; move it") as error:
        write_labels(tmp_path, {ASSETS["sst"]: "601"}, LABELS)
    assert "\n" not in str(error.value)
    assert file.read_bytes() == content.encode("latin-1")


def test_labels_that_cannot_be_written(tmp_path):
    (tmp_path / "cells.csv").mkdir()
    with pytest.raises(CohortError, match=r"cells\.csv cannot be"):
        write_labels(tmp_path, {ASSETS["sst"]: "601"}, LABELS)


def test_extraction_finds_labels_in_the_folder_above(tmp_path):
    """A dandiset has a folder for every donor; its labels lie above them."""
    for name in ("sst", "missing"):
        (tmp_path / NAMES[name]).parent.mkdir()
        write_small(tmp_path / NAMES[name])
    write_labels(tmp_path, {ASSETS["sst"]: "601", ASSETS["missing"]: None}, LABELS)
    store = tmp_path / "c.cells.sqlite"
    extract_many([tmp_path], store, SHARED)
    result = cohort_of(find_recordings([tmp_path]), store, SHARED)
    assert result.cohort is not None
    obs = result.cohort.obs
    assert list(obs["subclass"].astype(object).fillna("")) == ["Sst", ""]
    assert set(obs["dataset"].astype(str)) == {"dandi:000008"}
