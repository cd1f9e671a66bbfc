"""Evaluate models and report.

Longer than 400 lines: what is printed of results stands beside the commands that print it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crosspatch.commands import options
from crosspatch.commands.completion import complete_dataset, complete_task
from crosspatch.commands.documents import AsJson, document
from crosspatch.commands.options import ManyValues
from crosspatch.commands.printing import print_joined, print_warning, progress_bar
from crosspatch.commands.root import command
from crosspatch.commands.terminal import (
    PrintedColumn,
    number_column,
    print_frame,
    print_rows,
    print_text,
    text_column,
)
from crosspatch.errors import CrosspatchError

if TYPE_CHECKING:
    import anndata
    from anndata import AnnData

    from crosspatch.evaluation.learning_curve import LearningCurve
    from crosspatch.evaluation.results import BenchmarkResult, CalibrationTables


@command("models", "Train and compare", "models")
def models(as_json: AsJson = False) -> None:
    """List the models."""
    from crosspatch.models.registry import MODEL_NAMES, model_entry

    takes = ("needs_source", "uses_layer", "uses_device")
    with document(as_json) as give:
        entries = [vars(model_entry(name)) for name in MODEL_NAMES]
        give({"models": [{k: each[k] for k in ("name", "about", *takes)} for each in entries]})
        if not as_json:
            rows = [(each["name"], each["about"]) for each in entries]
            print_rows("Models", [text_column("model"), text_column("what", fold=24)], rows)


@command("run", "Train and compare", "run --models forest vote --out results", cls=ManyValues)
@options.with_own_table
def run(
    *,
    cohort: options.CohortNames = None,
    own: AnnData | None = None,
    data_dir: options.DataDir = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="mouse, human, transfer. (default: all that the features allow)",
            autocompletion=complete_task,
        ),
    ] = None,
    features: options.Features = None,
    taxonomy: options.HumanLabels = None,
    models: options.ModelNames = None,
    protocol: options.ProtocolName = "donor",
    runs: options.Runs = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option(
            help="Datasets that protocol dataset holds out. (default: each in turn)",
            autocompletion=complete_dataset,
        ),
    ] = None,
    alignment: options.AlignmentName = "hodge2019",
    seed: options.Seed = 0,
    jobs: options.Processes,
    device: options.Device = "cpu",
    calibration: Annotated[
        bool,
        typer.Option(
            "--calibration",
            help="Evaluate models as `crosspatch train` makes them, with calibration, prediction "
            "sets, and scores by which families are present.",
        ),
    ] = False,
    layer: Annotated[
        bool,
        typer.Option(
            "--layer", help="Give models that take it the cortical layer of cells as well."
        ),
    ] = False,
    out: options.OutFolder = Path("results"),
    unverified: options.Unverified = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate models on cohorts, print the results beside the published ones, write a report.

    On your own cells with --table, --label and --group.
    A run that was stopped goes on where it was when the same command is given again.
    """
    from crosspatch.cohorts.table import by_species
    from crosspatch.evaluation.benchmark import benchmark

    if "learning-curve" in (task or ()):
        raise CrosspatchError(
            "the learning curve is a command by itself and has no calibration: "
            "`crosspatch learning-curve`"
        )
    if own is not None and (cohort or features or taxonomy):
        what = "{cohort}, {features} and {taxonomy}"
        raise CrosspatchError("", f"{what} are for public datasets; omit them with {{table}}")
    with document(as_json) as give:
        cohorts = (
            by_species(own)
            if own is not None
            else load_and_print_cohorts(
                cohort,
                task,
                features,
                data_dir,
                verify=not unverified,
                taxonomy=taxonomy,
                out=out,
                seed=seed,
                jobs=jobs,
            )
        )
        with progress_bar() as tell:
            result = benchmark(
                cohorts,
                tasks=task,
                models=models,
                protocol=protocol,
                runs=runs,
                held_out=held_out,
                alignment=alignment,
                seed=seed,
                jobs=jobs,
                device=device,
                calibration=calibration,
                layer=layer,
                out=out,
                progress=partial(tell, "folds"),
            )
        give({"out": out, "settings": result.settings, "tables": result.tables})
        if not as_json:
            _print_benchmark(result)
        finish(cohorts, result.tables, out)


