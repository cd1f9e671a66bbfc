"""Models trained on all cells of a cohort."""

from __future__ import annotations

import numpy as np
import pytest

from crosspatch.errors import CrosspatchError, ModelError
from crosspatch.evaluation.benchmark import benchmark
from crosspatch.models import artifact
from crosspatch.models.registry import MODEL_NAMES
from crosspatch.models.transfer import FinetuneClassifier
from crosspatch.prediction.batches import Batch
from crosspatch.prediction.output import header_lines
from crosspatch.prediction.predictor import Predictor
from crosspatch.prediction.training import BEST_MODEL, LeftOut, left_out, train
from tests import made


@pytest.fixture(scope="module")
def human():
    return made.cohort(counts={"Lamp5": 50, "Pvalb": 90, "Sst": 70, "Vip": 60}, donors=40)


def test_predictions_for_unseen_donors_are_those_of_the_evaluation(human, tmp_path):
    """To the last digit: what is measured is what is used."""
    result = benchmark({"human": human}, models=["logistic"], protocol="quick", calibration=True)
    assert result.calibration is not None
    told = result.calibration.predictions.query("run == 1 and fold == 3")
    leave_out = LeftOut(1, 3, "quick")
    model = train(human, model="logistic", leave_out=leave_out, out=tmp_path / "m")
    part = human[told["cell_id"].tolist()]
    assert not set(part.obs["donor"]) & set(
        human[~human.obs_names.isin(part.obs_names)].obs["donor"]
    )
    X = np.asarray(part.X)
    n = part.n_obs
    batch = Batch("cells", part.obs_names.tolist(), ["human"] * n, X)
    found = Predictor([artifact.load(tmp_path / "m")]).predict(batch).cells
    for name in model.classes:
        ours, theirs = found[f"probability_{name}"], told[f"p_{name}"].to_numpy()
        np.testing.assert_array_equal(np.round(ours, 12), np.round(theirs, 12))
    assert found["prediction_set"].tolist() == told["set"].tolist()
    np.testing.assert_array_equal(found["p_reference"], told["p_reference"])
    enough = found["verdict"] != "insufficient data"
    assert found["subclass"][enough].tolist() == told["predicted"][enough.to_numpy()].tolist()


def test_the_number_of_jobs_changes_nothing(human, tmp_path):
    one = train(human, model="logistic", jobs=1, out=tmp_path / "a")
    two = train(human, model="logistic", jobs=2, out=tmp_path / "b")
    assert one.about["probe"] == two.about["probe"]


def test_model_json_says_what_a_stranger_must_know(human, tmp_path):
    found = train(human, model="logistic", seed=3, out=tmp_path / "m").about
    assert found["classes"] == ["Lamp5", "Pvalb", "Sst", "Vip"]
    assert found["cohorts"]["target"]["cells"] == 270
    assert found["cohorts"]["target"]["subclasses"]["Pvalb"] == 90
    assert len(found["cohorts"]["target"]["cells_sha256"]) == 64
    assert found["settings"]["seed"] == 3
    assert len(found["scaling"]["center"]) == len(found["layout"]["features"]) == 32
    assert 0 < found["scores"]["macro_f1"] <= 1
    assert {"ece", "confident", "outside", "sets"} <= found["scores"].keys()
    card = (tmp_path / "m" / "card.md").read_text()
    assert "270 cells of 40 donors" in card
    assert f"{found['scores']['macro_f1']:.3f}" in card


def test_simulated_cells_make_a_model_that_says_so(human, tmp_path):
    simulated = human.copy()
    simulated.obs["simulated"] = True
    found = train(simulated, model="logistic", out=tmp_path / "m")
    assert found.about["simulated"]
    assert "SIMULATED" in (tmp_path / "m" / "card.md").read_text()


