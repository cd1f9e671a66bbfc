"""Calibration, prediction sets, the test for strangers, and cells without some families."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import f1_score

from crosspatch.errors import ModelError
from crosspatch.features.layouts import Layout, load_layout
from crosspatch.models.absence import FamilyDropout, random_masks, without
from crosspatch.models.boosting import build_boosting
from crosspatch.models.calibrated import CalibratedClassifier
from crosspatch.models.calibration import GROUPS, Calibration, Held, conformal_limit
from crosspatch.models.reference import Reference
from crosspatch.models.registry import build_calibrated, model_entry
from crosspatch.models.verdicts import MINIMUM_INFORMATION
from tests import made

SHARED = load_layout("shared")
COUNTS = {"Lamp5": 120, "Pvalb": 260, "Sst": 200, "Vip": 160}


def cells(seed: int, spread: float = 2.5, donors: int = 80):
    cohort = made.cohort(counts=COUNTS, donors=donors, seed=seed, spread=spread)
    obs = cohort.obs
    return np.asarray(cohort.X), obs["subclass"].to_numpy(str), obs["donor"].to_numpy(str)


@pytest.fixture(scope="module")
def model() -> CalibratedClassifier:
    X, y, donors = cells(0)
    return build_calibrated(model_entry("logistic"), SHARED, 0).fit(X, y, groups=donors)


def test_masks_leave_something_and_take_families_and_single_features():
    masks = random_masks(SHARED, 400, np.random.default_rng(0))
    assert masks.sum(axis=1).min() >= 1
    assert 0.05 < (masks.sum(axis=1) <= 8).mean() < 0.5  # as few as a plain table has
    whole = [masks[:, columns].all(axis=1) for columns in SHARED.columns.values()]
    gone = [~masks[:, columns].any(axis=1) for columns in SHARED.columns.values()]
    for family in range(len(whole)):
        assert 0.2 < np.mean(whole[family] | gone[family]) < 0.95
        assert gone[family].mean() > 0.1


def test_traces_are_there_or_not_but_lose_no_positions():
    layout = load_layout("paper")
    masks = random_masks(layout, 20, np.random.default_rng(0))
    for columns in layout.columns.values():
        part = masks[:, columns]
        assert (part.all(axis=1) | ~part.any(axis=1)).all()


def test_cells_left_with_nothing_are_left_out():
    X = np.full((200, len(SHARED.features)), np.nan)
    X[:, SHARED.columns["ap_ramp"]] = 1.0
    masked, kept = without(X, SHARED, np.random.default_rng(0))
    assert 0 < len(masked) == len(kept) < 200
    assert np.isfinite(masked).any(axis=1).all()


def test_dropout_teaches_trees_to_do_without_families():
    X, y, _ = cells(0, spread=1.5)
    tested, truth, _ = cells(1, spread=1.5)
    for family in ("ap_ramp", "ap_short_square"):
        tested[:, SHARED.columns[family]] = np.nan
    plain = build_boosting(0).fit(X, y)
    taught = FamilyDropout(build_boosting(0), SHARED, copies=3, random_state=0).fit(X, y)
    scores = [f1_score(truth, m.predict(tested), average="macro") for m in (plain, taught)]
    assert scores[1] > scores[0] + 0.02


def test_probabilities_are_calibrated_and_sets_cover_on_new_donors(model):
    inside, confidence, right, size = [], [], [], []
    by_class: dict[str, list[float]] = {}
    for seed in range(1, 5):
        X, y, _ = cells(seed)
        found = model.judge(X)
        rows = np.flatnonzero(found.enough)
        code = np.searchsorted(model.classes_, y[rows])
        inside.append(found.sets[rows, code].mean())
        size.append(found.sets[rows].sum(axis=1).mean())
        confidence.append(found.probabilities[rows].max(axis=1).mean())
        right.append((found.probabilities[rows].argmax(axis=1) == code).mean())
        for name in COUNTS:
            of = y[rows] == name
            by_class.setdefault(name, []).append(found.class_sets[rows[of], code[of]].mean())
    assert 0.87 < np.mean(inside) < 0.94
    assert all(0.84 < np.mean(values) < 0.97 for values in by_class.values())
    assert abs(np.mean(confidence) - np.mean(right)) < 0.04
    assert 0.8 < np.mean(size) < 3


def test_true_cells_are_called_outside_as_often_as_stated_and_strangers_are_found(model):
    shares = [np.nanmean(model.judge(cells(seed)[0]).p_reference < 0.05) for seed in range(1, 5)]
    assert 0.02 < np.mean(shares) < 0.09
    X = cells(1)[0]
    strange = model.judge(X + 8 * np.random.default_rng(0).normal(size=X.shape))
    assert np.nanmean(strange.p_reference < 0.05) > 0.9


def test_cells_without_families_are_covered_too(model):
    X, y, _ = cells(1)
    masked, kept = without(X, SHARED, np.random.default_rng(3))
    found = model.judge(masked)
    code, there = np.searchsorted(model.classes_, y[kept]), found.enough
    assert there.mean() > 0.7
    assert 0.85 < found.sets[there, code[there]].mean() < 0.96
    assert found.sets[there].sum(axis=1).mean() > model.judge(X).sets.sum(axis=1).mean()


def test_a_cell_with_too_little_gets_no_class(model):
    X = cells(1)[0][:3].copy()
    one = X[1, 0]
    X[:2] = np.nan
    X[1, 0] = one  # the classes overlap far in each of the made-up features
    found = model.judge(X)
    assert found.enough.tolist() == [False, False, True]
    assert model.enough(X).tolist() == [False, False, True]
    assert np.isnan(found.probabilities[:2]).all()
    assert not found.sets[:2].any()
    assert np.isnan(found.p_reference[:2]).all()
    np.testing.assert_allclose(found.probabilities[2].sum(), 1)


def test_a_cell_is_judged_alike_in_any_company(model):
    X = cells(2)[0]
    together, alone = model.judge(X), model.judge(X[7:8])
    np.testing.assert_allclose(alone.probabilities[0], together.probabilities[7], atol=1e-12)
    assert alone.p_reference[0] == together.p_reference[7]


def test_with_a_cell_a_donor_the_limit_is_that_of_split_conformal_prediction():
    p = np.random.default_rng(0).random(99)
    # The k-th largest with k = ceil(0.9 (n + 1)): Vovk et al. 2005.
    assert conformal_limit(p, np.arange(99), 0.9) == np.sort(p)[::-1][int(np.ceil(0.9 * 100)) - 1]


def test_too_few_donors_promise_nothing():
    assert conformal_limit(np.full(500, 0.9), np.repeat(np.arange(5), 100), 0.9) == 0
    assert conformal_limit(np.array([]), np.array([]), 0.9) == 0


def test_a_donor_with_many_cells_counts_once():
    p = np.concatenate([np.linspace(0.5, 1, 50), np.full(1000, 0.01)])
    donors = np.concatenate([np.arange(50), np.full(1000, 50)])
    limit = conformal_limit(p, donors, 0.9)
    assert limit >= 0.5
    assert conformal_limit(p, np.arange(1050), 0.9) == 0.01


class Remembers(ClassifierMixin, BaseEstimator):
    """Says of a cell whether it was among its training cells."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.donors_ = set(np.asarray(X)[:, 0])
        return self

    def predict_proba(self, X):
        assert not self.donors_ & set(np.asarray(X)[:, 0])
        return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))


