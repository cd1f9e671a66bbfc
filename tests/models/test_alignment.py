"""A shift of a whole batch is found and taken out, whatever its classes, and only then."""

import numpy as np
import pytest

from crosspatch.errors import ModelError
from crosspatch.features.layouts import Layout
from crosspatch.models.alignment import MIN_CELLS, Labelled, align
from crosspatch.models.laboratory import Laboratory
from tests.made import SMALL, features, labels

COUNTS = {"Lamp5": 100, "Pvalb": 250, "Sst": 200, "Vip": 150}
SPREAD = 0.5
#: What can only be positive, and is taken as a logarithm.
POSITIVE = np.array([feature.unit in ("ms", "pA") for feature in SMALL.features])


def made(y, seed):
    X = features(SMALL, np.r_[list(COUNTS), y], seed, spread=SPREAD)[len(COUNTS) :]
    return np.where(POSITIVE, np.exp(X), X)


def shifted(X, shift):
    """Moved by a shift of logarithms, or of what is taken as it is."""
    return np.where(POSITIVE, X * np.exp(shift), X + shift)


@pytest.fixture(scope="module")
def laboratory():
    y = labels(COUNTS)
    return Laboratory.fit(SMALL, made(y, 1), y, y)


@pytest.fixture(scope="module")
def planted():
    return np.random.default_rng(3).normal(size=len(SMALL.features))


MIXES = {
    "all classes": labels({"Lamp5": 15, "Pvalb": 35, "Sst": 30, "Vip": 20}),
    "a rare class above all": labels({"Lamp5": 40, "Pvalb": 8, "Sst": 6, "Vip": 6}),
    "two classes": labels({"Lamp5": 40, "Sst": 40}),
    "few": labels({"Pvalb": 8, "Sst": 7, "Vip": 6}),
}


@pytest.mark.parametrize("y", MIXES.values(), ids=MIXES)
class TestComposition:
    def test_planted_shift_is_found_and_taken_out(self, laboratory, planted, y):
        X = made(y, 2)
        how = align(shifted(X, planted), laboratory)
        assert how.moves
        assert how.unlike
        rest = how.shift * laboratory.scale - planted
        drawn = np.abs(planted) * 2 / (1 + len(y))  # as by a cell that is not shifted
        assert (np.abs(rest) < 4 * SPREAD / np.sqrt(len(y)) + drawn + 0.1).all()
        moved = how.moved(shifted(X, planted))
        off = np.where(POSITIVE, np.log(np.where(POSITIVE, moved / X, 1)), moved - X)
        assert np.nanmax(np.abs(off)) == pytest.approx(np.abs(rest).max())

    def test_an_unshifted_batch_is_left_alone(self, laboratory, y):
        X = made(y, 3)
        how = align(X, laboratory)
        assert not how.moves
        assert not how.unlike
        assert "not shifted" in how.why_not
        np.testing.assert_array_equal(how.moved(X), X)

    def test_proportions_are_those_of_the_batch(self, laboratory, planted, y):
        found = align(shifted(made(y, 4), planted), laboratory).proportions
        assert found.sum() == pytest.approx(1)
        np.testing.assert_allclose(found, [np.mean(y == name) for name in COUNTS], atol=0.1)


def test_one_class_alone_is_not_moved_unless_some_of_it_are_labelled(laboratory, planted):
    X = shifted(made(np.repeat("Pvalb", 60), 5), planted)
    how = align(X, laboratory)
    assert not how.moves
    assert "one class" in how.why_not
    known = Labelled(shifted(made(np.repeat("Pvalb", 3), 6), planted), np.repeat(1, 3))
    assert align(X, laboratory, labelled=known).moves


def test_a_few_labelled_cells_are_enough(laboratory, planted):
    y = np.repeat(list(COUNTS), 3)
    own = Labelled(shifted(made(y, 13), planted), np.repeat(range(4), 3))
    X = shifted(made(labels({"Vip": 1}), 14), planted)
    assert not align(X, laboratory).moves
    how = align(X, laboratory, labelled=own)
    assert how.moves
    assert np.abs(how.shift * laboratory.scale - planted).max() < 2 * SPREAD


def test_cells_of_another_kind_have_no_say(laboratory, planted):
    X = made(MIXES["all classes"], 7)
    others = 3 + np.abs(made(np.repeat("Vip", 40), 8))
    both, counted = np.vstack([X, others]), np.arange(140) < 100
    assert align(both, laboratory, counted=counted).gain == align(X, laboratory).gain
    assert align(both, laboratory, counted=counted).cells == 100
    moved = align(shifted(both, planted), laboratory, counted=np.arange(140) < 60)
    assert not moved.moves
    assert "most of them" in moved.why_not


def test_labelled_cells_show_where_a_class_is(laboratory):
    """A class that is elsewhere in this laboratory is told by labelled cells, and only by them."""
    y = labels({"Sst": 60, "Vip": 60})
    elsewhere = np.where((y == "Vip")[:, None], 0.6, 0.0) * np.ones(len(SMALL.features))
    X = shifted(made(y, 9), elsewhere)
    mine = np.concatenate([np.flatnonzero(y == name)[:30] for name in ("Sst", "Vip")])
    codes = np.searchsorted(list(COUNTS), y[mine])
    how = align(X, laboratory, labelled=Labelled(X[mine], codes))
    evidence = how.evidence(how.moved(X))
    assert evidence is not None
    assert evidence.shape == (120, 4)
    assert np.median(evidence[y == "Vip", 3] - evidence[y == "Vip", 2]) > 1
    assert align(X, laboratory).evidence(X) is None


