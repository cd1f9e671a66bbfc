"""What a second species is worth: scores against the number of labelled cells, with and without it.

Every draw is a fold by donor and an order of its training cells; a point takes the first cells of
each class in that order, so that the cells of a small point are among those of a larger one. All
models see the same cells. In every model the features of the target are standardised by all cells
of the training donors, with or without a label: a laboratory has those.

A model that learns from mouse is compared with its partner, the same without mouse, and with the
best of the models without mouse at that number of cells: mouse is worth nothing to who has those.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict, Unpack

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from crosspatch.cohorts.cells import Cells
from crosspatch.errors import EvaluationError, ModelError
from crosspatch.evaluation import comparison, metrics, runner
from crosspatch.evaluation.cell_cuts import ALL_CELLS, cuts_of, scored_classes
from crosspatch.evaluation.protocols import CURVE_TASK, N_FOLDS, PROTOCOLS
from crosspatch.evaluation.results import ResultFolder, Settings, read_settings, read_tables
from crosspatch.evaluation.runner import RunKeywords, RunSettings
from crosspatch.evaluation.splits import Fold, derived_seed, make_folds
from crosspatch.evaluation.task_cohorts import cells_for, require_cohorts
from crosspatch.models.classifier import fit_copy
from crosspatch.models.registry import ModelEntry, model_entry
from crosspatch.models.validation import inner_folds

#: The task's name, and ``kind`` in the settings of its folder.
LEARNING_CURVE = CURVE_TASK.name
#: Tables of its folder.
CURVE_TABLES = ("results", "summary", "gains")

#: Models that learn from a second species, and the same without it.
PAIRS = {"finetune": "bilstm-attention", "joint": "bilstm-attention", "lda-mouse": "lda-unlabelled"}

#: Models that know no mouse and are no partner; every curve has them.
ALONE = ("lda", "vote")

#: What stands for the best model without mouse at a number of cells, the mean over draws decides.
#: It is chosen on the scores that it is given by, so what mouse adds to it is rather too small.
BEST_WITHOUT = "best without mouse"

#: Labelled cells of each class; beyond these, all.
SIZES = (0, 5, 10, 20, 40)
#: Draws of a protocol.
DRAWS = {"donor": 20, "quick": 5}
# Orders of the training cells tried until every point has inner folds.
_ATTEMPTS = 200


@dataclass(frozen=True)
class LearningCurve:
    """What came out."""

    #: One row per model, draw, number of labelled cells and cut (of the test cells).
    results: pd.DataFrame
    #: Mean over draws with its 95 % interval, corrected for overlapping training sets.
    summary: pd.DataFrame
    gains: pd.DataFrame  # paired differences, with the second species minus without
    settings: Settings

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table by its name."""
        return {name: getattr(self, name) for name in CURVE_TABLES}


@dataclass(frozen=True)
class _Draw:
    number: int
    fold: Fold
    points: dict[str, NDArray[np.intp]]  # rows of the labelled cells


@dataclass(frozen=True)
class _Job:
    """One model on one draw, at every point."""

    entry: ModelEntry
    draw: _Draw
    target: Cells
    source: Cells
    device: str
    key: str

    @property
    def name(self) -> str:
        return f"curve-{self.entry.name}-d{self.draw.number:02d}-{self.key[:12]}"


class _Point(TypedDict):
    """What is stored of a point of a draw."""

    classes: list[str]
    labelled: int
    probabilities: list[list[float]]
    seconds: float


class _Outcome(TypedDict):
    """What is stored of a draw."""

    classes: list[str]
    y: list[str]
    points: dict[str, _Point]


def learning_curve(
    cohorts: Mapping[str, anndata.AnnData],
    *,
    models: Sequence[str] | None = None,
    **settings: Unpack[RunKeywords],
) -> LearningCurve:
    """Score models against the number of labelled human cells, with and without mouse.

    The cohorts of both are in one layout. Models are of `PAIRS`, keys or values, by default all;
    one that learns from mouse brings its partner, and `ALONE` are always there. Settings are as in
    `crosspatch.evaluation.benchmark.benchmark`, but the protocol is ``donor`` (20 draws) or
    ``quick`` (5).
    """
    run = RunSettings(**settings)
    entries = _entries(models)
    if run.protocol not in DRAWS:
        known = ", ".join(DRAWS)
        raise EvaluationError(f"the learning curve has protocols {known}, not '{run.protocol}'")
    require_cohorts(CURVE_TASK, cohorts)
    run.require_device_for(entries)
    target, source = cells_for(CURVE_TASK, cohorts, run.alignment).values()
    work = list(_jobs(entries, target, source, run))
    told = runner.run_settings(
        LEARNING_CURVE,
        cohorts,
        tasks=[LEARNING_CURVE],
        models=[entry.name for entry in entries],
        protocol=run.protocol,
        protocol_about=f"{DRAWS[run.protocol]} draws of labelled cells from the training donors; "
        "5 folds stratified and grouped by donor: no donor is on both sides",
        features={LEARNING_CURVE: target.features},
        alignment=run.alignment,
        seed=run.seed,
        jobs=run.jobs,
        device=run.device,
    )
    needs = _Outcome.__required_keys__
    folder = run.begun(told, partial(ResultFolder, tables=CURVE_TABLES, needs=needs))
    ordered = sorted(work, key=lambda job: not job.entry.uses_device)  # slow ones first
    outcomes = runner.run_units(ordered, _evaluate, run, folder)
    cuts = cuts_of(cohorts[CURVE_TASK.species], run.alignment)
    results = pd.DataFrame([row for job in work for row in _rows(job, outcomes[job.name], cuts)])
    compared = with_best(results)
    curve = LearningCurve(results, summarize_draws(compared), gains(compared), told)
    if folder is not None:
        folder.finish(curve.tables, told)
    return curve


