"""Evaluate models and report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crosspatch.commands.options import (
    AlignmentOption,
    CohortOption,
    DataDirOption,
    DeviceOption,
    FeaturesOption,
    JobsOption,
    ManyValues,
    ProtocolOption,
    SeedOption,
    UnverifiedOption,
)
from crosspatch.commands.printing import (
    print_calibration,
    print_curve,
    print_joined,
    print_result,
    print_warning,
    progress_bar,
)
from crosspatch.commands.root import app

if TYPE_CHECKING:
    import anndata


@app.command("models")
def models() -> None:
    """List the models."""
    from crosspatch.models.registry import MODEL_NAMES, model_entry

    for name in MODEL_NAMES:
        print(f"{name:24s}{model_entry(name).about}")


@app.command("run", cls=ManyValues)
def run(
    cohort: CohortOption = None,
    data_dir: DataDirOption = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="mouse, human, transfer (default: all that the features allow); or "
            "learning-curve, by itself: what mouse is worth with few labelled human cells."
        ),
    ] = None,
    features: FeaturesOption = None,
    models: Annotated[
        list[str] | None,
        typer.Option(help="Models by name (`crosspatch models`). (default: a choice by task)"),
    ] = None,
    protocol: ProtocolOption = "donor",
    alignment: AlignmentOption = "hodge2019",
    seed: SeedOption = 0,
    jobs: JobsOption = None,
    device: DeviceOption = "cpu",
    calibration: Annotated[
        bool,
        typer.Option(
            "--calibration",
            help="Evaluate models as `crosspatch train` makes them, with calibration, prediction "
            "sets, and scores by which families are present.",
        ),
    ] = False,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")] = Path(
        "results"
    ),
    unverified: UnverifiedOption = False,
) -> None:
    """Evaluate models on cohorts, print the results beside the published ones, write a report.

    A run that was stopped goes on where it was when the same command is given again.
    """
    from joblib import cpu_count

    from crosspatch.cohorts.loading import warning_about
    from crosspatch.evaluation.benchmark import benchmark
    from crosspatch.evaluation.learning_curve import is_learning_curve, learning_curve

    jobs = jobs or cpu_count()
    curve = is_learning_curve(task, calibration)
    cohorts = load_and_print_cohorts(
        cohort,
        ["transfer"] if curve else task,
        features,
        data_dir,
        unverified=unverified,
        simulate_in=simulate_in(out),
        seed=seed,
        jobs=jobs,
    )
    with progress_bar() as tell:

        def folds(done: int, total: int) -> None:
            tell("draws" if curve else "folds", done, total)

        if curve:
            found = learning_curve(
                cohorts,
                models=models,
                protocol=protocol,
                alignment=alignment,
                seed=seed,
                jobs=jobs,
                device=device,
                out=out,
                progress=folds,
            )
        else:
            result = benchmark(
                cohorts,
                tasks=task,
                models=models,
                protocol=protocol,
                alignment=alignment,
                seed=seed,
                jobs=jobs,
                device=device,
                calibration=calibration,
                out=out,
                progress=folds,
            )
    if curve:
        print_curve(found)
        tables = found.tables
    else:
        print_result(result)
        if result.calibration is not None:
            print_calibration(result)
        tables = result.tables
    print_warning(warning_about(cohorts))
    print(f"wrote {out}/: {', '.join(f'{name}.csv' for name in tables)}, settings.json")
    write_and_print_report([out], out / "report.html")


def load_and_print_cohorts(
    given: list[str] | None,
    tasks: list[str] | None,
    features: str | None,
    data_dir: Path | None,
    *,
    unverified: bool,
    simulate_in: Path,
    seed: int,
    jobs: int,
) -> dict[str, anndata.AnnData]:
    """The cohorts of a command, with what must be said of them printed."""
    from crosspatch.cohorts.loading import choose_cohorts, warning_about
    from crosspatch.evaluation.task_cohorts import load_cohorts

    names = given or ["auto"]
    chosen = choose_cohorts(names, data_dir)
    if chosen != names and chosen == ["simulated"]:
        print(
            "The Allen tables are not in the data directory: `crosspatch fetch tables` gets them "
            "(9 MB); --data-dir or CROSSPATCH_DATA names another directory."
        )
        print_warning("Running on SIMULATED recordings instead")
    with progress_bar() as tell:
        cohorts = load_cohorts(
            chosen,
            features,
            tasks,
            data_dir,
            verify=not unverified,
            simulate_in=simulate_in,
            seed=seed,
            jobs=jobs,
            progress=tell,
        )
    for each in cohorts.values():
        print_joined(each)
    print_warning(warning_about(cohorts))
    return cohorts


def simulate_in(out: Path) -> Path:
    """Where recordings are simulated; those of a run in the folder above are used again."""
    above = out.parent / "simulated"
    shared = above.is_dir() and (out.parent / "settings.json").is_file()
    return above if shared else out / "simulated"


def write_and_print_report(folders: list[Path], out: Path) -> None:
    """Write the report, and say where it is."""
    from crosspatch.reporting.report import write_report

    written = write_report(folders, out)
    print(f"wrote {len(written) - 1} figures (PNG, SVG) to {written[-1].parent}/")
    print(f"report: {out}")


@app.command("report")
def report(
    results: Annotated[
        list[Path],
        typer.Argument(help="Folders written by `crosspatch run` and `crosspatch explain`."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Page to write, .html.")] = Path(
        "report.html"
    ),
) -> None:
    """Make one page of results: what was done, tables, figures, settings.

    It needs no network. Every figure is saved beside it as PNG and SVG.
    """
    write_and_print_report(results, out)
