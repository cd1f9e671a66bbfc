"""Networks trained as one stack are those that are trained one by one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import crosspatch
from crosspatch.evaluation import benchmark as benchmark_module
from crosspatch.evaluation import runner
from crosspatch.models import sequence_classifier, stacked
from crosspatch.models.loop import TrainingSettings
from crosspatch.models.sequence import SequenceSettings
from crosspatch.models.sequence_classifier import SequenceClassifier, SequenceClassifierBase
from crosspatch.models.stacked import fit_together, train_together
from crosspatch.models.stages import TrainingCells, TrainingStage
from crosspatch.models.transfer import FinetuneClassifier, JointClassifier
from tests import made
from tests.made import SMALL, features, labels

torch.set_num_threads(1)

TRAINING = TrainingSettings(epochs=8, patience=2, batch_size=16)
KINDS: dict[str, tuple[type[SequenceClassifierBase], dict[str, Any], dict[str, Any]]] = {
    "last step": (SequenceClassifier, {"attention": False}, {}),
    "attention": (SequenceClassifier, {}, {}),
    "smote": (SequenceClassifier, {}, {"oversample": True}),
    "finetune": (FinetuneClassifier, {}, {}),
    "joint": (JointClassifier, {}, {}),
}


def models(
    kind: str, dropout: float = 0.0, training: TrainingSettings = TRAINING
) -> list[SequenceClassifierBase]:
    """Four that differ in seeds."""
    made_of, of_network, more = KINDS[kind]
    network = SequenceSettings(hidden=6, attention_hidden=4, dropout=dropout, **of_network)
    how: dict[str, Any] = {"network": network, "training": training, **more}
    return [made_of(SMALL, random_state=seed, **how) for seed in range(4)]


def cells(kind: str) -> list[dict[str, np.ndarray]]:
    """What each of four is fitted on: other cells, and other numbers of them; with gaps."""
    source = {}
    if kind in ("finetune", "joint"):
        y = labels({"a": 40, "b": 40, "c": 40}, seed=1)
        source = {"X_source": features(SMALL, y, seed=1, spread=3.0) + 3, "y_source": y}
    found = []
    for seed in range(4):
        y = labels({"a": 40 + 7 * seed, "b": 30, "c": 20}, seed)
        X = features(SMALL, y, seed, spread=3.0)
        X[::7, SMALL.columns["spike"]] = np.nan
        donors = np.random.default_rng(seed).integers(12, size=len(y))
        found.append({"X": X, "y": y, "groups": donors, **source})
    return found


def in_doubles(stage: TrainingStage) -> TrainingStage:
    """The stage with so many digits that an order of additions does not show."""

    def of(part: TrainingCells) -> TrainingCells:
        return part._replace(values=part.values.double())

    stage.network.double()
    return replace(
        stage,
        cells=tuple(of(part) for part in stage.cells),
        validation=of(stage.validation),
        classes=tuple(each.double() for each in stage.classes),
    )


def begun(kind: str, dropout: float = 0.0) -> Iterator[list[TrainingStage]]:
    for model, given in zip(models(kind, dropout), cells(kind), strict=True):
        with model.started(**given) as stages:
            yield [in_doubles(stage) for stage in stages]


def assert_alike(one: list[TrainingStage], two: list[TrainingStage]) -> None:
    for first, second in zip(one, two, strict=True):
        assert len(first.history) == len(second.history)
        ours, theirs = ([astuple(each) for each in stage.history] for stage in (first, second))
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    weights = (each[-1].network.state_dict() for each in (one, two))
    assert_close(*weights, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_learns_what_its_networks_learn_one_by_one(kind: str):
    alone, together = list(begun(kind)), list(begun(kind))
    for stages in alone:
        for stage in stages:
            stage.run()
    for same in zip(*together, strict=True):
        train_together(same)
    for one, two in zip(alone, together, strict=True):
        assert_alike(one, two)
    stopped = [{len(stage.history) for stage in stages} for stages in zip(*alone, strict=True)]
    assert max(map(len, stopped)) > 1
    assert min(map(min, stopped)) < TRAINING.epochs
    first, second, *_ = (list(stages[-1].network.parameters())[-2] for stages in together)
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("kind", ["attention", "joint"])
def test_who_else_is_in_a_stack_changes_nothing_with_dropout_either(kind: str):
    many, two = list(begun(kind, dropout=0.3)), list(begun(kind, dropout=0.3))
    for stages in zip(*many, strict=True):
        train_together(stages)
    for stages in zip(*(two[k] for k in (3, 1)), strict=True):
        train_together(stages)
    for member in (3, 1):
        assert_alike(many[member], two[member])
    (without,) = (stages for k, stages in enumerate(begun(kind)) if k == 3)
    train_together(without[:1])
    assert without[0].history[0].loss != pytest.approx(many[3][0].history[0].loss, rel=1e-3)


def test_models_are_fitted_in_as_many_stacks_as_are_needed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stacked, "_MOST", 2)
    one_epoch = partial(models, "finetune", training=replace(TRAINING, epochs=1, patience=9))
    alone, together, given = one_epoch()[:3], one_epoch()[:3], cells("finetune")[:3]
    told: list[int] = []
    together[2].progress = lambda number, epoch: told.append(number)
    fit_together(together, given)
    for one, two, its in zip(alone, together, given, strict=True):
        one.fit(**its)
        assert two.classes_.tolist() == ["a", "b", "c"]
        assert list(one.history_) == list(two.history_) == ["pretrain", "head", "finetune"]
        X = its["X"]
        np.testing.assert_allclose(one.predict_proba(X), two.predict_proba(X), atol=1e-4)
    assert told == [1, 1, 2, 3, 4, 5, 1]  # the head alone is always given five


def test_what_has_no_linear_head_is_not_stacked():
    arcface = SequenceClassifier(SMALL, arcface=True)
    with pytest.raises(TypeError, match="linear heads"):
        fit_together([arcface], cells("attention")[:1])


NETWORKS = ["bilstm", "bilstm-attention-smote", "finetune", "joint"]


@pytest.fixture
def stored(
    monkeypatch: pytest.MonkeyPatch, few_epochs: None
) -> Callable[[Path], dict[str, dict[str, Any]]]:
    """Benchmarks small networks without dropout; gives what is stored of each fold."""
    small = partial(SequenceSettings, hidden=8, attention_hidden=4, dropout=0.0)
    monkeypatch.setattr(sequence_classifier, "SequenceSettings", small)
    human = made.cohort("human")
    mouse = made.cohort("mouse", {"Lamp5": 25, "Pvalb": 40, "Sst": 40, "Vip": 25}, seed=3)

    def run(out: Path) -> dict[str, dict[str, Any]]:
        result = crosspatch.benchmark(
            {"human": human, "mouse": mouse},
            tasks=["transfer"],
            models=["logistic", *NETWORKS],
            protocol="quick",
            runs=1,
            out=out,
        )
        counted = result.results.groupby("model")["n_test"].agg(["size", "sum"])
        assert set(counted.index) == {"logistic", *NETWORKS}
        assert (counted == [5, human.n_obs]).all(axis=None)
        assert (result.results["seconds"] > 0).all()
        return {file.name: json.loads(file.read_text()) for file in (out / "folds").iterdir()}

    return run


def test_a_benchmark_of_stacks_is_that_of_single_networks_and_goes_on_where_it_was(
    stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard
):
    expected = stored(tmp_path / "alone")
    sizes: list[int] = []

    def spy(several: Any, given: Any) -> None:
        sizes.append(len(several))
        fit_together(several, given)

    monkeypatch.setattr(runner, "trains_together", lambda device: True)
    monkeypatch.setattr(stacked, "fit_together", spy)
    jobs = heard(benchmark_module, "evaluate_job")

    def assert_as_expected(found: dict[str, dict[str, Any]]) -> None:
        assert found.keys() == expected.keys()
        for name, outcome in found.items():
            one, two = outcome["probabilities"], expected[name]["probabilities"]
            np.testing.assert_allclose(one, two, atol=1e-3)
            assert outcome["y"] == expected[name]["y"]

    assert_as_expected(stored(tmp_path / "stacks"))
    assert sizes == [1, 5, 5, 5, 5]  # what is learned of mouse, and the folds of each model
    assert [job.fitted is None for job in jobs] == [job.entry.name == "logistic" for job in jobs]

    sizes.clear()
    for gone in ("*-bilstm-quick-*", "*-joint-*-f3-*", "*-joint-*-f4-*"):
        for file in (tmp_path / "stacks" / "folds").glob(gone):
            file.unlink()
    assert_as_expected(stored(tmp_path / "stacks"))
    assert sorted(sizes) == [0, 2, 5]  # nothing of mouse is needed