def read_learning_curve(path: str | Path) -> LearningCurve:
    """Read a folder written by `learning_curve`; EvaluationError if it is not there and whole."""
    settings = read_settings(path, LEARNING_CURVE)
    return LearningCurve(**read_tables(path, CURVE_TABLES), settings=settings)


def _entries(names: Sequence[str] | None) -> list[ModelEntry]:
    known = dict.fromkeys([*PAIRS, *PAIRS.values(), *ALONE])
    wanted = [model_entry(name).name for name in (PAIRS if names is None else names)]
    for name in wanted:
        if name not in known:
            raise ModelError(
                f"the learning curve is for {', '.join(known)}; '{name}' has no partner that "
                "learns from mouse"
            )
    partners = [PAIRS[name] for name in wanted if name in PAIRS]
    return [model_entry(name) for name in dict.fromkeys([*wanted, *partners, *ALONE])]


def _jobs(
    entries: Sequence[ModelEntry], target: Cells, source: Cells, run: RunSettings
) -> Iterator[_Job]:
    digests = target.digest, source.digest
    for draw in _draws(target, run.protocol, run.seed):
        points = [rows.tolist() for rows in draw.points.values()]
        for entry in entries:
            fold = runner.fold_key(entry, PROTOCOLS["donor"], draw.fold, *digests, run.device)
            key = runner.outcome_key(LEARNING_CURVE, fold, points)
            yield _Job(entry, draw, target, source, run.device, key)


def _draws(target: Cells, protocol: str, seed: int) -> Iterator[_Draw]:
    for number in range(DRAWS[protocol]):
        run, nth = divmod(number, N_FOLDS)
        fold = make_folds(target.y, target.donors, PROTOCOLS["donor"], CURVE_TASK, run, seed)[nth]
        yield _Draw(number, fold, _points(target, fold, seed))


def _points(target: Cells, fold: Fold, seed: int) -> dict[str, NDArray[np.intp]]:
    """Rows of the labelled cells of every point; the same for all models."""
    y, donors = target.y[fold.train], target.donors[fold.train]
    smallest = int(np.unique(y, return_counts=True)[1].min())
    sizes = [size for size in SIZES if 0 < size < smallest]
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng(derived_seed(seed, fold.run, fold.number, attempt, 1))
        order = rng.permutation(len(y))
        rank = np.empty(len(y), dtype=int)
        rank[order] = pd.Series(order).groupby(y[order]).cumcount()
        chosen = {str(size): np.flatnonzero(rank < size) for size in sizes}
        if all(_divisible(y[rows], donors[rows], fold.seed) for rows in chosen.values()):
            points = {"0": fold.train[:0]} | {k: fold.train[rows] for k, rows in chosen.items()}
            return points | {ALL_CELLS: fold.train}
    raise EvaluationError(
        f"no {sizes[0]} cells of each class can be drawn from the training donors of fold "
        f"{fold.number} in run {fold.run} so that they can be divided by donor; classes need cells "
        "of more donors"
    )


def _divisible(y: NDArray, donors: NDArray, seed: int) -> bool:
    """Whether models can make the inner folds they need."""
    try:
        return all(list(inner_folds(y, donors, n, seed)) for n in (N_FOLDS, 3))
    except ModelError:
        return False


def _evaluate(job: _Job) -> _Outcome:
    target, test = job.target, job.draw.fold.test
    points: dict[str, _Point] = {}
    with runner.one_core():
        fit = _fitter(job)
        for name, rows in job.draw.points.items():
            started = time.perf_counter()
            if (model := fit(rows)) is None:
                continue
            p = model.predict_proba(target.X[test])
            points[name] = {
                "classes": [str(each) for each in model.classes_],
                "labelled": len(rows),
                "probabilities": np.asarray(p, dtype=float).tolist(),
                "seconds": time.perf_counter() - started,
            }
    y = target.y[test].tolist()
    return {"classes": list(target.classes), "y": y, "points": points}


