"""Sparse PCA against the R package elasticnet and against its own definition."""

from __future__ import annotations

import io

import numpy as np
import pytest
from scipy.linalg import sqrtm

from crosspatch.models.sparse_pca import SparsePCA

# Correlations of 13 properties of pit props (Jeffers 1967), the example of Zou et al. 2006.
PIT_PROPS = """
1      .954  .364  .342 -.129  .313  .496  .424  .592  .545  .084 -.019  .134
.954  1      .297  .284 -.118  .291  .503  .419  .648  .569  .076 -.036  .144
.364  .297  1      .882 -.148  .153 -.029 -.054  .125 -.081  .162  .220  .126
.342  .284  .882  1      .220  .381  .174 -.059  .137 -.014  .097  .169  .015
-.129 -.118 -.148  .220  1      .364  .296  .004 -.039  .037 -.091 -.145 -.208
.313  .291  .153  .381  .364  1      .813  .090  .211  .274 -.036  .024 -.329
.496  .503 -.029  .174  .296  .813  1      .372  .465  .679 -.113 -.232 -.424
.424  .419 -.054 -.059  .004  .090  .372  1      .482  .557  .061 -.357 -.202
.592  .648  .125  .137 -.039  .211  .465  .482  1      .526  .085 -.127 -.076
.545  .569 -.081 -.014  .037  .274  .679  .557  .526  1     -.319 -.368 -.291
.084  .076  .162  .097 -.091 -.036 -.113  .061  .085 -.319  1      .029  .007
-.019 -.036  .220  .169 -.145  .024 -.232 -.357 -.127 -.368  .029  1      .184
.134  .144  .126  .015 -.208 -.329 -.424 -.202 -.076 -.291  .007  .184  1
"""

# Loadings from elasticnet::spca(pitprops, K = 6, para = c(7, 4, 4, 1, 1, 1), type = "Gram",
# sparse = "varnum") in R, as given with the AllenInstitute/drcme repository.
IN_R = {
    0: {
        0: -0.477487846,
        1: -0.469140900,
        4: 0.179796339,
        6: -0.289849248,
        7: -0.342533766,
        8: -0.413871779,
        9: -0.383345316,
    },
    1: {0: 0.002735770, 2: 0.785205834, 3: 0.618547389, 7: -0.029042064},
    2: {4: 0.655519070, 5: 0.589246310, 6: 0.469909850, 7: -0.047626335},
    3: {10: -1.0},
    4: {11: -1.0},
    5: {12: 1.0},
}


@pytest.fixture(scope="module")
def pit_props() -> np.ndarray:
    """Cells with exactly these correlations and a mean of zero."""
    root = np.real(sqrtm(np.loadtxt(io.StringIO(PIT_PROPS))))
    return np.vstack([root, -root]) / np.sqrt(2)


def test_loadings_are_those_of_the_r_package(pit_props: np.ndarray):
    found = SparsePCA((7, 4, 4, 1, 1, 1)).fit(pit_props).components_
    expected = np.zeros_like(found)
    for component, loadings in IN_R.items():
        for feature, value in loadings.items():
            expected[component, feature] = value
    expected *= np.sign((expected * found).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_all_loadings_non_zero_is_ordinary_pca():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6))
    found = SparsePCA((6, 6, 6)).fit(X)
    _, d, v = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs((found.components_ * v[:3]).sum(axis=1)), 1, atol=1e-6)
    np.testing.assert_allclose(found.adjusted_variance_ratio_, (d**2 / (d**2).sum())[:3], rtol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_each_loading_solves_its_elastic_net(seed: int):
    """Karush-Kuhn-Tucker conditions of min ‖Xα − Xβ‖² + λ‖β‖² + λ₁‖β‖₁ for the last α."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(60, 8)) @ rng.normal(size=(8, 8))
    X -= X.mean(axis=0)
    wanted = (5, 4, 2)
    model = SparsePCA(wanted, max_iter=500, tol=1e-12).fit(X)
    gram = X.T @ X
    # α is the polar factor of X'XB; at the fixed point it depends on the unscaled B, of which
    # only the direction is kept, so it is found again by regressing the directions once more.
    alpha = np.linalg.svd(X, full_matrices=False)[2][:3].T
    for _ in range(2000):
        before = alpha
        beta = model._regress(gram, alpha)
        left, _, right = np.linalg.svd(gram @ beta, full_matrices=False)
        alpha = left @ right
        if np.abs(alpha - before).max() < 1e-12:
            break
    beta = model._regress(gram, alpha)
    for k, n_nonzero in enumerate(wanted):
        active = np.flatnonzero(beta[:, k])
        assert len(active) == n_nonzero
        gradient = gram @ (alpha[:, k] - beta[:, k]) - model.ridge * beta[:, k]
        penalty = np.abs(gradient[active])
        np.testing.assert_allclose(penalty, penalty[0], rtol=1e-6)
        assert (np.sign(gradient[active]) == np.sign(beta[active, k])).all()
        assert np.abs(np.delete(gradient, active)).max(initial=0) <= penalty[0] * (1 + 1e-6)
        direction = beta[:, k] / np.linalg.norm(beta[:, k])
        assert abs(direction @ model.components_[k]) == pytest.approx(1, abs=1e-4)


def test_adjusted_variance_counts_what_earlier_components_explain_once():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5))
    X -= X.mean(axis=0)
    model = SparsePCA((3, 3, 3)).fit(X)
    explained, basis = [], np.zeros((300, 0))
    for score in model.transform(X).T:
        rest = score - basis @ (basis.T @ score)
        explained.append(rest @ rest / (X**2).sum())
        basis = np.column_stack([basis, rest / np.linalg.norm(rest)])
    np.testing.assert_allclose(model.adjusted_variance_ratio_, explained, rtol=1e-9)


def test_traces_of_collinear_points_keep_the_number_of_loadings():
    """Points of a voltage trace are all but collinear, which is where LARS may stop early."""
    rng = np.random.default_rng(2)
    time = np.linspace(0, 1, 300)
    bumps = np.exp(-((time - rng.random((12, 1))) ** 2) / 0.01)
    X = rng.normal(size=(500, 12)) @ bumps + 0.01 * rng.normal(size=(500, 300))
    wanted = (267, 233, 250)
    model = SparsePCA(wanted).fit(X)
    assert (model.components_ != 0).sum(axis=1).tolist() == list(wanted)
    assert model.adjusted_variance_ratio_.sum() > 0.5
