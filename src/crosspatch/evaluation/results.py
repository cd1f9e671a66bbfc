"""Results as tidy tables, and the folder they are kept in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from crosspatch.drawing.notebook import as_html
from crosspatch.errors import EvaluationError
from crosspatch.evaluation.comparison import COMPARED, paired_differences
from crosspatch.writing import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What identifies a model's results within a table.
WHO = ["task", "features", "model", "protocol"]

#: What a run was made with, as ``settings.json`` holds it.
Settings = Mapping[str, Any]
#: Columns of prediction sets: tuples here, joined in a csv file.
_SETS = ("set", "class_set")

#: ``kind`` in the settings of a result folder.
BENCHMARK = "benchmark"
#: Tables of a benchmark's folder, each a csv file.
TABLES = ("results", "summary", "comparisons", "confusion", "cohorts", "cuts")


@dataclass(frozen=True)
class CalibrationTables:
    """How honest models are about their uncertainty; see `crosspatch.evaluation.uncertainty`."""

    #: One row per test cell, with probabilities, prediction sets and p-value.
    predictions: pd.DataFrame
    #: Calibration error; coverage and size of the sets; confidence and accuracy by bin; scores by
    #: which families are present.
    calibration: pd.DataFrame
    coverage: pd.DataFrame
    reliability: pd.DataFrame
    families: pd.DataFrame


#: Further tables of a run with calibration.
CALIBRATION_TABLES = tuple(field.name for field in fields(CalibrationTables))


@dataclass(frozen=True, repr=False)
class BenchmarkResult:
    """What came out of a benchmark."""

    results: pd.DataFrame  # one row per task, model, run and fold, with every score
    #: One row per task and model: mean and standard deviation over runs, a run being the mean of
    #: its folds, beside the published numbers.
    summary: pd.DataFrame
    #: One row per task and pair of models: paired difference in macro-F1 (a minus b) with its 95 %
    #: interval and p-value, corrected for overlapping training sets.
    comparisons: pd.DataFrame
    confusion: pd.DataFrame  # one row per task, model, run, fold, true and predicted class
    cohorts: pd.DataFrame  # what the cells are; see `crosspatch.cohorts.table.composition`
    #: One row per task, model and cut of the tested cells; see `crosspatch.evaluation.cell_cuts`.
    cuts: pd.DataFrame
    settings: Settings  # what it was run with
    calibration: CalibrationTables | None = None

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table by its name."""
        more = {} if self.calibration is None else vars(self.calibration)
        return {name: getattr(self, name) for name in TABLES} | dict(more)

    def __repr__(self) -> str:
        models, tasks = (", ".join(dict.fromkeys(self.summary[n])) for n in ("model", "task"))
        made_up = any(each.get("simulated") for each in self.settings["cohorts"].values())
        return f"BenchmarkResult of {models} in {tasks}{', SIMULATED cells' if made_up else ''}"

    def _repr_html_(self) -> str:
        """Scores of every model, mean and SD over runs, for notebooks."""
        scores = self.summary[[*WHO, "runs"]].copy()
        scores["macro-F1"] = _mean_and_sd(self.summary, "macro_f1")
        scores["accuracy"] = _mean_and_sd(self.summary, "accuracy")
        whole = self.cohorts[self.cohorts["group"] == "all"].itertuples()
        of = [f"{row.species}: {row.cells:,} cells of {row.donors:,} donors" for row in whole]
        return as_html(repr(self), scores, notes=of)

    def plot(self, what: str = "scores") -> Figure:
        """A figure of the report.

        Parameters
        ----------
        what : str
            ``scores`` of the models with their spread over runs; ``differences`` between models
            with 95 % intervals; ``confusion`` of the classes; ``classes``, the F1 of each; of a
            result with calibration also ``reliability`` and ``coverage``.

        Raises
        ------
        EvaluationError
            If there is no such figure of this result.
        """
        from crosspatch.evaluation.benchmark_figures import FIGURES

        tables = self.tables
        there = [name for name, (_, of) in FIGURES.items() if len(tables.get(of, ()))]
        if what not in there:
            raise EvaluationError(
                f"there is no figure '{what}' of this result", f"use {{what}} {', '.join(there)}"
            )
        draw, table = FIGURES[what]
        return draw(tables[table])


