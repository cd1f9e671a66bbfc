"""Physics inputs, normal distributions of cells that lack values, and the models on them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from crosspatch.features.layouts import Feature, Layout, load_layout
from crosspatch.models import gaussian
from crosspatch.models.discriminant import LinearDiscriminant, VoteClassifier
from crosspatch.models.gaussian import Gaussians
from crosspatch.models.physics import PhysicsInputs, derived_from

SHARED = load_layout("shared")
FULL = load_layout("full")


def one_cell(**features: float) -> np.ndarray:
    return np.array([[features.get(name, np.nan) for name in SHARED.feature_names]])


def derived(**features: float) -> dict[str, float]:
    """What follows from the features of a cell."""
    inputs = PhysicsInputs.fit(SHARED, one_cell(**features))
    return dict(zip(inputs.names, inputs._raw(one_cell(**features))[0].tolist(), strict=True))


def test_physics_follow_from_the_features():
    found = derived(
        tau=20.0, input_resistance=200.0, rheobase_i=100.0, v_baseline=-70.0, threshold_v_rheo=-40.0
    )
    assert found["capacitance"] == pytest.approx(0.1)  # ms / MOhm: nF
    assert found["rheobase_v"] == pytest.approx(20.0)  # mV
    assert found["drive"] == pytest.approx(30.0)
    assert found["excess_drive"] == pytest.approx(-10.0)
    assert found["drive_ratio"] == pytest.approx(2 / 3)


def test_what_cannot_follow_is_missing():
    found = derived(tau=20.0, input_resistance=-800.0, v_baseline=-70.0)
    assert np.isnan(found["capacitance"])  # of a resistance that is none
    assert np.isnan(found["drive"])  # no threshold


def test_every_layout_has_what_its_features_allow():
    assert len(derived_from(FULL)) > len(derived_from(SHARED)) > 20
    own = Layout("own", (Feature("tau", "a", "ms"), Feature("mine", "b", "mV")))
    assert derived_from(own) == ()
    two = Layout("two", (Feature("tau", "a", "ms"), Feature("input_resistance", "b", "MOhm")))
    assert [each.name for each in derived_from(two)] == ["capacitance"]


def test_a_cell_at_a_border_is_in_both_layers():
    layout = Layout("own", (Feature("tau", "a", "ms"),)).with_layer()
    cells = np.array([[20.0, 2.5], [20.0, 5.0], [20.0, np.nan]])
    inputs = PhysicsInputs.fit(layout, cells)
    assert inputs.names == ("tau", *(f"layer {k}" for k in range(1, 7)))
    found = inputs._raw(cells)[:, 1:]
    np.testing.assert_array_equal(found[0], [0, 0.5, 0.5, 0, 0, 0])
    np.testing.assert_array_equal(found[1], [0, 0, 0, 0, 1, 0])
    assert np.isnan(found[2]).all()


def test_scores_are_normal_and_keep_the_order():
    own = Layout("own", (Feature("x", "a", "mV"),))
    values = np.random.default_rng(0).lognormal(size=(2000, 1))
    scores = PhysicsInputs.fit(own, values).transform(values)[:, 0]
    assert scores[np.argsort(values[:, 0])].tolist() == sorted(scores)
    assert abs(scores.mean()) < 0.01
    assert scores.std() == pytest.approx(1, abs=0.02)


def test_a_value_never_measured_has_no_score():
    values = one_cell(tau=20.0).repeat(9, axis=0)
    values[:, 0] = np.arange(9)
    scores = PhysicsInputs.fit(SHARED, values).transform(values)
    assert np.isfinite(scores[:, 0]).all()
    assert np.isnan(scores[:, 1]).all()


def gaps(rng: np.random.Generator, shape: tuple[int, int], share: float = 0.3) -> np.ndarray:
    return rng.random(shape) < share


@pytest.mark.parametrize("few", [0, 10_000])
def test_missing_values_are_marginalised(few: int, monkeypatch):
    """Against SciPy's density of what is there; compiled and not."""
    monkeypatch.setattr(gaussian, "FEW", few)
    rng = np.random.default_rng(1)
    root = rng.normal(size=(6, 6))
    found = Gaussians(rng.normal(size=(3, 6)), root @ root.T + np.eye(6))
    Z = np.where(gaps(rng, (40, 6)), np.nan, rng.normal(size=(40, 6)))
    Z[20:] = np.where(gaps(rng, (20, 6), 0.7), np.nan, Z[20:])  # most are missing
    Z[0], Z[5:7], Z[[1, -1]] = np.nan, Z[7], rng.normal(size=(2, 6))
    squared, filled = found.squared_distances(Z), found.filled(Z)
    assert np.isnan(squared[0]).all()
    np.testing.assert_allclose(filled[0], found.means[0])
    for row in np.flatnonzero(np.isfinite(Z).any(axis=1)):
        there = np.isfinite(Z[row])
        inside = found.covariance[np.ix_(there, there)]
        for code, mean in enumerate(found.means[:, there]):
            density = multivariate_normal(mean, inside)
            expected = 2 * (density.logpdf(mean) - density.logpdf(Z[row, there]))
            assert squared[row, code] == pytest.approx(expected)
        weights = np.linalg.solve(inside, found.covariance[np.ix_(there, ~there)])
        rest = (Z[row] - found.means[0])[there]
        np.testing.assert_allclose(filled[row, ~there], found.means[0, ~there] + rest @ weights)
        np.testing.assert_array_equal(filled[row, there], Z[row, there])


