"""From a cohort to a model to predictions, on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from crosspatch.cohorts import table
from crosspatch.commands.main import main
from crosspatch.errors import CrosspatchError
from tests import made
from tests.command import crosspatch

COUNTS = {"Lamp5": 60, "Pvalb": 120, "Sst": 100, "Vip": 80}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prediction")
    table.write(made.cohort("human", COUNTS, donors=50), folder / "train.h5ad")
    table.write(made.cohort("human", COUNTS, donors=50, seed=1), folder / "new.h5ad")
    how = ("--target", folder / "train.h5ad", "--model", "logistic", "--out", folder / "m")
    done = crosspatch("train", *how, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["folder"] == str(folder / "m")
    assert found["model"] == json.loads((folder / "m" / "model.json").read_text())
    return folder


def test_a_model_is_shown(folder: Path):
    done = crosspatch("model", "show", folder / "m")
    assert done.returncode == 0
    assert "360 cells of 50 donors" in done.stdout
    assert "Macro-F1" in done.stdout
    assert "sha256" in done.stdout


def test_cells_are_predicted_and_written(folder: Path):
    out = folder / "p.csv"
    done = crosspatch(
        "predict",
        folder / "new.h5ad",
        "--model",
        folder / "m",
        "--out",
        out,
        "--plot",
        folder / "p.png",
    )
    assert done.returncode == 0, done.stderr
    assert "verdicts: " in done.stdout
    assert "360 rows in all" in done.stdout
    found = pd.read_csv(out, comment="#")
    assert len(found) == 360
    truth = table.read(folder / "new.h5ad").obs["subclass"].to_numpy()
    assert (found["subclass"] == truth).mean() > 0.8
    assert (folder / "p.png").stat().st_size > 10_000


def test_bad_inputs_cost_a_line_each_and_the_rest_is_predicted(folder: Path):
    (folder / "bad.csv").write_text("a,b\nx,y\n")
    done = crosspatch(
        "predict",
        folder / "bad.csv",
        folder / "no.nwb",
        folder / "new.h5ad",
        "--model",
        folder / "m",
    )
    assert done.returncode == 1
    assert "360 rows in all" in done.stdout
    assert "2 of the inputs could not be read" in done.stderr
    assert "bad.csv" in done.stderr
    assert "no.nwb does not exist" in done.stderr
    assert "Traceback" not in done.stderr
    done = crosspatch("predict", folder / "bad.csv", "--model", folder / "m")
    assert done.returncode == 2
    assert "nothing was predicted" in done.stderr


def test_a_report_holds_the_cells_their_pictures_and_what_went_wrong(folder: Path, tmp_path: Path):
    few = table.read(folder / "new.h5ad")[:2].copy()
    table.write(few, tmp_path / "few.h5ad")
    (tmp_path / "bad.csv").write_text("a,b\nx,y\n")
    inputs = [tmp_path / "bad.csv", tmp_path / "few.h5ad"]
    report, out = tmp_path / "r" / "report.html", tmp_path / "p.csv"
    done = crosspatch("predict", *inputs, "--model", folder / "m", "--report", report, "--out", out)
    assert done.returncode == 1
    assert f"wrote {report}" in done.stdout
    assert [each.name for each in report.parent.iterdir()] == ["report.html"]
    text = report.read_text(encoding="utf-8")
    for name in few.obs_names:
        assert f"{name}</bdi>" in text
    assert text.count("<figure") == 3  # counts, and a picture a cell
    assert "1 input could not be read" in text
    assert "no column is a feature" in text
    assert len(pd.read_csv(out, comment="#")) == 2
    own = "--my-labelled", folder / "new.h5ad", "--my-label", "subclass"
    done = crosspatch("predict", inputs[1], "--model", folder / "m", "--report", report, *own)
    assert done.returncode == 0, done.stderr
    assert report.read_text(encoding="utf-8").count("<figure") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["predict", "x.csv", "--model", "nowhere"], "is not a model"),
        (["predict", "a.tif"], "not a file that can be read"),
        (["predict", "no.csv"], "does not exist"),
        (["predict", "x.csv", "--model", "M", "--quality", "odd"], "no quality settings 'odd'"),
        (["predict", "x.csv", "--model", "M", "--out", "x.docx"], "change the name"),
        (["predict", "T", "--model", "M", "--out", "T"], "is an input"),
        (["predict", "x.csv", "--model", "M", "--plot", "x.foo"], "pictures are written as"),
        (["predict", "x.csv", "--model", "M", "--out", "/proc/x.csv"], "cannot be written"),
        (["predict", "x.csv", "--model", "M", "--report", "x.pdf"], "reports are written as"),
        (["predict", "x.csv", "--model", "M", "--report", "/proc/x.html"], "cannot be written"),
        (["predict", "x.csv", "--model", "M", "--sets", "none"], "choose from"),
        (["predict", "x.csv", "--model", "M", "--columns", "no.yaml"], "cannot be read"),
        (["predict", "x.csv", "--species", "rat"], "no species 'rat'"),
        (["predict", "ok.csv", "--data-dir", "nowhere"], "data directory nowhere"),
        (["train", "--target", "allen-rat", "--out", "m2"], "no cohort 'allen-rat'"),
        (["train", "--target", "T", "--model", "magic", "--out", "m2"], "no model 'magic'"),
        (["train", "--target", "T", "--leave-out", "x", "--out", "m2"], "--leave-out"),
        (["model", "show", "nowhere"], "is not a model"),
    ],
)
def test_mistakes_are_one_line(
    folder: Path, tmp_path: Path, monkeypatch, capsys, arguments: list[str], says: str
):
    places = {"M": folder / "m", "T": folder / "train.h5ad"}
    (tmp_path / "x.csv").write_text("a\n1\n")
    (tmp_path / "ok.csv").write_text("input_resistance,tau,rheobase_i\n200,20,100\n")
    (tmp_path / "a.tif").write_bytes(b"\x05\x00")
    given = [str(places.get(each, each)) for each in arguments]
    monkeypatch.setattr(sys, "argv", ["crosspatch", *given])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CROSSPATCH_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.strip().splitlines()) == 1


def test_one_recording_is_predicted_without_dask_and_without_a_store(
    folder: Path, tmp_path: Path, real_data: Path
):
    file = real_data / "recordings" / "18713001.abf"
    command = [sys.executable, "-X", "importtime", "-m", "crosspatch", "predict", str(file)]
    done = subprocess.run(
        [*command, "--model", str(folder / "m"), "--species", "human", "--out", "p.csv"],
        cwd=tmp_path,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    imported = [line.split("|")[-1].strip() for line in done.stderr.splitlines() if "|" in line]
    assert "crosspatch.prediction.pipeline" in imported
    of_dask = {name for name in imported if name.split(".")[0] in ("dask", "distributed")}
    assert of_dask <= {"dask.utils"}  # which joblib asks for, and is told that there is none
    assert len(pd.read_csv(tmp_path / "p.csv", comment="#")) == 1
    assert not list((tmp_path / "cache").rglob("*.sqlite"))


def test_inputs_are_refused_before_a_model_is_touched(tmp_path: Path, monkeypatch):
    """A file that is not a recording costs no training, and a setting that is unknown neither."""
    from crosspatch.prediction import pipeline

    def touched(*_: object, **__: object) -> None:
        raise AssertionError("a model was touched")

    monkeypatch.setattr(pipeline, "load_predictor", touched)
    (tmp_path / "a.tif").write_bytes(b"\x05\x00")
    (tmp_path / "b.csv").write_text("a\n1\n")
    for wrong, says in (
        ({"inputs": tmp_path / "a.tif"}, "not a file that can be read"),
        ({"inputs": tmp_path / "no.nwb"}, "does not exist"),
        ({"inputs": tmp_path / "b.csv", "sets": "odd"}, "no prediction sets 'odd'"),
        ({"inputs": tmp_path / "b.csv", "species": "rat"}, "no species 'rat'"),
        ({"inputs": tmp_path / "b.csv", "columns": tmp_path / "no.yaml"}, "cannot be read"),
    ):
        with pytest.raises(CrosspatchError, match=says):
            pipeline.predict(**wrong)