def _mean_and_sd(summary: pd.DataFrame, score: str) -> list[str]:
    """Mean ± SD over runs as text; one run has no SD."""
    sd = summary.get(f"{score}_sd", pd.Series(np.nan, summary.index))
    return [
        f"{mean:.3f}" + (f" ± {spread:.3f}" if np.isfinite(spread) else "")
        for mean, spread in zip(summary[f"{score}_mean"], sd, strict=True)
    ]


def benchmark_result(
    results: pd.DataFrame,
    confusion: pd.DataFrame,
    cohorts: pd.DataFrame,
    cuts: pd.DataFrame,
    settings: Settings,
    calibration: CalibrationTables | None = None,
) -> BenchmarkResult:
    """Make every table from the results of the folds."""
    tables = results, summarize_runs(results), compare(results), confusion, cohorts, cuts
    return BenchmarkResult(*tables, settings, calibration)


@cache
def published() -> pd.DataFrame:
    """Numbers of arXiv 2603.11000: one row per task and model; macro-F1, accuracy, their SD."""
    text = files("crosspatch.evaluation") / "data" / "published.csv"
    with text.open(encoding="utf-8") as stream:
        return pd.read_csv(stream)


def over_runs(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Mean and SD over ``run`` of every column that is not one of `keys`: a row per their value."""
    scores = [name for name in rows.columns if name not in (*keys, "run")]
    grouped = rows.groupby(list(keys), sort=False)[scores]
    mean, deviation = grouped.mean(), grouped.std(ddof=1)
    table = mean.add_suffix("_mean").join(deviation.add_suffix("_sd"))
    table = table[[f"{name}_{kind}" for name in scores for kind in ("mean", "sd")]]
    table.insert(0, "runs", grouped.size())
    return table.reset_index()


def summarize_runs(results: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over runs, beside the published numbers."""
    scores = ["macro_f1", "accuracy", "balanced_accuracy"]
    scores += [name for name in results.columns if name.startswith("f1_")]
    runs = results.groupby([*WHO, "run"], sort=False)[[*scores, "seconds"]].mean()
    ours = over_runs(runs.reset_index(), WHO).drop(columns="seconds_sd")
    # A class that a task does not have has no score, and one run no standard deviation.
    ours = ours.dropna(axis="columns", how="all") if len(ours) else ours
    ours = ours.rename(columns={"seconds_mean": "seconds_per_fold"})
    theirs = published().set_index(["task", "model"])[["macro_f1", "accuracy"]]
    merged = ours.join(theirs.add_prefix("published_"), on=["task", "model"])
    made_up = merged["features"].astype(str).str.contains("simulated")
    merged.loc[made_up, ["published_macro_f1", "published_accuracy"]] = np.nan
    first = [*WHO, "macro_f1_mean", "macro_f1_sd", "accuracy_mean", "accuracy_sd"]
    first += ["published_macro_f1", "published_accuracy"]
    return merged.reindex(columns=[*first, *(name for name in merged if name not in first)])


def of_best_models(part: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table that are of the model with the highest macro-F1 of its task."""
    best = summary.loc[summary.groupby("task", sort=False)["macro_f1_mean"].idxmax()]
    model = part["task"].map(best.set_index("task")["model"])
    return part[part["model"] == model]


def compare(results: pd.DataFrame) -> pd.DataFrame:
    """Paired differences in macro-F1 of every two models of a task, on the same folds."""
    rows = []
    places = results.groupby(["task", "features", "protocol"], sort=False)
    for (task, features, protocol), part in places:
        pairs = [(b, a) for a, b in combinations(dict.fromkeys(part["model"]), 2)]
        for a, b, folds, *found in paired_differences(part, ["run", "fold"], pairs):
            rows.append((task, a, b, *found, features, protocol, folds))
    return pd.DataFrame(rows, columns=COMPARED)


@dataclass(frozen=True)
class ResultFolder:
    """A folder that results are written to, part by part.

    ``settings.json`` says whether it is whole (``"status": "complete"``); that is written last.
    """

    path: Path
    #: Names of the tables that may be in it.
    tables: tuple[str, ...] = (*TABLES, *CALIBRATION_TABLES)
    #: Keys that the stored outcome of a part must have.
    needs: frozenset[str] = frozenset({"classes", "y", "probabilities", "n_train", "seconds"})

    def begin(self, settings: Settings) -> Self:
        """Mark the folder as under way and take away tables of an earlier run; gives itself."""
        tables = [self.path / f"{name}.csv" for name in self.tables]
        foreign = [file for file in tables if file.exists()]
        if foreign and not (self.path / "settings.json").is_file():
            raise EvaluationError(
                f"{self.path} is not a result folder, and {foreign[0].name} in it would be lost",
                hint="choose another {out}",
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._write_settings("running", settings)
            for file in tables:
                file.unlink(missing_ok=True)
        except OSError as error:
            raise EvaluationError(
                f"{self.path}: results cannot be written here ({error.strerror})",
                hint="choose another {out}",
            ) from error
        return self

    def finish(self, tables: Mapping[str, pd.DataFrame], settings: Settings) -> None:
        """Write the tables, then mark the folder as whole."""
        for name, table in tables.items():
            joined = {column: table[column].map("|".join) for column in _SETS if column in table}
            self.write(f"{name}.csv", table.assign(**joined).to_csv(index=False))
        self._write_settings("complete", settings)

    def store(self, name: str, outcome: Mapping[str, object]) -> None:
        """Keep the outcome of a part."""
        (self.path / "folds").mkdir(exist_ok=True)
        self.write(f"folds/{name}.json", json.dumps(outcome))

    def load(self, name: str) -> Any:
        """The stored outcome of a part; None if there is none, or it is damaged."""
        try:
            outcome = json.loads((self.path / f"folds/{name}.json").read_text())
        except (OSError, ValueError):
            return None
        return outcome if isinstance(outcome, dict) and outcome.keys() >= self.needs else None

    def write(self, name: str, text: str) -> None:
        """Write a file of the folder, whole or not at all."""
        with replacing(self.path / name, EvaluationError) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _write_settings(self, status: str, settings: Settings) -> None:
        self.write("settings.json", json.dumps({"status": status, **settings}, indent=2) + "\n")


def read_settings(path: str | Path, kind: str | None = None) -> Settings:
    """Settings of a result folder, without its status; it may hold any kind of results by default.

    EvaluationError if it is not there, is damaged, of another kind, or its run was not finished.
    """
    folder = Path(path)
    file = folder / "settings.json"
    if not file.is_file():
        raise EvaluationError(f"{folder} is not a result folder: it has no settings.json")
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        status = settings.pop("status", None)
    except (OSError, ValueError, AttributeError) as error:
        raise EvaluationError(f"{file} is damaged ({error}); run the evaluation again") from error
    if status != "complete":
        raise EvaluationError(
            f"{folder}: the run was stopped before its end; give the same command again to go on"
        )
    found = settings.get("kind", BENCHMARK)
    if kind not in (None, found):
        raise EvaluationError(f"{path} holds results of another kind: {found}")
    return settings


def read_tables(path: str | Path, names: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Tables of a result folder by name; EvaluationError if one is missing or damaged."""
    folder, as_text = Path(path), dict.fromkeys(_SETS, str)
    try:
        tables = {name: pd.read_csv(folder / f"{name}.csv", dtype=as_text) for name in names}
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{folder}: {error}; run the evaluation again") from error
    for table in tables.values():
        for column in table.columns.intersection(list(_SETS)):
            texts = table[column].fillna("")  # an empty set
            table[column] = [tuple(text.split("|")) if text else () for text in texts]
    return tables


def read_results(path: str | Path) -> BenchmarkResult:
    """Read a result folder of a benchmark; errors as in `read_settings`."""
    settings = read_settings(path, BENCHMARK)
    tables = read_tables(path, TABLES)
    with_calibration = bool(settings.get("calibration"))
    more = CalibrationTables(**read_tables(path, CALIBRATION_TABLES)) if with_calibration else None
    return BenchmarkResult(**tables, settings=settings, calibration=more)
