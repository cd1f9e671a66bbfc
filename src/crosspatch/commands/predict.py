"""Predict cells."""

from __future__ import annotations

import sys
from functools import cache, partial
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crosspatch.commands import options
from crosspatch.commands.documents import AsJson, document, predicted_cells
from crosspatch.commands.printing import (
    ask_at_terminal,
    exit_if_failed,
    print_warning,
    progress_bar,
    recordings_done,
    say_on_stderr,
)
from crosspatch.commands.root import command
from crosspatch.commands.terminal import (
    number_column,
    number_text,
    print_rows,
    print_text,
    text_column,
)
from crosspatch.errors import as_flag
from crosspatch.processes import libraries_hidden
from crosspatch.tables.endings import TABLE_SUFFIXES, suffix_of

if TYPE_CHECKING:
    from crosspatch.commands.options import Asked
    from crosspatch.prediction.output import Output
    from crosspatch.prediction.pipeline import Pipeline
    from crosspatch.prediction.prediction import PredictedCell, Prediction

# Rows of predictions that are shown.
_SHOWN = 40

_COLUMNS = (
    text_column("cell", fold=20),
    text_column("species"),
    text_column("subclass"),
    number_column("p"),
    text_column("90 % set", fold=14),
    text_column("verdict", fold=12),
    number_column("p reference", rank=2),
    number_column("measured", rank=1),
)


class _NoPandas(MetaPathFinder):
    """Finds that pandas is not installed."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(f"{fullname} is hidden", name=fullname)


def _spare_pandas(inputs: list[str], report: Path | None) -> None:
    """Where no table is given, have Arrow look for pandas while it is hidden.

    Arrow would import it (0.3 s) when it is first given numbers, to know its tables from others.
    """
    if report is None and not any(suffix_of(Path(each)) in TABLE_SUFFIXES for each in inputs):
        import pyarrow as pa

        hiding = _NoPandas()
        sys.meta_path.insert(0, hiding)
        try:
            pa.array([])
        finally:
            sys.meta_path.remove(hiding)


@command("predict", "My cells", "predict cell.abf --species mouse --out answers.csv")
@libraries_hidden("dask", "dask.utils")  # LightGBM and AnnData would import it, a second
@options.with_request
def predict(
    *,
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Recordings (NWB, ABF, …), folders of them, tables (csv, Excel, parquet, h5ad …)."
        ),
    ],
    asked: Asked,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="File to write, .csv or .h5ad.")
    ] = None,
    columns: options.ColumnsFile = None,
    sheet: options.Sheet = None,
    plot: Annotated[Path | None, typer.Option(help="Picture of the probabilities, .png.")] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Page of everything, .html: models, counts, the first 1,000 cells, what went "
            "wrong, and a picture of each of the first 20 cells (not with --my-labelled)."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Predict the transcriptomic subclass of cells, with its uncertainty.

    Verdicts: confident (one subclass in the 90 % prediction set), ambiguous (several or none, or it
    may be excitatory), not an interneuron (excitatory), outside reference (unlike the cells the
    model knows), insufficient data.
    """
    from crosspatch.prediction.output import open_output
    from crosspatch.prediction.pipeline import Listener, Pipeline, nothing_read
    from crosspatch.telling import Messages

    wanted = asked(inputs, columns=columns, sheet=sheet)
    _spare_pandas(inputs, report)
    messages = Messages(say_on_stderr)
    ask = cache(ask_at_terminal) if sys.stdin.isatty() else None
    with document(as_json) as give:
        with open_output(out, inputs, plot, report, keep=as_json) as output:
            with progress_bar(goes_on=False) as tell:
                pipeline = Pipeline(wanted, Listener(messages, ask, tell, as_flag))
            with progress_bar() as tell:
                for part in pipeline.predictions(recordings_done(tell)):
                    output.add(part)
        if not output.rows:
            raise nothing_read(wanted)
        if as_json:
            said = {"failed": pipeline.inputs.failed, "messages": messages.lines}
            cells = predicted_cells(output.whole)
            give({**output.first.header, "cells": cells, "verdicts": output.verdicts, **said})
        else:
            _print_predictions(output)
        if plot is not None:
            from crosspatch.drawing.style import save_figure

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
    """A page of everything."""
    from datetime import datetime

    from crosspatch.prediction.explained import explain_first
    from crosspatch.reporting.batch_report import write_batch_report

    with progress_bar(goes_on=False) as tell:
        write_batch_report(
            prediction,
            report,
            explanations=explain_first(pipeline, prediction),
            messages=messages,
            failed=pipeline.inputs.failed,
            when=datetime.now().astimezone(),
            progress=partial(tell, "report"),
        )
    print(f"wrote {report}")


def _print_predictions(output: Output) -> None:
    """The first rows of predictions, what is to be said of them, and counts of all."""
    shown = list(output.first.first(_SHOWN))
    rows = [
        (
            cell.cell_id,
            cell.species + ("" if cell.species_known else " *"),
            cell.subclass,
            number_text(cell.probability, 2),
            ", ".join(cell.prediction_set),
            str(cell.verdict),
            number_text(cell.p_reference, 3),
            f"{cell.completeness:.0%}",
        )
        for cell in shown
    ]
    print_rows("Predictions", _COLUMNS, rows)
    _print_remarks(shown)
    if not all(cell.species_known for cell in shown):
        print_text(
            f"* species unknown: judged by both references; give --species {options.KNOWN_SPECIES}",
            2,
        )
    if any(model["layer"] for model in output.first.header["models"]):
        known = sum(bool(cell.layer) for cell in shown)
        hint = "" if known == len(shown) else "; give --layer where it is known"
        print_text(f"cortical layer: used for {known} of the {len(shown)} rows above{hint}")
    if output.rows > len(shown):
        first = f"the first {len(shown)} are shown"
        print_text(f"{output.rows:,} rows in all, {first}; --out keeps all", 2)
    counts = ", ".join(f"{name} {count:,}" for name, count in output.verdicts.most_common())
    print_text(f"verdicts: {counts}", 2)
    if any(model["simulated"] for model in output.first.header["models"]):
        print_warning("The model was trained on SIMULATED recordings")


def _print_remarks(cells: list[PredictedCell]) -> None:
    """What is to be said of cells, once where both references say the same."""
    once: dict[tuple[str, str], PredictedCell] = {}
    for cell in cells:
        once.setdefault((cell.cell_id, cell.text), cell)
    for cell in once.values():
        if cell.quality:
            print_text(f"  {cell.cell_id}: fails quality control: {cell.quality}", 4)
        if cell.text:
            print_text(f"  {cell.cell_id}: {cell.text}", 4)