def test_cells_that_calibrate_are_of_donors_the_model_has_not_seen():
    X, y, donors = cells(0)
    X = np.nan_to_num(X)
    X[:, 0] = np.unique(donors, return_inverse=True)[1]  # a feature that names the donor
    model = CalibratedClassifier([("one", Remembers())], SHARED, random_state=0)
    model.fit(X, y, groups=donors)
    assert sorted(set(model.held_.rows)) == list(range(len(y)))


def test_settings_are_chosen_by_log_loss_on_cells_held_back():
    X, y, donors = cells(0)

    class Flat(Remembers):
        def predict_proba(self, X):
            return np.full((len(X), 4), 0.25)

    candidates = [("flat", Flat()), ("logistic", model_entry("logistic").build(SHARED, 0, "cpu"))]
    model = CalibratedClassifier(candidates, SHARED, random_state=0).fit(X, y, groups=donors)
    assert model.chosen_ == "logistic"
    assert model.log_loss_["flat"] == pytest.approx(np.log(4))


def test_cells_are_calibrated_apart_by_what_their_features_tell(model):
    held, found = model.held_, model.calibration_
    assert found.least == held.information.min() >= MINIMUM_INFORMATION
    counts = np.bincount(np.searchsorted(found.information, held.information, side="right") - 1)
    assert len(counts) == GROUPS
    assert counts.min() > 0.1 * len(held.rows)
    # Where all cells are alike they are one group.
    alike = held._replace(information=np.full(len(held.rows), 0.5))
    assert len(set(Calibration.fit(alike).temperature)) == 1


def rare_class(rng: np.random.Generator, n: int = 6_000) -> Held:
    """What is said of cells each of its own donor; those of the rare class look less like it."""
    codes = (rng.random(n) < 0.05).astype(np.intp)
    true = np.where(codes == 1, rng.beta(2, 3, n), rng.beta(8, 1, n))
    p = np.stack(
        [np.where(codes == 0, true, 1 - true), np.where(codes == 1, true, 1 - true)], axis=1
    )
    row, whole = np.arange(n), np.ones(n, dtype=bool)
    alike, near = np.full(n, 0.8), np.zeros(n)
    return Held(row, row * 0, whole, alike, codes, row, np.log(p), near)


