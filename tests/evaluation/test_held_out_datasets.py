"""Whole datasets held out: which cells are learned from, what is scored, what is skipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

import crosspatch
from crosspatch.errors import EvaluationError
from crosspatch.evaluation import benchmark as module
from crosspatch.evaluation.intervals import counts_by_donor, f1_of_counts, share_interval
from crosspatch.evaluation.results import read_results
from crosspatch.evaluation.splits import hold_out
from crosspatch.reporting.numbers import open_results
from crosspatch.reporting.report import command_of, write_report
from tests import made


@pytest.fixture(scope="module")
def human() -> anndata.AnnData:
    """Two laboratories; the small one has two classes, and a donor of the large one."""
    counts = {"Lamp5": 60, "Pvalb": 80, "Sst": 80, "Vip": 60}
    cells = made.cohort("human", counts, donors=40, spread=5.0)
    obs = cells.obs.astype({"dataset": str, "donor": str})
    some = obs.index[obs["subclass"].isin(["Lamp5", "Vip"])][::3]
    obs.loc[some, "dataset"] = "small"
    obs.loc[some, "donor"] = [f"small-{k % 8}" for k in range(len(some))]
    obs.loc[obs["donor"] == "human-7", "donor"] = "small-0"
    cells.obs = obs
    return cells


def run(cohort: anndata.AnnData, **changes):
    given: dict[str, Any] = {"models": ["logistic", "svm"], "protocol": "dataset", "runs": 2}
    return crosspatch.benchmark({"human": cohort}, **(given | changes))


def test_a_dataset_is_tested_without_its_donors_and_on_its_own_classes(human, heard):
    seen = heard(module, "evaluate_job")
    result = run(human)
    assert {job.fold.dataset for job in seen} == {"small"}
    for job in seen:
        donors = job.target.donors
        assert not set(donors[job.fold.train]) & set(donors[job.fold.test])
        assert "small-0" not in donors[job.fold.train]
    own = int((human.obs["dataset"] == "small").sum())
    shared = int((human.obs["donor"] == "small-0").sum())
    in_both = int(((human.obs["donor"] == "small-0") & (human.obs["dataset"] == "small")).sum())
    row = result.results.iloc[0]
    assert (row["n_test"], row["n_train"]) == (own, human.n_obs - own - shared + in_both)
    assert set(result.results["task"]) == {"human: small"}
    assert set(result.results["held_out"]) == {"small"}
    assert set(result.confusion["true"]) == {"Lamp5", "Vip"}
    assert set(result.confusion["predicted"]) == {"Lamp5", "Pvalb", "Sst", "Vip"}
    # Macro-F1 is the mean over the two classes that are there.
    np.testing.assert_allclose(
        result.results["macro_f1"], result.results[["f1_Lamp5", "f1_Vip"]].mean(axis=1)
    )
    assert "f1_Sst" not in result.results
    # Without the small one all is there; without the large one two classes are not.
    assert "have no Pvalb or Sst" in result.settings["skipped"]["made-human"]


def test_runs_are_seeds_on_the_same_cells(human):
    result = run(human, models=["boosting"], runs=3)
    assert result.results["run"].tolist() == [0, 1, 2]
    assert len(set(result.results["n_test"])) == 1
    assert "3 runs" in result.settings["protocol_about"]
    assert "nothing is promised" in result.settings["protocol_about"]


def test_differences_and_intervals_are_of_resampled_donors(human):
    result = run(human)
    for row in result.summary.to_dict("records"):
        assert row["ci_low"] <= row["macro_f1_mean"] <= row["ci_high"]
        assert row["ci_high"] - row["ci_low"] > 0.01
    (pair,) = result.comparisons.to_dict("records")
    scores = result.summary.set_index("model")["macro_f1_mean"]
    expected = scores[pair["model_a"]] - scores[pair["model_b"]]
    assert pair["delta_macro_f1"] == pytest.approx(expected)
    assert pair["ci_low"] <= expected <= pair["ci_high"]
    # The seeds of these two models change nothing, which a test over runs would take for certainty.
    assert pair["ci_high"] > pair["ci_low"]


def test_with_calibration_every_dataset_has_its_coverage(human, tmp_path: Path):
    result = run(human, models=["logistic"], runs=1, calibration=True, out=tmp_path)
    calibration = result.calibration
    assert calibration is not None
    assert set(calibration.calibration["task"]) == {"human: small"}
    assert set(calibration.coverage["class"]) == {"all", "Lamp5", "Vip"}
    assert set(calibration.predictions["held_out"]) == {"small"}
    back = read_results(tmp_path)
    assert back.settings["skipped"].keys() == {"made-human"}
    page = write_report([tmp_path], tmp_path / "report.html")[0].read_text(encoding="utf-8")
    assert "human: small" in page
    assert "Of the dataset held out nothing is promised" in page
    assert "have no Pvalb or Sst" in page
    again = command_of(open_results(tmp_path, "out"))
    assert "--cohort made-human small" in again
    assert "--protocol dataset --runs 1" in again


def test_cells_without_a_label_are_no_obstacle(human):
    cells = human.copy()
    bare = human[:10].copy()
    bare.obs = bare.obs.assign(dataset="bare", donor="bare", subclass=np.nan)
    bare.obs_names = [f"bare-{k}" for k in range(10)]
    both = anndata.concat([cells, bare], uns_merge="first", merge="first")
    assert both.n_obs == human.n_obs + 10
    result = run(both, models=["logistic"], runs=1)
    assert result.settings["skipped"]["bare"] == "none of its cells has a label"
    alone = run(human, models=["logistic"], runs=1)
    assert result.results["macro_f1"].tolist() == alone.results["macro_f1"].tolist()


def test_one_dataset_can_be_chosen_and_others_are_refused(human):
    assert "skipped" in (settings := run(human, runs=1, held_out=["small"]).settings)
    assert settings["skipped"] == {}
    with pytest.raises(EvaluationError, match="have no dataset 'tiny' to hold out"):
        run(human, held_out=["tiny"])
    with pytest.raises(EvaluationError, match="holds out no datasets"):
        run(human, protocol="quick", held_out=["small"])
    with pytest.raises(EvaluationError, match="no donor is left without those of dataset"):
        run(made.cohort("human", {"Lamp5": 9, "Vip": 9}))


def test_a_class_of_one_donor_cannot_be_learned(human):
    cells = human.copy()
    cells.obs.loc[cells.obs["subclass"] == "Sst", "donor"] = "only-one"
    y = cells.obs["subclass"].to_numpy().astype(str)
    found, skipped = hold_out(cells, y, ["small"])
    assert not found
    assert skipped["small"].endswith("have Sst of one donor only")


def test_macro_f1_of_counts_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    y = rng.choice(["a", "b"], 200)
    said = np.where(rng.random(200) < 0.6, y, rng.choice(["a", "b", "c"], 200))
    counts = counts_by_donor(y, said, rng.integers(9, size=200), ["a", "b"])
    assert counts.shape == (9, 2, 3)
    expected = f1_score(y, said, labels=["a", "b"], average="macro")
    assert f1_of_counts(counts.sum(axis=0)) == pytest.approx(expected)


def test_intervals_of_shares_know_few_cells_and_donors():
    every = np.arange(20)
    low, high = share_interval([True] * 20, every)
    assert (low, high) == pytest.approx((0.839, 1.0), abs=1e-3)
    low, high = share_interval([True] * 15 + [False] * 5, every)
    assert (low, high) == pytest.approx((0.531, 0.888), abs=2e-3)
    # Two donors, each of one mind: as good as two cells.
    alike = share_interval([True] * 10 + [False] * 10, [0] * 10 + [1] * 10)
    assert alike[1] - alike[0] > 0.85
    assert share_interval([True] * 20, [0] * 20)[0] < 0.3
    assert np.isnan(share_interval([], [])).all()


def test_intervals_of_shares_hold_for_cells_of_few_donors():
    """With donors that differ, about 95 of 100 intervals hold the share; plain ones far fewer."""
    rng = np.random.default_rng(1)
    held, plain = [], []
    for _ in range(300):
        donors = np.repeat(np.arange(20), 10)
        right = rng.random(200) < rng.beta(4, 1, size=20)[donors]
        held.append(np.diff(np.sign(np.array(share_interval(right, donors)) - 0.8))[0] != 0)
        ends = np.array(share_interval(right, np.arange(200)))
        plain.append(np.diff(np.sign(ends - 0.8))[0] != 0)
    assert np.mean(held) > 0.9
    assert np.mean(plain) < 0.9


def test_summaries_of_other_protocols_have_no_such_interval():
    cells = made.cohort("human", {"Lamp5": 30, "Vip": 30}, donors=20)
    result = run(cells, models=["logistic"], protocol="quick", runs=1)
    assert not {"ci_low", "ci_high"} & set(result.summary)
    assert "held_out" not in result.results
    assert isinstance(result.summary, pd.DataFrame)
