"""The command line: parse, call, print."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from crosspatch.errors import CrosspatchError

# pandas, torch and the rest are imported by the commands that need them: `--help` must be quick.
if TYPE_CHECKING:
    import anndata
    import pandas as pd

    from crosspatch.evaluation.results import BenchmarkResult

app = typer.Typer(
    name="crosspatch",
    help="Which transcriptomic subclass is this neuron? Learn from Patch-seq, carry over to human.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cohort_app = typer.Typer(help="Build and describe cohort tables.", no_args_is_help=True)
app.add_typer(cohort_app, name="cohort")


class _ManyValues(TyperCommand):
    """Lets an option that can be repeated take several values: `--models forest boosting`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        many = {
            name
            for option in self.params
            if getattr(option, "multiple", False)
            for name in option.opts
        }
        spread: list[str] = []
        current = None
        for arg in args:
            if arg.startswith("-"):
                option, _, value = arg.partition("=")
                current = option if option in many else None
                fresh = not value
            elif current is not None and not fresh:
                spread.append(current)
            else:
                fresh = False
            spread.append(arg)
        return super().parse_args(ctx, spread)


DataDir = Annotated[
    Path | None,
    typer.Option(help="Data directory (default: $CROSSPATCH_DATA, else the user's cache)."),
]
Unverified = Annotated[
    bool, typer.Option("--unverified", help="Accept source files other than the pinned versions.")
]


def _show_version(value: bool) -> None:
    if value:
        print(f"crosspatch {version('crosspatch')}")
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


@cohort_app.command("build")
def cohort_build(
    dataset: Annotated[str, typer.Option(help="allen-mouse or allen-human.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write, .h5ad.")],
    layout: Annotated[str, typer.Option(help="shared or full (human only).")] = "shared",
    data_dir: DataDir = None,
    unverified: Unverified = False,
) -> None:
    """Build the cohort table of a dataset."""
    from crosspatch.cohorts import table
    from crosspatch.cohorts.allen import load_allen

    cohort = load_allen(dataset, layout, data_dir, verify=not unverified)
    table.write(cohort, out)
    _print_joined(cohort)
    print(f"wrote {out}: {cohort.n_obs:,} cells, {cohort.n_vars} features")


@cohort_app.command("describe")
def cohort_describe(
    file: Annotated[Path, typer.Argument(help="Cohort table, .h5ad.")],
) -> None:
    """Print cells by subclass and donor, missing by family, and ranges by species."""
    from crosspatch.cohorts import table

    cohort = table.read(file)
    layout = table.layout_of(cohort).name
    print(f"{file}: {cohort.n_obs:,} cells, {cohort.n_vars} features, layout {layout}")
    _print_joined(cohort)
    parts = table.describe(cohort)
    _print_table("Cells", parts["cells"])
    _print_table(
        "Missing by family (share of cells)", parts["missing"], {"absent", "partly_missing"}
    )
    _print_table("Ranges", parts["ranges"], {"missing"})


@cohort_app.command("sources")
def cohort_sources() -> None:
    """List the files of a data directory, with their addresses."""
    from crosspatch.cohorts.sources import source_files

    for source in source_files().values():
        print(f"{source.path}\n    {source.address}\n    sha256 {source.sha256}")


@app.command("models")
def models() -> None:
    """List the models."""
    from crosspatch.models.registry import MODEL_NAMES, model_entry

    for name in MODEL_NAMES:
        print(f"{name:24s}{model_entry(name).about}")


