from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import crosspatch
from crosspatch.cohorts import table
from crosspatch.cohorts.cells import Cells, cells_of
from crosspatch.cohorts.loading import choose_cohorts, warning_about
from crosspatch.errors import CohortError, EvaluationError, LayoutError, ModelError, TaxonomyError
from crosspatch.evaluation import benchmark as module
from crosspatch.evaluation.fold_jobs import Job, evaluate_job
from crosspatch.evaluation.protocols import PROTOCOLS, TASKS
from crosspatch.evaluation.results import TABLES, published, read_results
from crosspatch.evaluation.splits import make_folds
from crosspatch.evaluation.task_cohorts import load_cohorts
from crosspatch.features.layouts import load_layout
from crosspatch.models.registry import model_entry
from crosspatch.models.transfer import FinetuneClassifier
from tests import made

FAST = ["logistic", "svm"]
SCORES = ["macro_f1", "accuracy", "balanced_accuracy", "f1_Lamp5", "f1_Vip"]


@pytest.fixture(scope="module")
def human():
    return made.cohort("human")


@pytest.fixture(scope="module")
def mouse():
    counts = {"Lamp5": 40, "Pvalb": 60, "Sst": 60, "Vip": 40, "Sncg": 25}
    return made.cohort("mouse", counts, donors=30, seed=3)


def run(cohorts, **changes):
    return crosspatch.benchmark(
        cohorts, **({"models": FAST, "protocol": "quick", "tasks": ["human"]} | changes)
    )


def test_tables_have_the_promised_columns_and_agree(human, tmp_path: Path):
    result = run({"human": human}, out=tmp_path / "out")
    assert len(result.results) == 2 * 2 * 5
    assert list(result.summary.columns[:10]) == [
        "task",
        "features",
        "model",
        "protocol",
        "macro_f1_mean",
        "macro_f1_sd",
        "accuracy_mean",
        "accuracy_sd",
        "published_macro_f1",
        "published_accuracy",
    ]
    assert list(result.comparisons.columns[:7]) == [
        "task",
        "model_a",
        "model_b",
        "delta_macro_f1",
        "ci_low",
        "ci_high",
        "p_value",
    ]
    of_run = result.results.query("model == 'svm'").groupby("run")["macro_f1"].mean()
    row = result.summary.set_index("model").loc["svm"]
    assert row["macro_f1_mean"] == pytest.approx(of_run.mean())
    assert row["macro_f1_sd"] == pytest.approx(of_run.std(ddof=1))
    (comparison,) = result.comparisons.to_dict("records")
    means = result.summary.set_index("model")["macro_f1_mean"]
    expected = means[comparison["model_a"]] - means[comparison["model_b"]]
    assert comparison["delta_macro_f1"] == pytest.approx(expected)
    counted = result.confusion.groupby(["model", "run"])["cells"].sum()
    assert (counted == human.n_obs).all()
    back = read_results(tmp_path / "out")
    for name in TABLES:
        pd.testing.assert_frame_equal(
            getattr(back, name), getattr(result, name), check_dtype=False, rtol=1e-12
        )


def test_twice_and_with_more_workers_the_numbers_are_identical(human):
    one = run({"human": human}).results
    again = run({"human": human}).results
    two = run({"human": human}, jobs=2).results
    for other in (again, two):
        pd.testing.assert_frame_equal(one.drop(columns="seconds"), other.drop(columns="seconds"))
    other_seed = run({"human": human}, seed=1).results
    assert not np.allclose(one["macro_f1"], other_seed["macro_f1"])


