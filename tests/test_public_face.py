"""What `import crosspatch` offers, and the examples in its docstrings, on simulated data."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import crosspatch
from crosspatch.cohorts import table
from crosspatch.cohorts.table import read
from crosspatch.simulation.cells import simulate_cells

from . import made

COUNTS = {"Lamp5": 60, "Pvalb": 120, "Sst": 100, "Vip": 80}

OFFERED = {
    "benchmark",
    "estimator",
    "describe",
    "explain",
    "extract",
    "load_cohort",
    "load_labelled",
    "load_model",
    "open_recording",
    "predict",
    "train",
    "validate",
    "Prediction",
    "Reading",
    "Verdict",
    "CohortError",
    "CrosspatchError",
    "EvaluationError",
    "LayoutError",
    "MissingLibraryError",
    "ModelError",
    "NetworkError",
    "RecordingError",
    "TaxonomyError",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A simulated recording, a table of made-up cells, and a model trained on it."""
    folder = tmp_path_factory.mktemp("examples")
    simulate_cells(folder / "simulated", 1, "human", seed=0, jobs=1)
    table.write(made.cohort("human", COUNTS, donors=50), folder / "human.h5ad")
    made.own_table().to_csv(folder / "own-cells.csv", index=False)
    crosspatch.train(read(folder / "human.h5ad"), model="logistic", out=folder / "human-model")
    return folder


@pytest.fixture(autouse=True)
def there(folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)


def test_what_is_offered():
    assert set(dir(crosspatch)) == OFFERED | {"__version__"} == set(crosspatch.__all__)
    for name in OFFERED:
        assert inspect.getdoc(getattr(crosspatch, name)), name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(crosspatch, "nothing")  # noqa: B009, as a user would


def test_importing_it_is_quick():
    code = "import sys, crosspatch; print([m for m in ('pandas', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("name", sorted(OFFERED - {n for n in OFFERED if n.endswith("Error")}))
def test_its_examples_run(name: str, capsys):
    offered: Any = getattr(crosspatch, name)
    (found,) = [
        each for each in doctest.DocTestFinder(recurse=False).find(offered, name) if each.examples
    ]
    failed, tried = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(found)
    assert tried
    assert not failed, capsys.readouterr().out


def test_tables_in_memory_are_predicted_like_files(folder: Path, tmp_path: Path):
    cohort = read(folder / "human.h5ad")[:50].copy()
    frame = cohort.to_df()
    frame.to_csv(tmp_path / "cells.csv")
    said: list[str] = []
    known: dict[str, Any] = {"model": folder / "human-model", "species": "human"}
    of_file = crosspatch.predict(tmp_path / "cells.csv", **known, say=said.append)
    of_frame = crosspatch.predict(frame, **known, say=said.append)
    of_h5ad = crosspatch.predict(folder / "human.h5ad", **known, say=said.append).first(50)
    of_adata = crosspatch.predict(cohort, **known, say=said.append)
    of_both = crosspatch.predict([frame, tmp_path / "cells.csv"], **known, say=said.append)
    assert of_frame.cells["cell_id"].tolist() == cohort.obs_names.tolist()
    for one, other in ((of_frame, of_file), (of_adata, of_h5ad)):
        np.testing.assert_allclose(one.X, other.X, rtol=1e-6)
        assert one.cells["prediction_set"].tolist() == other.cells["prediction_set"].tolist()
        assert one.cells["verdict"].tolist() == other.cells["verdict"].tolist()
    assert len(of_both) == 100
    assert of_both.cells["cell_id"].is_unique


def test_of_many_lines_it_prints_the_first_unless_asked(folder: Path, capsys):
    cohort = read(folder / "human.h5ad")[:5].copy()
    frame = cohort.to_df()
    found = crosspatch.predict(frame, model=folder / "human-model", species="human")
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 1
    assert not said.err
    assert len(found.messages) > 1
    quiet: list[str] = []
    crosspatch.predict(frame, model=folder / "human-model", species="human", say=quiet.append)
    assert capsys.readouterr().out == ""
    assert tuple(quiet) == found.messages


def test_a_few_lines_are_all_printed(folder: Path, tmp_path: Path, capsys):
    recording = next((folder / "simulated").glob("*.nwb"))
    (tmp_path / "empty.abf").touch()
    inputs = [recording, recording, tmp_path / "empty.abf"]
    found = crosspatch.predict(inputs, model=folder / "human-model")
    assert 2 <= len(found.messages) <= 5
    assert capsys.readouterr().out.splitlines() == [f"crosspatch: {m}" for m in found.messages]


def test_a_wrong_setting_is_refused_at_once():
    with pytest.raises(crosspatch.RecordingError, match="no quality settings 'odd'"):
        crosspatch.Reading(quality="odd")


def test_errors_say_parameters_and_what_to_do():
    error = crosspatch.ModelError("it learns from a second species", hint="give {source}")
    assert str(error) == "it learns from a second species; give 'source'"
    assert error.in_words(lambda name: f"--{name}").endswith("give --source")
    assert (error.code, error.message) == ("model", "it learns from a second species")
    assert issubclass(crosspatch.TaxonomyError, crosspatch.CrosspatchError)
