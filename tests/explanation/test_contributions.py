"""Contributions of families: the axioms of Shapley values, missing families, many families."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from crosspatch.explanation.contributions import base_rates, contributions
from crosspatch.explanation.discriminants import discriminant_plane
from crosspatch.features.layouts import Feature, Layout
from crosspatch.models.kernel import build_logistic
from crosspatch.models.reference import Reference
from crosspatch.models.registry import ModelEntry, build_calibrated
from tests import made

SMALL = made.SMALL
FAMILIES = SMALL.families  # subthreshold, spike, train
FIRST = [int(columns[0]) for columns in SMALL.columns.values()]


class Formula:
    """Two classes; what is missing counts as zero; "train" is not looked at."""

    classes_ = np.array(["Pvalb", "Sst"])

    def predict_proba(self, X):
        a, b = (np.nan_to_num(X[:, column]) for column in FIRST[:2])
        p = 1 / (1 + np.exp(-(a + b + a * b)))
        return np.stack([p, 1 - p], axis=1)


def cells(n: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, len(SMALL.features)))


def shares(found: pd.DataFrame, cell: int, name: str) -> pd.Series:
    here = found[(found["cell"] == cell) & (found["class"] == name)]
    return here.set_index("family")["contribution"]


def test_contributions_add_up_to_what_the_model_says():
    X = cells()
    found = contributions(Formula(), X, SMALL)
    assert len(found) == len(X) * 2 * 3
    groups = found.groupby(["cell", "class"])
    total = groups["contribution"].sum()
    np.testing.assert_allclose(
        total, groups["probability"].first() - groups["base"].first(), atol=1e-12
    )
    said = groups["probability"].first().to_numpy().reshape(len(X), 2)
    np.testing.assert_allclose(said, Formula().predict_proba(X))
    np.testing.assert_allclose(
        found.groupby(["cell", "family"])["contribution"].sum(), 0, atol=1e-12
    )
    assert (found["error"] == 0).all()
    np.testing.assert_allclose(base_rates(Formula(), SMALL), 0.5)


def test_families_that_do_the_same_get_the_same_and_one_that_is_not_used_gets_nothing():
    X = cells()
    X[:, FIRST[1]] = X[:, FIRST[0]]
    found = contributions(Formula(), X, SMALL)
    for cell in range(len(X)):
        part = shares(found, cell, "Pvalb")
        assert part["subthreshold"] == pytest.approx(part["spike"], abs=1e-12)
        assert part["train"] == pytest.approx(0, abs=1e-12)


def test_a_contribution_is_the_mean_over_orders():
    X = cells(1)

    def p(a, b):
        return 1 / (1 + np.exp(-(a + b + a * b)))

    a, b = X[0, FIRST[0]], X[0, FIRST[1]]
    part = shares(contributions(Formula(), X, SMALL), 0, "Pvalb")
    expected = ((p(a, 0) - p(0, 0)) + (p(a, b) - p(0, b))) / 2
    assert part["subthreshold"] == pytest.approx(expected, abs=1e-12)


def test_families_that_a_cell_lacks_take_no_part():
    X = cells(3)
    X[1, SMALL.columns["spike"]] = np.nan
    X[2] = np.nan
    found = contributions(Formula(), X, SMALL)
    assert set(shares(found, 0, "Sst").index) == set(FAMILIES)
    assert list(shares(found, 1, "Sst").index) == ["subthreshold", "train"]
    assert found["cell"].max() == 1
    alone = contributions(Formula(), X[1:2], SMALL)
    np.testing.assert_allclose(shares(found, 1, "Sst"), shares(alone, 0, "Sst"), atol=1e-12)
    assert contributions(Formula(), X[2:], SMALL).empty


def test_many_families_are_drawn_with_a_stated_error():
    layout = Layout("many", tuple(Feature(f"f{k}", f"f{k}", "mV") for k in range(14)))

    class Products:
        classes_ = np.array(["Pvalb", "Sst"])

        def predict_proba(self, X):
            x = np.nan_to_num(X)
            p = 1 / (1 + np.exp(-(x.sum(axis=1) + x[:, 0] * x[:, 1] * x[:, 2])))
            return np.stack([p, 1 - p], axis=1)

    X = np.random.default_rng(0).normal(size=(2, 14))
    np.random.seed(3)  # noqa: NPY002, whose state a caller may rely on
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    found = contributions(Products(), X, layout, exact_up_to=13, seed=1)
    assert np.random.random() == expected  # noqa: NPY002
    again = contributions(Products(), X, layout, exact_up_to=13, seed=1)
    pd.testing.assert_frame_equal(found, again)
    exact = contributions(Products(), X, layout, exact_up_to=14)
    assert (exact["error"] == 0).all()
    assert found["error"].max() > 0
    off = np.abs(found["contribution"] - exact["contribution"])
    assert (off <= 4 * found["error"] + 1e-9).mean() > 0.95
    groups = found.groupby(["cell", "class"])
    np.testing.assert_allclose(
        groups["contribution"].sum(), groups["probability"].first() - groups["base"].first()
    )


@pytest.fixture(scope="module")
def trained():
    y = made.labels({"Lamp5": 30, "Pvalb": 60, "Sst": 50, "Vip": 40})
    X = made.features(SMALL, y)
    entry = ModelEntry("logistic", "", lambda layout, seed, device: build_logistic(layout, seed))
    model = build_calibrated(entry, SMALL, 0)
    return model.fit(X, y, groups=np.arange(len(y)) % 40), X, y


def test_a_calibrated_model_is_explained_as_it_is_used(trained):
    model, X, y = trained
    X = X[:20].copy()
    X[0] = np.nan
    X[0, 0] = 0.0  # too little for a class
    found = contributions(model, X, SMALL)
    assert 0 not in set(found["cell"])
    said = model.predict_proba(X)
    rates = dict(zip(*np.unique(y, return_counts=True), strict=True))
    for (cell, name), part in found.groupby(["cell", "class"]):
        p = said[cell, list(model.classes_).index(name)]
        assert part["probability"].iloc[0] == pytest.approx(p, abs=1e-12)
        assert part["base"].iloc[0] == pytest.approx(rates[name] / len(y))
        assert part["contribution"].sum() == pytest.approx(p - part["base"].iloc[0], abs=1e-9)


def test_where_a_cell_lies_is_seen_in_what_was_measured_on_it(trained):
    model, X, _ = trained
    reference: Reference = model.reference_
    whole = np.where(np.isfinite(X[3]), X[3], 0.0)
    plane = discriminant_plane(reference, whole)
    assert plane is not None
    assert plane.measured == len(SMALL.features)
    assert plane.shares[0] >= plane.shares[1] > 0
    # The mean of a class lies at the centre of the class, with gaps as without.
    for gap in (False, True):
        middle = reference.center_ + reference.scale_ * reference.means_[1]
        if gap:
            middle[SMALL.columns["spike"]] = np.nan
        plane = discriminant_plane(reference, middle)
        assert plane is not None
        np.testing.assert_allclose(plane.cell, plane.centres[1], atol=1e-6)
    assert discriminant_plane(reference, np.full(len(SMALL.features), np.nan)) is None


def test_two_classes_still_make_a_plane():
    y = made.labels({"Pvalb": 40, "Sst": 40})
    X = made.features(SMALL, y)
    reference = Reference(SMALL).fit(X, y)
    far = np.nanmean(X, axis=0)
    far[4] += 30
    plane = discriminant_plane(reference, far)
    assert plane is not None
    assert plane.shares == pytest.approx((1.0, 0.0), abs=1e-9)
    np.testing.assert_allclose(plane.centres[:, 1], plane.centres[0, 1], atol=1e-6)
    assert abs(plane.cell[1]) > 3