def test_distributions_are_found_through_gaps():
    """A correlation with what is always there tells what the missing half would have been."""
    rng = np.random.default_rng(2)
    codes = rng.integers(2, size=4000)
    x = rng.normal(size=4000) + 2 * codes
    y = 0.8 * (x - 2 * codes) + 0.6 * rng.normal(size=4000) - codes
    y[(x > 0) & (rng.random(4000) < 0.6)] = np.nan  # what is left has another mean
    found = Gaussians.fit(np.stack([x, y], axis=1), codes)
    np.testing.assert_allclose(found.means, [[0, 0], [2, -1]], atol=0.15)
    assert found.covariance[0, 1] == pytest.approx(0.8, abs=0.1)


def labelled(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    y = np.array(["Pvalb", "Sst", "Vip"])[rng.integers(3, size=n)]
    centers = np.random.default_rng(4).normal(size=(3, len(SHARED.features)))
    codes = np.unique(y, return_inverse=True)[1]
    return 60 + 10 * (0.5 * centers[codes] + rng.normal(size=(n, len(SHARED.features)))), y


def test_whole_cells_are_discriminated_as_scikit_learn_does():
    own = Layout("own", tuple(Feature(f"x{k}", "a", "mV") for k in range(8)))
    X, y = labelled(20_000)  # so many that nothing is shrunk
    X = X[:, :8]
    ours = LinearDiscriminant(own, prior_power=1.0).fit(X, y)
    Z = ours.model_.inputs.transform(X)
    theirs = LinearDiscriminantAnalysis().fit(Z, y)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(Z), atol=0.01)


def test_a_class_of_two_types_need_not_lie_in_one_place():
    """A class on both sides of another: no single normal distribution finds it."""
    rng = np.random.default_rng(8)
    layout = Layout("own", (Feature("x", "a", "mV"), Feature("z", "a", "mV")))
    types = np.repeat(["low", "middle", "high"], 200)
    x = np.repeat([-4.0, 0.0, 4.0], 200) + rng.normal(size=600)
    X = np.stack([x, rng.normal(size=600)], axis=1)
    y = np.where(types == "middle", "Sst", "Vip")
    one = LinearDiscriminant(layout).fit(X, y)
    typed = LinearDiscriminant(layout).fit(X, y, types=types)
    assert (one.predict(X) == y).mean() < 0.7
    assert (typed.predict(X) == y).mean() > 0.8
    np.testing.assert_allclose(typed.predict_proba(X).sum(axis=1), 1)


def test_rare_types_of_a_class_are_one():
    X, y = labelled(90)
    types = np.char.add(y, np.arange(90).astype(str))  # as many as cells
    same, plain = LinearDiscriminant(SHARED).fit(X, y, types=types), LinearDiscriminant(SHARED)
    np.testing.assert_allclose(same.predict_proba(X), plain.fit(X, y).predict_proba(X))


@pytest.mark.parametrize("make", [LinearDiscriminant, VoteClassifier])
def test_models_do_without_features(make):
    X, y = labelled(600)
    model = make(SHARED).fit(X[:400], y[:400])
    gone = np.where(gaps(np.random.default_rng(5), X.shape, 0.5), np.nan, X)
    for cells, least in ((X, 0.9), (gone, 0.75)):
        p = model.predict_proba(cells[400:])
        np.testing.assert_allclose(p.sum(axis=1), 1)
        assert (model.predict(cells[400:]) == y[400:]).mean() > least


@pytest.mark.parametrize("make", [LinearDiscriminant, VoteClassifier])
def test_layers_are_used_where_they_are_known(make):
    X, y = labelled(600)
    X[:, :] = np.random.default_rng(7).normal(size=X.shape)  # that tell nothing
    layer = np.select([y == "Vip", y == "Sst"], [2.5, 5.0], np.nan)[:, None]
    model = make(SHARED.with_layer()).fit(np.hstack([X, layer]), y)
    known = y != "Pvalb"
    assert (model.predict(np.hstack([X, layer]))[known] == y[known]).mean() > 0.95
    without = model.predict_proba(np.hstack([X, np.full_like(layer, np.nan)]))
    np.testing.assert_allclose(without.sum(axis=1), 1)


@pytest.mark.parametrize("make", [LinearDiscriminant, VoteClassifier])
def test_absence_tells_nothing(make):
    """A feature that one class always lacks in training, and that says nothing, is no evidence."""
    X, y = labelled(600)
    column = SHARED.feature_names.index("fast_trough_deltav_short_square")
    X[:, column] = np.random.default_rng(6).normal(size=len(X))
    taught = X.copy()
    taught[y == "Vip", column] = np.nan
    model = make(SHARED).fit(taught[:400], y[:400])
    tested = X[400:].copy()
    with_it = model.predict_proba(tested)
    tested[:, column] = np.nan
    without = model.predict_proba(tested)
    vip = list(model.classes_).index("Vip")
    assert abs((without - with_it)[:, vip].mean()) < 0.05