def _fitter(job: _Job) -> Callable[[NDArray[np.intp]], BaseEstimator | None]:
    """A function that fits the job's model on labelled rows; None where it cannot do without."""
    target, source, entry = job.target, job.source, job.entry
    pool = target.X[job.draw.fold.train]  # the features of all cells of the training donors
    second = runner.source_arguments(entry, source) if entry.needs_source else {}

    def fresh() -> BaseEstimator:
        return entry.build(target.layout, job.draw.fold.seed, job.device)

    pretrained = {"pretrained": fresh().pretrain(**second)} if entry.pretrains else {}

    def fit(rows: NDArray[np.intp]) -> BaseEstimator | None:
        if len(rows):
            X, y = target.X[rows], target.y[rows]
            donors, types = target.donors[rows], target.types[rows]
            return fit_copy(fresh(), X, y, donors, types, unlabelled=pool, **second, **pretrained)
        if pretrained:
            return fresh().without_labels(pool, np.unique(source.y), **pretrained)
        model = fresh()
        return model.without_labels(pool, **second) if hasattr(model, "without_labels") else None

    return fit


def _rows(job: _Job, outcome: _Outcome, cuts: pd.DataFrame) -> Iterator[dict[str, object]]:
    fold, name = job.draw.fold, job.entry.name
    y = np.asarray(outcome["y"])
    scored = {cut: scored_classes(job.target.y[cuts[cut]]) for cut in cuts}
    scored[ALL_CELLS] = outcome["classes"]
    for point, found in outcome["points"].items():
        predicted = np.asarray(found["classes"])[np.argmax(found["probabilities"], axis=1)]
        for cut, classes in scored.items():
            rows = cuts[cut].to_numpy()[fold.test]
            here = [each for each in classes if each in set(y[rows])]
            if len(here) < 2:
                continue
            yield (
                {"features": job.target.features, "model": name, "mouse": name in PAIRS}
                | {"cells_per_class": point, "n_labelled": found["labelled"], "cut": cut}
                | {"draw": job.draw.number, "run": fold.run, "fold": fold.number}
                # For the correction: labelled cells are drawn from all training cells.
                | {"n_train": len(fold.train), "n_test": int(rows.sum())}
                | metrics.scores(y[rows], predicted[rows], here)
                | {"seconds": found["seconds"]}
            )


def with_best(results: pd.DataFrame) -> pd.DataFrame:
    """The results, and once more those of the best model without mouse at every point and cut."""
    alone = results[~results["mouse"]]
    if alone["model"].nunique() < 2:
        return results
    place = ["features", "cells_per_class", "cut"]
    means = alone.groupby([*place, "model"], sort=False)["macro_f1"].mean()
    chosen = means[means.groupby(place, sort=False).idxmax()].index
    best = alone.set_index([*place, "model"]).loc[chosen].reset_index()
    return pd.concat([results, best.assign(model=BEST_WITHOUT)], ignore_index=True)


def summarize_draws(results: pd.DataFrame) -> pd.DataFrame:
    """Mean over draws with its 95 % interval: one row per model, point and cut.

    The variance of the mean is corrected as in
    `crosspatch.evaluation.comparison.corrected_resampled_t`, with the test cells and the training
    cells of the whole fold, from which the labelled ones are drawn.
    """
    who = ["features", "model", "mouse", "cells_per_class", "cut"]
    rows = []
    for place, part in results.groupby(who, sort=False):
        scores = part["macro_f1"].to_numpy()
        low = high = deviation = float("nan")
        if len(part) > 1:
            share = comparison.held_out_share(part)
            found = comparison.corrected_resampled_t(scores, np.zeros(len(part)), share)
            low, high, deviation = found.ci_low, found.ci_high, float(scores.std(ddof=1))
        rows.append(
            dict(zip(who, place, strict=True))
            | {"n_labelled": float(part["n_labelled"].mean()), "draws": len(part)}
            | {"macro_f1_mean": float(scores.mean()), "macro_f1_sd": deviation}
            | {"ci_low": low, "ci_high": high, "accuracy_mean": float(part["accuracy"].mean())}
        )
    return pd.DataFrame(rows)


def gains(results: pd.DataFrame) -> pd.DataFrame:
    """Paired differences in macro-F1, with mouse minus without, on the same draws."""
    columns = ["features", "model", "without", "cells_per_class", "cut", "draws"]
    columns += ["delta_macro_f1", "ci_low", "ci_high", "p_value"]
    rows = []
    places = results.groupby(["features", "cells_per_class", "cut"], sort=False)
    for (features, point, cut), part in places:
        pairs = [*PAIRS.items(), *((model, BEST_WITHOUT) for model in PAIRS)]
        for model, without, *found in comparison.paired_differences(part, ["draw"], pairs):
            rows.append((features, model, without, point, cut, *found))
    return pd.DataFrame(rows, columns=columns)
