"""T-types: named where they can be told apart, and with probabilities that hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosspatch.errors import ModelError
from crosspatch.features.layouts import load_layout
from crosspatch.models.discriminant import LinearDiscriminant
from crosspatch.models.t_type_fitting import fit_t_types
from crosspatch.models.t_types import TTypes

SHARED = load_layout("shared")
# Of Sst two types that features tell apart, and two that they do not; of Vip one, and rare ones.
COUNTS = {
    "Sst Chodl": 60,
    "Sst Hpse": 60,
    "Sst Calb2": 50,
    "Sst Tac1": 50,
    "Vip Chat": 60,
    "Vip A": 5,
    "Vip B": 5,
}


def made(seed: int = 0):
    """Cells, their subclasses, donors and t-types."""
    types = np.repeat(list(COUNTS), list(COUNTS.values()))
    alike = np.where(types == "Sst Tac1", "Sst Calb2", types)
    centres = np.random.default_rng(1).normal(size=(len(COUNTS), len(SHARED.features)))
    rng = np.random.default_rng(seed)
    X = centres[np.unique(alike, return_inverse=True)[1]]
    X = X + 0.5 * rng.normal(size=(len(types), X.shape[1]))
    y = np.array([name.split()[0] for name in types])
    return X, y, rng.integers(40, size=len(y)).astype(str), types


@pytest.fixture(scope="module")
def fitted():
    X, y, donors, types = made()
    found, scores = fit_t_types(SHARED, X, y, donors, types, taxonomy="made up", seed=0)
    return found, scores, LinearDiscriminant(SHARED).fit(X, y, types=types).model_


def told(fitted, X, y):
    """What is said of cells of these subclasses."""
    found, _, model = fitted
    codes = np.searchsorted(["Sst", "Vip"], y)
    scores = model.type_scores(model.inputs.transform(X))
    allowed = model.class_of == codes[:, None]
    return found.of(scores, np.isfinite(X).mean(axis=1), allowed, np.ones(len(X)))


def test_what_can_be_told_apart_is_named_and_what_cannot_is_not(fitted):
    X, y, _, types = made(seed=5)
    found = told(fitted, X, y)
    apart = np.isin(types, ["Sst Chodl", "Sst Hpse", "Vip Chat"])
    assert found.named[apart].mean() > 0.9
    assert (found.best[found.named] == types[found.named]).mean() > 0.95
    alike = np.isin(types, ["Sst Calb2", "Sst Tac1"])
    assert not found.named[alike].any()
    # Either of both, with about the same probability.
    assert set(found.best[alike]) | set(found.runner_up[alike]) == {"Sst Calb2", "Sst Tac1"}
    np.testing.assert_allclose(found.probability[alike].mean(), 0.5, atol=0.1)
    assert fitted[1].right > 0.9
    assert fitted[1].cells == len(y)


def test_a_cell_with_nothing_measured_is_not_named(fitted):
    X, y, _, _ = made(seed=6)
    X[:, 1:] = np.nan
    found = told(fitted, X, y)
    assert found.named[y == "Sst"].mean() < 0.05


def test_types_are_of_the_subclass_that_is_given_and_no_more_probable(fitted):
    X, y, _, _ = made(seed=7)
    model, other = fitted[2], np.full(len(y), "Vip")
    assert set(told(fitted, X, other).best) == {"Vip Chat"}  # the rare ones have no name
    assert set(told(fitted, X, other).runner_up) == {""}
    scores = model.type_scores(model.inputs.transform(X))
    allowed = model.class_of == np.searchsorted(["Sst", "Vip"], y)[:, None]
    found = fitted[0].of(scores, np.ones(len(X)), allowed, np.full(len(X), 0.6))
    assert found.probability.max() <= 0.6
    assert not found.named.any()


def test_classes_without_types_of_their_own_have_none_that_is_named(fitted):
    X, _, donors, _ = made()
    noise = np.random.default_rng(3).permutation(["a", "b", "c"] * 100)[: len(X)]
    y = np.where(np.arange(len(X)) % 2, "Sst", "Vip")
    found, scores = fit_t_types(SHARED, X, y, donors, noise, taxonomy="made up", seed=0)
    assert found.limit > 1
    assert scores.named == 0


def test_what_is_stored_comes_back_and_what_is_damaged_does_not(fitted):
    found = fitted[0]
    arrays = found.arrays()
    again = TTypes.of_arrays(len(found.names), arrays)
    for name, array in again.arrays().items():
        np.testing.assert_array_equal(array, arrays[name])
    for wrong in (
        replace(found, names=found.names[:-1]),
        replace(found, names=np.zeros(len(found.names))),
        replace(found, labels=-found.labels),
        replace(found, shares=found.shares[::-1]),
        replace(found, limit=np.array(np.nan)),
    ):
        with pytest.raises(ModelError, match="its t-types"):
            TTypes.of_arrays(len(found.names), wrong.arrays())
