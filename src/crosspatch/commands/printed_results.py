"""What is printed of a benchmark and of a learning curve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crosspatch.commands.terminal import (
    PrintedColumn,
    number_column,
    print_frame,
    print_text,
    text_column,
)

if TYPE_CHECKING:
    from crosspatch.evaluation.learning_curve import LearningCurve
    from crosspatch.evaluation.results import BenchmarkResult


def _spread(header: str, name: str, digits: int = 3, rank: int = 0) -> PrintedColumn:
    """A column of mean and standard deviation."""
    mean, deviation = f"{{{name}_mean:.{digits}f}}", f" ± {{{name}_sd:.{digits}f}}"
    return number_column(header, mean, deviation, rank=rank)


def interval(digits: int) -> PrintedColumn:
    """A column of confidence intervals."""
    return number_column("95 % interval", f"[{{ci_low:+.{digits}f}}, {{ci_high:+.{digits}f}}]")


P_VALUE = number_column("p", "{p_value:.3f}")

# What a paired comparison gave.
_COMPARED = (number_column("macro-F1", "{delta_macro_f1:+.4f}"), interval(4), P_VALUE)
_DIFFERENCE = text_column("difference", "{model_a} − {model_b}", fold=16)
_HELD_OUT = text_column("held out", "{task}", fold=12)
_MODEL = text_column("model", fold=16)


def print_benchmark(result: BenchmarkResult) -> None:
    """Everything that is to be said of a benchmark."""
    if result.settings["protocol"] == "dataset":
        _print_held_out(result)
    else:
        _print_result(result)
        _print_cuts(result)
        if result.calibration is not None:
            _print_calibration(result)
    _print_repeated(result)


def _print_result(result: BenchmarkResult) -> None:
    """Scores and paired differences."""
    summary = result.summary
    print_text(f"\n{result.settings['protocol']}: {result.settings['protocol_about']}", 2)
    print_frame(
        "Results (mean ± SD over runs)",
        summary,
        [
            text_column("task"),
            text_column("features", rank=1),
            _MODEL,
            _spread("macro-F1", "macro_f1", 4),
            number_column("published", "{published_macro_f1:.4f}", rank=2),
            _spread("accuracy", "accuracy", 4),
            number_column("published", "{published_accuracy:.4f}", rank=3),
        ],
    )
    if summary["published_macro_f1"].notna().any():
        print_text(
            "published: arXiv 2603.11000, other cells (after its own QC of recordings) and "
            "features, folds that ignore the donor; for orientation, not a like-for-like comparison"
        )
    if len(result.comparisons):
        print_frame(
            "Paired differences, corrected resampled t-test",
            result.comparisons,
            [text_column("task"), _DIFFERENCE, *_COMPARED],
        )


def _print_cuts(result: BenchmarkResult) -> None:
    """Where the score of each task's best model comes from; only cuts that are scored."""
    from crosspatch.evaluation.cell_cuts import DISAGREE
    from crosspatch.evaluation.results import of_best_models

    columns = [text_column("tested cells", fold=16), number_column("cells", "{cells:,}")]
    columns.append(_spread("macro-F1", "macro_f1"))
    shares = ("coverage", "confident") if "coverage_mean" in result.cuts else ("accuracy",)
    columns += [number_column(name, f"{{{name}_mean:.3f}}") for name in shares]
    best = of_best_models(result.cuts, result.summary).rename(columns={"cut": "tested cells"})
    for (task, model), part in best.groupby(["task", "model"], sort=False):
        scored = part.dropna(subset="macro_f1_mean")
        if len(scored) < 2:
            continue
        title = f"{model} by tested cells, task {task} (folds pooled)"
        print_frame(title, scored, columns)
        for row in part[part["tested cells"] == DISAGREE].to_dict("records"):
            print_text(
                f"Of the {row['cells']} cells that SEA-AD labels unlike Lee, Dalley et al., "
                f"{model} calls {row['as_lee2023_mean']:.3f} as these do and "
                f"{row['as_sea_ad_mean']:.3f} as SEA-AD does."
            )


