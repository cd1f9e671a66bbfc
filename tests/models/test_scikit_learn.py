"""Every estimator keeps scikit-learn's contract: its own checks, and what users do with them."""

from __future__ import annotations

import doctest
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from benchmarks.estimators import estimators, further_checks, waived
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import crosspatch
from crosspatch.errors import LayoutError, ModelError
from crosspatch.models import kernel
from crosspatch.models.loop import TrainingSettings
from crosspatch.models.registry import MODEL_NAMES
from crosspatch.models.sequence import SequenceSettings
from crosspatch.models.validation import inner_folds
from tests.made import SMALL, features, labels

torch.set_num_threads(1)
# scikit-learn's checks give one species to models of two, and tables to what knows arrays.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*second species", "ignore:X (has|does not have valid) feature names"
)

ALL = estimators()
#: Another network has both switches of these; benchmarks/estimators.py checks them, too.
LIKE_ANOTHER = ("bilstm", "bilstm-attention-smote")
CHECKED = {name: model for name, model in ALL.items() if name not in LIKE_ANOTHER}
PAGE = Path(__file__).parents[2] / "docs" / "scikit-learn.md"

Y = labels({"a": 40, "b": 30, "c": 30})
FRAME = pd.DataFrame(features(SMALL, Y, spread=0.4), columns=list(SMALL.feature_names))
DONORS = np.random.default_rng(3).integers(12, size=len(Y))


@parametrize_with_checks(list(CHECKED.values()), expected_failed_checks=waived)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


FURTHER = [
    pytest.param(model, check, id=f"{name}-{what}")
    for name, model in CHECKED.items()
    for what, check in further_checks(model)
]


@pytest.mark.parametrize(("estimator", "check"), FURTHER)
def test_checks_of_tables_and_names(estimator, check):
    check(estimator)


def test_every_model_is_checked_and_says_what_it_takes():
    assert set(MODEL_NAMES) < set(ALL)
    for name in MODEL_NAMES:
        tags = ALL[name].__sklearn_tags__().input_tags
        assert tags.allow_nan, name
        assert name == "forest" or not tags.sparse, name


def quick(name: str, layout=SMALL, **more):
    model = crosspatch.estimator(name, layout, **more)
    known = model.get_params()
    small = {"training__epochs": 2, "forest__n_estimators": 10, "n_folds": 2}
    return model.set_params(**{key: value for key, value in small.items() if key in known})


@pytest.mark.parametrize(
    "name",
    [
        "spca-forest",
        "boosting",
        "logistic",
        "svm",
        "bilstm-attention",
        "joint",
        "lda-mouse",
        "vote",
    ],
)
def test_columns_of_a_layout_are_matched_by_name(name: str):
    shuffled = FRAME[np.random.default_rng(0).permutation(FRAME.columns)]
    one = quick(name).fit(FRAME, Y).predict_proba(FRAME)
    model = quick(name).fit(shuffled, Y)
    np.testing.assert_array_equal(model.predict_proba(shuffled), one)
    np.testing.assert_array_equal(model.predict_proba(FRAME), one)
    assert list(model.feature_names_in_) == list(SMALL.feature_names)
    assert model.n_features_in_ == len(SMALL.features)


def test_what_was_fitted_on_an_array_knows_the_names_of_its_layout(recwarn):
    model = quick("lda").fit(FRAME.to_numpy(), Y)
    np.testing.assert_array_equal(model.predict(FRAME[FRAME.columns[::-1]]), model.predict(FRAME))
    assert not recwarn.list


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        (FRAME.drop(columns=["spike_0", "spike_3"]), r"has no column 'spike_0' and 1 more"),
        (FRAME.assign(depth=1.0), r"has a column that is no feature: 'depth'; give a column"),
        (pd.concat([FRAME, FRAME[["spike_0"]]], axis=1), "two columns of the table have one name"),
        (FRAME.to_numpy()[:, :3], r"shape \(100, 3\), layout 'small' has 21 columns"),
    ],
)
def test_other_columns_than_those_of_the_layout_are_refused(frame, what: str):
    model = quick("lda")
    with pytest.raises(ModelError, match=what):
        model.fit(frame, Y)
    model.fit(FRAME, Y)
    with pytest.raises(ValueError, match=r"features|column"):
        model.predict(frame)
    assert isinstance(ModelError("as scikit-learn's are"), ValueError)


def test_calibrated_ones_match_everything_they_are_asked():
    model = quick("lda", calibrated=True).fit(FRAME, Y, groups=DONORS)
    other = FRAME[FRAME.columns[::-1]]
    for one, two in zip(model.judge(FRAME), model.judge(other), strict=True):
        np.testing.assert_array_equal(one, two)
    for ask in (model.calibrated, model.enough, model.predict, model.predict_proba):
        np.testing.assert_array_equal(ask(FRAME), ask(other))
        with pytest.raises(ModelError, match="no column 'subthreshold_0'"):
            ask(FRAME.drop(columns="subthreshold_0"))
    with pytest.raises(NotFittedError):
        clone(model).calibrated(FRAME)


