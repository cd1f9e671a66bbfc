"""A discriminant with few labels, helped by cells without labels and by a second species."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from crosspatch.errors import ModelError
from crosspatch.features.layouts import Feature, Layout
from crosspatch.models.discriminant import LinearDiscriminant
from crosspatch.models.informed import ClassMeans, InformedDiscriminant, UnlabelledDiscriminant

WIDE = Layout("wide", tuple(Feature(f"x{k}", "a", "mV") for k in range(12)))
CENTERS = np.random.default_rng(0).normal(size=(3, 12))


def cells(
    n: int, seed: int, centers=CENTERS, shares=(1 / 3, 1 / 3, 1 / 3)
) -> tuple[np.ndarray, np.ndarray]:
    """So many cells of three classes."""
    rng = np.random.default_rng(seed)
    codes = rng.choice(3, size=n, p=shares)
    return 50 + 9 * (centers[codes] + 1.4 * rng.normal(size=(n, 12))), np.array(list("abc"))[codes]


def few(X, y, each: int) -> tuple[np.ndarray, np.ndarray]:
    """The first cells of each class."""
    rows = np.concatenate([np.flatnonzero(y == name)[:each] for name in "abc"])
    return X[rows], y[rows]


def accuracy(model, X, y) -> float:
    return float((model.predict(X) == y).mean())


def test_expected_means_are_those_of_the_whole_normal_distribution():
    """Against the posterior of all means at once, a with a very wide prior."""
    rng = np.random.default_rng(1)
    size, classes = 3, 4
    root = rng.normal(size=(size, size))
    covariance = root @ root.T + np.eye(size)
    contrasts = rng.normal(size=(classes, size))
    contrasts -= contrasts.mean(axis=0)
    means, counts = rng.normal(size=(classes, size)), np.array([2.0, 5.0, 9.0, 3.5])
    rho, spread, noise = 0.6, 0.4, 0.8
    prior = np.kron(np.full((classes, classes), 1e7) + spread * np.eye(classes), covariance)
    seen = np.kron(np.diag(noise / counts), covariance)
    expected = (rho * contrasts).ravel()
    gain = prior @ np.linalg.inv(prior + seen)
    whole = expected + gain @ (means.ravel() - expected)
    found = ClassMeans(contrasts, rho, spread, noise)(means, counts)
    np.testing.assert_allclose(found.ravel(), whole, atol=1e-4)


def test_rho_and_spread_are_the_likeliest():
    """No other pair makes the means of cells likelier, a with a very wide prior."""
    rng = np.random.default_rng(2)
    size, classes = 12, 4
    contrasts = rng.normal(size=(classes, size))
    contrasts -= contrasts.mean(axis=0)
    counts = np.array([5.0, 8.0, 5.0, 20.0])
    true = rng.normal(size=size) + 0.7 * contrasts + 0.6 * rng.normal(size=(classes, size))
    means = true + rng.normal(size=true.shape) / np.sqrt(counts)[:, None]
    found = ClassMeans.likeliest(contrasts, means, counts, np.eye(size), noise=1.0)

    def likelihood(rho: float, spread: float) -> float:
        among = np.full((classes, classes), 1e4) + np.diag(spread + 1 / counts)
        rest = means - rho * contrasts
        return sum(multivariate_normal.logpdf(each, cov=among) for each in rest.T)

    best = likelihood(found.rho, found.spread)
    assert found.rho == pytest.approx(0.7, abs=0.2)
    for rho, spread in ((0.05, 1), (-0.05, 1), (0, 1.1), (0, 0.9)):
        assert likelihood(found.rho + rho, found.spread * spread) < best


def test_a_second_species_that_opposes_is_left_alone():
    means = CENTERS - CENTERS.mean(axis=0)
    found = ClassMeans.likeliest(-means, means, np.full(3, 5.0), np.eye(12), noise=1.0)
    assert found.rho == 0


def test_many_labelled_cells_outweigh_everything_else():
    X, y = cells(20_000, 3)
    theirs = cells(3_000, 4, CENTERS[[1, 2, 0]])  # another species altogether
    expected = LinearDiscriminant(WIDE).fit(X, y).predict_proba(X[:500])
    models = UnlabelledDiscriminant(WIDE).fit(X, y), InformedDiscriminant(WIDE).fit(X, y, *theirs)
    for model in models:
        found = model.predict_proba(X[:500])
        np.testing.assert_allclose(found, expected, atol=0.1)
        assert (found.argmax(1) == expected.argmax(1)).mean() > 0.98


def test_a_second_species_that_is_alike_helps_few_labels():
    X, y = cells(3_000, 5)
    labelled, tested = few(X, y, 3), (X[1000:], y[1000:])
    theirs = cells(2_000, 6)
    alone = UnlabelledDiscriminant(WIDE).fit(*labelled, unlabelled=X[:300])
    helped = InformedDiscriminant(WIDE).fit(*labelled, *theirs, unlabelled=X[:300])
    most = accuracy(LinearDiscriminant(WIDE).fit(*theirs), *tested)
    assert accuracy(helped, *tested) > accuracy(alone, *tested) + 0.03
    assert accuracy(helped, *tested) > most - 0.05
    assert helped.class_means_.rho > 0.5
    assert alone.class_means_.rho == 0


def test_cells_without_labels_help_few_labels():
    X, y = cells(3_000, 7)
    labelled, tested = few(X, y, 3), (X[1000:], y[1000:])
    without = UnlabelledDiscriminant(WIDE).fit(*labelled)
    helped = UnlabelledDiscriminant(WIDE).fit(*labelled, unlabelled=X[:600])
    assert accuracy(helped, *tested) > accuracy(without, *tested) + 0.03


def test_labelled_cells_among_those_without_count_once():
    X, y = cells(200, 8)
    X[::3, 4] = np.nan
    one = UnlabelledDiscriminant(WIDE).fit(X, y)
    two = UnlabelledDiscriminant(WIDE).fit(X, y, unlabelled=X)
    np.testing.assert_array_equal(one.predict_proba(X), two.predict_proba(X))


def test_without_labels_classes_are_found_in_a_shifted_and_scaled_species():
    """Classes of other sizes, elsewhere and in other units: the target's own moments balance."""
    X, y = cells(1_500, 9, shares=(0.6, 0.25, 0.15))
    theirs = cells(2_000, 10)
    model = InformedDiscriminant(WIDE).without_labels(3 * X + 100, *theirs)
    assert model.classes_.tolist() == ["a", "b", "c"]
    by_mouse = accuracy(LinearDiscriminant(WIDE).fit(*theirs), X, y)
    assert accuracy(model, 3 * X + 100, y) > by_mouse - 0.05