def _print_held_out(result: BenchmarkResult) -> None:
    """One row per dataset held out and model, in two tables that fit a narrow terminal."""
    print_text(f"\n{result.settings['protocol']}: {result.settings['protocol_about']}.", 2)
    cells = result.results.groupby(["task", "model"], sort=False)["n_test"].first()
    summary = result.summary.join(cells, on=["task", "model"])
    print_frame(
        "Datasets held out (mean ± SD over runs; 95 % interval: donors resampled)",
        summary,
        [
            _HELD_OUT,
            _MODEL,
            number_column("cells", "{n_test}"),
            _spread("macro-F1", "macro_f1"),
            number_column("interval", "[{ci_low:.2f}, {ci_high:.2f}]"),
            number_column("accuracy", "{accuracy_mean:.3f}"),
        ],
    )
    if result.calibration is not None:
        found = result.calibration.coverage
        covered = found[(found["class"] == "all") & (found["sets"] == "over all cells")]
        print_frame(
            "What the answers are worth there (shares of its cells; of sets: 90 % aimed at)",
            result.calibration.calibration.merge(covered, on=["task", "model"]),
            [
                _HELD_OUT,
                _MODEL,
                number_column("in sets", "{coverage_mean:.1%}"),
                number_column("confident", "{confident_mean:.1%}"),
                number_column("of these right", "{accuracy_confident_mean:.1%}"),
                number_column("outside", "{outside_mean:.1%}"),
                number_column("refused", "{refused_mean:.1%}"),
            ],
        )
    if len(result.comparisons):
        print_frame(
            "Paired differences, donors of the dataset resampled",
            result.comparisons,
            [_HELD_OUT, _DIFFERENCE, *_COMPARED],
        )
    for name, reason in result.settings["skipped"].items():
        print_text(f"{name} is not held out: {reason}", 2)


def _print_calibration(result: BenchmarkResult) -> None:
    """How honest the uncertainty is; what is present makes many rows, so of the best models."""
    from crosspatch.evaluation.results import of_best_models

    found = result.calibration
    assert found is not None  # noqa: S101, for the type checker
    tables = {
        "Calibration (expected calibration error; shares of cells)": (
            found.calibration,
            ("task", "model"),
            ("ece", "confident", "accuracy_confident", "outside", "refused"),
        ),
        "90 % prediction sets": (
            found.coverage,
            ("task", "model", "sets", "class"),
            ("coverage", "set_size", "one_class", "empty"),
        ),
        "By what is present, of each task's best model (families.csv has all)": (
            of_best_models(found.families, result.summary),
            ("task", "model", "present"),
            ("macro_f1", "accuracy", "coverage", "set_size", "refused"),
        ),
    }
    for title, (frame, names, measures) in tables.items():
        words = [text_column(name, fold=16) for name in names]
        spreads = [
            _spread(measure.replace("_", " "), measure, rank=max(rank - 1, 0))
            for rank, measure in enumerate(measures)
        ]
        print_frame(title, frame, [*words, *spreads])


def _print_repeated(result: BenchmarkResult) -> None:
    """Say which rows of a task with a second species are those of the task without it."""
    from crosspatch.evaluation.protocols import TASKS
    from crosspatch.models.registry import model_entry

    done = result.settings["tasks"]
    for task in (TASKS[name] for name in done if TASKS[name].source):
        names = result.summary.loc[result.summary["task"].str.startswith(task.name), "model"]
        alone = [name for name in names.unique() if not model_entry(name).needs_source]
        if alone and task.species in done:
            print_text(
                f"in task {task.name} these learn without {task.source} and repeat task "
                f"{task.species}: {', '.join(alone)}"
            )


def print_curve(curve: LearningCurve) -> None:
    """The learning curve."""
    print_text(f"\n{curve.settings['protocol']}: {curve.settings['protocol_about']}", 2)
    every = curve.summary[curve.summary["cut"] == "all"]
    number = number_column("cells a class", "{cells_per_class}")
    print_frame(
        "Macro-F1 by labelled human cells of each class (mean ± SD over draws)",
        every.assign(mouse=every["mouse"].map({True: "with", False: "without"})),
        [_MODEL, text_column("mouse"), number, _spread("macro-F1", "macro_f1", 4)],
    )
    print_frame(
        "What mouse adds, corrected resampled t-test (gains.csv has it by tested cells)",
        curve.gains[curve.gains["cut"] == "all"],
        [text_column("difference", "{model} − {without}", fold=16), number, *_COMPARED],
    )