def test_a_cell_with_too_little_has_no_probabilities_but_a_likeliest_class():
    model = quick("lda", calibrated=True).fit(FRAME, Y, groups=DONORS)
    empty = FRAME[:1] * np.nan
    assert np.isnan(model.predict_proba(empty)).all()
    assert model.predict(empty) == model.classes_[model.calibrated(empty).argmax()]


def test_a_name_of_a_layout_stands_for_it_and_an_unknown_one_is_refused_at_once():
    with pytest.raises(LayoutError, match="choose from: shared"):
        crosspatch.estimator("lda", "shard")
    with pytest.raises(ModelError, match="choose from: spca-forest"):
        crosspatch.estimator("llda")


def test_settings_are_searched_one_by_one():
    model = crosspatch.estimator("bilstm-attention", SMALL)
    assert model.get_params()["training__epochs"] == TrainingSettings().epochs
    assert model.get_params()["network__attention"]
    assert "training__epochs" not in model.get_params(deep=False)
    before = model.network
    model.set_params(training__epochs=2, network__hidden=8)
    assert model.training == TrainingSettings(epochs=2)
    assert model.network == SequenceSettings(hidden=8)
    assert before == SequenceSettings(), "settings may be shared: they are never changed"
    with pytest.raises(ModelError, match=r"'training__epoch'; choose from: .*training__epochs"):
        model.set_params(training__epoch=2)
    steps = make_pipeline(StandardScaler(), model)
    grid = {"sequenceclassifier__training__epochs": [1, 2]}
    search = GridSearchCV(steps, grid, cv=2, scoring="accuracy").fit(FRAME.to_numpy(), Y)
    best = search.best_estimator_[-1]
    assert len(best.history_) == search.best_params_["sequenceclassifier__training__epochs"]


def test_candidates_and_what_they_stand_around_are_searched():
    model = crosspatch.estimator("svm", SMALL, calibrated=True)
    assert model.get_params()["default__model__C"] == 3
    model.set_params(default__model__C=1, default__copies=1, n_folds=2)
    fitted = model.fit(FRAME, Y, groups=DONORS)
    assert fitted.model_.model.C == 1


def test_donors_are_routed_to_the_folds_and_to_the_model(monkeypatch):
    seen: list[set[int]] = []

    def told(y, groups, *more):
        seen.append(set(groups))
        return inner_folds(y, groups, *more)

    monkeypatch.setattr(kernel, "inner_folds", told)
    with sklearn.config_context(enable_metadata_routing=True):
        model = make_pipeline(FunctionTransformer(), quick("svm"))
        found = cross_validate(model, FRAME, Y, cv=GroupKFold(3), params={"groups": DONORS})
    assert found["test_score"].mean() > 0.7
    assert [len(each) for each in seen] == [8, 8, 8]  # of 12 donors
    assert len(set(map(frozenset, seen))) == 3


def test_a_model_of_two_species_says_that_it_was_given_one():
    for name in ("lda-mouse", "finetune", "joint"):
        with pytest.warns(UserWarning, match="no X_source and y_source.*X and y alone"):
            quick(name).fit(FRAME, Y)
    source = FRAME[FRAME.columns[::-1]] + 1
    given = {"X_source": source, "y_source": Y, "unlabelled": FRAME[FRAME.columns[::-1]]}
    one = quick("lda-mouse").fit(FRAME, Y, **given).predict_proba(FRAME)
    arrays = {"X_source": FRAME + 1, "y_source": Y, "unlabelled": FRAME}
    np.testing.assert_array_equal(
        quick("lda-mouse").fit(FRAME, Y, **arrays).predict_proba(FRAME), one
    )
    with pytest.raises(ModelError, match="no column"):
        quick("lda-mouse").fit(FRAME, Y, X_source=source.drop(columns="spike_0"), y_source=Y)


def test_what_comes_out_has_names():
    inputs = ALL["standard inputs"].__class__(SMALL).set_output(transform="pandas")
    out = inputs.fit_transform(FRAME)
    assert list(out.columns) == [*SMALL.feature_names, *(f"has {each}" for each in SMALL.families)]
    parts = ALL["sparse PCA by family"].__class__(SMALL).set_output(transform="pandas")
    assert parts.fit_transform(FRAME).columns[0] == "subthreshold[0]"
    parts.set_params(settings__ridge=0.5)
    assert parts.settings.ridge == 0.5


def test_pickles_are_read_in_another_process(tmp_path: Path):
    models = [quick("bilstm-attention"), quick("vote", calibrated=True)]
    models[1].set_params(default__copies=1)
    expected = [model.fit(FRAME, Y).predict_proba(FRAME) for model in models]
    again = pickle.loads(pickle.dumps(models[0]))  # noqa: S301, our own
    np.testing.assert_array_equal(again.predict_proba(FRAME), expected[0])
    joblib.dump((models, FRAME), tmp_path / "models.joblib")
    code = (
        "import joblib, numpy as np; models, X = joblib.load('models.joblib'); "
        "np.save('p.npy', [each.predict_proba(X) for each in models])"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=environment)
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), expected, atol=1e-6)


def test_the_page_runs_on_the_real_tables(real_data: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CROSSPATCH_DATA", str(real_data))
    text = re.sub(r"^```.*$", "", PAGE.read_text(encoding="utf-8"), flags=re.M)
    test = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    found = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
    assert found.attempted > 30
    assert not found.failed, capsys.readouterr().out