def test_types_of_the_second_species_give_the_covariance_within_them():
    """Types that lie apart within a class are no spread of a cell."""
    X, y = cells(900, 11)
    X_source, y_source = cells(2_000, 12)
    types = np.char.add(y_source, np.where(np.arange(2_000) % 2, "1", "2"))
    X_source[:, 3] += 60 * (np.arange(2_000) % 2)
    labelled = few(X, y, 5)
    spread = []
    for given in (None, types):
        model = InformedDiscriminant(WIDE).fit(*labelled, X_source, y_source, types_source=given)
        spread.append(model.model_.gaussians.covariance[3, 3])
    assert spread[1] < 0.7 * spread[0]


def test_features_that_one_species_lacks_are_no_matter():
    X, y = cells(600, 13)
    theirs = cells(600, 14)
    X[:, 2] = np.nan
    theirs[0][:, 5] = np.nan
    labelled = few(X, y, 10)
    for model in (
        InformedDiscriminant(WIDE).fit(*labelled, *theirs, unlabelled=X),
        InformedDiscriminant(WIDE).without_labels(X, *theirs),
    ):
        gaussians = model.model_.gaussians
        assert np.isfinite(gaussians.covariance).all()
        np.linalg.cholesky(gaussians.covariance)
        assert accuracy(model, X, y) > 0.6


def test_one_cell_of_each_class_is_enough():
    X, y = cells(300, 15)
    model = UnlabelledDiscriminant(WIDE).fit(*few(X, y, 1), unlabelled=X)
    assert np.isfinite(model.predict_proba(X)).all()


def test_expected_values_leave_no_false_certainty():
    """Where a value was guessed for most cells, its spread is still that of measured ones."""
    X, y = cells(2_000, 16)
    whole = UnlabelledDiscriminant(WIDE).fit(X, y).model_.gaussians.covariance[6, 6]
    X[np.random.default_rng(17).random(len(X)) < 0.7, 6] = np.nan
    gaps = UnlabelledDiscriminant(WIDE).fit(X, y).model_.gaussians.covariance[6, 6]
    assert gaps > 0.9 * whole


def test_classes_of_both_species_must_be_the_same():
    X, y = cells(100, 18)
    with pytest.raises(ModelError, match="'a' is in one only"):
        InformedDiscriminant(WIDE).fit(X, y, X[y != "a"], y[y != "a"])
