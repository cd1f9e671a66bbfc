"""What holds for every model in the registry."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils.validation import has_fit_parameter

from crosspatch.errors import ModelError
from crosspatch.models.loop import Epoch, TrainingSettings, train_network
from crosspatch.models.registry import MODEL_NAMES, model_entry
from crosspatch.models.sequence_classifier import SequenceClassifier, oversampled
from crosspatch.models.stages import TrainingCells
from crosspatch.models.transfer import FinetuneClassifier, JointClassifier
from tests.made import SMALL, features, labels

torch.set_num_threads(1)

Y = labels({"a": 60, "b": 30, "c": 20})
X = features(SMALL, Y, spread=0.4)
DONORS = np.random.default_rng(3).integers(12, size=len(Y))
TRAIN, TEST = np.arange(80), np.arange(80, len(Y))
Y_SOURCE = labels({"a": 80, "b": 80, "c": 80}, seed=1)
X_SOURCE = features(SMALL, Y_SOURCE, seed=1, spread=0.4) + 3.0


def fit(model, rows=TRAIN, y=Y):
    more = {}
    if has_fit_parameter(model, "X_source"):
        more = {"X_source": X_SOURCE, "y_source": Y_SOURCE}
    if has_fit_parameter(model, "groups"):
        more["groups"] = DONORS[rows]
    return model.fit(X[rows], y[rows], **more)


def build(name: str, seed: int = 0):
    return model_entry(name).build(SMALL, seed, "cpu")


@cache
def fitted(name: str):
    """A model of the registry; several tests ask the same one."""
    model = build(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        assert fit(model) is model
    return model


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_a_model_learns_and_keeps_scikit_learns_contract(name: str):
    model = fitted(name)
    assert model_entry(name).needs_source == has_fit_parameter(model, "X_source")
    assert model.classes_.tolist() == ["a", "b", "c"]
    probabilities = model.predict_proba(X[TEST])
    assert probabilities.shape == (len(TEST), 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert (probabilities >= 0).all()
    predicted = model.predict(X[TEST])
    np.testing.assert_array_equal(predicted, model.classes_[probabilities.argmax(axis=1)])
    assert (predicted == Y[TEST]).mean() > 0.75  # the largest class is 0.55
    again = fit(clone(model)).predict_proba(X[TEST])
    np.testing.assert_array_equal(again, probabilities)


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_a_cell_with_one_family_gets_probabilities(name: str):
    model = fitted(name)
    one = np.full((1, X.shape[1]), np.nan)
    one[0, SMALL.columns["spike"]] = X[0, SMALL.columns["spike"]]
    assert np.isfinite(model.predict_proba(one)).all()


def sequence(**changes) -> SequenceClassifier:
    return SequenceClassifier(SMALL, training=TrainingSettings(epochs=4), random_state=0, **changes)


def test_another_seed_is_another_model():
    one = fit(sequence()).predict_proba(X[TEST])
    two = fit(sequence().set_params(random_state=1)).predict_proba(X[TEST])
    assert not np.array_equal(one, two)


def test_fitting_leaves_torchs_global_seed_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(sequence())
    assert torch.equal(torch.rand(3), expected)


def test_scaling_does_not_see_cells_held_back():
    """An outlandish cell among those held back for validation leaves the inputs as they were."""
    model = fit(sequence())
    from crosspatch.models.validation import validation_split

    _, held = validation_split(np.unique(Y[TRAIN], return_inverse=True)[1], DONORS[TRAIN], 0.2, 0)
    assert len(held) > 0
    changed = X.copy()
    changed[TRAIN[held]] *= 1000
    other = sequence().fit(changed[TRAIN], Y[TRAIN], groups=DONORS[TRAIN])
    np.testing.assert_array_equal(model.inputs_.mean_, other.inputs_.mean_)


def test_donors_are_not_split_between_training_and_validation():
    from crosspatch.models.validation import inner_folds

    seen = 0
    for chosen, held in inner_folds(Y, DONORS, 5, 0):
        assert not set(DONORS[chosen]) & set(DONORS[held])
        assert set(Y[chosen]) == set(Y)
        seen += len(held)
    assert seen == len(Y)


def test_a_class_of_one_donor_cannot_be_held_back():
    from crosspatch.models.validation import inner_folds

    donors = np.where(Y == "c", 99, 0)
    with pytest.raises(ModelError, match="class"):
        list(inner_folds(Y, donors, 5, 0))


def test_attention_is_zero_where_a_family_is_absent():
    model = fit(sequence())
    weights = model.attention(X)
    assert (weights[~SMALL.present(X)] == 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)


def test_smote_balances_and_makes_no_family_up():
    values = torch.randn(30, 3, 4)
    present = torch.ones(30, 3, dtype=torch.bool)
    y = torch.tensor([0] * 24 + [1] * 6)
    present[24:, 2] = False
    values[24:, 2] = 0
    more = oversampled(TrainingCells(values, present, y), 0)
    assert torch.bincount(more.y).tolist() == [24, 24]
    assert not more.present[more.y == 1][:, 2].any()
    assert more.present[more.y == 0].all()


def test_wrong_number_of_columns_is_refused():
    model = fit(sequence())
    with pytest.raises(ValueError, match=r"X has 3 features, .* is expecting 21"):
        model.predict_proba(np.zeros((2, 3)))


def test_one_class_is_refused():
    with pytest.raises(ModelError, match="two classes"):
        sequence().fit(X[TRAIN], np.full(len(TRAIN), "a"))


def test_unknown_model_names_the_known_ones():
    with pytest.raises(ModelError, match="spca-forest, forest, boosting"):
        model_entry("transformer")


def test_source_and_target_must_have_the_same_classes():
    with pytest.raises(ModelError, match="'b' is in one only"):
        FinetuneClassifier(SMALL).fit(X, Y, X_SOURCE[Y_SOURCE != "b"], Y_SOURCE[Y_SOURCE != "b"])


@pytest.mark.parametrize("kind", [FinetuneClassifier, JointClassifier])
def test_each_species_is_standardised_by_itself_and_the_source_counts(kind):
    def probabilities(X_source: np.ndarray, y_source: np.ndarray) -> np.ndarray:
        model = kind(SMALL, training=TrainingSettings(epochs=3), random_state=0)
        return model.fit(X[TRAIN], Y[TRAIN], X_source, y_source).predict_proba(X[TEST])

    expected = probabilities(X_SOURCE, Y_SOURCE)
    np.testing.assert_allclose(probabilities(X_SOURCE * 4 + 7, Y_SOURCE), expected, atol=1e-3)
    other = probabilities(X_SOURCE, np.random.default_rng(0).permutation(Y_SOURCE))
    assert np.abs(other - expected).max() > 5e-3


def test_finetuning_trains_the_head_alone_first():
    model = FinetuneClassifier(SMALL, training=TrainingSettings(epochs=2), random_state=0)
    fit(model)
    assert list(model.history_) == ["pretrain", "head", "finetune"]
    assert [len(epochs) for epochs in model.history_.values()] == [2, 5, 2]


def toy_network() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(1, 1)


def test_training_stops_early_and_returns_to_its_best_state():
    network = toy_network()
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.2, 0.6])
    weights = []

    def score() -> float:
        weights.append(network.weight.item())
        return next(scores)

    history = train_network(
        network,
        batches=lambda: [torch.ones(1, 1)],
        loss=lambda batch: network(batch).sum(),
        score=score,
        settings=TrainingSettings(patience=3, epochs=50),
    )
    assert [epoch.score for epoch in history] == [0.1, 0.5, 0.4, 0.3, 0.2]
    assert network.weight.item() == weights[1] != weights[-1]
    assert not network.training


def test_training_clips_gradients_and_reports_progress():
    network = toy_network()
    norms: list[float] = []
    seen: list[tuple[int, Epoch]] = []

    def score() -> float:
        gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
        norms.append(torch.cat(gradients).norm().item())
        return 0.0

    train_network(
        network,
        batches=lambda: [torch.full((1, 1), 1000.0)],
        loss=lambda batch: network(batch).sum(),
        score=score,
        settings=TrainingSettings(epochs=2, max_norm=2.0),
        progress=lambda number, epoch: seen.append((number, epoch)),
    )
    assert norms == pytest.approx([2.0, 2.0], rel=1e-3)
    assert [number for number, _ in seen] == [1, 2]
