"""Explain cells, and models."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crosspatch.commands import options
from crosspatch.commands.options import ManyValues
from crosspatch.commands.printed_results import P_VALUE, interval
from crosspatch.commands.printing import (
    ask_at_terminal,
    exit_if_failed,
    progress_bar,
    recordings_done,
    say_on_stderr,
)
from crosspatch.commands.root import command
from crosspatch.commands.run import finish, load_and_print_cohorts
from crosspatch.commands.terminal import number_column, print_frame, print_rows, text_column
from crosspatch.errors import CrosspatchError, as_flag
from crosspatch.extras import require

if TYPE_CHECKING:
    import pandas as pd

    from crosspatch.explanation.explain import Explanation
    from crosspatch.recordings.reading_options import Reading

# What `explain` took when it was for models too.
_OF_MODELS = {
    *("--cohort", "--features", "--models", "--protocol", "--runs", "--seeds", "--no-removed"),
    *("--alignment", "--device", "--unverified"),
}
_INSTEAD = CrosspatchError(
    "`crosspatch explain` is for cells, of recordings or tables that are named; models are "
    "explained by `crosspatch explain-models`"
)


class _OfCells(ManyValues):
    """Names the command for models where an option of models is given."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if _OF_MODELS.intersection(arg.partition("=")[0] for arg in args):
            raise _INSTEAD
        return super().parse_args(ctx, args)


@command("explain", "My cells", "explain cell.abf --species mouse", cls=_OfCells)
@options.with_reading
def explain(
    *,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Recordings or tables of which single cells are explained.", show_default=False
        ),
    ] = None,
    model: options.ModelFolders = None,
    cell: Annotated[
        list[str] | None, typer.Option(help="Ids of the cells. (default: the first 20)")
    ] = None,
    out: options.OutFolder = Path("cells"),
    species: options.CellSpecies = None,
    layer: options.CellLayer = None,
    columns: options.ColumnsFile = None,
    sheet: options.Sheet = None,
    reading: Reading,
    seed: options.Seed = 0,
    jobs: options.Processes,
    limit: options.Limit = 300.0,
    data_dir: options.DataDir = None,
) -> None:
    """Explain cells: one page for each, with what spoke for and against its subclass."""
    if not inputs:
        raise _INSTEAD
    require("shap")
    from crosspatch.prediction.explained import explain_cells
    from crosspatch.prediction.pipeline import Listener, Pipeline, request
    from crosspatch.reporting.cell_page import write_pages

    wanted = request(
        inputs,
        model or (),
        columns,
        species=species,
        layer=layer,
        sheet=sheet,
        reading=reading,
        data_dir=data_dir,
        jobs=jobs,
        limit=limit,
    )
    ask = ask_at_terminal if sys.stdin.isatty() else None
    with progress_bar() as tell:
        pipeline = Pipeline(wanted, Listener(say_on_stderr, ask, tell, as_flag))
        found = explain_cells(pipeline, cell or [], seed=seed, progress=recordings_done(tell))
    written = write_pages(found, out, say=print)
    print(f"wrote {len(found)} pages (PNG, SVG) and {written[-1]}")
    exit_if_failed(pipeline.inputs.failed)


@command(
    "explain-models", "Train and compare", "explain-models --models lda forest", cls=ManyValues
)
def explain_models(
    *,
    cohort: options.CohortNames = None,
    data_dir: options.DataDir = None,
    features: options.Features = None,
    models: options.ModelNames = None,
    protocol: options.ProtocolName = "quick",
    runs: options.Runs = None,
    seeds: Annotated[
        int,
        typer.Option(
            min=0,
            help="Further fits of each fold with other seeds, for the stability of attention.",
        ),
    ] = 3,
    no_removed: Annotated[
        bool,
        typer.Option(
            "--no-removed",
            help="Only permute families; do not fit again without each, the most of the time.",
        ),
    ] = False,
    alignment: options.AlignmentName = "hodge2019",
    seed: options.Seed = 0,
    jobs: options.Processes,
    device: options.Device = "cpu",
    out: options.OutFolder = Path("explanation"),
    unverified: options.Unverified = False,
) -> None:
    """Explain models, and check it.

    What models look at (attention) beside what happens without each family, on held-out donors;
    which features mean the same in mouse and human; how far subclasses lie apart.
    """
    from crosspatch.explanation.explain import EXPLAINED_MODELS
    from crosspatch.explanation.explain import explain_models as explained

    cohorts = load_and_print_cohorts(
        cohort, None, features, data_dir, verify=not unverified, out=out, seed=seed, jobs=jobs
    )
    with progress_bar() as tell:
        found = explained(
            cohorts,
            models=models or EXPLAINED_MODELS,
            protocol=protocol,
            runs=runs,
            alignment=alignment,
            seeds=seeds,
            removed=not no_removed,
            seed=seed,
            jobs=jobs,
            device=device,
            out=out,
            progress=partial(tell, "explain"),
        )
    _print_explanation(found)
    finish(cohorts, found.tables, out)


def _print_explanation(found: Explanation) -> None:
    """What an explanation of models found."""
    importance = found.tables["importance"]
    print_frame(
        "Fall in macro-F1 without a family, on held-out donors",
        importance[importance["scope"] == "macro_f1"],
        [
            *map(text_column, ("species", "model", "family", "how")),
            number_column("fall", "{drop:+.3f}"),
            interval(3),
        ],
    )
    print_frame(
        "Does attention say so? Rank correlation over families",
        found.tables["agreement"],
        [
            text_column("compared", "{what}", fold=16),
            text_column("species"),
            text_column("model", fold=16),
            number_column("Spearman", "{spearman:.2f}"),
            interval(3),
            text_column("verdict", fold=12),
        ],
    )
    if len(found.tables["conserved"]):
        _print_conserved(found.tables["conserved"])
    print_frame(
        "How far subclasses lie apart in the sparse-PCA space",
        found.tables["separation"],
        [
            text_column("species"),
            text_column("measure", "{metric}"),
            text_column("a"),
            text_column("b"),
            number_column("value", "{value:.2f}"),
            P_VALUE,
        ],
    )


def _print_conserved(conserved: pd.DataFrame) -> None:
    counts = conserved.groupby(["level", "group"], sort=False)["verdict"].value_counts()
    kinds = ("same", "opposite", "mouse only", "human only", "neither")
    print_rows(
        "Features that separate a group from the rest, in mouse and human",
        (text_column("level"), text_column("group"), *map(number_column, kinds)),
        [
            (str(level), str(group), *(str(counts.get((level, group, kind), 0)) for kind in kinds))
            for level, group in dict.fromkeys((k[0], k[1]) for k in counts.index)
        ],
    )