def test_a_rare_class_is_covered_nearly_as_well():
    found = Calibration.fit(rare_class(np.random.default_rng(0)), 0.9)
    fresh = rare_class(np.random.default_rng(1))
    sets = found.probabilities(fresh.log_p, fresh.information) >= found.limits(fresh.information)
    covered = sets[fresh.rows, fresh.codes]
    assert 0.88 < covered.mean() < 0.92
    assert 0.82 < covered[fresh.codes == 1].mean() < 0.92
    assert found.limit[0, 1] < found.limit[0, 0]  # else fewer than half


def test_few_donors_do_not_put_their_class_into_every_set():
    held = rare_class(np.random.default_rng(0))
    few = held._replace(donors=np.where(held.codes == 1, held.donors % 6, held.donors))
    found = Calibration.fit(few, 0.9)
    assert found.limit.min() > 0
    assert found.class_limit[0, 1] == 0


def test_few_features_are_answered_with_the_sets_they_deserve(model):
    """The share of cells whose class is in the set does not depend on what was measured."""
    some = ["v_baseline", "input_resistance", "tau", "rheobase_i", "threshold_v_rheo"]
    some += ["peak_deltav_rheo", "trough_deltav_rheo", "width_rheo"]
    covered, sizes = [], []
    for seed in range(1, 5):
        X, y, _ = cells(seed)
        X[:, ~np.isin(SHARED.feature_names, some)] = np.nan
        found = model.judge(X)
        code = np.searchsorted(model.classes_, y[found.enough])
        covered.append(found.sets[found.enough, code].mean())
        sizes.append(found.sets[found.enough].sum(axis=1).mean())
        assert found.enough.mean() > 0.9
    assert 0.85 < np.mean(covered) < 0.96
    assert np.mean(sizes) > 1.5


def test_information_is_what_a_model_finds_out_of_the_class():
    """From nothing to all of it, and never less for one feature more."""
    X, y, _ = cells(0)
    reference = Reference(SHARED).fit(X, y)
    told = []
    for count in (0, 1, 4, 12, 32):
        part = np.full((1, X.shape[1]), np.nan)
        part[0, :count] = 0.0
        told.append(reference.compare(part).information[0])
    assert told[0] == 0
    assert (np.diff(told) > 0).all()
    assert told[-1] < 1
    apart = Reference(SHARED).fit(*cells(0, spread=0.2)[:2])
    assert apart.compare(np.zeros((1, X.shape[1]))).information[0] == pytest.approx(1, abs=1e-6)
    # Two classes a distance d apart on one feature: 1 - log(1 + exp(-d^2 / 8)) / log 2.
    x = np.random.default_rng(0).normal(size=(20_000, 1)) + np.repeat(
        [[0.0], [2.0]], 10_000, axis=0
    )
    one = Layout("one", SHARED.features[:1])
    found = Reference(one).fit(x, np.repeat(["a", "b"], 10_000)).compare(x[:1]).information[0]
    assert found == pytest.approx(1 - np.log2(1 + np.exp(-0.5)), abs=0.02)


def test_one_class_is_refused():
    X, y, _ = cells(0)
    with pytest.raises(ModelError, match="two classes"):
        build_calibrated(model_entry("logistic"), SHARED, 0).fit(X, np.full(len(y), "Sst"))


def test_the_reference_judges_any_set_of_features_on_one_scale(model):
    X = cells(3)[0]
    reference = model.reference_
    whole = reference.compare(X).distance
    part = X.copy()
    part[:, SHARED.columns["spike_train"]] = np.nan
    assert abs(np.nanmean(whole) - np.nanmean(reference.compare(part).distance)) < 0.5
    assert np.isnan(reference.compare(np.full((1, X.shape[1]), np.nan)).distance).all()


def test_what_is_unusual_of_a_cell_is_said_with_the_range_of_its_class(model):
    x = np.nanmedian(cells(0)[0], axis=0)
    x[SHARED.feature_names.index("tau")] = 400.0
    (said,) = model.reference_.unusual(x[None], ["Sst"]).to_pylist()
    assert said[0].startswith("tau 400 ms (Sst ")
    assert len(said) <= 3


def test_few_cells_make_no_small_p_values():
    X, y, donors = cells(0)
    few = np.concatenate([np.flatnonzero(y == name)[:8] for name in COUNTS])
    model = CalibratedClassifier(
        [("logistic", model_entry("logistic").build(SHARED, 0, "cpu"))], SHARED, random_state=0
    ).fit(X[few], y[few], groups=donors[few])
    assert model.judge(X + 1e4).p_reference.min() >= 1 / 33
