import numpy as np
import pytest

from crosspatch.errors import ModelError
from crosspatch.features.layouts import Feature, Layout
from crosspatch.models.alignment import MIN_CELLS, align, differs
from crosspatch.models.reference import Reference
from tests.made import SMALL, features, labels

COUNTS = {"Lamp5": 100, "Pvalb": 250, "Sst": 200, "Vip": 150}
SPREAD = 0.5


def made(y, seed):
    return features(SMALL, np.r_[list(COUNTS), y], seed, spread=SPREAD)[len(COUNTS) :]


@pytest.fixture(scope="module")
def reference():
    y = labels(COUNTS)
    return Reference(SMALL).fit(made(y, 1), y)


@pytest.fixture(scope="module")
def planted():
    shift = np.zeros(len(SMALL.features))
    shift[[0, 4, 9]] = 1.0, -0.8, 1.2
    return shift


@pytest.mark.parametrize(
    "y",
    [
        labels({"Lamp5": 15, "Pvalb": 35, "Sst": 30, "Vip": 20}),
        np.repeat("Pvalb", 80),
        np.repeat("Lamp5", 80),
        labels({"Lamp5": 40, "Sst": 40}),
    ],
    ids=["all classes", "one class", "a rare class", "two classes"],
)
class TestComposition:
    def test_planted_shift_is_found_and_taken_out(self, reference, planted, y):
        X = made(y, 2)
        moved, alignment = align(X + planted, reference)
        assert alignment.aligned
        assert alignment.why_not == ""
        np.testing.assert_allclose(alignment.shift, planted, atol=0.35)
        assert np.nanmean(np.abs(moved - X)) < 0.3 * np.abs(planted).mean() + 0.1
        assert {d.feature for d in alignment.differences} == {
            SMALL.feature_names[k] for k in (0, 4, 9)
        }

    def test_unshifted_batch_is_left_alone(self, reference, y):
        X = made(y, 3)
        moved, alignment = align(X, reference)
        np.testing.assert_array_equal(moved, X)
        assert not alignment.aligned
        assert "no feature differs" in alignment.why_not
        assert differs(X, reference) == []

    def test_proportions_are_those_of_the_batch(self, reference, planted, y):
        shares = align(made(y, 4) + planted, reference)[1].proportions
        assert sum(shares.values()) == pytest.approx(1)
        for name, share in shares.items():
            assert share == pytest.approx(np.mean(y == name), abs=0.06)


def test_missing_values_and_absent_features_stay(reference, planted):
    X = made(labels({"Pvalb": 40, "Vip": 40}), 5) + planted
    X[:, SMALL.columns["train"]] = np.nan
    X[3] = np.nan
    before = X.copy()
    moved, alignment = align(X, reference)
    assert alignment.aligned
    assert alignment.cells == 79
    np.testing.assert_array_equal(np.isnan(moved), np.isnan(before))
    np.testing.assert_array_equal(X, before)
    assert not {d.feature for d in alignment.differences} & {
        SMALL.feature_names[k] for k in SMALL.columns["train"]
    }


def test_feature_the_reference_never_had_is_not_moved(planted):
    y = labels(COUNTS)
    X = made(y, 1)
    X[:, 2] = np.nan
    batch = made(labels({"Sst": 60}), 6) + planted
    moved, alignment = align(batch, Reference(SMALL).fit(X, y))
    assert alignment.aligned
    assert alignment.shift[2] == 0
    np.testing.assert_array_equal(moved[:, 2], batch[:, 2])
    assert np.isfinite(alignment.shift).all()


def test_differences_carry_unit_and_size(reference, planted):
    found = differs(made(labels(COUNTS), 7) + planted, reference)
    assert [d.feature for d in found[:1]] == [SMALL.feature_names[9]]
    assert [abs(d.in_sd) for d in found] == sorted((abs(d.in_sd) for d in found), reverse=True)
    by_name = {feature.name: feature for feature in SMALL.features}
    for difference in found:
        assert difference.unit == by_name[difference.feature].unit
        assert np.sign(difference.shift) == np.sign(difference.in_sd)
        assert abs(difference.shift) == pytest.approx(abs(difference.in_sd) * SPREAD, rel=0.2)
        assert 0 <= difference.p < 0.05


@pytest.mark.parametrize("cells", [0, 1, MIN_CELLS - 1])
def test_tiny_batch_is_left_alone(reference, planted, cells):
    X = made(np.repeat("Sst", cells), 8) + 5 * planted
    moved, alignment = align(X, reference)
    np.testing.assert_array_equal(moved, X)
    assert not alignment.aligned
    assert f"{cells} cells" in alignment.why_not
    assert alignment.proportions == {}
    assert not alignment.shift.any()
    assert differs(X, reference) == []


def test_empty_cells_do_not_count(reference):
    X = np.full((MIN_CELLS + 5, len(SMALL.features)), np.nan)
    X[: MIN_CELLS - 1] = made(np.repeat("Vip", MIN_CELLS - 1), 9)
    assert align(X, reference)[1].cells == MIN_CELLS - 1


def test_order_of_features_does_not_matter(planted):
    """Families that are not one behind the other."""
    order = np.random.default_rng(0).permutation(len(SMALL.features))
    mixed = Layout("mixed", tuple(SMALL.features[k] for k in order))
    y = labels(COUNTS)
    batch = made(np.repeat("Pvalb", 60), 10) + planted
    straight = align(batch, Reference(SMALL).fit(made(y, 1), y))[1]
    crossed = align(batch[:, order], Reference(mixed).fit(made(y, 1)[:, order], y))[1]
    np.testing.assert_allclose(crossed.shift, straight.shift[order], atol=1e-6)
    names = [{d.feature for d in alignment.differences} for alignment in (crossed, straight)]
    assert names[0] == names[1]


def test_traces_cannot_be_aligned():
    layout = Layout("traces", tuple(Feature(f"v[{k}]", "v", "mV") for k in range(30)))
    y = labels({"Pvalb": 20, "Sst": 20})
    X = np.random.default_rng(0).normal(size=(40, 30))
    reference = Reference(layout).fit(X, y)
    for work in (align, differs):
        with pytest.raises(ModelError, match="single numbers"):
            work(X, reference)


@pytest.mark.parametrize("shape", [(12, 20), (21,)])
def test_other_number_of_features_is_refused(reference, shape):
    with pytest.raises(ModelError, match="21 features"):
        align(np.zeros(shape), reference)
