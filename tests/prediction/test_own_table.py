"""Models of a laboratory's own table, and what they say of its other tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crosspatch.cohorts.labelled import load_labelled
from crosspatch.errors import CohortError
from crosspatch.models import artifact
from crosspatch.prediction.explained import explain
from crosspatch.prediction.pipeline import predict
from crosspatch.prediction.training import train
from crosspatch.simulation.cells import simulate_cells
from tests import made
from tests.command import crosspatch

COLUMNS = {"label": "type", "group": "mouse", "species": "mouse"}


def quiet(line: str) -> None:
    """Hear and forget."""


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return made.own_table(cells=200)


@pytest.fixture(scope="module")
def model(frame, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "model"
    cohort = load_labelled(frame, **COLUMNS, say=quiet)
    train(cohort, model="logistic", out=folder)
    return folder


def probabilities(table: pd.DataFrame, model: Path) -> np.ndarray:
    found = predict(table, model=model, species="mouse", say=quiet)
    return found.cells[["probability_FS", "probability_RS"]].to_numpy()


def test_its_columns_are_remembered(frame, model):
    layout = artifact.load(model).layout
    assert layout.feature_names == ("input_resistance", "width_rheo", "Wildness", "hump")
    assert [each.column for each in layout.features] == [
        "Rin (MOhm)",
        "half width (ms)",
        "Wildness",
        "hump (mV)",
    ]
    assert len(layout.families) == 4


def test_other_tables_of_the_same_columns_are_predicted(frame, model):
    new = made.own_table(cells=60, seed=5)
    found = predict(new, model=model, species="mouse", say=quiet)
    right = found.cells["subclass"].to_numpy() == new["type"].to_numpy()
    assert right.mean() > 0.9
    assert set(found.cells["completeness"]) == {1.0}


def test_units_spaces_and_capitals_of_columns_may_differ(frame, model):
    new = frame.head(20)
    other = pd.DataFrame(
        {
            "Neuron ID": new["Neuron ID"],
            "WILDNESS": new["Wildness"],
            "Hump (V)": new["hump (mV)"] / 1000,
            "Rin (GOhm)": new["Rin (MOhm)"] / 1000,
            "half width (us)": new["half width (ms)"] * 1000,
        }
    )
    np.testing.assert_allclose(
        probabilities(other, model), probabilities(new, model), rtol=1e-4, atol=1e-6
    )


def test_a_column_in_a_unit_of_another_kind_is_missing_and_said(frame, model):
    said: list[str] = []
    new = frame.head(20).rename(columns={"hump (mV)": "hump (pA)"})
    found = predict(new, model=model, species="mouse", say=said.append)
    assert np.isnan(found.X[:, 3]).all()
    assert any("'hump'" in line or "hump (pA)" in line for line in said if "refused" in line)


def test_columns_that_are_not_there_are_missing(frame, model):
    said: list[str] = []
    found = predict(
        frame.head(20).drop(columns=["Wildness", "hump (mV)"]),
        model=model,
        species="mouse",
        say=said.append,
    )
    assert set(found.cells["completeness"]) == {0.5}
    assert any("missing: Wildness, hump" in line for line in said)
    foreign = frame[["Neuron ID"]].assign(colour=1.5)
    with pytest.raises(CohortError):
        predict(foreign, model=model, species="mouse", say=said.append)


def test_two_columns_of_one_name_are_refused(frame, model):
    said: list[str] = []
    new = frame.head(20).drop(columns="Wildness")
    new = new.assign(wildness=1.0, WILDNESS=2.0)
    found = predict(new, model=model, species="mouse", say=said.append)
    assert np.isnan(found.X[:, 2]).all()
    assert any("2 columns are called so" in line for line in said)


def test_recordings_are_refused_with_the_reason(model, tmp_path):
    simulate_cells(tmp_path, 1, "mouse", seed=0, jobs=1)
    said: list[str] = []
    with pytest.raises(CohortError, match="no cell could be read"):
        predict(next(tmp_path.glob("*.nwb")), model=model, say=said.append)
    assert any("2 of its 4 features cannot be measured on recordings" in line for line in said)


def test_recordings_are_measured_where_all_columns_are_ours(frame, tmp_path):
    simulate_cells(tmp_path, 1, "mouse", seed=0, jobs=1)
    ours = load_labelled(frame, **COLUMNS, only=["half width (ms)", "Rin (MOhm)"], say=quiet)
    train(ours, model="logistic", out=tmp_path / "model")
    found = predict(next(tmp_path.glob("*.nwb")), model=tmp_path / "model", say=quiet)
    assert found.layout.feature_names == ("input_resistance", "width_rheo")
    assert 20 < found.X[0, 0] < 1000  # MOhm
    assert 0.1 < found.X[0, 1] < 3  # ms


def test_cells_are_explained(frame, model):
    (cell, *_) = explain(frame.head(2), model=model, species="mouse", say=quiet)
    assert set(cell.contributions["family"]) == {
        "subthreshold",
        "ap_long_square",
        "Wildness",
        "hump",
    }
    assert set(cell.contributions["class"]) == {"FS", "RS"}


def test_human_labels_stay_as_they_stand(frame, tmp_path):
    """Sncg counts as Vip where species are compared, not in a table of one's own."""
    labelled = frame.replace({"type": {"FS": "Sncg", "RS": "Vip"}})
    cohort = load_labelled(labelled, **COLUMNS | {"species": "human"}, say=quiet)
    found = train(cohort, model="logistic", out=tmp_path / "model")
    assert found.classes == ("Sncg", "Vip")
    assert found.about["alignment"] is None


