from __future__ import annotations

import numpy as np
import pytest

from crosspatch.errors import EvaluationError
from crosspatch.evaluation.protocols import PROTOCOLS, TASKS, protocol_named, task_named
from crosspatch.evaluation.splits import derived_seed, make_folds
from tests.made import labels

Y = labels({"Lamp5": 30, "Pvalb": 80, "Sst": 60, "Vip": 40})
DONORS = np.random.default_rng(0).integers(40, size=len(Y)).astype(str)


def folds(protocol: str, task: str = "human", run: int = 0, seed: int = 0):
    return make_folds(Y, DONORS, PROTOCOLS[protocol], TASKS[task], run, seed)


@pytest.mark.parametrize("protocol", ["donor", "quick"])
def test_no_donor_is_on_both_sides(protocol: str):
    for run in range(3):
        for fold in folds(protocol, run=run):
            assert not set(DONORS[fold.train]) & set(DONORS[fold.test])


@pytest.mark.parametrize("protocol", ["donor", "published", "quick"])
def test_five_folds_test_every_cell_once(protocol: str):
    made = folds(protocol)
    assert len(made) == 5
    tested = np.concatenate([fold.test for fold in made])
    assert sorted(tested) == list(range(len(Y)))
    for fold in made:
        assert sorted(np.concatenate([fold.train, fold.test])) == list(range(len(Y)))
        assert set(Y[fold.test]) == set(Y[fold.train]) == set(Y)


def test_published_mouse_holds_out_a_fifth_once_a_run():
    (fold,) = folds("published", "mouse")
    assert len(fold.test) == len(Y) // 5
    shares = [np.mean(Y[fold.test] == name) for name in sorted(set(Y))]
    np.testing.assert_allclose(shares, [np.mean(n == Y) for n in sorted(set(Y))], atol=0.02)


def test_runs_and_seeds_give_other_folds_and_the_same_ones_again():
    def tested(run: int, seed: int) -> list[list[int]]:
        return [fold.test.tolist() for fold in folds("donor", run=run, seed=seed)]

    assert tested(0, 0) == tested(0, 0)
    assert tested(0, 0) != tested(1, 0)
    assert tested(0, 0) != tested(0, 1)
    seeds = [fold.seed for run in range(10) for fold in folds("donor", run=run)]
    assert len(set(seeds)) == 50


def test_both_tasks_on_human_cells_have_the_same_folds():
    for one, two in zip(folds("donor", "human"), folds("donor", "transfer"), strict=True):
        np.testing.assert_array_equal(one.test, two.test)
        assert one.seed == two.seed


def test_a_class_with_fewer_cells_than_folds_is_named():
    y = np.array(["Sst"] * 20 + ["Vip"] * 4)
    donors = np.arange(24).astype(str)
    for protocol in [PROTOCOLS[name] for name in ("donor", "quick", "published")]:
        with pytest.raises(EvaluationError, match="class 'Vip' has 4 cells, fewer than the 5"):
            make_folds(y, donors, protocol, TASKS["human"], 0, 0)


def test_a_class_of_too_few_donors_is_named():
    y = np.array(["Sst"] * 20 + ["Vip"] * 20)
    donors = np.r_[np.arange(20), np.arange(20) % 3].astype(str)
    with pytest.raises(EvaluationError, match="class 'Vip' has cells of 3 donors"):
        make_folds(y, donors, PROTOCOLS["donor"], TASKS["human"], 0, 0)
    assert len(make_folds(y, donors, PROTOCOLS["published"], TASKS["human"], 0, 0)) == 5


def test_a_fold_that_cannot_be_stratified_is_an_error_and_never_a_bad_fold():
    """Five donors have the class, but nearly all its cells and most others are of one."""
    y = np.array(["Sst"] * 12 + ["Vip"] * 8)
    donors = np.r_[np.zeros(12), 0, 0, 0, 0, 1, 2, 3, 4].astype(int).astype(str)
    for seed in range(20):
        try:
            made = make_folds(y, donors, PROTOCOLS["donor"], TASKS["human"], 0, seed)
        except EvaluationError as error:
            assert "missing from the" in str(error) or "donors" in str(error)
        else:
            assert all(set(y[fold.test]) == set(y[fold.train]) for fold in made)


def test_one_class_cannot_be_evaluated():
    with pytest.raises(EvaluationError, match="two are needed"):
        make_folds(
            np.full(20, "Sst"), np.arange(20).astype(str), PROTOCOLS["donor"], TASKS["human"], 0, 0
        )


def test_unknown_names_list_the_known_ones():
    with pytest.raises(EvaluationError, match="donor, quick, published"):
        protocol_named("loo")
    with pytest.raises(EvaluationError, match="mouse, human, transfer"):
        task_named("rat")


def test_derived_seeds_fit_every_library():
    assert all(0 <= derived_seed(0, k) < 2**31 for k in range(200))


def test_small_cohorts_are_shuffled_until_every_class_is_everywhere():
    y = labels({"Lamp5": 12, "Pvalb": 21, "Sst": 15, "Vip": 12})
    rng = np.random.default_rng(1)
    for seed in range(10):
        donors = rng.integers(22, size=len(y)).astype(str)
        for fold in make_folds(y, donors, PROTOCOLS["donor"], TASKS["human"], 0, seed):
            assert set(y[fold.test]) == set(y[fold.train]) == set(y)
            assert not set(donors[fold.train]) & set(donors[fold.test])
