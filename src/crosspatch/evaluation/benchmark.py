"""Cohorts × models × protocol → results. It owns the folds, so that no model can leak."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils.validation import has_fit_parameter

from crosspatch.cohorts import table
from crosspatch.cohorts.cells import Cells, cells_of
from crosspatch.cohorts.taxonomy import DEFAULT_ALIGNMENT, load_taxonomy
from crosspatch.errors import EvaluationError
from crosspatch.evaluation import metrics, uncertainty
from crosspatch.evaluation.protocols import TASKS, Protocol, Task, protocol_named, task_named
from crosspatch.evaluation.results import (
    BENCHMARK,
    BenchmarkResult,
    CalibrationTables,
    ResultFolder,
    benchmark_result,
)
from crosspatch.evaluation.runner import (
    build_model,
    fold_key,
    one_core,
    require_device,
    run_settings,
    run_units,
)
from crosspatch.evaluation.splits import Fold, make_folds
from crosspatch.models.registry import ModelEntry, build_calibrated, model_entry
from crosspatch.telling import Progress

#: Models of a first look, by task: one of each kind that tells most.
DEFAULT_MODELS = {
    "mouse": ("spca-forest", "boosting", "bilstm-attention"),
    "human": ("spca-forest", "forest", "boosting", "bilstm-attention", "ensemble"),
    "transfer": ("bilstm-attention", "finetune"),
}


@dataclass(frozen=True)
class _Job:
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

    @property
    def name(self) -> str:
        """What the fold's file is called."""
        place = f"{self.entry.name}-{self.protocol.name}-r{self.fold.run:02d}-f{self.fold.number}"
        place += "-calibrated" if self.calibrated else ""
        return f"{self.task.species}-{place}-{self.key[:12]}"


