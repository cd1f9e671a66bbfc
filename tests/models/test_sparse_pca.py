from __future__ import annotations

import numpy as np
import pytest

from crosspatch.errors import ModelError
from crosspatch.features.layouts import Feature, Layout
from crosspatch.models.sparse_pca import (
    FamilyComponents,
    FamilySparsePCA,
    SparsePCA,
    SparsePCASettings,
)
from tests.made import SMALL, features, labels

Y = labels({"a": 40, "b": 40})


def test_more_components_than_dimensions_are_refused():
    with pytest.raises(ModelError, match="cannot give 4 components"):
        SparsePCA((1, 1, 1, 1)).fit(np.eye(3))


def test_families_are_kept_apart_z_scored_and_named():
    X = features(SMALL, Y, missing=0.0)
    model = FamilySparsePCA(SMALL).fit(X)
    Z = model.transform(X)
    assert Z.shape[1] == len(model.names_)
    np.testing.assert_allclose(Z.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(Z.std(axis=0), 1, atol=1e-9)
    changed = X.copy()
    changed[:, SMALL.columns["train"]] += 100.0
    other = [k for k, name in enumerate(model.names_) if not name.startswith("train")]
    np.testing.assert_array_equal(model.transform(changed)[:, other], Z[:, other])


def test_an_absent_family_has_absent_components():
    X = features(SMALL, Y)
    model = FamilySparsePCA(SMALL).fit(X)
    X[3, SMALL.columns["spike"]] = np.nan
    Z = model.transform(X)
    of_spike = np.array([name.startswith("spike") for name in model.names_])
    assert np.isnan(Z[3, of_spike]).all()
    assert np.isfinite(Z[3, ~of_spike]).all()


def test_components_below_a_hundredth_of_the_variance_are_left_out():
    layout = Layout("v", tuple(Feature(f"v[{k}]", "v", "mV") for k in range(6)))
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 6)) * np.array([10.0, 5.0, 3.0, 0.1, 0.1, 0.1])
    settings = SparsePCASettings({"v": FamilyComponents((3, 3, 3, 3, 3))})
    model = FamilySparsePCA(layout, settings).fit(X)
    assert model.transform(X).shape[1] == 3


def test_ordinary_pca_where_the_table_says_so():
    layout = Layout("v", tuple(Feature(f"v[{k}]", "v", "mV") for k in range(6)))
    X = np.random.default_rng(0).normal(size=(100, 6)) * np.arange(1, 7)
    settings = SparsePCASettings({"v": FamilyComponents(n_components=3)})
    Z = FamilySparsePCA(layout, settings).fit(X).transform(X)
    u = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)[0][:, :3]
    agreement = np.abs(np.corrcoef(Z.T, u.T)[:3, 3:])
    np.testing.assert_allclose(np.diag(agreement), 1, atol=1e-4)


def test_constant_and_unmeasured_features_do_no_harm():
    X = features(SMALL, Y)
    X[:, 1] = 3.0
    X[:, 2] = np.nan
    X[:, SMALL.columns["train"]] = np.nan
    model = FamilySparsePCA(SMALL).fit(X)
    assert not any(name.startswith("train") for name in model.names_)
    assert np.isfinite(model.transform(X)[SMALL.present(X)[:, :2].all(axis=1)]).all()


def test_positions_of_a_family_and_families_derived_from_it():
    layout = Layout(
        "vectors",
        tuple(Feature(f"{name}[{k}]", name, "mV") for name in ("rate", "other") for k in range(20)),
    )
    X = np.random.default_rng(0).gamma(2.0, size=(60, 40))
    families = {
        "rate": FamilyComponents((4, 4), uses=((0, 5), (10, 15))),
        "normed": FamilyComponents((4,), of="rate", per_step=10),
    }
    settings = SparsePCASettings(families=families, listed_only=True, min_variance=0.0)
    model = FamilySparsePCA(layout, settings).fit(X)
    assert {name.split("[")[0] for name in model.names_} == {"rate", "normed"}
    before = model.transform(X)
    changed = X.copy()
    changed[:, [7, 16, 25]] += 5  # unused by rate, and of a family that is not listed
    changed[:, 10:20] *= 3  # a step's scale is taken out by its maximum
    normed = np.array([name.startswith("normed") for name in model.names_])
    changed[:, [7, 16]] = X[:, [7, 16]] * [1, 3]
    np.testing.assert_allclose(model.transform(changed)[:, normed], before[:, normed])
    unused = X.copy()
    unused[:, [7, 17, 30]] += 5
    np.testing.assert_allclose(model.transform(unused)[:, ~normed], before[:, ~normed])
    assert not np.allclose(model.transform(unused)[:, normed], before[:, normed])


def test_an_infinite_ridge_keeps_the_wanted_loadings_where_cells_are_few():
    X = np.random.default_rng(0).normal(size=(20, 80)) @ np.diag(np.linspace(3, 1, 80))
    model = SparsePCA((10, 30), ridge=np.inf).fit(X)
    assert list((model.components_ != 0).sum(axis=1)) == [10, 30]
    whole = SparsePCA((80,), ridge=np.inf).fit(X)
    first = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)[2][0]
    assert abs(whole.components_[0] @ first) == pytest.approx(1, abs=1e-6)
