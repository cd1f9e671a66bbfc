from __future__ import annotations

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from crosspatch.errors import CrosspatchError, EvaluationError, ModelError
from crosspatch.evaluation.comparison import corrected_resampled_t
from crosspatch.evaluation.protocols import PROTOCOLS
from crosspatch.explanation import ablation, attention
from crosspatch.explanation import explain as study
from crosspatch.explanation.ablation import HeldOut, layout_without, permuted_scores, scores_of
from crosspatch.explanation.components import cells_by_species
from crosspatch.explanation.explain import EXPLANATION_TABLES, explain_models, read_explanation
from crosspatch.features.layouts import Feature, Layout, load_layout
from crosspatch.models import registry
from crosspatch.models.registry import ModelEntry
from tests import made

#: As it is, not as tests replace it.
MAKERS = study._makers

CLASSES = ["Lamp5", "Pvalb", "Sst", "Vip"]

#: A sequence model that is fitted in no time.
TINY = "tiny-attention"

#: Five families of two features: enough for a verdict.
FIVE = Layout(
    "five", tuple(Feature(f"{family}{k}", family, "mV") for family in "abcde" for k in range(2))
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """One run, few permutations, a small network, and tables about cells that take no time."""
    monkeypatch.setitem(PROTOCOLS, "quick", dataclasses.replace(PROTOCOLS["quick"], runs=1))
    monkeypatch.setattr(ablation, "permuted_scores", partial(permuted_scores, repeats=2))

    # Defined in here, so that worker processes are sent it and need not import this file.
    def tiny(layout: Any, seed: int | None, device: str) -> Any:
        from crosspatch.models.loop import TrainingSettings
        from crosspatch.models.sequence import SequenceSettings
        from crosspatch.models.sequence_classifier import SequenceClassifier

        return SequenceClassifier(
            layout,
            network=SequenceSettings(hidden=8, attention_hidden=8),
            training=TrainingSettings(epochs=2, learning_rate=0.02),
            random_state=seed,
            device=device,
        )

    entry = ModelEntry(TINY, "small", tiny, uses_device=True)
    monkeypatch.setitem(registry._MODELS, TINY, entry)

    def makers(cohorts, cells, alignment, seed):
        names = ["separation", "map", "loadings", "examples"]
        names += ["conserved"] if len(cohorts) == 2 else []
        return {name: lambda: pd.DataFrame({"cell_id": ["a"], "x": [0.1]}) for name in names}

    monkeypatch.setattr(study, "_makers", makers)


def told_by(family: str, species: str = "human", layout: Layout = made.SMALL, seed: int = 0):
    """A cohort of which one family alone tells the class."""
    cohort = made.cohort(species, layout=layout, seed=seed, spread=0.5)
    rng = np.random.default_rng(seed)
    for name, columns in layout.columns.items():
        if name != family:
            cohort.X[:, columns] = rng.normal(size=(cohort.n_obs, len(columns)))
    return cohort


@pytest.fixture(scope="module")
def human():
    return told_by("spike")


def test_the_family_that_tells_the_class_is_found_in_both_ways(human):
    found = explain_models({"human": human}, models=["logistic"]).tables["importance"]
    whole = found[found["scope"] == "macro_f1"]
    assert set(whole["how"]) == {"permuted", "removed"}
    for _, part in whole.groupby("how"):
        fall = part.set_index("family")
        assert list(fall.index) == ["subthreshold", "spike", "train"]
        assert fall["drop"]["spike"] > 0.4
        assert fall["ci_low"]["spike"] > 0.2
        assert fall["p_value"]["spike"] < 0.01
        assert (fall["drop"].drop(index="spike").abs() < 0.15).all()
    assert set(found["scope"]) == {"macro_f1", *CLASSES}
    of_class = found.query("family == 'spike' and scope != 'macro_f1'")
    assert (of_class["drop"] > 0.2).all()


def test_numbers_come_from_the_folds(human):
    tables = explain_models({"human": human}, models=["logistic"]).tables
    results = tables["results"]
    assert list(results["condition"].unique()) == [
        "all present",
        *(f"permuted: {name}" for name in made.SMALL.families),
        *(f"removed: {name}" for name in made.SMALL.families),
    ]
    assert results["n_test"].groupby(results["condition"]).sum().eq(human.n_obs).all()
    wide = results.pivot_table(index="fold", columns="condition", values="f1_Vip")
    share = (results["n_test"] / results["n_train"])[results["condition"] == "all present"].mean()
    expected = corrected_resampled_t(wide["all present"], wide["removed: train"], share)
    (row,) = (
        tables["importance"]
        .query("how == 'removed' and family == 'train' and scope == 'Vip'")
        .to_dict("records")
    )
    assert row["drop"] == pytest.approx(expected.delta)
    assert row["ci_low"] == pytest.approx(expected.ci_low)
    assert row["p_value"] == pytest.approx(expected.p_value)
    assert row["folds"] == 5


def test_a_removed_family_is_never_seen(human):
    other = human.copy()
    columns = made.SMALL.columns["spike"]
    other.X[:, columns] = np.random.default_rng(9).normal(size=(other.n_obs, len(columns)))
    one, two = (
        explain_models({"human": cohort}, models=["logistic", TINY], seeds=0).tables["results"]
        for cohort in (human, other)
    )
    hidden = one["condition"] == "removed: spike"
    assert hidden.sum() == 10
    pd.testing.assert_frame_equal(one[hidden], two[hidden])
    shown = one["condition"] == "removed: train"
    assert not np.allclose(one.loc[shown, "macro_f1"], two.loc[shown, "macro_f1"])


class Watcher:
    """Says Lamp5 of every cell and keeps what it was shown."""

    classes_ = np.array(["Lamp5", "Vip"])

    def __init__(self):
        self.seen = []

    def predict_proba(self, X):
        self.seen.append(X.copy())
        return np.tile([0.9, 0.1], (len(X), 1))


def test_a_permuted_family_moves_as_a_whole_and_nothing_else_does():
    y = made.labels({"Lamp5": 20, "Vip": 20})
    X = made.features(made.SMALL, y)
    X[3, made.SMALL.columns["spike"]] = np.nan
    model = Watcher()
    tested = HeldOut(made.SMALL, X, y, ["Lamp5", "Vip"])
    permuted_scores(model, tested, "spike", seed=1, repeats=4)
    columns = made.SMALL.columns["spike"]
    others = np.setdiff1d(np.arange(X.shape[1]), columns)
    orders = []
    for shown in model.seen:
        np.testing.assert_array_equal(shown[:, others], X[:, others])
        rows = [tuple(row) for row in np.nan_to_num(shown[:, columns], nan=-99)]
        origin = {tuple(row): k for k, row in enumerate(np.nan_to_num(X[:, columns], nan=-99))}
        orders.append(tuple(origin[row] for row in rows))
        assert sorted(rows) == sorted(map(tuple, np.nan_to_num(X[:, columns], nan=-99)))
    assert len(set(orders)) == 4


def test_a_cell_with_nothing_left_is_a_wrong_one_for_every_model():
    y = np.array(["Lamp5", "Lamp5", "Vip"])
    X = np.ones((3, 21))
    X[0] = np.nan
    model = Watcher()
    tested = HeldOut(made.SMALL, X, y, ["Lamp5", "Vip"])
    assert scores_of(model, tested)["accuracy"] == pytest.approx(1 / 3)
    assert len(model.seen[0]) == 2


def test_cells_that_have_one_family_only_do_not_stop_its_removal(human):
    few = human.copy()
    columns = made.SMALL.columns["spike"]
    others = np.setdiff1d(np.arange(few.n_vars), columns)
    few.X[np.ix_(np.arange(0, few.n_obs, 10), others)] = np.nan
    few.X[:, columns] = np.nan_to_num(few.X[:, columns])
    results = explain_models({"human": few}, models=["logistic"]).tables["results"]
    sizes = results.groupby("condition")[["n_train", "n_test"]].sum()
    assert sizes["n_test"].eq(few.n_obs).all()
    assert sizes["n_train"]["removed: spike"] < sizes["n_train"]["all present"]


def test_attention_of_a_class_sums_to_one_and_absent_families_have_none(human):
    lacking = human.copy()
    lacking.X[:, made.SMALL.columns["train"]] = np.nan
    found = explain_models({"human": lacking}, models=[TINY], seeds=1, removed=False).tables
    table = found["attention"]
    sums = table.groupby("subclass", sort=False)["weight"].sum()
    assert list(sums.index) == ["all", *CLASSES]
    np.testing.assert_allclose(sums, 1, atol=1e-6)
    assert (table.loc[table["family"] == "train", "weight"] == 0).all()
    cells = table.drop_duplicates("subclass").set_index("subclass")["cells"]
    assert cells["all"] == lacking.n_obs
    assert cells.drop("all").to_dict() == lacking.obs["subclass"].value_counts().to_dict()
    # Seeds stand side by side in the results, and only the first is permuted.
    seeds = found["results"].groupby("seed")["condition"].unique()
    assert len(seeds[0]) == 4
    assert list(seeds[1]) == ["all present"]
    assert not any(found["results"]["condition"].str.startswith("removed"))


def test_models_without_attention_have_none(human):
    found = explain_models({"human": human}, models=["logistic"], removed=False).tables
    assert found["attention"].empty
    assert found["agreement"].empty
    assert not attention.attends(registry.model_entry("bilstm").build(made.SMALL, 0, "cpu"))
    assert attention.attends(registry.model_entry("arcface").build(made.SMALL, 0, "cpu"))


def test_both_species_are_compared_in_shared_classes_and_the_folder_is_read_back(tmp_path: Path):
    cohorts = {name: told_by("c", name, FIVE) for name in ("human", "mouse")}
    mouse = cohorts["mouse"]
    mouse.obs["subclass"] = mouse.obs["subclass"].cat.add_categories("Sncg")
    mouse.obs.iloc[:12, mouse.obs.columns.get_loc("subclass")] = "Sncg"
    done = []
    found = explain_models(
        cohorts,
        models=[TINY, "logistic"],
        seeds=1,
        out=tmp_path,
        progress=lambda *now: done.append(now),
    )
    assert tuple(found.tables) == EXPLANATION_TABLES
    # Two species; the network: whole, one more seed, five families removed; the other: no seed.
    parts = 2 * 5 * (1 + 1 + 5 + 1 + 5) + len(EXPLANATION_TABLES) - 4
    assert done[0] == (0, parts)
    assert done[-1] == (parts, parts)
    assert "f1_Sncg" not in found.tables["results"]
    agreement = found.tables["agreement"]
    assert set(zip(agreement["what"], agreement["species"], agreement["model"], strict=True)) == {
        *(
            (what, species, TINY)
            for species in ("mouse", "human")
            for what in (
                "attention and permuted",
                "attention and removed",
                "attention between seeds",
            )
        ),
        *(
            ("permuted and removed", species, model)
            for species in ("mouse", "human")
            for model in (TINY, "logistic")
        ),
        *(
            (f"mouse and human, {how}", "both", model)
            for how in ("permuted", "removed")
            for model in (TINY, "logistic")
        ),
        ("mouse and human, attention", "both", TINY),
    }
    assert (agreement["families"] == 5).all()
    assert agreement["verdict"].str.contains("5 families").all()
    back = read_explanation(tmp_path)
    assert back.settings["kind"] == "explanation"
    assert back.settings["seeds"] == 1
    assert set(back.settings["cohorts"]) == {"mouse", "human"}
    for name in EXPLANATION_TABLES:
        pd.testing.assert_frame_equal(
            back.tables[name], found.tables[name], check_dtype=False, rtol=1e-12
        )


def test_one_species_has_the_same_tables(human, tmp_path: Path):
    found = explain_models({"human": human}, models=["logistic"], removed=False, out=tmp_path)
    assert found.tables["conserved"].empty
    for name in EXPLANATION_TABLES:
        assert list(read_explanation(tmp_path).tables[name]) == list(found.tables[name])


def test_every_table_about_cells_has_its_maker():
    cohorts = {name: made.cohort(name) for name in ("mouse", "human")}
    about_models = {"results", "importance", "attention", "agreement"}
    expected = set(EXPLANATION_TABLES) - about_models
    assert set(MAKERS(cohorts, cells_by_species(cohorts), "hodge2019", 0)) == expected
    human = {"human": cohorts["human"]}
    found = MAKERS(human, cells_by_species(human), "hodge2019", 0)
    assert set(found) == expected - {"conserved"}


def test_a_stopped_run_goes_on_where_it_was(human, tmp_path: Path, heard):
    def stop(done: int, total: int) -> None:
        if done == 9:
            raise KeyboardInterrupt

    asked: dict[str, Any] = {"models": ["logistic"], "out": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        explain_models({"human": human}, **asked, progress=stop)
    with pytest.raises(EvaluationError, match="stopped before its end"):
        read_explanation(tmp_path)
    stored = list((tmp_path / "folds").iterdir())
    fitted = heard(study, "_tested")
    first = explain_models({"human": human}, **asked)
    assert len(fitted) == 5 * (1 + 3) - len(stored)
    fitted.clear()
    again = explain_models({"human": human}, **asked)
    assert not fitted
    for name in EXPLANATION_TABLES:
        pd.testing.assert_frame_equal(first.tables[name], again.tables[name])


def test_other_cells_never_get_stored_results(human, tmp_path: Path):
    other = human.copy()
    other.X[0, 0] += 1
    asked: dict[str, Any] = {"models": ["logistic"], "removed": False, "out": tmp_path}
    for count, cohort in ((1, human), (1, human), (2, other)):
        explain_models({"human": cohort}, **asked)
        assert len(list((tmp_path / "folds").iterdir())) == count * (5 + 4)


def test_with_more_workers_the_numbers_are_identical(human, monkeypatch):
    monkeypatch.setattr(ablation, "permuted_scores", permuted_scores)  # as in the workers
    one, two = (
        explain_models({"human": human}, models=["logistic"], jobs=jobs).tables for jobs in (1, 2)
    )
    for name in EXPLANATION_TABLES:
        pd.testing.assert_frame_equal(one[name], two[name])


def test_agreement_is_spearmans_correlation_fold_by_fold():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 6, 8))
    b = b.round()  # with ties
    found = attention.agreement_in_folds(a, b, 0.25)
    each = [spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    expected = corrected_resampled_t(each, np.zeros(6), 0.25)
    assert found.spearman == pytest.approx(expected.delta)
    assert found.ci_low == pytest.approx(max(expected.ci_low, -1))
    assert (found.families, found.folds) == (8, 6)


def test_few_families_can_agree_by_chance():
    same = np.tile(np.arange(4.0), (10, 1))
    assert attention.agreement_in_folds(same, same, 0.25).p_value == pytest.approx(1 / 24)
    opposite = attention.agreement_in_folds(same, -same, 0.25)
    assert opposite.spearman == pytest.approx(-1)
    assert opposite.p_value == 1
    many = np.tile(np.arange(12.0), (10, 1))
    assert attention.agreement_in_folds(many, many, 0.25).p_value < 1e-3
    two = attention.agreement_in_folds(same[:, :2], same[:, :2], 0.25)
    assert math.isnan(two.spearman)
    flat = attention.agreement_in_folds(same, np.zeros((10, 4)), 0.25)
    assert math.isnan(flat.spearman)


def test_agreement_of_species_has_an_interval_around_it():
    rng = np.random.default_rng(1)
    worth = np.linspace(0, 1, 8)
    mouse, human = (worth + 0.1 * rng.normal(size=(10, 8)) for _ in range(2))
    found = attention.agreement_of_species(mouse, human, (0.25, 0.25))
    assert found.spearman == pytest.approx(
        spearmanr(mouse.mean(axis=0), human.mean(axis=0)).statistic
    )
    assert 0.5 < found.ci_low <= found.spearman <= found.ci_high <= 1
    assert found.p_value < 0.01
    noisy = attention.agreement_of_species(mouse, rng.normal(size=(10, 8)), (0.25, 0.25))
    assert noisy.ci_low < 0 < noisy.ci_high + 1
    assert noisy.ci_high - noisy.ci_low > found.ci_high - found.ci_low


def test_agreement_of_seeds_is_one_for_equal_attention():
    rng = np.random.default_rng(2)
    one = rng.random((5, 1, 4, 6))
    assert attention.agreement_of_seeds(np.repeat(one, 3, axis=1), 0.25).spearman == pytest.approx(
        1
    )
    assert attention.agreement_of_seeds(rng.random((5, 3, 4, 6)), 0.25).spearman < 0.5


@pytest.mark.parametrize(
    ("what", "rho", "low", "high", "p", "families", "expected"),
    [
        ("attention and removed", 0.9, 0.7, 1.0, 0.001, 12, "attention explains the model"),
        (
            "attention and removed",
            0.9,
            0.7,
            1.0,
            0.001,
            6,
            "attention explains the model (weak evidence: 6 families)",
        ),
        ("attention and removed", 0.2, 0.1, 0.3, 0.2, 12, "attention does not explain the model"),
        ("attention and removed", -0.5, -0.8, -0.2, 1, 12, "attention does not explain the model"),
        (
            "attention and removed",
            0.6,
            -0.1,
            0.9,
            0.01,
            12,
            "not shown that attention explains the model",
        ),
        (
            "attention and removed",
            0.6,
            0.4,
            0.8,
            0.2,
            12,
            "not shown that attention explains the model",
        ),
        ("attention and removed", 1.0, 1.0, 1.0, 0.04, 4, "cannot be told from 4 families"),
        (
            "attention between seeds",
            0.7,
            0.65,
            0.75,
            math.nan,
            12,
            "attention is not stable over seeds",
        ),
        (
            "attention between seeds",
            0.9,
            0.85,
            0.95,
            math.nan,
            12,
            "attention is stable over seeds",
        ),
        (
            "permuted and removed",
            math.nan,
            math.nan,
            math.nan,
            math.nan,
            12,
            "cannot be told: no family stands out in any fold",
        ),
    ],
)
def test_verdicts(what, rho, low, high, p, families, expected):
    found = attention.Agreement(families, 10, rho, low, high, p)
    assert attention.verdict(what, found) == expected


def test_what_cannot_be_done_is_said(human, tmp_path: Path):
    with pytest.raises(ModelError, match="no model 'magic'"):
        explain_models({"human": human}, models=["magic"])
    with pytest.raises(EvaluationError, match="'finetune' learns from a second species"):
        explain_models({"human": human}, models=["finetune"])
    with pytest.raises(EvaluationError, match="no model to explain"):
        explain_models({"human": human}, models=[])
    with pytest.raises(EvaluationError, match="no cohort"):
        explain_models({})
    with pytest.raises(EvaluationError, match="different features"):
        explain_models({"human": human, "mouse": made.cohort("mouse")}, models=["logistic"])
    with pytest.raises(EvaluationError, match="'seeds' must be at least 0, not -1"):
        explain_models({"human": human}, seeds=-1)
    with pytest.raises(EvaluationError, match="no device 'cuda:99'"):
        explain_models({"human": human}, models=[TINY], device="cuda:99")
    unlabelled = human.copy()
    unlabelled.obs.iloc[:3, unlabelled.obs.columns.get_loc("subclass")] = None
    with pytest.raises(EvaluationError, match="3 of 145 human cells have no subclass"):
        explain_models({"human": unlabelled})
    single = Layout("single", made.SMALL.features[:8])
    with pytest.raises(EvaluationError, match="nothing is left without it"):
        explain_models({"human": made.cohort(layout=single)}, models=["logistic"])
    with pytest.raises(EvaluationError, match="no family 'magic'"):
        layout_without(made.SMALL, "magic")
    (tmp_path / "settings.json").write_text('{"status": "complete", "kind": "benchmark"}')
    with pytest.raises(EvaluationError, match="another kind: benchmark"):
        read_explanation(tmp_path)
    assert issubclass(EvaluationError, CrosspatchError)


def test_one_family_can_be_permuted_if_not_removed():
    single = Layout("single", made.SMALL.features[:8])
    found = explain_models(
        {"human": made.cohort(layout=single)}, models=["logistic"], removed=False
    )
    assert set(found.tables["importance"]["family"]) == {"subthreshold"}


def test_layouts_keep_their_name_and_order_without_a_family():
    shared = load_layout("shared")
    smaller, kept = layout_without(shared, "ap_ramp")
    assert smaller.name == "shared"
    assert "ap_ramp" not in smaller.families
    assert [shared.features[k] for k in kept] == list(smaller.features)