def test_from_the_command_line(frame, tmp_path):
    """Train, look, evaluate by donor, and predict, as the guide has it."""
    file = tmp_path / "cells.csv"
    frame.to_csv(file, index=False)
    given = ["--table", file, "--label", "type", "--group", "mouse", "--species", "mouse"]
    out = tmp_path / "model"
    done = crosspatch("train", *given, "--model", "logistic", "--jobs", 1, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "cells.csv: taken as they stand, 2: Wildness, hump in mV" in done.stdout
    card = (out / "card.md").read_text()
    assert 'Labels are column "type" of cells.csv, donors column "mouse".' in card
    assert "GABAergic" not in card
    done = crosspatch(
        *("predict", file, "--model", out, "--species", "mouse", "--out", tmp_path / "found.csv")
    )
    assert done.returncode == 0, done.stderr
    told = pd.read_csv(tmp_path / "found.csv", comment="#")
    assert (told["subclass"] == frame["type"]).mean() > 0.9
    results = tmp_path / "results"
    done = crosspatch(
        *("run", *given, "--models", "logistic", "--protocol", "quick", "--calibration"),
        *("--jobs", 1, "--out", results),
    )
    assert done.returncode == 0, done.stderr
    coverage = pd.read_csv(results / "coverage.csv")
    assert set(coverage["class"]) == {"all", "FS", "RS"}
    calibration = pd.read_csv(results / "calibration.csv")
    assert calibration["mean_confidence_mean"].between(0.5, 1).all()
    assert (results / "report.html").is_file()


def test_of_a_table_of_two_species_one_is_named(frame, tmp_path):
    file, out = tmp_path / "cells.csv", tmp_path / "model"
    species = ["mouse" if k % 3 == 0 else "human" for k in range(len(frame))]
    frame.assign(species=species).to_csv(file, index=False)
    given = ["train", "--table", file, "--label", "type", "--group", "mouse", "--out", out]
    given += ["--model", "logistic", "--jobs", 1]
    done = crosspatch(*given)
    assert done.returncode == 2
    assert done.stderr.strip().endswith(
        "the target holds human and mouse cells; train a model for each species; name one with "
        "--species"
    )
    done = crosspatch(*given, "--species", "human")
    assert done.returncode == 0, done.stderr
    found = artifact.load(out)
    assert found.species == "human"
    assert found.about["cohorts"]["target"]["cells"] == species.count("human")


def test_a_card_without_donors_says_so(frame, tmp_path):
    cohort = load_labelled(frame, label="type", species="mouse", say=quiet)
    train(cohort, model="logistic", out=tmp_path / "model")
    card = (tmp_path / "model" / "card.md").read_text()
    assert "without donors" in card
    assert "may be much too good" in card


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --target, or a table of your own cells with --table"),
        (["--table", "cells.csv"], "give --label"),
        (["--target", "mouse", "--label", "type"], "--label is for a table of your own"),
        (
            ["--table", "cells.csv", "--label", "type", "--species", "mouse", "--features", "full"],
            "--features and --taxonomy are for public datasets",
        ),
        (["--table", "nothing.csv", "--label", "type"], "nothing.csv does not exist"),
        (["--table", "cells.csv", "--label", "kind"], "no column 'kind'"),
        (["--table", "cells.csv", "--label", "type"], "give --species"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, said, frame, tmp_path):
    frame.to_csv(tmp_path / "cells.csv", index=False)
    done = crosspatch("train", *arguments, "--out", "model", cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "model").exists()
