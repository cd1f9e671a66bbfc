"""What answers are worth on labelled cells."""

from __future__ import annotations

import sys
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crosspatch.commands import options
from crosspatch.commands.printing import (
    ask_at_terminal,
    print_joined,
    print_warning,
    progress_bar,
    say_on_stderr,
)
from crosspatch.commands.root import command
from crosspatch.commands.terminal import (
    PrintedColumn,
    number_column,
    print_frame,
    print_text,
    text_column,
)
from crosspatch.errors import CrosspatchError, as_flag
from crosspatch.processes import use_one_thread

if TYPE_CHECKING:
    import pandas as pd

    from crosspatch.evaluation.validation_tables import Validation
    from crosspatch.prediction.pipeline import Given


@command("validate", "My cells", "validate cells.csv --label subclass --species mouse")
def validate(
    *,
    table: Annotated[
        Path | None, typer.Argument(help="Table of labelled cells (csv, Excel, parquet, h5ad …).")
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(help="Column with the labels: subclasses, t-types, Cre lines, PV, SOM …"),
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Column with the donor (animal, patient) of each cell.")
    ] = None,
    cohort: Annotated[
        str | None,
        typer.Option(help="In place of a table: datasets by name, joined by +, or a cohort table."),
    ] = None,
    model: options.ModelFolders = None,
    species: options.CellSpecies = None,
    columns: options.ColumnsFile = None,
    sheet: options.Sheet = None,
    sets: options.SetsKind = "all-cells",
    adapt: options.Adapt = True,
    my_labelled: options.MyLabelled = None,
    my_label: options.MyLabel = None,
    new_cells: Annotated[
        bool,
        typer.Option("--new-cells", help="Leave out cells of donors that the model learned from."),
    ] = False,
    out: options.OutFolder = Path("validation"),
    data_dir: options.DataDir = None,
    jobs: options.SomeProcesses = None,
) -> None:
    """Say what the answers of `crosspatch predict` are worth on cells whose label is known.

    Scores, verdicts, coverage of the prediction sets and calibration, with 95 % intervals; cells
    whose label the model does not know by themselves. The folder has csv, JSON and a report.
    """
    from crosspatch.prediction.pipeline import Listener, request
    from crosspatch.prediction.validating import validated
    from crosspatch.reporting.report import write_report

    use_one_thread()
    if (table is None) == (cohort is None):
        raise CrosspatchError("", "give a table of labelled cells or {cohort}, one of the two")
    given: Given | None = table
    if cohort is not None:
        from crosspatch.cohorts.loading import load_every_cell

        given = load_every_cell(cohort, data_dir)
        print_joined(given)
    asked = request(
        given,
        model or (),
        columns,
        species=species,
        sheet=sheet,
        sets=sets,
        adapt=adapt,
        my_labelled=my_labelled,
        my_label=my_label,
        data_dir=data_dir,
        jobs=jobs,
    )
    ask = cache(ask_at_terminal) if sys.stdin.isatty() else None
    with progress_bar(goes_on=False) as tell:
        listener = Listener(say_on_stderr, ask, tell, as_flag)
        found = validated(asked, listener, label, group, new_cells=new_cells, out=out)
    _print(found)
    names = ", ".join(f"{name}.csv" for name in vars(found.tables))
    print_text(f"wrote {out}/: {names}, validation.json", 2)
    with progress_bar(goes_on=False) as tell:
        write_report([out], out / "report.html", partial(tell, "report"))
    print(f"report: {out / 'report.html'}")


def _share(header: str, name: str, *, ends: bool = True) -> PrintedColumn:
    """A column of a share of cells, with its interval."""
    between = [f" [{{{name}_low:.0%}}, {{{name}_high:.0%}}]"] if ends else []
    return number_column(header, f"{{{name}:.0%}}", *between)


def _other_verdicts(part: pd.DataFrame) -> list[PrintedColumn]:
    """Columns of the verdicts besides confident, of those that some cell has."""
    headers = {
        "ambi-\nguous": "ambiguous",
        "excit-\natory": "not_interneuron",
        "outside": "outside",
        "insuf-\nficient": "insufficient",
    }
    some = {header: name for header, name in headers.items() if (part[name] > 0).any()}
    return [_share(header, name, ends=False) for header, name in some.items()]


def _print(found: Validation) -> None:
    """Everything, in tables that fit a narrow terminal."""
    from crosspatch.models.verdicts import COVERAGE

    for species, part in found.tables.scores.groupby("species", sort=False):
        print_frame(
            f"{species} cells: right, and in the set (95 % intervals)",
            part,
            [
                text_column("class"),
                number_column("cells", "{cells:,}"),
                number_column("donors", "{donors:,}"),
                number_column("F1", "{f1:.3f}"),
                _share("right", "right"),
                _share(f"in its {COVERAGE:.0%} set", "covered"),
            ],
        )
        print_frame(
            f"{species} cells: verdicts, and how many of the confident are right",
            part,
            [
                text_column("class"),
                _share("confi-\ndent", "confident", ends=False),
                _share("of these right", "confident_right"),
                *_other_verdicts(part),
            ],
        )
        print_text(_in_short(part), 2)
    if len(found.tables.unknown):
        print_frame(
            "Cells with a label that the model does not know",
            found.tables.unknown,
            [
                text_column("label", fold=12),
                number_column("cells", "{cells:,}"),
                _share("confident", "confident"),
                text_column("mostly as", "{called}", fold=12),
                *_other_verdicts(found.tables.unknown),
            ],
        )
    if len(found.tables.reliability):
        print_frame(
            "Calibration: how often an answer of this confidence is right",
            found.tables.reliability,
            [
                text_column("species"),
                number_column("confidence", "{confidence:.2f}"),
                number_column("right", "{accuracy:.2f}"),
                number_column("cells", "{cells:,}"),
            ],
        )
    if unlabelled := found.settings["without_label"]:
        print(f"{unlabelled:,} cells have no label and are not scored")
    for each in found.cautions:
        print_warning(each)


def _in_short(part: pd.DataFrame) -> str:
    """Macro-F1 with its interval, calibration error, and whether the sets keep their promise."""
    from crosspatch.evaluation.validation_tables import promise_kept

    whole = part[part["class"] == "all"].to_dict("records")
    if not whole:
        return "no interneuron with a label: there is no macro-F1"
    (row,) = whole
    ends = f" [{row['f1_low']:.3f}, {row['f1_high']:.3f}]" if row["f1_low"] == row["f1_low"] else ""
    return (
        f"macro-F1 {row['f1']:.3f}{ends} over the classes there; calibration error "
        f"{row['ece']:.3f}; the sets {promise_kept(row['covered_low'], row['covered_high'])}"
    )
