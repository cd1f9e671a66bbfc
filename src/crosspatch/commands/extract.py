"""Recordings: inspect, simulate, extract."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crosspatch.commands import options
from crosspatch.commands.completion import complete_species
from crosspatch.commands.fetch import choose_assets
from crosspatch.commands.options import ManyValues
from crosspatch.commands.printing import progress_bar, recordings_done, say_on_stderr
from crosspatch.commands.root import command
from crosspatch.commands.terminal import print_text
from crosspatch.errors import CohortError, CrosspatchError, as_flag

if TYPE_CHECKING:
    import anndata
    import pandas as pd

    from crosspatch.cohorts.download import CellSelection
    from crosspatch.features.finding import Source
    from crosspatch.recordings.reading_options import Reading


@command("simulate", "Data", "simulate --species human --cells 5 --out simulated")
def simulate(
    *,
    species: Annotated[
        str, typer.Option(help=f"{options.KNOWN_SPECIES}.", autocompletion=complete_species)
    ],
    out: options.OutFolder,
    cells: Annotated[int, typer.Option(min=1, help="Number of cells.")] = 20,
    seed: options.Seed = 0,
    jobs: options.Processes,
) -> None:
    """Write simulated recordings (NWB) and their labels (cells.csv)."""
    from crosspatch.simulation.cells import simulate_cells

    with progress_bar() as tell:
        told = partial(tell, f"simulate {species} cells")
        labels = simulate_cells(out, cells, species, seed=seed, jobs=jobs, progress=told)
    print(f"wrote {cells} SIMULATED recordings to {out}/, labels in {labels}")


@command("extract", "Data", "extract recordings --out cells.h5ad", cls=ManyValues)
@options.with_reading
def extract(
    *,
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Recordings, folders, patterns, or a dandiset, which is read where it lies: "
            "dandi:NUMBER, dandi:NUMBER@VERSION, dandi:NUMBER/PATH."
        ),
    ],
    out: options.TableOut,
    layout: Annotated[str, typer.Option(help="gouwens, paper, shared or full.")] = "gouwens",
    labels: Annotated[
        str | None,
        typer.Option(
            help="csv with a column file and any of species, subclass, t_type, donor, dataset; "
            "or allen-mouse, allen-human. (default: cells.csv beside the recordings; the "
            "dandiset's own)"
        ),
    ] = None,
    subclass: options.Subclasses = None,
    cells: options.CellNames = None,
    limit_cells: Annotated[
        int | None, typer.Option(min=1, help="Of a dandiset, at most so many.")
    ] = None,
    unlabelled: options.Unlabelled = False,
    species: options.CellSpecies = None,
    reading: Reading,
    drop_failed: Annotated[
        bool, typer.Option("--drop-failed", help="Leave out cells that fail quality control.")
    ] = False,
    jobs: options.Processes,
    scheduler: Annotated[
        str | None, typer.Option(help="Dask scheduler to use, tcp://HOST:PORT.")
    ] = None,
    limit: options.Limit = 300.0,
    data_dir: options.DataDir = None,
) -> None:
    """Compute the features of recordings and write them as a cohort table.

    Finished cells are kept beside OUT (.cells.sqlite): given again, the command does only what is
    new or changed. Files that give no cell are listed in failures.csv beside OUT.

    Of a dandiset only the bytes that are needed are fetched, of its labelled cells unless asked
    otherwise.
    """
    from crosspatch.cohorts import extracted, table
    from crosspatch.cohorts.download import CellSelection
    from crosspatch.features.extraction import ExtractionSettings
    from crosspatch.features.many import extract_many, store_beside
    from crosspatch.features.measuring.first_use import prepare
    from crosspatch.species import require_species

    table.require_name(out)
    require_species(species)
    settings = ExtractionSettings(layout, reading)
    store = store_beside(out)
    choice = CellSelection(tuple(subclass or ()), tuple(cells or ()), limit_cells, unlabelled)
    files, known = _find_extracted(paths, choice, labels, data_dir)
    unsaid = extracted.without_species(files, labels=known, species=species)
    for file, reason in unsaid.items():
        say_on_stderr(f"{file}: {reason.in_words(as_flag)}")
    files = [file for file in files if file not in unsaid]
    if not files:
        raise CohortError("no file says a species that is known; nothing was measured")
    prepare(say_on_stderr)
    with progress_bar() as tell:
        told = recordings_done(tell)
        state = extract_many(
            files, store, settings, jobs=jobs, scheduler=scheduler, limit=limit, progress=told
        )
    result = extracted.cohort_of(
        files,
        store,
        settings,
        labels=known,
        species=species,
        drop_failed=drop_failed,
        unsaid=unsaid,
    )
    failures = out.with_name("failures.csv")
    extracted.write_failures(result.failures, failures)
    print(f"{state.total} recordings, {state.kept} of them done before")
    for _, row in result.failures.head(5).iterrows():
        print_text(f"  {row['file']}: {row['reason']}", 4)
    if len(result.failures):
        print(f"{len(result.failures)} gave no cell: {failures}")
    if result.cohort is None:
        say_on_stderr(f"no cell in {len(files)} recordings; see {failures}")
        raise typer.Exit(2)
    table.write(result.cohort, out)
    _print_extracted(result.cohort)
    print(f"wrote {out}: {result.cohort.n_obs:,} cells, {result.cohort.n_vars} features")


def _find_extracted(
    paths: list[str], choice: CellSelection, labels: str | None, data_dir: Path | None
) -> tuple[list[Source], pd.DataFrame | None]:
    """Recordings to be extracted, and their labels if they do not lie beside them."""
    from crosspatch.archive.dandi import Archive, DandiPlace, is_dandi
    from crosspatch.cohorts.download import CellSelection
    from crosspatch.cohorts.extracted import read_labels
    from crosspatch.features.finding import find_recordings

    places = [DandiPlace.parse(path) for path in paths if is_dandi(path)]
    if not places:
        if choice != CellSelection():
            raise CrosspatchError(
                "--subclass, --cells, --limit-cells and --unlabelled choose among the recordings "
                "of a dandiset (dandi:NUMBER); leave them out"
            )
        known = None if labels is None else read_labels(labels, data_dir)
        return find_recordings(paths), known
    if len(paths) > 1:
        raise CrosspatchError("give one dandiset at a time, and files in another command")
    chosen, known = choose_assets(Archive(), places[0], choice, labels, data_dir)
    return list(chosen), known


def _print_extracted(cohort: anndata.AnnData) -> None:
    """What an extraction gave."""
    obs = cohort.obs
    labelled = int(obs["subclass"].notna().sum())
    print(f"{labelled} cells have a label, {cohort.n_obs - labelled} have none")
    failed = obs[~obs["qc_passed"].astype(bool)]
    if len(failed):
        print_text(f"{len(failed)} cells fail quality control (qc_passed, qc_reasons), the first:")
        for name, reason in failed["qc_reasons"].head(3).items():
            print_text(f"  {name}: {reason}", 4)
    if obs["simulated"].astype(bool).any():
        print(f"{int(obs['simulated'].sum())} cells are SIMULATED")
    if "bytes_read" in obs:
        read, whole = obs["bytes_read"].sum(), obs["file_bytes"].sum()
        share = (obs["bytes_read"] / obs["file_bytes"]).quantile([0, 0.5, 1])
        print_text(
            f"{read / 1e6:.1f} MB read of {whole / 1e6:.1f} MB ({read / whole:.1%}; of a file "
            f"{share.iloc[0]:.0%} to {share.iloc[2]:.0%}, half of them below {share.iloc[1]:.0%})"
        )