def benchmark(
    cohorts: Mapping[str, anndata.AnnData],
    *,
    tasks: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    protocol: str = "donor",
    alignment: str = DEFAULT_ALIGNMENT,
    seed: int = 0,
    jobs: int = 1,
    device: str = "cpu",
    calibration: bool = False,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> BenchmarkResult:
    """Evaluate models on cohorts.

    Every fold is stored as it is done; called again with the same settings, what is stored is
    taken over and the rest computed. The numbers do not depend on `jobs`.

    Parameters
    ----------
    cohorts : mapping
        Species (``mouse``, ``human``) to its cohort table, all in one layout.
    tasks : sequence of str, optional
        Of ``mouse``, ``human`` and ``transfer``; by default all that the cohorts allow.
    models : sequence of str, optional
        Names from the registry; by default a choice for each task. A model that learns from a
        second species is used in the ``transfer`` task only.
    protocol : str
        ``donor``, ``published`` or ``quick``.
    alignment : str
        Reading of which mouse subclass counts as which shared one.
    seed : int
    jobs : int
        Worker processes.
    device : str
        Where the sequence models train, ``cpu`` or ``cuda``.
    calibration : bool
        Evaluate models as `crosspatch train` makes them: able to do without families, settings
        chosen on inner folds, calibrated, with prediction sets and a test for strangers.
    out : path, optional
        Folder for the results; without it nothing is stored.
    progress : callable, optional

    Returns
    -------
    BenchmarkResult

    Raises
    ------
    EvaluationError, ModelError, CohortError
        If something that is asked for does not exist or cannot be done with these cohorts.

    Examples
    --------
    >>> human = crosspatch.load_cohort("allen-human", layout="shared")  # doctest: +SKIP
    >>> result = crosspatch.benchmark({"human": human}, models=["forest"])  # doctest: +SKIP
    >>> result.summary  # doctest: +SKIP
    """
    if jobs < 1:
        raise EvaluationError(f"--jobs must be at least 1, not {jobs}")
    if seed < 0:
        raise EvaluationError(f"--seed must be at least 0, not {seed}")
    load_taxonomy().align([], alignment)  # raises if there is no such reading
    chosen_protocol = protocol_named(protocol)
    chosen_tasks = _tasks(tasks, cohorts)
    work = list(
        _work(
            cohorts,
            chosen_tasks,
            models,
            chosen_protocol,
            alignment,
            seed,
            device,
            calibration,
            tasks_given=tasks is not None,
        )
    )
    if any(job.entry.uses_device for job in work):
        require_device(device)
    settings = run_settings(
        BENCHMARK,
        cohorts,
        tasks=list(dict.fromkeys(job.task.name for job in work)),
        models=list(dict.fromkeys(job.entry.name for job in work)),
        protocol=chosen_protocol.name,
        protocol_about=chosen_protocol.about,
        features={job.task.name: job.target.features for job in work},
        alignment=alignment,
        seed=seed,
        jobs=jobs,
        device=device,
        calibration=calibration,
    )
    folder = ResultFolder(Path(out)) if out is not None else None
    if folder is not None:
        folder.begin(settings)
    outcomes = _run(work, jobs, folder, progress)
    rows = [_row(job, outcomes[job.name]) for job in work]
    confusions = [record for job in work for record in _confusion_records(job, outcomes[job.name])]
    tables = _calibration_tables(work, outcomes) if calibration else None
    result = benchmark_result(
        pd.DataFrame(rows), pd.DataFrame(confusions), table.composition(cohorts), settings, tables
    )
    if folder is not None:
        folder.finish(result.tables, result.settings)
    return result


def _calibration_tables(
    work: Sequence[_Job], outcomes: Mapping[str, Mapping[str, Any]]
) -> CalibrationTables:
    classes = [
        name
        for name in load_taxonomy().subclasses
        if any(name in job.target.classes for job in work)
    ]
    predictions: list[dict[str, Any]] = []
    by_fold: list[dict[str, Any]] = []
    for job in work:
        place, outcome = _place(job), outcomes[job.name]
        predictions += uncertainty.prediction_rows(place, outcome, classes)
        by_fold += uncertainty.condition_rows(place, outcome, job.target.classes)
    frame = pd.DataFrame(predictions)
    return CalibrationTables(
        predictions=frame,
        calibration=uncertainty.calibration_table(frame),
        coverage=uncertainty.coverage_table(frame),
        reliability=uncertainty.reliability_table(frame),
        families=uncertainty.families_table(pd.DataFrame(by_fold)),
    )


def _tasks(names: Sequence[str] | None, cohorts: Mapping[str, anndata.AnnData]) -> list[Task]:
    def lacking(task: Task) -> list[str]:
        needed = [task.species] + ([task.source] if task.source else [])
        return [species for species in needed if species not in cohorts]

    if names is None:
        possible = [task for task in TASKS.values() if not lacking(task)]
        if not possible:
            raise EvaluationError("there is no cohort of mouse or human cells to evaluate on")
        return possible
    chosen = [task_named(name) for name in dict.fromkeys(names)]
    for task in chosen:
        if lacking(task):
            raise EvaluationError(
                f"task '{task.name}' needs a {lacking(task)[0]} cohort, and there is none in these "
                "features; use --features shared or give the cohort"
            )
    return chosen


def _work(
    cohorts: Mapping[str, anndata.AnnData],
    tasks: Sequence[Task],
    models: Sequence[str] | None,
    protocol: Protocol,
    alignment: str,
    seed: int,
    device: str,
    calibration: bool,
    *,
    tasks_given: bool,
) -> Iterator[_Job]:
    entries = None if models is None else [model_entry(name) for name in dict.fromkeys(models)]
    idle = {entry.name for entry in entries or ()}
    for task in tasks:
        here = entries or [model_entry(name) for name in DEFAULT_MODELS[task.name]]
        here = [entry for entry in here if task.source or not entry.needs_source]
        if not here and not tasks_given:
            continue
        idle -= {entry.name for entry in here}
        if not here:
            raise EvaluationError(
                f"none of the models chosen can do task '{task.name}': "
                f"{', '.join(models or ())} learn from a second species; use --task transfer"
            )
        reading = alignment if task.aligned else None
        target = cells_of(cohorts[task.species], reading)
        source = cells_of(cohorts[task.source], reading) if task.source else None
        if source is not None and source.layout.features != target.layout.features:
            raise EvaluationError(
                f"{task.species} and {task.source} cohorts have different features; build both "
                "with --layout shared"
            )
        if source is not None and set(source.y) != set(target.y):
            odd = sorted(set(source.y) ^ set(target.y))[0]
            raise EvaluationError(
                f"{task.species} and {task.source} cells must have the same classes; '{odd}' is in "
                "one only; use another --alignment or leave the class out"
            )
        digests = target.digest, source.digest if source is not None else ""
        for run in range(protocol.runs):
            folds = make_folds(target.y, target.donors, protocol, task, run, seed)
            for fold in folds:
                for entry in here:
                    theirs = source if entry.needs_source else None
                    key = fold_key(
                        entry, protocol, fold, digests[0], digests[1] if theirs else "", device
                    )
                    yield _Job(
                        task, entry, protocol, fold, target, theirs, device, calibration, key
                    )
    if idle:
        raise EvaluationError(
            f"model '{sorted(idle)[0]}' learns from a second species and is used in task "
            "'transfer' only; add --task transfer"
        )


def _run(
    work: Sequence[_Job], jobs: int, folder: ResultFolder | None, progress: Progress | None
) -> dict[str, dict[str, Any]]:
    """Results of all jobs by name; one that two tasks share is done once."""
    # Long ones first, so that the last worker is not left with one.
    ordered = sorted(work, key=lambda job: not job.entry.needs_source)
    return run_units(ordered, _evaluate, jobs, folder, progress)


def _evaluate(job: _Job, folder: ResultFolder | None) -> tuple[str, dict[str, Any]]:
    """Fit a fresh model on a fold's training cells and test it; on one core."""
    started = time.perf_counter()
    fold, target = job.fold, job.target
    if job.calibrated:
        model = build_calibrated(job.entry, target.layout, fold.seed, job.device)
    else:
        model = build_model(job.entry, target.layout, job.protocol, fold.seed, job.device)
    with one_core():
        more: dict[str, Any] = {}
        if job.protocol.by_donor and has_fit_parameter(model, "groups"):
            more["groups"] = target.donors[fold.train]
        if job.source is not None:
            more |= {"X_source": job.source.X, "y_source": job.source.y}
            if job.protocol.by_donor:
                more["groups_source"] = job.source.donors
        model.fit(target.X[fold.train], target.y[fold.train], **more)
        probabilities = model.predict_proba(target.X[fold.test])
        judged = uncertainty.judge(model, target.X[fold.test]) if job.calibrated else None
    outcome = {
        "classes": [str(name) for name in model.classes_],
        "cell_ids": target.cell_ids[fold.test].tolist(),
        "y": target.y[fold.test].tolist(),
        "probabilities": np.asarray(probabilities, dtype=float).tolist(),
        "n_train": len(fold.train),
        "judged": judged,
        "seconds": time.perf_counter() - started,
    }
    if folder is not None:
        folder.store(job.name, outcome)
    return job.name, outcome


def _predicted(outcome: Mapping[str, Any]) -> NDArray[np.str_]:
    return uncertainty.predicted_classes(outcome["probabilities"], outcome["classes"])


def _place(job: _Job) -> dict[str, Any]:
    return {
        "task": job.task.name,
        "features": job.target.features,
        "model": job.entry.name,
        "protocol": job.protocol.name,
        "run": job.fold.run,
        "fold": job.fold.number,
    }


def _row(job: _Job, outcome: Mapping[str, Any]) -> dict[str, Any]:
    scores = metrics.scores(outcome["y"], _predicted(outcome), job.target.classes)
    return (
        _place(job)
        | {"n_train": outcome["n_train"], "n_test": len(outcome["y"])}
        | scores
        | {"seconds": outcome["seconds"]}
    )


def _confusion_records(job: _Job, outcome: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    classes = job.target.classes
    counts = metrics.confusion(outcome["y"], _predicted(outcome), classes)
    for i, true in enumerate(classes):
        for j, predicted in enumerate(classes):
            yield _place(job) | {
                "true": true,
                "predicted": predicted,
                "cells": int(counts[i, j]),
            }
