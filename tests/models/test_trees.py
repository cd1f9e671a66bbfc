"""Trees as plain arrays, against LightGBM."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from lightgbm import LGBMClassifier

from crosspatch.errors import ModelError
from crosspatch.models.arrays import FEW
from crosspatch.models.trees import Trees


def fitted(classes=4, leaves=31, missing=0.2, dtype=np.float32, seed=0):
    """LightGBM on noise, which makes odd trees, and other cells with gaps and infinite values."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(600, 9)).round(1).astype(dtype)
    X[rng.random(X.shape) < missing] = np.nan
    model = LGBMClassifier(
        n_estimators=15, num_leaves=leaves, min_child_samples=3, n_jobs=1, verbosity=-1
    ).fit(X, rng.integers(0, classes, len(X)))
    cells = rng.normal(size=(2 * FEW + 7, 9)).round(1).astype(dtype)
    cells[rng.random(cells.shape) < 0.3] = np.nan
    cells[:5] = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0])[:, None]
    return model, cells


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("classes", "leaves", "missing"),
    [(4, 31, 0.2), (2, 31, 0.2), (3, 8, 0.0), (3, 33, 0.2), (3, 64, 0.2), (3, 200, 0.3)],
)
def test_equal_to_lightgbm(classes, leaves, missing, dtype):
    model, X = fitted(classes, leaves, missing, dtype)
    trees = Trees.of(model)
    scores = model.predict_proba(X, raw_score=True).reshape(len(X), -1)
    np.testing.assert_array_equal(trees.scores(X), scores)
    for n in (1, 7, FEW):
        np.testing.assert_array_equal(trees.scores(X[:n]), scores[:n])
    np.testing.assert_allclose(trees.predict_proba(X), model.predict_proba(X), rtol=0, atol=1e-15)


def test_a_cell_on_a_threshold_goes_left_in_float32_too():
    model, _ = fitted()
    trees = Trees.of(model)
    X = np.zeros((len(trees.threshold), trees.n_features), dtype=np.float32)
    X[np.arange(len(X)), trees.feature] = trees.threshold
    X = X[np.abs(trees.threshold) > 1e-30]  # LightGBM takes 1e-35 for zero
    X = np.vstack([X, np.nextafter(X, np.float32(9)), np.nextafter(X, np.float32(-9))])
    scores = model.predict_proba(X, raw_score=True)
    np.testing.assert_array_equal(trees.scores(X), scores)


def test_a_model_without_a_split():
    model = LGBMClassifier(n_estimators=3, verbosity=-1).fit(np.zeros((60, 2)), np.arange(60) % 3)
    X = np.ones((FEW + 1, 2))
    np.testing.assert_allclose(Trees.of(model).predict_proba(X), model.predict_proba(X))


def test_trees_that_are_leaves():
    nothing = (np.zeros(0, np.int32), np.zeros(0), np.zeros(0, bool), np.zeros((0, 2), np.int32))
    leaves = np.array([0.1, 0.2, 0.3])
    trees = Trees(2, 3, *nothing, leaves, np.array([-3, -1, -2], np.int32))
    for n in (1, FEW + 1):
        np.testing.assert_array_equal(trees.scores(np.ones((n, 2))), [leaves[[2, 0, 1]]] * n)


def changed(trees, name, value, place=0):
    """The arrays of trees with one number changed."""
    array = getattr(trees, name).copy()
    array[place] = value
    return {name: array}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("feature", 9),
        ("feature", -1),
        ("threshold", np.nan),
        ("threshold", np.inf),
        ("leaf", np.inf),
        ("children", 0),  # a circle
        ("children", -1),  # a leaf of two parents
        ("children", 10**6),
        ("children", -(10**6)),
        ("root", 1),
        ("root", -(10**6)),
    ],
)
def test_what_is_not_trees_is_refused(name, value):
    trees = Trees.of(fitted()[0])
    with pytest.raises(ModelError, match="its trees"):
        replace(trees, **changed(trees, name, value))


@pytest.mark.parametrize(
    "change",
    [
        {"n_scores": 0},
        {"n_scores": 7},
        {"n_features": 3},
        {"leaf": np.zeros(0)},
        {"root": np.zeros(0, np.int32)},
        {"feature": np.zeros(3, np.int64)},
        {"children": np.zeros((0, 2), np.int32)},
        {"threshold": np.zeros((2, 2))},
    ],
)
def test_trees_of_other_sizes_are_refused(change):
    with pytest.raises(ModelError, match="its trees"):
        replace(Trees.of(fitted()[0]), **change)


def test_other_splits_are_refused():
    X = np.random.default_rng(0).normal(size=(200, 2))
    model = LGBMClassifier(n_estimators=2, zero_as_missing=True, verbosity=-1)
    with pytest.raises(ModelError, match="zero is a number"):
        Trees.of(model.fit(X, X[:, 0] > 0))