@command("learning-curve", "Train and compare", "learning-curve --protocol quick", cls=ManyValues)
def learning_curve(
    *,
    cohort: options.CohortNames = None,
    data_dir: options.DataDir = None,
    features: options.Features = None,
    taxonomy: options.HumanLabels = None,
    models: options.ModelNames = None,
    protocol: options.ProtocolName = "donor",
    alignment: options.AlignmentName = "hodge2019",
    seed: options.Seed = 0,
    jobs: options.Processes,
    device: options.Device = "cpu",
    out: options.OutFolder = Path("learning-curve"),
    unverified: options.Unverified = False,
) -> None:
    """Score models against the number of labelled human cells, with and without mouse.

    A run that was stopped goes on where it was when the same command is given again.
    """
    from crosspatch.evaluation.learning_curve import learning_curve as score

    task, verify = ["transfer"], not unverified
    cohorts = load_and_print_cohorts(
        cohort,
        task,
        features,
        data_dir,
        verify=verify,
        taxonomy=taxonomy,
        out=out,
        seed=seed,
        jobs=jobs,
    )
    with progress_bar() as tell:
        found = score(
            cohorts,
            models=models,
            protocol=protocol,
            alignment=alignment,
            seed=seed,
            jobs=jobs,
            device=device,
            out=out,
            progress=partial(tell, "draws"),
        )
    _print_curve(found)
    finish(cohorts, found.tables, out)


def load_and_print_cohorts(
    given: list[str] | None,
    tasks: list[str] | None,
    features: str | None,
    data_dir: Path | None,
    *,
    verify: bool,
    taxonomy: str | None = None,
    out: Path,
    seed: int,
    jobs: int,
) -> dict[str, anndata.AnnData]:
    """The cohorts of a command, with what must be said of them printed."""
    from crosspatch.cohorts.loading import choose_cohorts, warning_about
    from crosspatch.evaluation.task_cohorts import load_cohorts

    names = given or ["auto"]
    chosen = choose_cohorts(names, data_dir)
    if chosen != names and chosen == ["simulated"]:
        print_text(
            "The Allen tables are not in the data directory: `crosspatch fetch tables` gets them "
            "(15 MB); --data-dir or CROSSPATCH_DATA names another directory."
        )
        print_warning("Running on SIMULATED recordings instead")
    # Recordings that were simulated for a run in the folder above are used again.
    above = out.parent / "simulated"
    shared = above.is_dir() and (out.parent / "settings.json").is_file()
    with progress_bar() as tell:
        cohorts = load_cohorts(
            chosen,
            features,
            tasks,
            data_dir,
            verify=verify,
            taxonomy=taxonomy,
            simulate_in=above if shared else out / "simulated",
            seed=seed,
            jobs=jobs,
            progress=tell,
        )
    for each in cohorts.values():
        print_joined(each)
    print_warning(warning_about(cohorts))
    return cohorts


def finish(cohorts: Mapping[str, anndata.AnnData], tables: Iterable[str], out: Path) -> None:
    """Say what was written, and write its report."""
    from crosspatch.cohorts.loading import warning_about

    print_warning(warning_about(cohorts))
    print_text(f"wrote {out}/: {', '.join(f'{name}.csv' for name in tables)}, settings.json", 2)
    report([out], out / "report.html")


@command("report", "Train and compare", "report results --out report.html")
def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            help="Folders written by `crosspatch run`, `learning-curve` and `explain-models`."
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Page to write, .html.")] = Path(
        "report.html"
    ),
) -> None:
    """Make one page of results: what was done, tables, figures, settings.

    It needs no network. Every figure is saved beside it as PNG and SVG.
    """
    from crosspatch.reporting.report import write_report

    written = write_report(results, out)
    print(f"wrote {len(written) - 1} figures (PNG, SVG) to {written[-1].parent}/")
    print(f"report: {out}")


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


def _print_benchmark(result: BenchmarkResult) -> None:
    """Everything that is to be said of a benchmark."""
    if result.settings["protocol"] == "dataset":
        _print_held_out(result)
    else:
        _print_result(result)
        _print_cuts(result)
        if result.calibration is not None:
            _print_calibration(result.calibration)
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


def _print_calibration(found: CalibrationTables) -> None:
    """How honest the uncertainty is."""
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
        "By what is present": (
            found.families,
            ("task", "model", "present"),
            ("macro_f1", "accuracy", "coverage", "set_size", "refused"),
        ),
    }
    for title, (frame, names, measures) in tables.items():
        words = [text_column(name, fold=12) for name in names]
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


def _print_curve(curve: LearningCurve) -> None:
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
        "What mouse adds, corrected resampled t-test",
        curve.gains,
        [
            text_column("difference", "{model} − {without}", fold=16),
            text_column("cut", fold=12),
            number,
            *_COMPARED,
        ],
    )