def test_a_transfer_model_needs_a_source_and_uses_it(human, tmp_path):
    with pytest.raises(ModelError, match="give 'source'"):
        train(human, model="finetune", out=tmp_path / "m")
    both = human.copy()
    both.obs["species"] = ["mouse" if k % 2 else "human" for k in range(both.n_obs)]
    with pytest.raises(ModelError, match="a model for each species"):
        train(both, model="logistic", out=tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_mouse_is_learned_once_for_all_fits(human, few_epochs, monkeypatch, tmp_path):
    """And with the seed that it has in an evaluation of a fold that is left out."""
    trained = []
    pretrain, fit = FinetuneClassifier.pretrain, FinetuneClassifier.fit

    def counted(model, *source, **more):
        trained.append(model.random_state)
        return pretrain(model, *source, **more)

    def started(model, *cells, **more):
        assert more["pretrained"] is not None
        return fit(model, *cells, **more)

    monkeypatch.setattr(FinetuneClassifier, "pretrain", counted)
    monkeypatch.setattr(FinetuneClassifier, "fit", started)
    mouse = made.cohort("mouse", counts=dict.fromkeys(("Lamp5", "Pvalb", "Sst", "Vip"), 40))
    cohorts = {"human": human, "mouse": mouse}
    benchmark(cohorts, tasks=["transfer"], models=["finetune"], protocol="quick")
    of_runs = trained.copy()
    trained.clear()
    train(human, mouse, model="finetune", leave_out=LeftOut(1, 3, "quick"), out=tmp_path / "m")
    assert trained == [of_runs[1]]


def test_the_default_models_exist():
    assert set(BEST_MODEL.values()) <= set(MODEL_NAMES)


@pytest.mark.parametrize("text", ["1", "a:b", "1:2:3", "-1:0", ":"])
def test_what_is_left_out_must_be_a_run_and_a_fold(text: str):
    with pytest.raises(ModelError, match="leave_out"):
        left_out(text)


def test_a_fold_that_does_not_exist(human, tmp_path):
    for leave_out in (LeftOut(99, 0), LeftOut(0, 9), LeftOut(0, 0, "nothing")):
        with pytest.raises(CrosspatchError):
            train(human, model="logistic", leave_out=leave_out, out=tmp_path / "m")


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """A model of mouse cells whose t-types are known, and the cells."""
    cohort = made.cohort("mouse", {"Pvalb": 60, "Sst": 100}, donors=40, spread=0.5)
    side = np.random.default_rng(0).permutation(cohort.n_obs) % 2
    cohort.X += np.float32(3 * side[:, None]) * (np.arange(cohort.n_vars) % 3 == 0)
    cohort.obs["t_type"] = [
        f"{name} {'Chodl' if k else 'Hpse'}"
        for name, k in zip(cohort.obs["subclass"], side, strict=True)
    ]
    cohort.uns["crosspatch"]["taxonomy"] = "tasic2018"
    return train(cohort, model="lda", out=tmp_path_factory.mktemp("t") / "m"), cohort


def test_a_model_of_labelled_t_types_names_them_and_says_whose(typed):
    model, cohort = typed
    told = model.about["t_types"]
    assert told["taxonomy"] == "Tasic et al. 2018"
    assert told["names"] == ["Pvalb Chodl", "Pvalb Hpse", "Sst Chodl", "Sst Hpse"]
    batch = Batch("cells", cohort.obs_names.tolist(), ["mouse"] * cohort.n_obs, cohort.X)
    found = Predictor([model]).predict(batch)
    rows = found.to_table()
    confident = rows["verdict"] == "confident"
    assert set(rows.loc[~confident, "t_type_guess"]) <= {""}
    assert rows.loc[~confident, "t_type_probability"].isna().all()
    named = rows["t_type"] != ""
    assert named.sum() > 100
    assert (named <= confident).all()
    assert (rows.loc[named, "t_type_probability"] >= told["limit"] - 1e-4).all()
    assert (rows.loc[named, "t_type"] == rows.loc[named, "t_type_guess"]).all()
    right = rows.loc[named, "t_type"].to_numpy() == cohort.obs["t_type"][named.to_numpy()]
    assert right.mean() > 0.9
    assert any(
        line.startswith("# t-types: Tasic et al. 2018") for line in header_lines(found.header)
    )


def test_t_types_are_stored(typed, tmp_path):
    model, cohort = typed
    folder = tmp_path / "again"
    artifact.save(
        folder, model.classifier, dict(model.about), "a card", types=model.classifier.types
    )
    X, p = np.asarray(cohort.X), model.classifier.predict_proba(cohort.X)
    ours = model.classifier.t_types(X, np.nan_to_num(p))
    theirs = artifact.load(folder).classifier.t_types(X, np.nan_to_num(p))
    assert ours is not None
    assert theirs is not None
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_models_have_no_t_types(human, tmp_path):
    """Neither those of other taxonomies, nor those that know no types."""
    model = train(human, model="logistic", out=tmp_path / "m")
    assert model.about["t_types"] is None
    assert model.classifier.types is None
    assert "T-types" not in (tmp_path / "m" / "card.md").read_text()
    batch = Batch("cells", human.obs_names.tolist(), ["human"] * human.n_obs, human.X)
    found = Predictor([model]).predict(batch)
    assert not [name for name in found.to_table() if str(name).startswith("t_type")]
    assert next(iter(found)).t_type == ""
    cells = list(found)
    rows = found.to_table()
    assert rows["runner_up"].tolist() == [cell.runner_up[0] for cell in cells]
    np.testing.assert_array_equal(rows["runner_up_probability"], [c.runner_up[1] for c in cells])
    given = rows["subclass"] != ""
    assert (rows.loc[given, "runner_up"] != rows.loc[given, "subclass"]).all()
    assert (rows.loc[given, "runner_up_probability"] <= rows.loc[given, "probability"]).all()
    assert rows.loc[~given, "runner_up"].eq("").all()