def test_a_stopped_run_goes_on_where_it_was(human, tmp_path: Path, heard):
    whole = run({"human": human}).results.drop(columns="seconds")
    out = tmp_path / "out"

    def stop(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run({"human": human}, out=out, progress=stop)
    assert not list(out.glob("*.csv"))
    with pytest.raises(EvaluationError, match="stopped before its end"):
        read_results(out)
    stored = {file.name: file.stat().st_mtime_ns for file in (out / "folds").iterdir()}
    assert len(stored) >= 7

    fitted = heard(module, "evaluate_job")
    result = run({"human": human}, out=out)
    assert len(fitted) == 20 - len(stored)
    for name, written in stored.items():
        assert (out / "folds" / name).stat().st_mtime_ns == written
    pd.testing.assert_frame_equal(result.results.drop(columns="seconds"), whole)
    assert read_results(out).settings["seed"] == 0


def test_a_damaged_fold_is_computed_again(human, tmp_path: Path):
    first = run({"human": human}, out=tmp_path)
    damaged = next(iter((tmp_path / "folds").iterdir()))
    damaged.write_text(damaged.read_text()[:100])
    other = sorted((tmp_path / "folds").iterdir())[3]
    other.write_text("{}")
    second = run({"human": human}, out=tmp_path)
    pd.testing.assert_frame_equal(
        first.results.drop(columns="seconds"), second.results.drop(columns="seconds")
    )
    assert "y" in json.loads(damaged.read_text())
    assert "y" in json.loads(other.read_text())


def test_other_data_never_get_stored_results(human, tmp_path: Path):
    run({"human": human}, out=tmp_path)
    other = human.copy()
    other.X[0, 0] += 1
    before = len(list((tmp_path / "folds").iterdir()))
    run({"human": other}, out=tmp_path)
    assert len(list((tmp_path / "folds").iterdir())) == 2 * before


def test_tables_of_an_earlier_run_are_gone_while_a_new_one_is_under_way(human, tmp_path: Path):
    run({"human": human}, out=tmp_path)
    seen = []
    run(
        {"human": human},
        out=tmp_path,
        seed=1,
        progress=lambda done, total: seen.append(list(tmp_path.glob("*.csv"))),
    )
    assert not any(seen)
    assert (tmp_path / "summary.csv").is_file()


@pytest.mark.parametrize(
    ("name", "calibrated"),
    [("svm", False), ("spca-forest", False), ("bilstm-attention", False), ("logistic", True)],
)
def test_what_is_predicted_does_not_depend_on_the_cells_that_are_tested(
    human, name: str, calibrated: bool
):
    """Labels and donors of test cells, and the other test cells, are unseen by the model."""
    cells = cells_of(human, None)
    fold = make_folds(cells.y, cells.donors, PROTOCOLS["quick"], TASKS["human"], 0, 0)[0]

    def probabilities(target: Cells, tested: np.ndarray) -> np.ndarray:
        job = Job(
            TASKS["human"],
            model_entry(name),
            PROTOCOLS["quick"],
            dataclasses.replace(fold, test=tested),
            target,
            None,
            "cpu",
            calibrated,
            "",
        )
        return np.array(evaluate_job(job)["probabilities"])

    expected = probabilities(cells, fold.test)
    y, donors, X = cells.y.copy(), cells.donors.copy(), cells.X.copy()
    y[fold.test] = "Sst"
    donors[fold.test] = "somebody"
    X[fold.test[1:]] *= 50
    changed = dataclasses.replace(cells, X=X, y=y, donors=donors)
    found = probabilities(changed, fold.test[:1])
    np.testing.assert_allclose(found, expected[:1], atol=1e-6)


def test_models_that_need_a_source_are_used_for_transfer_only(human, mouse, few_epochs):
    result = run({"human": human, "mouse": mouse}, tasks=None, models=["logistic", "finetune"])
    who = set(zip(result.summary["task"], result.summary["model"], strict=True))
    assert who == {
        ("mouse", "logistic"),
        ("human", "logistic"),
        ("transfer", "logistic"),
        ("transfer", "finetune"),
    }
    both = result.results.query("model == 'logistic' and task != 'mouse'")
    shared = [both.query("task == @task")["macro_f1"].tolist() for task in ("human", "transfer")]
    assert shared[0] == shared[1]
    classes = set(result.confusion.query("task == 'mouse'")["true"])
    assert classes == {"Lamp5", "Pvalb", "Sst", "Vip", "Sncg"}


def test_transfer_without_a_model_that_learns_from_mouse_is_done_where_it_is_named(human, mouse):
    cohorts = {"human": human, "mouse": mouse}
    result = run(cohorts, tasks=None, models=["logistic"])
    assert result.summary["task"].tolist() == ["mouse", "human"]
    named = run(cohorts, tasks=["transfer"], models=["logistic"])
    assert named.summary["task"].tolist() == ["transfer"]
    default = module._entries(list(TASKS.values()), None, given=False)
    names = {task.name: [entry.name for entry in able] for task, able in default}
    assert names["transfer"] == ["bilstm-attention", "finetune"]


def test_folds_of_a_run_share_what_is_learned_of_mouse(
    human, mouse, few_epochs, monkeypatch, tmp_path: Path
):
    pretrain, seeds = FinetuneClassifier.pretrain, []

    def spy(model, *source, **more):
        seeds.append(model.random_state)
        return pretrain(model, *source, **more)

    def results():
        seeds.clear()
        both = {"human": human, "mouse": mouse}
        found = run(both, tasks=["transfer"], models=["finetune"], out=tmp_path).results
        return found.drop(columns="seconds"), list(seeds)

    monkeypatch.setattr(FinetuneClassifier, "pretrain", spy)
    whole, of_runs = results()
    assert len(set(of_runs)) == len(of_runs) == 2
    for left, needed in (("*-r01-f3-*", of_runs[1:]), ("*-f4-*", of_runs), ("", [])):
        for stored in (tmp_path / "folds").glob(left) if left else ():
            stored.unlink()
        again, trained = results()
        assert trained == needed
        pd.testing.assert_frame_equal(again, whole)


def test_what_is_shared_does_not_depend_on_workers(human, mouse):
    both, how = {"human": human, "mouse": mouse}, {"tasks": ["transfer"], "models": ["finetune"]}
    one, two = (run(both, **how, jobs=jobs).results for jobs in (1, 2))
    pd.testing.assert_frame_equal(one.drop(columns="seconds"), two.drop(columns="seconds"))


def test_alignment_says_what_sncg_counts_as(mouse):
    for alignment, name in (("hodge2019", "Vip"), ("published-code", "Lamp5")):
        cells = cells_of(mouse, alignment)
        sncg = (mouse.obs["subclass"] == "Sncg").to_numpy()
        assert set(cells.y[sncg]) == {name}
        assert cells.classes == ("Lamp5", "Pvalb", "Sst", "Vip")


def test_published_protocol_says_what_is_wrong_with_it(human):
    result = run({"human": human}, protocol="published", models=["logistic"])
    assert "BOTH SIDES" in result.settings["protocol_about"]
    assert result.results["run"].nunique() == 10


def test_published_numbers_stand_beside_ours(human, few_epochs):
    result = run({"human": human}, models=["bilstm-attention", "logistic"])
    row = result.summary.set_index("model").loc["bilstm-attention"]
    assert (row["published_macro_f1"], row["published_accuracy"]) == (0.6685, 0.7798)
    assert np.isnan(result.summary.set_index("model").loc["logistic", "published_macro_f1"])
    assert len(published()) == 9


def test_what_cannot_be_done_is_said(human, mouse, tmp_path: Path):
    with pytest.raises(EvaluationError, match="task 'transfer' needs a mouse cohort"):
        run({"human": human}, tasks=["transfer"])
    with pytest.raises(ModelError, match="no model 'magic'"):
        run({"human": human}, models=["magic"])
    with pytest.raises(EvaluationError, match="learn from a second species; use 'task' transfer"):
        run({"human": human}, models=["joint"])
    with pytest.raises(EvaluationError, match="'joint' learns from a second species"):
        run({"human": human}, models=["svm", "joint"])
    with pytest.raises(EvaluationError, match="no cohort"):
        run({}, tasks=None)
    with pytest.raises(EvaluationError, match="fewer than the 5 folds"):
        vip = human.obs["subclass"] == "Vip"
        few = human[~vip | (vip.cumsum() <= 4)].copy()
        run({"human": few})
    (tmp_path / "file").write_text("")
    with pytest.raises(EvaluationError, match="choose another 'out'"):
        run({"human": human}, out=tmp_path / "file")
    with pytest.raises(EvaluationError, match=r"no settings\.json"):
        read_results(tmp_path)


def test_a_device_that_is_not_there_is_said_where_it_is_used(human):
    for device in ("cuda:99", "gpu"):
        with pytest.raises(EvaluationError, match=f"no device '{device}'"):
            run({"human": human}, models=["bilstm"], device=device)
    run({"human": human}, models=["logistic"], device="cuda:99")


def test_settings_that_mean_nothing_are_refused(human, mouse):
    with pytest.raises(TaxonomyError, match="no alignment 'bogus'"):
        run({"mouse": mouse}, tasks=["mouse"], alignment="bogus")
    with pytest.raises(EvaluationError, match="'seed' must be at least 0"):
        run({"human": human}, seed=-1)
    with pytest.raises(EvaluationError, match="'Lamp5' is in one only"):
        few = mouse[mouse.obs["subclass"] != "Lamp5"].copy()
        run({"human": human, "mouse": few}, tasks=["transfer"], models=["joint"])


def test_each_task_names_its_own_features(mouse):
    full = made.cohort("human", layout=load_layout("full"))
    result = run({"human": full, "mouse": mouse}, tasks=["mouse", "human"], models=["logistic"])
    named = dict(zip(result.summary["task"], result.summary["features"], strict=True))
    assert named == {"mouse": "shared", "human": "full"} == result.settings["features"]


def test_only_what_is_ours_is_touched(human, tmp_path: Path):
    (tmp_path / "movie.mkv.part").write_text("half")
    (tmp_path / "results.csv").write_text("mine")
    with pytest.raises(EvaluationError, match=r"results\.csv in it would be lost"):
        run({"human": human}, out=tmp_path)
    assert (tmp_path / "results.csv").read_text() == "mine"
    (tmp_path / "results.csv").rename(tmp_path / "mine.csv")
    run({"human": human}, models=["logistic"], out=tmp_path)
    assert (tmp_path / "movie.mkv.part").read_text() == "half"
    assert (tmp_path / "mine.csv").read_text() == "mine"


def test_a_damaged_result_folder_is_said(human, tmp_path: Path):
    run({"human": human}, models=["logistic"], out=tmp_path)
    (tmp_path / "summary.csv").unlink()
    with pytest.raises(EvaluationError, match=r"summary\.csv"):
        read_results(tmp_path)
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(EvaluationError, match="is damaged"):
        read_results(tmp_path)


def test_own_cohort_tables_by_file_name(human, mouse, tmp_path: Path):
    for cohort in (human, mouse):
        table.write(cohort, tmp_path / f"{cohort.obs['species'].iloc[0]}.h5ad")
    files = [str(tmp_path / "human.h5ad"), str(tmp_path / "mouse.h5ad")]
    assert set(load_cohorts(files)) == {"human", "mouse"}
    with pytest.raises(CohortError, match="already a table of human cells"):
        load_cohorts([files[0], files[0]])
    with pytest.raises(CohortError, match="no cohort 'allan'"):
        load_cohorts(["allan"])


def test_full_features_are_human_only(real_data: Path):
    assert set(load_cohorts(["allen"], "full", data_dir=real_data)) == {"human"}
    assert set(load_cohorts(["allen"], None, ["human"], real_data)) == {"human"}
    assert set(load_cohorts(["allen"], None, ["transfer"], real_data)) == {"human", "mouse"}
    with pytest.raises(LayoutError, match="no layout 'half'"):
        load_cohorts(["allen"], "half", data_dir=real_data)


@pytest.mark.parametrize("name", ["subclass", "donor"])
def test_cells_without_a_label_are_a_table_but_cannot_be_evaluated(name, tmp_path):
    cohort = made.cohort()
    values = cohort.obs[name].astype(object)
    values.iloc[:7] = None
    cohort.obs[name] = values.astype("category")
    table.write(cohort, tmp_path / "cells.h5ad")
    assert table.read(tmp_path / "cells.h5ad").n_obs == cohort.n_obs
    with pytest.raises(EvaluationError, match=f"7 of 145 human cells have no {name}"):
        crosspatch.benchmark({"human": cohort}, models=["logistic"], protocol="quick")


def test_results_on_simulated_cells_say_so():
    cohort = made.cohort()
    cohort.obs["simulated"] = True
    result = crosspatch.benchmark({"human": cohort}, models=["logistic"], protocol="quick")
    for frame in (result.results, result.summary, result.confusion):
        assert set(frame["features"]) == {"shared (simulated)"}
    assert result.summary["published_macro_f1"].isna().all()
    assert result.settings["cohorts"]["human"]["simulated"]
    assert "SIMULATED" in warning_about({"human": cohort})
    assert warning_about({"human": made.cohort()}) == ""


def test_auto_takes_the_allen_tables_if_they_are_there(tmp_path, real_data):
    assert choose_cohorts(["auto"], real_data) == ["allen"]
    assert choose_cohorts(["auto"], tmp_path) == ["simulated"]
    assert choose_cohorts(["allen"], tmp_path) == ["allen"]


def test_without_any_data_directory_the_default_is_simulated(tmp_path, monkeypatch):
    """A fresh machine has no cache of data; a directory that is named must be there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CROSSPATCH_DATA", raising=False)
    assert choose_cohorts(["auto"]) == ["simulated"]
    with pytest.raises(CohortError, match="does not exist"):
        choose_cohorts(["auto"], tmp_path / "nowhere")
    monkeypatch.setenv("CROSSPATCH_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(CohortError, match="does not exist"):
        choose_cohorts(["auto"])
