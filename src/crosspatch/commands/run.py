"""Evaluate models and report."""

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
from crosspatch.commands.printed_results import print_benchmark, print_curve
from crosspatch.commands.printing import print_joined, print_warning, progress_bar
from crosspatch.commands.root import command
from crosspatch.commands.terminal import print_rows, print_text, text_column
from crosspatch.errors import CrosspatchError

if TYPE_CHECKING:
    import anndata
    from anndata import AnnData


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
            print_benchmark(result)
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
    print_curve(found)
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
