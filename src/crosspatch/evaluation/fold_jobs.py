"""One model on one fold, and what the jobs of a benchmark share."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crosspatch.cohorts.cells import Cells
from crosspatch.evaluation import runner, uncertainty
from crosspatch.evaluation.protocols import Protocol, Task
from crosspatch.evaluation.runner import RunSettings
from crosspatch.evaluation.splits import Fold
from crosspatch.evaluation.uncertainty import FoldOutcome, Place
from crosspatch.models.classifier import fit_copy
from crosspatch.models.registry import ModelEntry, build_calibrated

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from crosspatch.models.sequence import Network


@dataclass(frozen=True)
class Job:
    """One model on one fold."""

    task: Task
    entry: ModelEntry
    protocol: Protocol
    fold: Fold
    target: Cells
    source: Cells | None
    device: str
    calibrated: bool
    key: str
    #: What was learned of the second species alone, for models that use it.
    pretrained: Mapping[str, Network] = field(default_factory=dict)
    #: The model, where it was fitted together with others, and its share of the seconds.
    fitted: tuple[BaseEstimator, float] | None = None

    @property
    def shares(self) -> tuple[str, str, int]:
        """Jobs with the same can share what is learned of the second species."""
        return self.task.name, self.entry.name, self.fold.run

    @property
    def name(self) -> str:
        """Of its file; unlike for all that its outcome depends on."""
        place = f"{self.entry.name}-{self.protocol.name}-r{self.fold.run:02d}-f{self.fold.number}"
        place += "-calibrated" if self.calibrated else ""
        return f"{self.task.species}-{place}-{self.key[:12]}"

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes that are scored: all, or those of the dataset that is held out."""
        known = self.target.classes
        if not self.fold.dataset:
            return known
        there = set(self.target.y[self.fold.test])
        return tuple(name for name in known if name in there)

    @property
    def place(self) -> Place:
        """What the rows of tables begin with."""
        held_out: Place = {"held_out": self.fold.dataset} if self.fold.dataset else {}
        of_dataset = f": {self.fold.dataset}" if held_out else ""
        return held_out | {
            "task": f"{self.task.name}{of_dataset}",
            "features": self.target.features,
            "model": self.entry.name,
            "protocol": self.protocol.name,
            "run": self.fold.run,
            "fold": self.fold.number,
        }


def sharing_jobs(jobs: Sequence[Job], run: RunSettings) -> list[Job]:
    """The jobs, with one pretrained network for the folds of a run.

    It sees no cell of the target, and its seed is the run's, whichever folds are left. On a device
    that is made for many networks at once, they are fitted here.
    """
    first = {job.shares: job for job in jobs if job.entry.pretrains}
    together = runner.trains_together(run.device)
    if together:
        trained = _pretrained_together(list(first.values()))
    else:
        alone = replace(run, progress=None)
        trained = runner.run_units(list(first.values()), _pretrained, alone, None)
    networks = {shares: trained[job.name] for shares, job in first.items()}
    jobs = [replace(job, pretrained=networks.get(job.shares, {})) for job in jobs]
    return _fitted_together(jobs) if together else jobs


def _pretrained(job: Job) -> dict[str, Network]:
    layout, seed = job.target.layout, job.fold.run_seed
    return runner.pretrained(job.entry, layout, seed, job.device, _source_of(job))


def _pretrained_together(jobs: Sequence[Job]) -> dict[str, dict[str, Network]]:
    from crosspatch.models.stacked import fit_together

    models, given = [], []
    for job in jobs:
        source = _source_of(job)
        model = job.entry.build(job.target.layout, job.fold.run_seed, job.device)
        models.append(model.of_source())
        given.append({name.removesuffix("_source"): cells for name, cells in source.items()})
    fit_together(models, given)
    trained = zip(jobs, models, strict=True)
    return {job.name: {"pretrained": model.network_.cpu()} for job, model in trained}


def _fitted_together(jobs: Sequence[Job]) -> list[Job]:
    """The jobs; those whose models can be trained at once with them, fitted."""
    from crosspatch.models.stacked import fit_together

    groups: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        if job.entry.stacks and not job.calibrated:
            alike = job.task.name, job.entry.name, *np.unique(job.target.y[job.fold.train])
            groups.setdefault(alike, []).append(job)
    fitted: dict[str, tuple[BaseEstimator, float]] = {}
    for group in groups.values():
        started = time.perf_counter()
        models = [_model(job) for job in group]
        with runner.one_core():
            fit_together(models, [_cells_of(job) for job in group])
        share = (time.perf_counter() - started) / len(group)
        # A copy is on the cpu, for this process and for workers.
        fitted |= {job.name: (copy(model), share) for job, model in zip(group, models, strict=True)}
    return [replace(job, fitted=fitted.get(job.name)) for job in jobs]


def _source_of(job: Job) -> dict[str, NDArray]:
    """The cells of the second species, as `fit` takes them."""
    found = job.source
    return {} if found is None else runner.source_arguments(job.entry, found, job.protocol.by_donor)


def _cells_of(job: Job) -> dict[str, Any]:
    """A fold's training cells and what else a model is given to be fitted."""
    train, target = job.fold.train, job.target
    donors = target.donors[train] if job.protocol.by_donor else None
    cells = {"X": target.X[train], "y": target.y[train], "groups": donors}
    return {**cells, **_source_of(job), **job.pretrained}


def _model(job: Job) -> BaseEstimator:
    layout, seed = job.target.layout, job.fold.seed
    if job.calibrated:
        return build_calibrated(job.entry, layout, seed, job.device)
    return runner.build_model(job.entry, layout, job.protocol, seed, job.device)


def evaluate_job(job: Job) -> FoldOutcome:
    """Fit a fresh model on a fold's training cells and test it; on one core."""
    started = time.perf_counter()
    fold, target = job.fold, job.target
    with runner.one_core():
        if job.fitted is None:
            types = target.types[fold.train]
            model, before = fit_copy(_model(job), types=types, **_cells_of(job)), 0.0
        else:
            model, before = job.fitted
        tested = target.X[fold.test]
        probabilities = model.predict_proba(tested)
        judged = uncertainty.judged_outcome(model, tested) if job.calibrated else None
    return {
        "classes": [str(name) for name in model.classes_],
        "cell_ids": target.cell_ids[fold.test].tolist(),
        "y": target.y[fold.test].tolist(),
        "probabilities": probabilities.astype(float).tolist(),
        "n_train": len(fold.train),
        "judged": judged,
        "seconds": before + time.perf_counter() - started,
    }
