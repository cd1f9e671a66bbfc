"""Tables of a run with calibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crosspatch.evaluation import uncertainty as module
from crosspatch.evaluation.benchmark import benchmark
from crosspatch.evaluation.results import read_results
from crosspatch.features.layouts import load_layout
from tests import made

SHARED = load_layout("shared")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("calibration")


@pytest.fixture(scope="module")
def result(folder: Path):
    human = made.cohort(
        counts={"Lamp5": 60, "Pvalb": 140, "Sst": 110, "Vip": 90}, donors=60, spread=2.5
    )
    human.X[0] = np.nan
    human.X[0, 0] = 1.0  # too little to be given a class
    return benchmark(
        {"human": human}, models=["logistic"], protocol="quick", calibration=True, out=folder
    )


def test_calibration_error_of_known_confidences():
    confidence = np.array([0.9] * 10 + [0.6] * 10)
    correct = np.array([True] * 9 + [False] + [True] * 3 + [False] * 7)
    assert module.expected_calibration_error(confidence, correct) == pytest.approx(0.15)


def test_every_cell_is_predicted_once_a_run(result):
    predictions = result.calibration.predictions
    assert (predictions.groupby(["run", "cell_id"]).size() == 1).all()
    assert len(predictions) == 2 * 400


def test_sets_cover_and_cells_with_too_little_are_refused(result):
    tables = result.calibration
    everyone = tables.coverage.query("`class` == 'all' and sets == 'over all cells'").iloc[0]
    assert 0.84 < everyone["coverage_mean"] < 0.96
    row = tables.calibration.iloc[0]
    assert row["ece_mean"] < 0.12
    assert row["refused_mean"] == pytest.approx(1 / 400)
    assert row["outside_mean"] < 0.12
    refused = tables.predictions.query(f"predicted == '{module.REFUSED}'")
    assert set(refused["cell_id"]) == {"human-0"}
    assert refused["p_Sst"].isna().all()


def test_a_refused_cell_counts_as_wrong(result):
    predictions = result.calibration.predictions
    right = (predictions["predicted"] == predictions["true"]).groupby(predictions["run"]).mean()
    weights = result.results["n_test"]
    scored = (result.results["accuracy"] * weights).groupby(result.results["run"]).sum() / 400
    np.testing.assert_allclose(scored, right)


def test_tables_are_made_of_the_predictions(result):
    tables = result.calibration
    run = tables.predictions.query("run == 0 and predicted != @module.REFUSED")
    inside = [t in chosen for t, chosen in zip(run["true"], run["set"], strict=True)]
    rows = module.coverage_table(run).query("`class` == 'all' and sets == 'over all cells'")
    assert rows["coverage_mean"].iloc[0] == pytest.approx(np.mean(inside))
    reliability = tables.reliability
    assert reliability["cells"].sum() == len(
        tables.predictions.query("predicted != @module.REFUSED")
    )


def test_scores_are_reported_by_what_is_present(result):
    families = result.calibration.families.set_index("present")
    assert {"all", "long squares only", "without subthreshold"} <= set(families.index)
    assert "only ap_ramp and ap_short_square" in families.index
    assert (
        families.loc["all", "macro_f1_mean"]
        > families.loc["only ap_ramp and ap_short_square", "macro_f1_mean"]
    )
    assert families["coverage_mean"].between(0.8, 1).all()


def test_conditions_take_away_whole_families():
    found = module.conditions(SHARED)
    assert found["long squares only"].sum() == 32 - 10
    for name, there in found.items():
        if name.startswith("without "):
            gone = SHARED.columns[name.removeprefix("without ")]
            assert not there[gone].any()
            assert there.sum() == 32 - len(gone)
    assert found["13 features, draw 1"].sum() == 13
    assert "long squares only" not in module.conditions(load_layout("gouwens"))


def test_the_folder_keeps_and_gives_back_the_tables(result, folder: Path):
    again = read_results(folder)
    assert again.calibration is not None
    pd.testing.assert_frame_equal(again.calibration.families, result.calibration.families)
    for kind in ("set", "class_set"):
        expected = result.calibration.predictions[kind].tolist()
        assert again.calibration.predictions[kind].tolist() == expected
        text = pd.read_csv(folder / "predictions.csv", keep_default_na=False)[kind]
        assert text.tolist() == ["|".join(each) for each in expected]


def test_fold_probabilities_are_those_in_the_predictions(result, folder: Path):
    first = result.calibration.predictions.iloc[5]
    columns = [name for name in first.index if name.startswith("p_") and name != "p_reference"]
    assert first[columns].astype(float).sum() == pytest.approx(1)
