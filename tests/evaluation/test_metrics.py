from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from crosspatch.errors import EvaluationError
from crosspatch.evaluation.comparison import corrected_resampled_t
from crosspatch.evaluation.metrics import confusion, scores

CLASSES = ("Lamp5", "Pvalb", "Sst")


def test_scores_by_hand():
    y = ["Lamp5", "Lamp5", "Pvalb", "Pvalb", "Pvalb", "Sst"]
    predicted = ["Lamp5", "Pvalb", "Pvalb", "Pvalb", "Sst", "Sst"]
    found = scores(y, predicted, CLASSES)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["f1_Lamp5"] == pytest.approx(2 / 3)
    assert found["f1_Pvalb"] == pytest.approx(2 / 3)
    assert found["f1_Sst"] == pytest.approx(2 / 3)
    assert found["macro_f1"] == pytest.approx(2 / 3)
    assert found["balanced_accuracy"] == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)
    assert confusion(y, predicted, CLASSES).tolist() == [[1, 1, 0], [0, 2, 1], [0, 0, 1]]


def test_a_class_that_is_never_predicted_counts_as_zero():
    found = scores(["Lamp5", "Sst"], ["Sst", "Sst"], CLASSES[::2])
    assert found["f1_Lamp5"] == 0
    assert found["macro_f1"] == pytest.approx((0 + 2 / 3) / 2)


def test_without_overlap_the_corrected_test_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.7, 0.05, 50), rng.normal(0.68, 0.05, 50)
    found = corrected_resampled_t(a, b, test_share=0.0)
    expected = stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert found.delta == pytest.approx((a - b).mean())
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.ci_low, found.ci_high) == pytest.approx((interval.low, interval.high))


def test_the_correction_is_that_of_nadeau_and_bengio():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.7, 0.05, 50), rng.normal(0.68, 0.05, 50)
    plain, corrected = (corrected_resampled_t(a, b, share) for share in (0.0, 0.25))
    wider = (corrected.ci_high - corrected.ci_low) / (plain.ci_high - plain.ci_low)
    assert wider == pytest.approx(np.sqrt((1 / 50 + 0.25) / (1 / 50)))
    assert corrected.p_value > plain.p_value


def test_equal_scores_are_no_difference():
    found = corrected_resampled_t([0.5, 0.6], [0.5, 0.6], 0.25)
    assert (found.delta, found.ci_low, found.ci_high, found.p_value) == (0, 0, 0, 1)


def test_unpaired_scores_are_refused():
    with pytest.raises(EvaluationError, match="same folds"):
        corrected_resampled_t([0.5, 0.6], [0.5], 0.25)


def test_a_cell_without_a_class_counts_against_its_own() -> None:
    found = scores(["a", "a", "b", "b"], ["a", "refused", "b", "b"], ["a", "b"])
    assert found["balanced_accuracy"] == pytest.approx(0.75)
    assert found["accuracy"] == pytest.approx(0.75)
