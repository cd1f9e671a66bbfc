"""Train, look at a model, predict."""

from __future__ import annotations

import sys
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crosspatch.commands import options
from crosspatch.commands.printing import (
    as_flag,
    ask_at_terminal,
    exit_if_failed,
    progress_bar,
    recordings_done,
    say_on_stderr,
)
from crosspatch.commands.printing_cells import print_predictions
from crosspatch.commands.root import app, model_app

if TYPE_CHECKING:
    from crosspatch.prediction.pipeline import Pipeline
    from crosspatch.prediction.prediction import Prediction


@app.command("train")
def train(
    *,
    target: Annotated[
        str, typer.Option(help="allen-human, allen-mouse, or a cohort table (.h5ad).")
    ],
    out: options.OutFolder,
    source: Annotated[
        str | None,
        typer.Option(help="Second species, for models that learn from it: allen-mouse, or .h5ad."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Name (`crosspatch models`). (default: what measured best)"),
    ] = None,
    features: Annotated[
        str | None, typer.Option(help="shared, or full (allen-human). (default: shared)")
    ] = None,
    alignment: Annotated[
        str | None,
        typer.Option(
            help="Reading of mouse subclasses, hodge2019 or published-code. (default: hodge2019, "
            "and none for mouse alone)"
        ),
    ] = None,
    leave_out: Annotated[
        str | None,
        typer.Option(
            metavar="RUN:FOLD",
            help="Leave out the test cells of this fold of `crosspatch run --calibration`, to "
            "predict them.",
        ),
    ] = None,
    seed: options.Seed = 0,
    jobs: options.Processes,
    device: options.Device = "cpu",
    data_dir: options.DataDir = None,
    unverified: options.Unverified = False,
) -> None:
    """Train a model on all cells of a cohort, calibrated, to be used by `crosspatch predict`."""
    from crosspatch.cohorts.loading import load_cohort
    from crosspatch.prediction.training import left_out
    from crosspatch.prediction.training import train as train_model

    fold = left_out(leave_out)
    load = partial(load_cohort, data_dir=data_dir, verify=not unverified)
    with progress_bar(goes_on=False) as tell:
        trained = train_model(
            load(target, features),
            None if source is None else load(source, features),
            model=model,
            alignment=alignment,
            seed=seed,
            jobs=jobs,
            device=device,
            leave_out=fold,
            progress=partial(tell, "train"),
            out=out,
        )
    print((out / "card.md").read_text(encoding="utf-8"))
    print(f"wrote {out}/: {', '.join([*trained.about['files'], 'model.json'])}")


@model_app.command("show")
def model_show(
    folder: Annotated[Path, typer.Argument(help="Model folder, from `crosspatch train`.")],
) -> None:
    """Check a model and print its card."""
    from crosspatch.models.artifact import CARD_FILE, load, other_versions

    model = load(folder)
    print((folder / CARD_FILE).read_text(encoding="utf-8"))
    print(f"sha256 {model.digest}")
    for each in other_versions(model.about):
        print(f"note: {each}; its predictions were checked and are the same")


@app.command("predict")
def predict(
    *,
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Recordings (NWB, ABF), folders of them, tables (csv, Excel, parquet, h5ad)."
        ),
    ],
    model: options.ModelFolders = None,
    species: options.CellSpecies = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="File to write, .csv or .h5ad.")
    ] = None,
    columns: options.ColumnsFile = None,
    sets: options.SetsKind = "all-cells",
    adapt: Annotated[
        bool,
        typer.Option("--adapt", help="Align each batch to the reference before it is judged."),
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Picture of the probabilities, .png.")] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Page of everything, .html: models, counts, the first 1,000 cells, what went "
            "wrong, and a picture of each of the first 20 cells (not with --adapt)."
        ),
    ] = None,
    quality: options.Quality = "default",
    step_start: options.StepStart = None,
    step_end: options.StepEnd = None,
    amplitudes: options.Amplitudes = None,
    jobs: options.Processes,
    limit: options.Limit = 300.0,
    data_dir: options.DataDir = None,
) -> None:
    """Predict the transcriptomic subclass of cells, with its uncertainty.

    Verdicts: confident (one subclass in the 90 % prediction set), ambiguous (several or none),
    outside reference (unlike the cells the model knows), insufficient data.
    """
    # LightGBM and AnnData import Dask where it is installed: a second of start that is not used.
    for name in ("dask", "dask.utils"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    from crosspatch.features.extraction import step_described
    from crosspatch.prediction.output import open_output
    from crosspatch.prediction.pipeline import Listener, Messages, Pipeline, nothing_read, request

    wanted = request(
        inputs,
        model or (),
        columns,
        species=species,
        sets=sets,
        adapt=adapt,
        quality=quality,
        step=step_described(step_start, step_end, amplitudes),
        data_dir=data_dir,
        jobs=jobs,
        limit=limit,
    )
    messages = Messages(say_on_stderr)
    ask = cache(ask_at_terminal) if sys.stdin.isatty() else None
    with open_output(out, inputs, plot, report) as output:
        with progress_bar(goes_on=False) as tell:
            pipeline = Pipeline(wanted, Listener(messages, ask, tell, as_flag))
        with progress_bar() as tell:
            for part in pipeline.predictions(recordings_done(tell)):
                output.add(part)
    if not output.rows:
        raise nothing_read(wanted)
    print_predictions(output)
    if plot is not None:
        from crosspatch.reporting.style import save_figure

        save_figure(output.first.plot(), plot)
        print(f"wrote {plot}")
    if report is not None:
        _write_batch_report(pipeline, output.whole, report, messages.lines)
    if out is not None:
        print(f"wrote {out}: {output.rows:,} rows")
    exit_if_failed(pipeline.inputs.failed)


def _write_batch_report(
    pipeline: Pipeline, prediction: Prediction, report: Path, messages: list[str]
) -> None:
    """A page of everything; of aligned cells there is nothing to be explained."""
    from datetime import datetime

    from crosspatch.prediction.explained import MOST, explain_prediction
    from crosspatch.reporting.batch_report import write_batch_report

    with progress_bar(goes_on=False) as tell:
        explained = (
            ()
            if pipeline.request.adapt
            else explain_prediction(
                pipeline.predictor, prediction.first_cells(MOST), pipeline.settings
            )
        )
        write_batch_report(
            prediction,
            report,
            explanations=explained,
            messages=messages,
            failed=pipeline.inputs.failed,
            when=datetime.now().astimezone(),
            progress=partial(tell, "report"),
        )
    print(f"wrote {report}")
