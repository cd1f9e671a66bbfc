"""Tables and recordings from where they are published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crosspatch.commands import options
from crosspatch.commands.options import ManyValues
from crosspatch.commands.printing import progress_bar, say_on_stderr
from crosspatch.commands.root import command, fetch_app
from crosspatch.commands.terminal import (
    number_column,
    print_frame,
    print_rows,
    print_text,
    text_column,
)
from crosspatch.errors import CrosspatchError

if TYPE_CHECKING:
    import pandas as pd

    from crosspatch.archive.dandi import Archive, Asset, DandiPlace
    from crosspatch.archive.fetching import FetchProgress
    from crosspatch.cohorts.download import CellSelection


@fetch_app.callback(invoke_without_command=True)
def fetch(
    ctx: typer.Context,
    show: Annotated[
        bool, typer.Option("--list", help="Show what there is, how large, under which licence.")
    ] = False,
) -> None:
    """Get tables and recordings from where they are published."""
    if show:
        _print_data()
    elif ctx.invoked_subcommand is None:
        print(ctx.get_help())


def _print_data() -> None:
    import pandas as pd

    from crosspatch.cohorts.citations import entries
    from crosspatch.cohorts.dataset import datasets, source_files
    from crosspatch.cohorts.download import dandisets

    tables = source_files().values()
    print_rows(
        f"Tables: crosspatch fetch tables ({sum(table.size for table in tables) / 1e6:.1f} MB)",
        (text_column("file"), text_column("from", rank=1), number_column("MB")),
        [(table.path, table.address, f"{table.size / 1e6:.2f}") for table in tables],
    )
    known = datasets().values()
    licences = ", ".join(dict.fromkeys(each.licence for each in known))
    print_text(f"licence of the tables: {licences}\n", 2)
    print_rows(
        "Datasets: crosspatch cohort build --dataset NAME",
        (
            text_column("name"),
            text_column("species"),
            text_column("layouts", fold=8),
            text_column("labels by", fold=9),
            text_column("cite", fold=12),
        ),
        [
            (
                each.name,
                each.species,
                " ".join(each.layouts),
                " ".join(filter(None, each.labellings)) or "line or shape",
                each.authors,
            )
            for each in known
        ],
    )
    sets = pd.DataFrame([vars(each) for each in dandisets().values()])
    labels = [each.labels or "none: --labels or --unlabelled" for each in dandisets().values()]
    print_frame(
        "Recordings: crosspatch fetch recordings --dandiset NUMBER",
        sets.assign(labels=labels),
        [
            text_column("dandiset"),
            text_column("species"),
            text_column("what", "{about}", fold=24),
            text_column("labels", fold=12),
            text_column("licence", rank=1, fold=9),
            number_column("files", "{files:,}"),
            number_column("GB", "{gigabytes:.1f}"),
        ],
    )
    print(f"{len(entries())} works in BibTeX: crosspatch cite; of a result: crosspatch cite FILE")


def _megabytes(state: FetchProgress) -> str:
    return f"{state.bytes_done / 1e6:.1f} of {state.bytes_total / 1e6:.1f} MB"


@command("tables", None, "fetch tables", fetch_app)
def fetch_tables_command(
    data_dir: options.DataDir = None,
    time_limit: Annotated[
        float | None, typer.Option(min=1, help="Seconds after which nothing is tried again.")
    ] = None,
) -> None:
    """Get the public tables of both species (15 MB) into the data directory.

    Stopped or cut off, the same command goes on where it was.
    """
    from crosspatch.archive.web import Web, WebSettings
    from crosspatch.cohorts.download import fetch_tables
    from crosspatch.cohorts.sources import named_directory

    directory, origin = named_directory(data_dir)
    web = Web(WebSettings.of_user(time_limit or float("inf")))
    with progress_bar() as tell:
        fetched = fetch_tables(
            directory,
            web=web,
            progress=lambda state: tell("tables", state.done, state.total, _megabytes(state)),
        )
    origin = origin if data_dir is None else "--data-dir"
    print_text(f"{len(fetched)} tables fetched, all are in {directory} (from {origin}), verified")


@command(
    "recordings", None, "fetch recordings --dandiset 000020 --limit 5", fetch_app, cls=ManyValues
)
def fetch_recordings(
    dandiset: Annotated[str, typer.Option(help="Six digits, such as 000020; see fetch --list.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder. (default: recordings/DANDISET)")
    ] = None,
    subclass: options.Subclasses = None,
    cells: options.CellNames = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many recordings.")] = None,
    unlabelled: options.Unlabelled = False,
    labels: Annotated[
        str | None, typer.Option(help="csv with labels, if not the dandiset's own; see extract.")
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Of the dandiset. (default: the newest published)")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=32, help="Files at a time.")] = 4,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be fetched.")
    ] = False,
    data_dir: options.DataDir = None,
) -> None:
    """Get recordings of a dandiset and their labels.

    Only cells that have a label, unless asked otherwise. Every file is compared with the archive's
    checksums. Stopped, killed or cut off, the same command goes on where it was.
    """
    from crosspatch.archive.dandi import Archive, DandiPlace
    from crosspatch.archive.fetching import fetch_assets
    from crosspatch.cohorts.download import CellSelection, write_labels

    archive = Archive()
    place = DandiPlace.parse(f"dandi:{dandiset}" + (f"@{version}" if version else ""))
    choice = CellSelection(tuple(subclass or ()), tuple(cells or ()), limit, unlabelled)
    chosen, known = choose_assets(archive, place, choice, labels, data_dir)
    assets = list(chosen)
    _print_chosen(assets, each=dry_run)
    if dry_run:
        return
    folder = out or Path("recordings") / place.dandiset
    with progress_bar() as tell:

        def told(state: FetchProgress) -> None:
            tell("fetch", state.done, state.total, f"{_megabytes(state)}, {state.failed} failed")

        fetched = fetch_assets(assets, folder, archive=archive, jobs=jobs, progress=told)
    there = {asset: key for asset, key in chosen.items() if asset in fetched.files}
    if there:
        file = write_labels(folder, there, known)
        print_text(
            f"{len(there):,} recordings in {folder}/, verified ({fetched.kept:,} were there), "
            f"labels in {file}"
        )
    if fetched.failures:
        _say_failures(fetched.failures, len(chosen))
        raise typer.Exit(1)


def _say_failures(failures: Mapping[Asset, str], wanted: int) -> None:
    for asset, reason in list(failures.items())[:5]:
        say_on_stderr(f"{asset}: {reason}")
    say_on_stderr(
        f"{len(failures):,} of {wanted:,} recordings could not be had; give the same command again"
    )


def _print_chosen(assets: list[Asset], each: bool) -> None:
    """What is going to be fetched."""
    gigabytes = sum(asset.size for asset in assets) / 1e9
    print(f"{len(assets):,} recordings of {assets[0].version}, {gigabytes:.3f} GB")
    for asset in assets if each else ():
        print(f"{asset.path}  {asset.size / 1e6:.1f} MB")


def choose_assets(
    archive: Archive,
    place: DandiPlace,
    choice: CellSelection,
    labels: str | None,
    data_dir: Path | None,
) -> tuple[Mapping[Asset, str | None], pd.DataFrame | None]:
    """The recordings of a dandiset that are wanted, with their labels' keys, and the labels."""
    from crosspatch.cohorts.download import choose, labels_of

    known = None
    try:
        known = labels_of(place.dandiset, labels, data_dir)
    except CrosspatchError:
        if not choice.unlabelled or labels is not None:
            raise
    return choose(archive.recordings(place), known, choice), known
