"""Cohorts × models × protocol → results. It owns the folds, so that no model can leak."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, product
from typing import Unpack

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosspatch.cohorts import table
from crosspatch.cohorts.cells import labelled
from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.errors import EvaluationError
from crosspatch.evaluation import intervals, metrics, runner, uncertainty
from crosspatch.evaluation.cell_cuts import cuts_table
from crosspatch.evaluation.comparison import paired_by_donor
from crosspatch.evaluation.fold_jobs import Job, evaluate_job, sharing_jobs
from crosspatch.evaluation.protocols import TASKS, Protocol, Task, protocol_named, task_named
from crosspatch.evaluation.results import (
    BENCHMARK,
    BenchmarkResult,
    CalibrationTables,
    benchmark_result,
)
from crosspatch.evaluation.runner import RunKeywords, RunSettings
from crosspatch.evaluation.splits import (
    HeldOutDataset,
    dataset_folds,
    held_out_datasets,
    make_folds,
)
from crosspatch.evaluation.task_cohorts import cells_for, require_cohorts
from crosspatch.evaluation.uncertainty import FoldOutcome, predicted_classes
from crosspatch.models.registry import ModelEntry, model_entry
from crosspatch.telling import notebook_bar


def benchmark(
    cohorts: Mapping[str, anndata.AnnData],
    *,
    tasks: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    calibration: bool = False,
    layer: bool = False,
    runs: int | None = None,
    held_out: Sequence[str] | None = None,
    **settings: Unpack[RunKeywords],
) -> BenchmarkResult:
    """Evaluate models on cohorts.

    Every fold is stored as it is done; called again with the same settings, what is stored is
    taken over and the rest computed.

    Parameters
    ----------
    cohorts : mapping
        Species (``mouse``, ``human``) to its cohort table, all in one layout.
    tasks : sequence of str, optional
        Of ``mouse``, ``human`` and ``transfer``; by default all that the cohorts allow.
    models : sequence of str, optional
        Names from the registry; by default a choice for each task. A model that learns from a
        second species is used in the ``transfer`` task only, which is left out without one unless
        it is asked for.
    calibration : bool
        Evaluate models as they are trained to be used: able to do without families, settings
        chosen on inner folds, calibrated, with prediction sets and a test for cells unlike the
        reference.
    layer : bool
        Give models that take it the cortical layer of the cells (``obs["layer"]``), where it is
        known. The results' ``features`` say so, as ``full + layer``.
    runs : int, optional
        Repetitions, if not as many as the protocol has.
    held_out : sequence of str, optional
        With protocol ``dataset``, the datasets that are held out one by one; by default each.
    protocol, alignment, seed, jobs, device, out, progress
        As in `crosspatch.evaluation.runner.RunSettings`: by default protocol ``donor``, alignment
        ``hodge2019``, seed 0, one job, on the cpu, and nothing is stored. A notebook shows a bar.

    Returns
    -------
    BenchmarkResult

    Raises
    ------
    EvaluationError, ModelError, CohortError
        If something that is asked for does not exist or cannot be done with these cohorts.

    Examples
    --------
    >>> import crosspatch
    >>> human = crosspatch.load_cohort("human.h5ad")
    >>> result = crosspatch.benchmark({"human": human}, models=["logistic"], protocol="quick")
    >>> result.summary["model"].tolist(), len(result.results)
    (['logistic'], 10)
    """
    run = RunSettings(**settings)
    run = replace(run, progress=run.progress or notebook_bar("folds"))
    protocol = protocol_named(run.protocol, runs)
    chosen = _tasks(tasks, cohorts)
    species = dict.fromkeys(task.species for task in chosen)
    predicted = {name: cohorts[name] for name in species}
    parts, skipped = held_out_datasets(predicted, protocol, run.alignment, held_out)
    if protocol.by_dataset:
        cohorts = {species: labelled(cohort) for species, cohort in cohorts.items()}
        chosen = [replace(task, aligned=True) for task in chosen if parts[task.species]]
    able = _entries(chosen, models, given=tasks is not None)
    work = list(_jobs(able, cohorts, protocol, run, calibration, parts, layer=layer))
    if layer and not any(job.entry.uses_layer for job in work):
        names = ", ".join(dict.fromkeys(job.entry.name for job in work))
        raise EvaluationError(
            f"none of the models chosen takes the cortical layer: {names}",
            hint="choose others of {models}, or leave {layer} out",
        )
    run.require_device_for(job.entry for job in work)
    told = runner.run_settings(
        BENCHMARK,
        cohorts,
        tasks=list(dict.fromkeys(job.task.name for job in work)),
        models=list(dict.fromkeys(job.entry.name for job in work)),
        protocol=protocol.name,
        protocol_about=protocol.about,
        features={job.task.name: job.target.measured.features for job in work},
        layer=layer,
        alignment=run.alignment,
        seed=run.seed,
        jobs=run.jobs,
        device=run.device,
        calibration=calibration,
        **{"runs": runs} if runs else {},
        **{"held_out": list(held_out)} if held_out else {},
        **{"skipped": skipped} if protocol.by_dataset else {},
    )
    folder = run.begun(told)
    # Long ones first, so that the last worker is not left with one; what tasks share is done once.
    ordered = sorted(work, key=lambda job: not job.entry.needs_source)
    outcomes = runner.run_units(ordered, evaluate_job, run, folder, partial(sharing_jobs, run=run))
    done = [(job, outcomes[job.name]) for job in work]
    rows, confusion = zip(*(_rows(*each) for each in done), strict=True)
    results, confused = pd.DataFrame(rows), pd.DataFrame(chain.from_iterable(confusion))
    predictions = _predictions(done)
    more = _calibration_tables(done, predictions) if calibration else None
    tested = {str(job.place["task"]): cohorts[job.task.species] for job in work}
    cuts = cuts_table(predictions, tested, run.alignment)
    result = benchmark_result(results, confused, table.composition(cohorts), cuts, told, more)
    if protocol.by_dataset:
        result = _by_donor(result, done)
    if folder is not None:
        folder.finish(result.tables, told)
    return result


def _tasks(names: Sequence[str] | None, cohorts: Mapping[str, anndata.AnnData]) -> list[Task]:
    if names is None:
        possible = [task for task in TASKS.values() if cohorts.keys() >= set(task.needs)]
        if not possible:
            raise EvaluationError("there is no cohort of mouse or human cells to evaluate on")
        return possible
    chosen = [task_named(name) for name in dict.fromkeys(names)]
    for task in chosen:
        require_cohorts(task, cohorts)
    return chosen


def _entries(
    tasks: Sequence[Task], models: Sequence[str] | None, *, given: bool
) -> list[tuple[Task, list[ModelEntry]]]:
    """Tasks with the models that can do them; a task that was not `given` may have none.

    Models that learn of one species alone have a second one's task only beside others, which they
    are compared with: their scores there are those of the task without it.
    """
    found = []
    for task in tasks:
        names = dict.fromkeys(models or task.models)
        entries = [model_entry(name) for name in names]
        able = [entry for entry in entries if task.source or not entry.needs_source]
        if task.source and not given and not any(entry.needs_source for entry in able):
            continue
        if able:
            found.append((task, able))
        elif given:
            raise EvaluationError(
                f"none of the models chosen can do task '{task.name}': {', '.join(names)} learn "
                "from a second species",
                hint="use {task} transfer",
            )
    if idle := set(models or ()) - {entry.name for _, able in found for entry in able}:
        raise EvaluationError(
            f"model '{min(idle)}' learns from a second species and is used in task 'transfer' only",
            hint="add {task} transfer",
        )
    return found


def _jobs(
    able: Sequence[tuple[Task, Sequence[ModelEntry]]],
    cohorts: Mapping[str, anndata.AnnData],
    protocol: Protocol,
    run: RunSettings,
    calibrated: bool,
    held_out: Mapping[str, Sequence[HeldOutDataset]],
    *,
    layer: bool,
) -> Iterator[Job]:
    device = run.device
    for task, entries in able:
        cells = cells_for(task, cohorts, run.alignment, layer=layer)
        whole, source = cells[task.species], cells.get(task.source or "")
        both = {True: whole, False: whole.measured}
        ours = {placed: part.digest for placed, part in both.items()}
        theirs = source.digest if source is not None else ""
        for number in range(protocol.runs):
            if parts := held_out.get(task.species):
                folds = dataset_folds(parts, number, run.seed)
            else:
                folds = make_folds(whole.y, whole.donors, protocol, task, number, run.seed)
            for fold, entry in product(folds, entries):
                target = both[entry.uses_layer]
                second, digest = (source, theirs) if entry.needs_source else (None, "")
                key = runner.fold_key(entry, protocol, fold, ours[entry.uses_layer], digest, device)
                yield Job(task, entry, protocol, fold, target, second, device, calibrated, key)


def _rows(job: Job, outcome: FoldOutcome) -> tuple[dict[str, object], list[dict[str, object]]]:
    """The fold's row of ``results``, and its rows of ``confusion``."""
    classes, place = job.target.classes, job.place
    scored = job.classes
    predicted = predicted_classes(outcome["probabilities"], outcome["classes"])
    counts = metrics.confusion(outcome["y"], predicted, classes).ravel().tolist()
    confusion: list[dict[str, object]] = [
        {**place, "true": true, "predicted": name, "cells": cells}
        for (true, name), cells in zip(product(classes, classes), counts, strict=True)
        if true in scored
    ]
    scores = metrics.scores(outcome["y"], predicted, scored)
    counted = {"n_train": outcome["n_train"], "n_test": len(outcome["y"])}
    return {**place, **counted, **scores, "seconds": outcome["seconds"]}, confusion


