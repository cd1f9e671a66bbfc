"""What a second species is worth: scores against the number of labelled cells, with and without it.

Every draw is a fold by donor and an order of its training cells; a point takes the first cells of
each class in that order, so that the cells of a small point are among those of a larger one. All
models see the same cells. In every model the features of the target are standardised by all cells
of the training donors, with or without a label: a laboratory has those.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosspatch.cohorts.cells import Cells, cells_of
from crosspatch.cohorts.table import CONDITIONS
from crosspatch.cohorts.taxonomy import DEFAULT_ALIGNMENT
from crosspatch.errors import EvaluationError, ModelError
from crosspatch.evaluation import metrics
from crosspatch.evaluation.comparison import corrected_resampled_t
from crosspatch.evaluation.protocols import N_FOLDS, TASKS, protocol_named
from crosspatch.evaluation.results import ResultFolder, read_settings, read_tables
from crosspatch.evaluation.runner import (
    checksum,
    one_core,
    require_device,
    run_settings,
    run_units,
)
from crosspatch.evaluation.splits import Fold, derived_seed, make_folds
from crosspatch.models.registry import model_entry
from crosspatch.models.validation import inner_folds
from crosspatch.species import HUMAN, MOUSE
from crosspatch.telling import Progress

#: The task's name for `crosspatch run`, and ``kind`` in the settings of its folder.
LEARNING_CURVE = "learning-curve"

#: Tables of its folder.
CURVE_TABLES = ("results", "summary", "gains")

#: Models that learn from a second species, and the same without it.
PAIRS = {
    "finetune": "bilstm-attention",
    "joint": "bilstm-attention",
    "boosting-pooled": "boosting",
    "logistic-pooled": "logistic",
}

#: Labelled cells of each class; beyond these, all.
SIZES = (0, 5, 10, 20, 40)
ALL_CELLS = "all"

#: Draws of a protocol.
DRAWS = {"donor": 20, "quick": 5}

#: A cut is shown where it has this many cells, and this many of every class.
CUT_CELLS, CUT_CELLS_OF_CLASS = 100, 10

# Orders of the training cells tried until every point has inner folds.
_ATTEMPTS = 200


@dataclass(frozen=True)
class LearningCurve:
    """What came out."""

    #: A row a model, draw, number of labelled cells and cut (of the test cells).
    results: pd.DataFrame
    #: Mean over draws with its 95 % interval, corrected for overlapping training sets.
    summary: pd.DataFrame
    #: Paired differences, with the second species minus without.
    gains: pd.DataFrame
    settings: Mapping[str, Any]

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

    model: str
    draw: _Draw
    target: Cells
    source: Cells
    device: str
    key: str

    @property
    def name(self) -> str:
        """What its file is called."""
        return f"curve-{self.model}-d{self.draw.number:02d}-{self.key[:12]}"

    @property
    def slow(self) -> bool:
        """Whether it should begin early."""
        return model_entry(self.model).uses_device


def learning_curve(
    cohorts: Mapping[str, anndata.AnnData],
    *,
    models: Sequence[str] | None = None,
    protocol: str = "donor",
    alignment: str = DEFAULT_ALIGNMENT,
    seed: int = 0,
    jobs: int = 1,
    device: str = "cpu",
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> LearningCurve:
    """Score models against the number of labelled human cells, with and without mouse.

    Parameters
    ----------
    cohorts : mapping
        ``human`` and ``mouse`` cohort tables, in one layout.
    models : sequence of str, optional
        Of `PAIRS`, keys or values; a model that learns from mouse brings its partner. All by
        default.
    protocol : str
        ``donor`` (20 draws) or ``quick`` (5).
    alignment, seed, jobs, device, out, progress
        As in `crosspatch.evaluation.benchmark.benchmark`. Finished draws are stored in `out` and
        taken over when called again.

    Raises
    ------
    EvaluationError, ModelError
        If a cohort is missing, a model has no place here, or a class has too few cells.
    """
    chosen = _models(models)
    if protocol not in DRAWS:
        raise EvaluationError(
            f"the learning curve has protocols {', '.join(DRAWS)}, not '{protocol}'"
        )
    for species in (HUMAN.name, MOUSE.name):
        if species not in cohorts:
            raise EvaluationError(
                f"task '{LEARNING_CURVE}' needs a {species} cohort; use --features shared or give "
                "the cohort"
            )
    if any(model_entry(name).uses_device for name in chosen):
        require_device(device)
    target, source = (cells_of(cohorts[name], alignment) for name in (HUMAN.name, MOUSE.name))
    if target.layout.features != source.layout.features:
        raise EvaluationError(
            "human and mouse cohorts have different features; build both with --layout shared"
        )
    if set(target.y) != set(source.y):
        odd = sorted(set(target.y) ^ set(source.y))[0]
        raise EvaluationError(
            f"human and mouse cells must have the same classes; '{odd}' is in one only"
        )
    draws = list(_draws(target, protocol, seed))
    digests = target.digest, source.digest
    work = [
        _Job(name, draw, target, source, device, _key(name, draw, digests, device))
        for draw in draws
        for name in chosen
    ]
    settings = run_settings(
        LEARNING_CURVE,
        cohorts,
        tasks=[LEARNING_CURVE],
        models=chosen,
        protocol=protocol,
        protocol_about=f"{DRAWS[protocol]} draws of labelled cells from the training donors; "
        "5 folds stratified and grouped by donor: no donor is on both sides",
        features={LEARNING_CURVE: target.features},
        alignment=alignment,
        seed=seed,
        jobs=jobs,
        device=device,
    )
    folder = None
    if out is not None:
        needs = frozenset({"classes", "y", "points"})
        folder = ResultFolder(Path(out), CURVE_TABLES, needs)
        folder.begin(settings)
    ordered = sorted(work, key=lambda job: not job.slow)
    outcomes = run_units(ordered, _evaluate, jobs, folder, progress)
    rows = [
        row
        for job in work
        for row in _rows(job, outcomes[job.name], dict(_cuts(cohorts["human"], target)))
    ]
    results = pd.DataFrame(rows)
    curve = LearningCurve(results, summarize_draws(results), gains(results), settings)
    if folder is not None:
        folder.finish(curve.tables, settings)
    return curve


def read_learning_curve(path: str | Path) -> LearningCurve:
    """Read a folder written by `learning_curve`.

    Raises
    ------
    EvaluationError
        If it is not there, unfinished, damaged, or of another kind.
    """
    settings = read_settings(path)
    if settings.get("kind") != LEARNING_CURVE:
        raise EvaluationError(f"{path} does not hold a learning curve")
    return LearningCurve(**read_tables(path, CURVE_TABLES), settings=settings)


def _models(names: Sequence[str] | None) -> list[str]:
    known = dict.fromkeys([*PAIRS, *PAIRS.values()])
    wanted = list(names) if names is not None else list(PAIRS)
    for name in wanted:
        model_entry(name)  # raises if there is none
        if name not in known:
            raise ModelError(
                f"the learning curve is for {', '.join(known)}; '{name}' has no partner that "
                "learns from mouse"
            )
    partners = [PAIRS[name] for name in wanted if name in PAIRS]
    return list(dict.fromkeys([*wanted, *partners]))


def _draws(target: Cells, protocol: str, seed: int) -> Iterator[_Draw]:
    by_donor = protocol_named("donor")
    for number in range(DRAWS[protocol]):
        run, fold_number = divmod(number, N_FOLDS)
        folds = make_folds(target.y, target.donors, by_donor, TASKS["transfer"], run, seed)
        fold = folds[fold_number]
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
        for name in np.unique(y):
            of_class = order[y[order] == name]
            rank[of_class] = np.arange(len(of_class))
        chosen = {str(size): np.flatnonzero(rank < size) for size in sizes}
        if all(_divisible(y[rows], donors[rows], fold.seed) for rows in chosen.values()):
            points = {"0": fold.train[:0]} | {k: fold.train[rows] for k, rows in chosen.items()}
            return points | {ALL_CELLS: fold.train}
    raise EvaluationError(
        f"no {sizes[0]} cells a class can be drawn from the training donors of fold {fold.number} "
        f"in run {fold.run} so that they can be divided by donor; classes need cells of more donors"
    )


def _divisible(y: NDArray, donors: NDArray, seed: int) -> bool:
    """Whether models can make the inner folds they need."""
    try:
        return all(list(inner_folds(y, donors, n, seed)) for n in (N_FOLDS, 3))
    except ModelError:
        return False


def _key(model: str, draw: _Draw, digests: tuple[str, str], device: str) -> str:
    rows = b"|".join(
        part.tobytes() for part in (draw.fold.train, draw.fold.test, *draw.points.values())
    )
    where = device if model_entry(model).uses_device else ""
    return checksum(LEARNING_CURVE, model, draw.fold.seed, rows.hex(), list(digests), where)


def _evaluate(job: _Job, folder: ResultFolder | None) -> tuple[str, dict[str, Any]]:
    target, fold = job.target, job.draw.fold
    points: dict[str, Any] = {}
    with one_core():
        fit = _fitter(job)
        for name, rows in job.draw.points.items():
            started = time.perf_counter()
            model = fit(rows)
            if model is None:
                continue
            p = model.predict_proba(target.X[fold.test])
            points[name] = {
                "classes": [str(each) for each in model.classes_],
                "labelled": len(rows),
                "probabilities": np.asarray(p, dtype=float).tolist(),
                "seconds": time.perf_counter() - started,
            }
    outcome = {
        "classes": list(target.classes),
        "y": target.y[fold.test].tolist(),
        "points": points,
    }
    if folder is not None:
        folder.store(job.name, outcome)
    return job.name, outcome


def _fitter(job: _Job) -> Callable[[NDArray[np.intp]], Any]:
    """A function that fits the job's model on labelled rows; None where it cannot do without."""
    target, source, seed = job.target, job.source, job.draw.fold.seed
    pool = target.X[job.draw.fold.train]  # the features of all cells of the training donors
    entry = model_entry(job.model)

    def fresh() -> Any:
        return entry.build(target.layout, seed, job.device)

    def given(rows: NDArray[np.intp]) -> dict[str, Any]:
        found = {"X": target.X[rows], "y": target.y[rows]}
        if job.model in PAIRS:
            found |= {
                "X_source": source.X,
                "y_source": source.y,
                "groups_source": source.donors,
            }
        return found

    pretrained = None
    if job.model == "finetune":
        pretrained = fresh().pretrain(source.X, source.y, source.donors)

    def fit(rows: NDArray[np.intp]) -> Any:
        model = fresh()
        if not len(rows):
            if job.model == "finetune":
                return model.without_labels(pool, np.unique(source.y), pretrained)
            if job.model in ("boosting-pooled", "logistic-pooled"):
                return model.without_labels(pool, source.X, source.y)
            return None
        if job.model == "boosting":
            # LightGBM's 20 cells in a leaf would leave 20 cells without a single split.
            return model.set_params(min_child_samples=min(20, max(1, len(rows) // 20))).fit(
                **given(rows)
            )
        if job.model == "logistic":
            return model.fit(**given(rows), inputs__unlabelled=pool)
        more = {"pretrained": pretrained} if pretrained is not None else {}
        return model.fit(**given(rows), groups=target.donors[rows], unlabelled=pool, **more)

    return fit


def _cuts(cohort: anndata.AnnData, target: Cells) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Name and cells of every part of the target that is scored."""
    yield ALL_CELLS, np.ones(len(target.y), dtype=bool)
    for column in CONDITIONS:
        if column not in cohort.obs:
            continue
        values = cohort.obs[column].astype(str).to_numpy()
        for value in sorted(set(values)):
            chosen = values == value
            counts = [int(np.sum(target.y[chosen] == name)) for name in target.classes]
            if chosen.sum() >= CUT_CELLS and min(counts) >= CUT_CELLS_OF_CLASS:
                yield f"{column}: {value}", chosen


def _rows(
    job: _Job, outcome: Mapping[str, Any], cuts: Mapping[str, NDArray[np.bool_]]
) -> Iterator[dict[str, Any]]:
    fold = job.draw.fold
    y = np.asarray(outcome["y"])
    for point, found in outcome["points"].items():
        best = np.asarray(found["probabilities"]).argmax(axis=1)
        predicted = np.asarray(found["classes"])[best]
        for cut, cells in cuts.items():
            rows = cells[fold.test]
            here = [name for name in outcome["classes"] if name in set(y[rows])]
            if len(here) < 2:
                continue
            yield (
                {
                    "features": job.target.features,
                    "model": job.model,
                    "mouse": job.model in PAIRS,
                    "cells_per_class": point,
                    "n_labelled": found["labelled"],
                    "cut": cut,
                    "draw": job.draw.number,
                    "run": fold.run,
                    "fold": fold.number,
                    # For the correction: labelled cells are drawn from all training cells.
                    "n_train": len(fold.train),
                    "n_test": int(rows.sum()),
                }
                | metrics.scores(y[rows], predicted[rows], here)
                | {"seconds": found["seconds"]}
            )


def summarize_draws(results: pd.DataFrame) -> pd.DataFrame:
    """Mean over draws with its 95 % interval, a row a model, point and cut.

    The variance of the mean is corrected as in
    `crosspatch.evaluation.comparison.corrected_resampled_t`, with the test cells and the training
    cells of the whole fold, from which the labelled ones are drawn.
    """
    who = ["features", "model", "mouse", "cells_per_class", "cut"]
    rows = []
    for place, part in results.groupby(who, sort=False):
        scores = part["macro_f1"].to_numpy()
        row = dict(zip(who, place, strict=True)) | {
            "n_labelled": float(part["n_labelled"].mean()),
            "draws": len(part),
            "macro_f1_mean": float(scores.mean()),
            "macro_f1_sd": float(scores.std(ddof=1)) if len(part) > 1 else float("nan"),
            "ci_low": float("nan"),
            "ci_high": float("nan"),
            "accuracy_mean": float(part["accuracy"].mean()),
        }
        if len(part) > 1:
            found = corrected_resampled_t(scores, np.zeros(len(part)), _share(part))
            row |= {"ci_low": found.ci_low, "ci_high": found.ci_high}
        rows.append(row)
    return pd.DataFrame(rows)


def gains(results: pd.DataFrame) -> pd.DataFrame:
    """Paired differences in macro-F1, with mouse minus without, on the same draws."""
    columns = ["features", "model", "without", "cells_per_class", "cut", "draws"]
    columns += ["delta_macro_f1", "ci_low", "ci_high", "p_value"]
    rows = []
    places = ["features", "cells_per_class", "cut"]
    for place, part in results.groupby(places, sort=False):
        wide = part.pivot_table(index="draw", columns="model", values="macro_f1")
        features, point, cut = place
        for model, without in PAIRS.items():
            if model not in wide or without not in wide:
                continue
            pair = wide[[model, without]].dropna()
            if len(pair) < 2:
                continue
            found = corrected_resampled_t(pair[model], pair[without], _share(part))
            differences = (found.delta, found.ci_low, found.ci_high, found.p_value)
            rows.append((features, model, without, point, cut, len(pair), *differences))
    return pd.DataFrame(rows, columns=columns)


def _share(part: pd.DataFrame) -> float:
    return float((part["n_test"] / part["n_train"]).mean())
