"""Watched folders: files that grow, change, move and fail, and processes that are killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest

import crosspatch as package
from crosspatch.errors import CrosspatchError
from crosspatch.features.extraction import ExtractionSettings, extract_cells
from crosspatch.features.outcome import Failure, Outcomes
from crosspatch.features.store import CellStore
from crosspatch.prediction import watching
from crosspatch.prediction.pipeline import Listener, Pipeline, request
from crosspatch.prediction.watching import TRIES, Arrivals, Watch
from tests.command import crosspatch
from tests.recordings import made_files

SETTLE = 5.0


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("cells")
    steps = (made_files.STEPS, (-100, -60, 60, 140, 180))
    return [
        made_files.write_abf2(folder / f"{k}.abf", made_files.abf_cell(each))
        for k, each in enumerate(steps)
    ]


class Rig:
    """A folder that is watched, by hand, and what is said of it."""

    def __init__(self, folder: Path, model: Path):
        self.folder, self.out = folder / "rig", folder / "r.sqlite"
        self.folder.mkdir()
        self.said: list[str] = []
        self.read: list[str] = []  # names of files, each time one is read
        self.meanwhile: Callable[[], object] = lambda: None  # what happens while a file is read
        self.clock = Clock()
        wanted = request([], model, species="mouse")
        self.pipeline = Pipeline(wanted, Listener(self.said.append), later=True)

    def extract(
        self, files: Sequence[Path], settings: ExtractionSettings, *_: object
    ) -> Iterator[tuple[Path, Outcomes]]:
        """Read files in this process."""
        for file in files:
            self.read.append(file.name)
            try:
                found = extract_cells(file, settings)
            except CrosspatchError as error:
                found = [Failure.of(error)]
            self.meanwhile()
            yield file, found

    def watch(self, store: CellStore) -> Watch:
        arrivals = Arrivals([self.folder], SETTLE, self.said.append, self.clock)
        return Watch(self.pipeline, store, arrivals)

    def wait(self, watch: Watch, seconds: float = SETTLE) -> list[str]:
        """What is new after so long, in lines."""
        watch.look()
        self.clock.now += seconds
        if not watch.look():
            return []
        update = watch.update()
        assert update is not None
        return [cell.line for cell in update.new]


@pytest.fixture
def rig(tmp_path, model_folders, monkeypatch) -> Rig:
    found = Rig(tmp_path, model_folders["mouse"])
    monkeypatch.setattr(watching, "extract_here", found.extract)
    return found


@pytest.fixture
def watch(rig) -> Iterator[Watch]:
    with CellStore(rig.out) as store:
        found = rig.watch(store)
        found.look()
        yield found


def names(watch: Watch) -> list[str]:
    update = watch.update()
    return [] if update is None else [cell.cell_id for cell in update.prediction]


def test_a_file_is_read_when_it_has_stopped_growing(rig, watch, cells):
    whole, file = cells[0].read_bytes(), rig.folder / "a.abf"
    for share in (0, 0.3, 0.6, 1):
        file.write_bytes(whole[: int(len(whole) * share)])
        assert rig.wait(watch, SETTLE - 1) == []
    assert rig.read == []
    assert rig.said == ["a.abf is being written; it is read when that has ended"]
    (line,) = rig.wait(watch, 1)
    assert line.startswith("a: ")
    assert rig.wait(watch) == []
    assert rig.read == ["a.abf"]


def test_the_answers_are_those_of_predict(rig, watch, cells, model_folders):
    for name, cell in zip(("b", "a"), cells, strict=True):
        shutil.copy(cell, rig.folder / f"{name}.abf")
        assert len(rig.wait(watch)) == 1
    update = watch.update()
    assert names(watch) == ["b", "a"]  # in the order in which they came
    ours = update.prediction.to_table().sort_values("cell_id", ignore_index=True)
    model = model_folders["mouse"]
    theirs = package.predict(rig.folder, model=model, species="mouse", say=print).to_table()
    pd.testing.assert_frame_equal(ours, theirs)


def test_a_file_that_changes_is_predicted_again(rig, watch, cells):
    file = rig.folder / "a.abf"
    shutil.copy(cells[0], file)
    rig.wait(watch)
    spiked = watch.update().prediction
    made_files.write_abf2(file, made_files.abf_cell((-100, -60)))  # it does not spike
    assert len(rig.wait(watch)) == 1
    did_not = watch.update().prediction
    threshold = spiked.layout.feature_names.index("threshold_v_rheo")
    assert spiked.X[0, threshold] == pytest.approx(-46, abs=4)
    assert did_not.X[0, threshold] != did_not.X[0, threshold]
    assert "a.abf has changed and is predicted again" in rig.said
    assert names(watch) == ["a"]


def test_what_changes_while_it_is_read_is_not_taken(rig, watch, cells):
    file = rig.folder / "a.abf"
    file.write_bytes(cells[0].read_bytes()[:-2000])
    rig.meanwhile = lambda: shutil.copy(cells[0], file)
    assert rig.wait(watch) == []
    assert names(watch) == []
    rig.meanwhile = lambda: None
    assert len(rig.wait(watch)) == 1
    assert rig.read == ["a.abf", "a.abf"]


def test_what_cannot_be_read_is_tried_again_given_up_and_taken_up(rig, watch, cells):
    file = rig.folder / "a.abf"
    file.write_bytes(b"ABF2" + bytes(50))
    (line,) = rig.wait(watch)
    assert "insufficient data; not read: " in line
    for _ in range(6):
        assert rig.wait(watch, 100) == []  # it is said once
    assert len(rig.read) == TRIES
    assert rig.said == [f"a.abf is given up after {TRIES} tries; it is read again when it changes"]
    shutil.copy(cells[0], file)
    (line,) = rig.wait(watch)
    assert "not read" not in line
    assert names(watch) == ["a"]


def test_a_file_that_cannot_be_opened_is_waited_for(rig, watch, cells, monkeypatch):
    file = rig.folder / "a.abf"
    shutil.copy(cells[0], file)
    opened = Path.open

    def locked(path: Path, *given, **more):
        if path == file:
            raise PermissionError(13, "Permission denied")
        return opened(path, *given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", locked)
        assert rig.wait(watch) == rig.wait(watch, 100) == []
    assert rig.said == ["a.abf cannot be opened: Permission denied; tried again until it can be"]
    assert len(rig.wait(watch, 100)) == 1


def test_renamed_and_deleted_files(rig, watch, cells):
    for name, cell in zip("ab", cells, strict=True):
        shutil.copy(cell, rig.folder / f"{name}.abf")
    (rig.folder / "bad.abf").write_bytes(b"ABF2" + bytes(50))
    assert len(rig.wait(watch)) == 3
    (rig.folder / "a.abf").rename(rig.folder / "c.abf")
    (rig.folder / "b.abf").unlink()
    (rig.folder / "bad.abf").unlink()
    (line,) = rig.wait(watch)
    assert line.startswith("c: ")
    assert names(watch) == ["b", "c"]  # what was measured stays, under its new name
    assert "no longer there: a.abf, b.abf; what was measured is kept" in rig.said
    assert "a.abf is called c.abf now" in rig.said


def test_a_folder_that_goes_away_loses_nothing(rig, watch, cells):
    shutil.copy(cells[0], rig.folder / "a.abf")
    rig.wait(watch)
    away = rig.folder.rename(rig.folder.with_name("away"))
    assert rig.wait(watch) == rig.wait(watch) == []
    away.rename(rig.folder)
    assert rig.wait(watch) == []
    assert [line.split(str(rig.folder))[-1] for line in rig.said] == [
        " is not there; looking for it again",
        "the folder is there again",
    ]
    assert names(watch) == ["a"]
    assert rig.read == ["a.abf"]


def test_a_second_watch_goes_on_where_the_first_was(rig, cells):
    with CellStore(rig.out) as store:
        watch = rig.watch(store)
        shutil.copy(cells[0], rig.folder / "a.abf")
        (rig.folder / "bad.abf").write_bytes(b"ABF2" + bytes(50))
        rig.wait(watch)
        before = names(watch)
    with CellStore(rig.out) as store:
        watch = rig.watch(store)
        assert watch.files == 2
        assert names(watch) == before
        shutil.copy(cells[1], rig.folder / "b.abf")
        assert len(rig.wait(watch)) == 1
    assert sorted(rig.read) == ["a.abf", "b.abf", "bad.abf"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "nowhere is not a folder"),
        ([".", "--out", "r.h5ad"], "change the name"),
        ([".", "--page", "p.png"], "reports are written as"),
        ([".", "--out", "old.csv"], "old.csv is there, but nothing of how it was measured"),
        ([".", "--settle", "0"], "--settle"),
    ],
)
def test_mistakes_of_watching_are_told(model_folders, tmp_path, arguments, says):
    (tmp_path / "old.csv").write_text("precious\n")
    done = crosspatch("watch", *arguments, "--model", model_folders["mouse"], cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert (tmp_path / "old.csv").read_text() == "precious\n"


class Process:
    """The command in a process of its own."""

    def __init__(self, folder: Path, model: Path, *options: object):
        self.out, self.said = folder / "out" / "r.csv", folder / "said.txt"
        places = ["--out", self.out, "--settle", "0.6", *options]
        command = ["watch", folder / "rig", "--model", model, "--species", "mouse", *places]
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "crosspatch", *map(str, command), "--jobs", "1"],
                stdout=said,
                stderr=subprocess.STDOUT,
                env={k: v for k, v in os.environ.items() if k != "CROSSPATCH_DATA"},
            )

    def wait_for(self, says: str) -> str:
        until = time.monotonic() + 240
        while says not in (text := self.said.read_text()):
            assert time.monotonic() < until, text
            assert self.process.poll() is None, text
            time.sleep(0.05)
        return text

    def wait_for_cells(self, names: list[str]) -> None:
        until = time.monotonic() + 60
        while not (self.out.exists() and self.cells() == names):
            assert time.monotonic() < until, self.said.read_text()
            time.sleep(0.05)

    def cells(self) -> list[str]:
        return pd.read_csv(self.out, comment="#")["cell_id"].tolist()

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.process.wait(120)


def test_a_rig_that_writes_and_a_watch_that_is_killed(cells, model_folders, tmp_path):
    folder, whole = tmp_path / "rig", cells[1].read_bytes()
    page = tmp_path / "out" / "r.html"
    folder.mkdir()
    first = Process(tmp_path, model_folders["mouse"])
    try:
        first.wait_for("Ctrl-C ends it")
        shutil.copy(cells[0], folder / "first.abf")
        first.wait_for(" first: ")
        first.wait_for_cells(["first"])
        (folder / "grows.abf").write_bytes(whole[: len(whole) // 2])
    finally:
        first.end(signal.SIGKILL)
    assert first.cells() == ["first"]
    second = Process(tmp_path, model_folders["mouse"], "--page", page)
    try:
        second.wait_for("Ctrl-C ends it")
        for share in (0.6, 0.8, 1):
            (folder / "grows.abf").write_bytes(whole[: int(share * len(whole))])
            time.sleep(0.3)
        said = second.wait_for(" grows: ")
        assert "1 files are done already" in said
        assert " first: " not in said
    finally:
        code = second.end(signal.SIGTERM)
    assert code == 0
    assert f"stopped; 2 files are done, in {second.out}" in second.said.read_text()
    assert second.cells() == ["first", "grows"]
    text = page.read_text(encoding="utf-8")
    assert text.index("grows</bdi>") < text.index("first</bdi>")  # the last cell first
    assert '<meta http-equiv="refresh"' in text
    left = {each.name for each in second.out.parent.iterdir()}
    assert left == {"r.csv", "r.html", "r.cells.sqlite"}
