"""Recordings: inspect, simulate, extract."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crosspatch.commands import options
from crosspatch.commands.fetch import choose_assets
from crosspatch.commands.options import ManyValues
from crosspatch.commands.printing import progress_bar, recordings_done, say_on_stderr
from crosspatch.commands.root import app
from crosspatch.commands.terminal import (
    number_column,
    number_text,
    print_rows,
    print_text,
    text_column,
)
from crosspatch.errors import CohortError, CrosspatchError, as_flag

if TYPE_CHECKING:
    import anndata
    import pandas as pd

    from crosspatch.cohorts.download import CellSelection
    from crosspatch.features.analysis import Analysis
    from crosspatch.features.finding import Source
    from crosspatch.recordings.model import Recording, Sweep
    from crosspatch.recordings.reading_options import Reading


@app.command("inspect")
@options.with_reading
def inspect(
    *,
    file: Annotated[
        Path, typer.Argument(help="Recording: NWB 2, ABF and others (docs/recordings.md).")
    ],
    png: Annotated[
        Path | None, typer.Option(help="Picture to write. (default: FILE's name with .png, here)")
    ] = None,
    no_png: Annotated[bool, typer.Option("--no-png", help="Print only.")] = False,
    reading: Reading,
) -> None:
    """Print a recording's sweeps, stimuli, quality and features, and draw them."""
    from crosspatch.features.analysis import analyse
    from crosspatch.features.measuring.first_use import prepare
    from crosspatch.recordings.opening import close_all, open_recordings

    prepare(say_on_stderr)
    recordings = open_recordings(file, reading)
    failed: dict[str, str] = {}
    try:
        for recording in recordings:
            try:
                analysis = analyse(recording, reading.thresholds)
            except CrosspatchError as error:
                if len(recordings) == 1:
                    raise
                failed[recording.cell_id] = error.in_words(as_flag)
                print_text(f"{recording.cell_id}: {failed[recording.cell_id]}", 2)
                continue
            print_text(f"{file}: {_about(recording)}", 2)
            _print_recording(recording, analysis)
            if not no_png:
                _draw(recording, analysis, png)
    finally:
        close_all(recordings)
    if len(failed) == len(recordings):
        raise typer.Exit(2)


def _about(recording: Recording) -> str:
    """What a recording is, in a line."""
    said = recording.recorded
    about = [recording.format]
    about += [f"electrode {recording.electrode}"] if recording.electrode else []
    about += [f"{len(recording.current_clamp)} current-clamp sweeps"]
    about += [f"species {said.species}"] if said.species else []
    about += [f"donor {said.donor}"] if said.donor else []
    about += ["SIMULATED"] if said.simulated else []
    return ", ".join(about)


def _draw(recording: Recording, analysis: Analysis, png: Path | None) -> None:
    """Draw a recording; of several cells each has its picture."""
    from crosspatch.recordings.model import named_cell
    from crosspatch.reporting.recording_figures import recording_figure
    from crosspatch.reporting.style import save_figure

    out = Path(f"{recording.cell_id}.png")
    if png is not None:
        out = png.with_stem(named_cell(png.stem, recording.electrode))
    save_figure(recording_figure(recording, analysis), out)
    print(f"wrote {out}")


@app.command("simulate")
def simulate(
    *,
    species: Annotated[str, typer.Option(help=f"{options.KNOWN_SPECIES}.")],
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


@app.command("extract", cls=ManyValues)
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


def _print_recording(recording: Recording, analysis: Analysis) -> None:
    """A recording's sweeps with their stimuli and quality, its features, and its cell's quality."""
    from crosspatch.features.layouts import load_layout
    from crosspatch.features.scalars import scalar_features

    spikes: dict[int, int] = {}
    for responses in (analysis.long_square, analysis.short_square, analysis.ramp):
        if responses is not None:
            counts = map(len, responses.spikes)
            spikes |= dict(zip(responses.numbers, counts, strict=False))
    rows = [_sweep_row(sweep, analysis, spikes) for sweep in recording.current_clamp]
    print_rows("Sweeps", _SWEEP_COLUMNS, rows)
    notes = list(analysis.notes)
    values = scalar_features(analysis, notes)
    rows = [
        (feature.name, f"{values[feature.name]:.4g}", feature.unit)
        for feature in load_layout("full").features
        if feature.name in values
    ]
    if rows:
        columns = (text_column("feature"), number_column("value"), text_column("unit"))
        print_rows("Features", columns, rows)
    cell = analysis.cell
    print_text(f"cell: {'passed' if cell.passed else 'rejected: ' + '; '.join(cell.reasons)}", 2)
    for note in dict.fromkeys(notes):
        print_text(f"  {note}", 4)


# What `_sweep_row` gives of a sweep.
_SWEEP_COLUMNS = (
    number_column("sweep"),
    text_column("stimulus"),
    text_column("name", rank=5, fold=16),
    number_column("pA"),
    number_column("start s"),
    number_column("lasts s"),
    number_column("kHz", rank=4),
    number_column("baseline mV", rank=1),
    number_column("drift mV", rank=2),
    number_column("noise mV", rank=3),
    number_column("spikes"),
    text_column("quality", fold=20),
)


def _sweep_row(sweep: Sweep, analysis: Analysis, spikes: dict[int, int]) -> tuple[str, ...]:
    from crosspatch.recordings.quality import SweepFault, SweepQuality
    from crosspatch.recordings.stimuli import Stimulus

    stimulus = analysis.stimuli.get(sweep.number, Stimulus("unknown"))
    quality = analysis.qualities.get(sweep.number, SweepQuality((SweepFault("", "not measured"),)))
    there = stimulus.kind not in ("none", "unknown")
    return (
        str(sweep.number),
        stimulus.kind,
        sweep.description + (" (!)" if stimulus.disagrees else ""),
        number_text(stimulus.amplitude) if there else "",
        number_text(stimulus.start, 4) if there else "",
        number_text(stimulus.duration, 4) if there else "",
        f"{sweep.rate / 1e3:g}",
        number_text(quality.baseline),
        number_text(quality.drift, 2),
        number_text(quality.fast_noise, 3),
        str(spikes.get(sweep.number, "")),
        "passed" if quality.passed else "; ".join(quality.reasons),
    )