def _predictions(done: Sequence[tuple[Job, FoldOutcome]]) -> pd.DataFrame:
    classes = load_taxonomy().ordered(name for job, _ in done for name in job.target.classes)
    rows = [uncertainty.prediction_rows(job.place, outcome, classes) for job, outcome in done]
    return pd.DataFrame(chain.from_iterable(rows))


def _calibration_tables(
    done: Sequence[tuple[Job, FoldOutcome]], predictions: pd.DataFrame
) -> CalibrationTables:
    by_fold = [uncertainty.condition_rows(job.place, outcome, job.classes) for job, outcome in done]
    return CalibrationTables(
        predictions,
        uncertainty.calibration_table(predictions),
        uncertainty.coverage_table(predictions),
        uncertainty.reliability_table(predictions),
        uncertainty.families_table(pd.DataFrame(chain.from_iterable(by_fold))),
    )


def _by_donor(result: BenchmarkResult, done: Sequence[tuple[Job, FoldOutcome]]) -> BenchmarkResult:
    """The result with intervals and paired differences from resampled donors of the test cells.

    The runs of a dataset that is held out have the same cells, so that a test over runs would only
    know of seeds.
    """
    counts: dict[tuple[str, str], list[NDArray[np.int64]]] = {}
    for job, outcome in done:
        predicted = predicted_classes(outcome["probabilities"], outcome["classes"])
        of_run = intervals.counts_by_donor(
            outcome["y"], predicted, job.target.donors[job.fold.test], job.classes
        )
        key = str(job.place["task"]), job.entry.name
        counts.setdefault(key, []).append(of_run)
    draws = {key: intervals.resampled_f1(np.stack(of_runs)) for key, of_runs in counts.items()}
    places = zip(result.summary["task"], result.summary["model"], strict=True)
    ends = [intervals.interval_of(draws[place]) for place in places]
    low, high = zip(*ends, strict=True)
    summary = result.summary.assign(ci_low=low, ci_high=high)
    return replace(result, summary=summary, comparisons=paired_by_donor(summary, draws))
