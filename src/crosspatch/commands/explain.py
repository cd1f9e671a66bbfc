"""Explain models, and cells."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crosspatch.commands.options import (
    AmplitudesOption,
    DataDirOption,
    JobsOption,
    LimitOption,
    ManyValues,
    SeedOption,
    StepEndOption,
    StepStartOption,
)
from crosspatch.commands.printing import (
    ask_at_terminal,
    exit_if_failed,
    print_explanation,
    print_warning,
    progress_bar,
    recordings_done,
    say_on_stderr,
)
from crosspatch.commands.root import app
from crosspatch.commands.run import load_and_print_cohorts, simulate_in, write_and_print_report
from crosspatch.errors import CrosspatchError
from crosspatch.species import SPECIES

if TYPE_CHECKING:
    from crosspatch.prediction.pipeline import Request


_ABOUT_MODELS, _ABOUT_CELLS = "Of models (no INPUTS)", "Of cells (INPUTS)"


@app.command("explain", cls=ManyValues)
def explain(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Recordings or tables of which single cells are explained. (default: models are "
            "explained, on cohorts)"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder. (default: explanation, or cells)"),
    ] = None,
    seed: SeedOption = 0,
    jobs: JobsOption = None,
    data_dir: DataDirOption = None,
    cohort: Annotated[
        list[str] | None,
        typer.Option(
            help="allen, simulated, auto, or cohort tables (.h5ad), one a species. (default: auto)",
            rich_help_panel=_ABOUT_MODELS,
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="shared, or full (allen-human only); gouwens or paper for simulated cohorts.",
            rich_help_panel=_ABOUT_MODELS,
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            help="Models by name. (default: bilstm-attention boosting)",
            rich_help_panel=_ABOUT_MODELS,
        ),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="donor, published or quick.", rich_help_panel=_ABOUT_MODELS)
    ] = "quick",
    runs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Runs of 5 folds, if not the protocol's.", rich_help_panel=_ABOUT_MODELS
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            min=0,
            help="Further fits of each fold with other seeds, for the stability of attention.",
            rich_help_panel=_ABOUT_MODELS,
        ),
    ] = 3,
    no_removed: Annotated[
        bool,
        typer.Option(
            "--no-removed",
            help="Only permute families; do not fit again without each, the most of the time.",
            rich_help_panel=_ABOUT_MODELS,
        ),
    ] = False,
    alignment: Annotated[
        str, typer.Option(help="hodge2019 or published-code.", rich_help_panel=_ABOUT_MODELS)
    ] = "hodge2019",
    device: Annotated[
        str, typer.Option(help="cpu or cuda.", rich_help_panel=_ABOUT_MODELS)
    ] = "cpu",
    unverified: Annotated[
        bool,
        typer.Option(
            "--unverified",
            help="Accept source files other than the pinned versions.",
            rich_help_panel=_ABOUT_MODELS,
        ),
    ] = False,
    model: Annotated[
        list[Path] | None,
        typer.Option(
            help="Model folder; repeat it for another species. (default: trained once from the "
            "data directory)",
            rich_help_panel=_ABOUT_CELLS,
        ),
    ] = None,
    cell: Annotated[
        list[str] | None,
        typer.Option(
            help="Ids of the cells. (default: the first 20)", rich_help_panel=_ABOUT_CELLS
        ),
    ] = None,
    species: Annotated[
        str | None,
        typer.Option(
            help=f"{' or '.join(sorted(SPECIES))}, for cells whose file does not say.",
            rich_help_panel=_ABOUT_CELLS,
        ),
    ] = None,
    columns: Annotated[
        Path | None,
        typer.Option(
            help="YAML file that says which column of a table is what.",
            rich_help_panel=_ABOUT_CELLS,
        ),
    ] = None,
    quality: Annotated[
        str,
        typer.Option(help="Thresholds: default, allen or any.", rich_help_panel=_ABOUT_CELLS),
    ] = "default",
    step_start: StepStartOption = None,
    step_end: StepEndOption = None,
    amplitudes: AmplitudesOption = None,
    limit: LimitOption = 300.0,
) -> None:
    """Explain models, and check it; or explain single cells.

    Without INPUTS: what models look at (attention) beside what happens without each family, on
    held-out donors; which features mean the same in mouse and human; how far subclasses lie apart.
    With INPUTS: a page a cell, with what spoke for and against its subclass.
    """
    from joblib import cpu_count

    if inputs:
        from crosspatch.features.extraction import step_described
        from crosspatch.prediction.pipeline import request

        wanted = request(
            inputs,
            model or (),
            columns,
            species=species,
            quality=quality,
            step=step_described(step_start, step_end, amplitudes),
            data_dir=data_dir,
            jobs=jobs or cpu_count(),
            limit=limit,
        )
        _explain_cells(wanted, out or Path("cells"), cell or [], seed)
        return
    for option, given in (("--model", model), ("--cell", cell), ("--columns", columns)):
        if given:
            raise CrosspatchError(f"{option} is for cells: name their recordings or table")
    from crosspatch.cohorts.loading import warning_about
    from crosspatch.explanation.explain import EXPLAINED_MODELS
    from crosspatch.explanation.explain import explain as explain_models

    out = out or Path("explanation")
    cohorts = load_and_print_cohorts(
        cohort,
        None,
        features,
        data_dir,
        unverified=unverified,
        simulate_in=simulate_in(out),
        seed=seed,
        jobs=jobs or cpu_count(),
    )
    with progress_bar() as tell:
        found = explain_models(
            cohorts,
            models=models or EXPLAINED_MODELS,
            protocol=protocol,
            runs=runs,
            alignment=alignment,
            seeds=seeds,
            removed=not no_removed,
            seed=seed,
            jobs=jobs or cpu_count(),
            device=device,
            out=out,
            progress=lambda done, total: tell("explain", done, total),
        )
    print_explanation(found)
    print_warning(warning_about(cohorts))
    print(f"wrote {out}/: {', '.join(f'{name}.csv' for name in found.tables)}, settings.json")
    write_and_print_report([out], out / "report.html")


def _explain_cells(wanted: Request, out: Path, cells: list[str], seed: int) -> None:
    from crosspatch.prediction.explained import explain_cells
    from crosspatch.prediction.pipeline import Listener, Pipeline
    from crosspatch.reporting.cell_page import write_pages

    ask = ask_at_terminal if sys.stdin.isatty() else None
    with progress_bar() as tell:
        pipeline = Pipeline(wanted, Listener(say_on_stderr, ask, tell))
        found = explain_cells(pipeline, cells, seed=seed, progress=recordings_done(tell))
    written = write_pages(found, out, say=print)
    print(f"wrote {len(found)} pages (PNG, SVG) and {written[-1]}")
    exit_if_failed(pipeline.inputs.failed)