def test_missing_values_and_absent_features_stay(laboratory, planted):
    X = shifted(made(labels({"Pvalb": 40, "Vip": 40}), 5), planted)
    X[:, SMALL.columns["train"]] = np.nan
    X[3] = np.nan
    X[4, POSITIVE] = -1.0  # a failed measurement, which has no logarithm
    before = X.copy()
    how = align(X, laboratory)
    assert how.moves
    assert how.cells == 79
    moved = how.moved(X)
    np.testing.assert_array_equal(np.isnan(moved), np.isnan(before))
    np.testing.assert_array_equal(X, before)
    known = np.isfinite(before[4]) & POSITIVE
    np.testing.assert_array_equal(moved[4, known], before[4, known])
    assert not how.shift[SMALL.columns["train"]].any()


def test_where_cells_lie_is_not_moved(laboratory, planted):
    X = np.column_stack([shifted(made(MIXES["all classes"], 5), planted), np.full(100, 2.5)])
    moved = align(X, laboratory).moved(X)
    np.testing.assert_array_equal(moved[:, -1], X[:, -1])


def test_differences_are_factors_and_potentials(laboratory):
    shift = np.zeros(len(SMALL.features))
    shift[[0, 1, 9]] = 1.5, np.log(3), -1.2  # mV, ms, ms
    how = align(shifted(made(labels(COUNTS), 7), shift), laboratory)
    found = {each.feature: each for each in how.differences()}
    assert set(found) == {SMALL.feature_names[k] for k in (0, 1, 9)}
    assert found[SMALL.feature_names[1]].amount == pytest.approx(3, rel=0.1)
    assert str(found[SMALL.feature_names[0]]).startswith(f"{SMALL.feature_names[0]} +1.")
    assert str(found[SMALL.feature_names[0]]).endswith(" mV")
    assert str(found[SMALL.feature_names[9]]).startswith(f"{SMALL.feature_names[9]} ×0.")
    sizes = [abs(each.in_sd) for each in how.differences()]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("cells", [0, 1, MIN_CELLS - 1])
def test_a_tiny_batch_is_left_alone(laboratory, planted, cells):
    X = np.full((cells + 5, len(SMALL.features)), np.nan)
    X[:cells] = shifted(made(labels({"Sst": cells}), 8), 5 * planted)
    how = align(X, laboratory)
    assert not how.moves
    assert f"{cells} cells" in how.why_not
    np.testing.assert_array_equal(how.moved(X), X)


def test_many_cells_are_moved_as_those_that_were_looked_at(laboratory, planted):
    y = np.sort(labels({name: 20 * n for name, n in COUNTS.items()}))  # class after class
    how = align(shifted(made(y, 11), planted), laboratory)
    assert how.cells == 2000
    np.testing.assert_allclose(how.proportions, [n / 700 for n in COUNTS.values()], atol=0.02)


def test_types_are_told_apart(planted):
    """A class of two types, of which a batch holds one, is no shift of that class."""
    y = labels(COUNTS)
    types = np.where((y == "Pvalb") & (np.arange(len(y)) % 2 == 0), "other", y)
    away = np.where((types == "other")[:, None], 2.0, 0.0)
    X = shifted(made(y, 1), away)
    laboratory = Laboratory.fit(SMALL, X, y, types)
    assert len(laboratory.class_of) == 5
    batch = shifted(made(MIXES["all classes"], 12), 0.0)
    assert not align(batch, laboratory).moves


def test_what_is_stored_is_what_was_learnt(laboratory, planted):
    again = Laboratory.of_arrays(SMALL, 4, laboratory.arrays())
    X = shifted(made(MIXES["all classes"], 2), planted)
    np.testing.assert_array_equal(align(X, again).shift, align(X, laboratory).shift)
    for name, wrong in (("scale", laboratory.scale[1:]), ("shares", -laboratory.shares)):
        with pytest.raises(ModelError, match="laboratory"):
            Laboratory.of_arrays(SMALL, 4, laboratory.arrays() | {name: wrong})


def test_order_of_features_does_not_matter(laboratory, planted):
    """Families that are not one behind the other."""
    order = np.random.default_rng(0).permutation(len(SMALL.features))
    mixed = Layout("mixed", tuple(SMALL.features[k] for k in order))
    y = labels(COUNTS)
    crossed = Laboratory.fit(mixed, made(y, 1)[:, order], y, y)
    batch = shifted(made(MIXES["two classes"], 10), planted)
    found = align(batch[:, order], crossed).shift
    np.testing.assert_allclose(found, align(batch, laboratory).shift[order], atol=1e-6)


@pytest.mark.parametrize("shape", [(12, 20), (21,)])
def test_other_number_of_features_is_refused(laboratory, shape):
    with pytest.raises(ModelError, match="21 features"):
        align(np.zeros(shape), laboratory)
