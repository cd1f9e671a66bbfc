"""Cohort tables: build, describe, export, cite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crosspatch.commands import options
from crosspatch.commands.completion import complete_dataset
from crosspatch.commands.printing import print_joined
from crosspatch.commands.root import cohort_app, command
from crosspatch.commands.terminal import number_column, print_frame, print_text, text_column

_TableArgument = Annotated[Path, typer.Argument(help="Cohort table, .h5ad.")]


@command("build", None, "cohort build --dataset human --out human.h5ad", cohort_app)
def cohort_build(
    dataset: Annotated[
        str,
        typer.Option(
            help="human or mouse, what models are trained on by default; a dataset by name "
            "(`crosspatch fetch --list`); or several of a species, joined by +.",
            autocompletion=complete_dataset,
        ),
    ],
    out: options.TableOut,
    layout: Annotated[str, typer.Option(help="shared or full (human only).")] = "shared",
    taxonomy: options.HumanLabels = None,
    every_cell: Annotated[
        bool,
        typer.Option(
            "--every-cell", help="Also cells of no subclass: excitatory, or without a label."
        ),
    ] = False,
    data_dir: options.DataDir = None,
    unverified: options.Unverified = False,
) -> None:
    """Build the cohort table of a dataset, or of several as one."""
    from crosspatch.cohorts import table
    from crosspatch.cohorts.loading import load_cohort

    cohort = load_cohort(
        dataset, layout, data_dir, verify=not unverified, taxonomy=taxonomy, every_cell=every_cell
    )
    table.write(cohort, out)
    print_joined(cohort)
    print(f"wrote {out}: {cohort.n_obs:,} cells, {cohort.n_vars} features")


@command("describe", None, "cohort describe human.h5ad", cohort_app)
def cohort_describe(file: _TableArgument) -> None:
    """Print cells by subclass and donor, missing by family, and ranges by species."""
    from crosspatch.cohorts import table
    from crosspatch.cohorts.summary import describe

    cohort = table.read(file)
    layout = table.layout_of(cohort).name
    print_text(f"{file}: {cohort.n_obs:,} cells, {cohort.n_vars} features, layout {layout}", 2)
    print_joined(cohort)
    found = describe(cohort)
    print_frame(
        "Cells",
        found.cells,
        [
            text_column("species"),
            text_column("subclass"),
            number_column("cells", "{cells:,}"),
            number_column("donors", "{donors:,}"),
            number_column("cells per donor, median", "{cells_per_donor_median:.4g}"),
            number_column("most", "{cells_per_donor_max}"),
        ],
    )
    print_frame(
        "Missing by family (share of cells)",
        found.missing,
        [
            text_column("species"),
            text_column("family"),
            number_column("features"),
            number_column("absent", "{absent:.1%}"),
            number_column("partly missing", "{partly_missing:.1%}"),
        ],
    )
    for species, ranges in found.ranges.groupby("species", sort=False):
        print_frame(
            f"Ranges of {species} cells",
            ranges,
            [
                text_column("feature", fold=24),
                text_column("unit"),
                number_column("missing", "{missing:.1%}"),
                number_column("min", "{min:.4g}", rank=1),
                number_column("q05", "{q05:.4g}"),
                number_column("median", "{median:.4g}"),
                number_column("q95", "{q95:.4g}"),
                number_column("max", "{max:.4g}", rank=1),
            ],
        )


@command("export", None, "cohort export human.h5ad --out human.csv", cohort_app)
def cohort_export(
    file: _TableArgument,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="File to write: .csv, .parquet, .h5ad or .zarr.")
    ],
) -> None:
    """Write a cohort table for other programs, with where every row came from."""
    from crosspatch.cohorts import table
    from crosspatch.cohorts.export import export, require_format

    require_format(out)
    cohort = table.read(file)
    export(cohort, out)
    print(f"wrote {out}: {cohort.n_obs:,} cells, {cohort.n_vars} features")


@command("cite", "Data", "cite human.h5ad")
def cite(
    result: Annotated[
        Path | None,
        typer.Argument(
            help="Cohort table, predictions, folder of results, or model. (default: everything)"
        ),
    ] = None,
) -> None:
    """Print BibTeX of what a result used."""
    from crosspatch.cohorts.citations import bibtex

    print(bibtex(result))