@app.command("run", cls=_ManyValues)
def run(
    cohort: Annotated[
        list[str] | None,
        typer.Option(help="allen, or cohort tables (.h5ad), one a species. (default: allen)"),
    ] = None,
    data_dir: DataDir = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="mouse, human, transfer. (default: all that the features allow)"),
    ] = None,
    features: Annotated[
        str | None, typer.Option(help="shared, or full (human only). (default: shared)")
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(help="Models by name (`crosspatch models`). (default: a choice by task)"),
    ] = None,
    protocol: Annotated[str, typer.Option(help="donor, published or quick.")] = "donor",
    alignment: Annotated[
        str, typer.Option(help="Mouse Sncg counts as Vip (hodge2019) or Lamp5 (published-code).")
    ] = "hodge2019",
    seed: Annotated[int, typer.Option(min=0, help="Seed of folds and models.")] = 0,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Worker processes. (default: the number of cores)")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda, for the sequence models.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("results"),
    unverified: Unverified = False,
) -> None:
    """Evaluate models on cohorts and print the results beside the published ones.

    A run that was stopped goes on where it was when the same command is given again.
    """
    from joblib import cpu_count
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    from crosspatch.evaluation.benchmark import benchmark
    from crosspatch.evaluation.inputs import load_cohorts

    cohorts = load_cohorts(cohort or ["allen"], features, task, data_dir, verify=not unverified)
    for each in cohorts.values():
        _print_joined(each)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=Console(stderr=True))
    line = bar.add_task("folds", total=None)

    def progress(done: int, total: int) -> None:
        bar.start()  # not before there is something to show
        bar.update(line, completed=done, total=total)

    try:
        result = benchmark(
            cohorts,
            tasks=task,
            models=models,
            protocol=protocol,
            alignment=alignment,
            seed=seed,
            jobs=jobs or cpu_count(),
            device=device,
            out=out,
            progress=progress,
        )
    except KeyboardInterrupt:
        print("crosspatch: stopped; give the same command again to go on", file=sys.stderr)
        raise typer.Exit(130) from None
    finally:
        if bar.live.is_started:
            bar.stop()
    _print_result(result)
    print(f"wrote {out}/: results.csv, summary.csv, comparisons.csv, confusion.csv, settings.json")


def _print_joined(cohort: anndata.AnnData) -> None:
    from crosspatch.cohorts.table import head_of

    head = head_of(cohort)
    name = ", ".join(sorted(set(cohort.obs["dataset"].astype(str))))
    if head.joined:
        counts = ", ".join(f"{key} {value:,}" for key, value in head.joined.items())
        print(f"{name}: {sum(head.joined.values()):,} labelled cells joined ({counts})")
    dropped = [f"{count} {reason}" for reason, count in head.dropped.items() if count]
    print(f"{name}: {cohort.n_obs:,} cells kept; left out: {', '.join(dropped) or 'none'}")
    if head.sources and not head.verified:
        print(f"{name}: built from files that are not the pinned versions (--unverified)")


def _print_result(result: BenchmarkResult) -> None:
    summary = result.summary
    print(f"\n{result.settings['protocol']}: {result.settings['protocol_about']}")

    def spread(row: Any, name: str) -> str:
        return f"{row[f'{name}_mean']:.4f} ± {row[f'{name}_sd']:.4f}"

    def theirs(row: Any, name: str) -> str:
        value = row[f"published_{name}"]
        return "" if value != value else f"{value:.4f}"

    rows = [
        (
            row["task"],
            row["features"],
            row["model"],
            spread(row, "macro_f1"),
            theirs(row, "macro_f1"),
            spread(row, "accuracy"),
            theirs(row, "accuracy"),
        )
        for _, row in summary.iterrows()
    ]
    header = ("task", "features", "model", "macro-F1", "published", "accuracy", "published")
    _print_rows("Results (mean ± SD over runs)", header, rows, n_text=3)
    print(
        "published: arXiv 2603.11000, other cells (after its own QC of recordings) and features, "
        "folds that ignore the donor; for orientation, not a like-for-like comparison"
    )
    if len(result.comparisons):
        differences = [
            (
                row["task"],
                f"{row['model_a']} − {row['model_b']}",
                f"{row['delta_macro_f1']:+.4f}",
                f"[{row['ci_low']:+.4f}, {row['ci_high']:+.4f}]",
                f"{row['p_value']:.3f}",
            )
            for _, row in result.comparisons.iterrows()
        ]
        _print_rows(
            "Paired differences, corrected resampled t-test",
            ("task", "difference", "macro-F1", "95 % interval", "p"),
            differences,
        )


def _print_table(title: str, frame: pd.DataFrame, shares: Iterable[str] = ()) -> None:
    def text(name: str, value: Any) -> str:
        if name in shares:
            return f"{value:.1%}"
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    header = [str(name) for name in frame.columns]
    rows = [
        [text(name, value) for name, value in zip(header, row, strict=True)]
        for row in frame.itertuples(index=False)
    ]
    _print_rows(title, header, rows)


def _print_rows(
    title: str, header: Iterable[str], rows: Iterable[Iterable[str]], n_text: int = 2
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number < n_text else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    # Into a pipe or file, as wide as it needs to be.
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)


def main() -> None:
    """Run the command line; errors of the user are one line and exit code 2."""
    try:
        app()
    except CrosspatchError as error:
        print(f"crosspatch: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
