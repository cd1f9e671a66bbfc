"""The command line: parse, call, print."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from crosspatch.errors import CrosspatchError, one_line

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
model_app = typer.Typer(help="Look at trained models.", no_args_is_help=True)
app.add_typer(model_app, name="model")
fetch_app = typer.Typer(help="Get tables and recordings from where they are published.")
app.add_typer(fetch_app, name="fetch")


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


@cohort_app.command("export")
def cohort_export(
    file: Annotated[Path, typer.Argument(help="Cohort table, .h5ad.")],
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
    from crosspatch.cohorts.citations import entries
    from crosspatch.cohorts.download import TABLES_LICENCE, dandisets
    from crosspatch.cohorts.sources import source_files

    tables = source_files().values()
    _print_rows(
        f"Tables: crosspatch fetch tables ({sum(table.size for table in tables) / 1e6:.1f} MB)",
        ("file", "from", "MB"),
        [(table.path, table.address, f"{table.size / 1e6:.2f}") for table in tables],
    )
    print(f"licence of the tables: {TABLES_LICENCE}")
    print("cite with the tables: Gouwens et al. 2020, Lee and Dalley et al. 2023\n")
    _print_rows(
        "Recordings: crosspatch fetch recordings --dandiset NUMBER",
        ("dandiset", "species", "what", "labels", "licence", "files", "GB"),
        [
            (
                each.dandiset,
                each.species,
                each.about,
                each.labels or "none: --labels or --unlabelled",
                each.licence,
                f"{each.files:,}",
                f"{each.gigabytes:.1f}",
            )
            for each in dandisets().values()
        ],
        n_text=5,
    )
    print(f"{len(entries())} works in BibTeX: crosspatch cite; of one result: crosspatch cite FILE")


TimeLimit = Annotated[
    float | None, typer.Option(min=1, help="Seconds after which nothing is tried again.")
]


@fetch_app.command("tables")
def fetch_tables_command(
    data_dir: DataDir = None,
    time_limit: TimeLimit = None,
) -> None:
    """Get the public tables of both species (9 MB) into the data directory.

    Stopped or cut off, the same command goes on where it was.
    """
    from crosspatch.cohorts.download import fetch_tables
    from crosspatch.cohorts.sources import named_directory
    from crosspatch.web import Web, WebSettings

    directory, origin = named_directory(data_dir)
    web = Web(WebSettings.of_user(time_limit or float("inf")))
    with _progress() as tell:
        fetched = fetch_tables(
            directory,
            web=web,
            progress=lambda state: tell(
                f"tables ({state.bytes_done / 1e6:.1f} of {state.bytes_total / 1e6:.1f} MB)",
                state.done,
                state.total,
            ),
        )
    print(f"{len(fetched)} tables fetched, all are in {directory} (from {origin}), verified")


Dandiset = Annotated[str, typer.Option(help="Six digits, such as 000020; see fetch --list.")]
Subclasses = Annotated[list[str] | None, typer.Option(help="Only cells of these subclasses.")]
CellNames = Annotated[
    list[str] | None,
    typer.Option("--cells", help="Only these cells: specimen, session, donor or file name."),
]
Most = Annotated[int | None, typer.Option(min=1, help="At most so many recordings.")]
Unlabelled = Annotated[bool, typer.Option("--unlabelled", help="Take cells without a label too.")]


@fetch_app.command("recordings", cls=_ManyValues)
def fetch_recordings(
    dandiset: Dandiset,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder. (default: recordings/DANDISET)")
    ] = None,
    subclass: Subclasses = None,
    cells: CellNames = None,
    limit: Most = None,
    unlabelled: Unlabelled = False,
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
    data_dir: DataDir = None,
) -> None:
    """Get recordings of a dandiset and their labels.

    Only cells that have a label, unless asked otherwise. Every file is compared with the archive's
    checksums. Stopped, killed or cut off, the same command goes on where it was.
    """
    from crosspatch.cohorts.download import Choice, write_labels
    from crosspatch.recordings.dandi import Archive, Place
    from crosspatch.recordings.fetching import fetch_assets

    archive = Archive()
    place = Place.parse(f"dandi:{dandiset}" + (f"@{version}" if version else ""))
    choice = Choice(tuple(subclass or ()), tuple(cells or ()), limit, unlabelled)
    chosen, known = _choose(archive, place, choice, labels, data_dir)
    gigabytes = sum(asset.size for asset in chosen) / 1e9
    print(f"{len(chosen):,} recordings of {next(iter(chosen)).version}, {gigabytes:.3f} GB")
    if dry_run:
        for asset in chosen:
            print(f"{asset.path}  {asset.size / 1e6:.1f} MB")
        return
    folder = out or Path("recordings") / place.dandiset
    with _progress() as tell:
        fetched = fetch_assets(
            list(chosen),
            folder,
            archive=archive,
            jobs=jobs,
            progress=lambda state: tell(
                f"fetch ({state.bytes_done / 1e6:.1f} of {state.bytes_total / 1e6:.1f} MB, "
                f"{state.failed} failed)",
                state.done,
                state.total,
            ),
        )
    there = {asset: key for asset, key in chosen.items() if asset in fetched.files}
    if there:
        file = write_labels(folder, there, known)
        print(
            f"{len(there):,} recordings in {folder}/, verified ({fetched.kept:,} were there), "
            f"labels in {file}"
        )
    for asset, reason in list(fetched.failures.items())[:5]:
        _say(f"{asset}: {reason}")
    if fetched.failures:
        _say(
            f"{len(fetched.failures):,} of {len(chosen):,} recordings could not be had; give the "
            "same command again"
        )
        raise typer.Exit(1)


def _choose(
    archive: Any, place: Any, choice: Any, labels: str | None, data_dir: Path | None
) -> Any:
    """The recordings of a dandiset that are wanted, and their labels."""
    from crosspatch.cohorts.download import choose, labels_of

    known = None
    try:
        known = labels_of(place.dandiset, labels, data_dir)
    except CrosspatchError:
        if not choice.unlabelled or labels is not None:
            raise
    return choose(archive.recordings(place), known, choice), known


@app.command("cite")
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


StepStart = Annotated[
    float | None,
    typer.Option(help="Start of the step in s, where files have no command waveform."),
]
StepEnd = Annotated[float | None, typer.Option(help="End of the step in s.")]
Amplitudes = Annotated[
    str | None,
    typer.Option(
        help="Amplitudes in pA, one a sweep, or one for all: -100,-50,0,50 or -100:300:20."
    ),
]
Device = Annotated[str, typer.Option(help="cpu or cuda, for the sequence models.")]
Jobs = Annotated[int | None, typer.Option(min=1, help="Processes. (default: the number of cores)")]
Limit = Annotated[float, typer.Option(min=1, help="Seconds after which a file is given up.")]
Quality = Annotated[str, typer.Option(help="Thresholds: default, allen or any.")]


@app.command("inspect")
def inspect(
    file: Annotated[Path, typer.Argument(help="Recording, NWB 2 or ABF.")],
    png: Annotated[
        Path | None, typer.Option(help="Picture to write. (default: FILE's name with .png, here)")
    ] = None,
    no_png: Annotated[bool, typer.Option("--no-png", help="Print only.")] = False,
    step_start: StepStart = None,
    step_end: StepEnd = None,
    amplitudes: Amplitudes = None,
    quality: Quality = "default",
) -> None:
    """Print a recording's sweeps, stimuli, quality and features, and draw them."""
    from crosspatch.features.extraction import ExtractionSettings, step_described
    from crosspatch.features.layouts import load_layout
    from crosspatch.features.protocols import analyse
    from crosspatch.features.scalars import scalar_features
    from crosspatch.recordings.opening import open_recording
    from crosspatch.recordings.quality import QUALITIES

    settings = ExtractionSettings(
        quality=quality, step=step_described(step_start, step_end, amplitudes)
    )
    with open_recording(file) as recording:
        if settings.step is not None:
            step = settings.step
            recording = recording.with_steps(step.start, step.end, step.amplitudes)
        protocols = analyse(recording, QUALITIES[quality])
        said = recording.recorded
        about = [f"{len(recording.current_clamp)} current-clamp sweeps"]
        about += [f"species {said.species}"] if said.species else []
        about += [f"donor {said.donor}"] if said.donor else []
        about += ["SIMULATED"] if said.simulated else []
        print(f"{file}: {recording.format}, {', '.join(about)}")
        _print_sweeps(recording, protocols)
        values = scalar_features(protocols)
        rows = [
            (feature.name, f"{values[feature.name]:.4g}", feature.unit)
            for feature in load_layout("full").features
            if feature.name in values
        ]
        if rows:
            _print_rows("Features", ("feature", "value", "unit"), rows, n_text=1)
        cell = protocols.cell
        print(f"cell: {'passed' if cell.passed else 'rejected: ' + '; '.join(cell.reasons)}")
        for note in dict.fromkeys(protocols.notes):
            print(f"  {note}")
        if not no_png:
            from crosspatch.reporting.recording_figures import recording_figure
            from crosspatch.reporting.style import save_figure

            out = png or Path(f"{recording.cell_id}.png")
            save_figure(recording_figure(recording, protocols), out)
            print(f"wrote {out}")


def _number(value: float, digits: int = 1) -> str:
    """Empty where it is missing."""
    return "" if value != value else f"{value:.{digits}f}"


def _print_sweeps(recording: Any, protocols: Any) -> None:
    from crosspatch.recordings.quality import SweepQuality

    spikes: dict[int, int] = {}
    for analysis in (protocols.long_square, protocols.short_square, protocols.ramp):
        if analysis is not None:
            spikes |= dict(
                zip(analysis.numbers, map(len, analysis.features["spikes_set"]), strict=False)
            )
    rows = []
    for sweep in recording.current_clamp:
        stimulus = protocols.stimuli.get(sweep.number)
        quality = protocols.qualities.get(sweep.number, SweepQuality(reasons=("not measured",)))
        there = stimulus is not None and stimulus.kind != "none"
        rows.append(
            (
                str(sweep.number),
                stimulus.kind if stimulus is not None else "unknown",
                sweep.description + (" (!)" if stimulus is not None and stimulus.disagrees else ""),
                _number(stimulus.amplitude) if there else "",
                _number(stimulus.start, 4) if there else "",
                _number(stimulus.duration, 4) if there else "",
                f"{sweep.rate / 1e3:g}",
                _number(quality.baseline),
                _number(quality.drift, 2),
                _number(quality.fast_noise, 3),
                str(spikes.get(sweep.number, "")),
                "passed" if quality.passed else "; ".join(quality.reasons),
            )
        )
    measures = ("pA", "start s", "lasts s", "kHz", "baseline mV", "drift mV", "noise mV", "spikes")
    _print_rows("Sweeps", ("sweep", "stimulus", "name", *measures, "quality"), rows, n_text=3)


@app.command("simulate")
def simulate(
    species: Annotated[str, typer.Option(help="mouse or human.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the recordings.")],
    cells: Annotated[int, typer.Option(min=1, help="Number of cells.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of cells and noise.")] = 0,
    jobs: Jobs = None,
    whole_set: Annotated[
        bool,
        typer.Option(
            "--whole-set",
            help="With what files of the archive hold besides: tests, noise, a chirp, triples.",
        ),
    ] = False,
) -> None:
    """Write simulated recordings (NWB) and their labels (cells.csv)."""
    from joblib import cpu_count

    from crosspatch.recordings.simulated import simulate_cells

    with _progress() as tell:
        labels = simulate_cells(
            out,
            cells,
            species,
            seed=seed,
            jobs=jobs or cpu_count(),
            progress=lambda done, total: tell(f"simulate {species} cells", done, total),
            whole_set=whole_set,
        )
    print(f"wrote {cells} SIMULATED recordings to {out}/, labels in {labels}")


@app.command("extract", cls=_ManyValues)
def extract(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Recordings, folders, patterns, or a dandiset, which is read where it lies: "
            "dandi:NUMBER, dandi:NUMBER@VERSION, dandi:NUMBER/PATH."
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Cohort table to write, .h5ad.")],
    layout: Annotated[str, typer.Option(help="gouwens, paper, shared or full.")] = "gouwens",
    labels: Annotated[
        str | None,
        typer.Option(
            help="csv with a column file and any of species, subclass, t_type, donor, dataset; "
            "or allen-mouse, allen-human. (default: cells.csv beside the recordings; the "
            "dandiset's own)"
        ),
    ] = None,
    subclass: Subclasses = None,
    cells: CellNames = None,
    most: Annotated[
        int | None, typer.Option("--limit-cells", min=1, help="Of a dandiset, at most so many.")
    ] = None,
    unlabelled: Unlabelled = False,
    species: Annotated[
        str | None, typer.Option(help="mouse or human, for files that do not say.")
    ] = None,
    quality: Quality = "default",
    drop_failed: Annotated[
        bool, typer.Option("--drop-failed", help="Leave out cells that fail quality control.")
    ] = False,
    step_start: StepStart = None,
    step_end: StepEnd = None,
    amplitudes: Amplitudes = None,
    jobs: Jobs = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Dask scheduler to use, tcp://HOST:PORT.")
    ] = None,
    limit: Limit = 300.0,
    data_dir: DataDir = None,
) -> None:
    """Compute the features of recordings and write them as a cohort table.

    Finished cells are kept beside OUT (.cells.sqlite): given again, the command does only what is
    new or changed. Files that give no cell are listed in failures.csv beside OUT.

    Of a dandiset only the bytes that are needed are fetched, of its labelled cells unless asked
    otherwise.
    """
    from joblib import cpu_count

    from crosspatch.cohorts import extracted, table
    from crosspatch.cohorts.download import Choice
    from crosspatch.features.extraction import (
        ExtractionSettings,
        extract_many,
        step_described,
        store_beside,
    )

    table.require_name(out)
    extracted.require_species(species)
    step = step_described(step_start, step_end, amplitudes)
    settings = ExtractionSettings(layout, quality, step)
    store = store_beside(out)
    files, known = _find_extracted(
        paths,
        Choice(tuple(subclass or ()), tuple(cells or ()), most, unlabelled),
        labels,
        data_dir,
    )
    with _progress() as tell:
        state = extract_many(
            files,
            store,
            settings,
            jobs=jobs or cpu_count(),
            scheduler=scheduler,
            limit=limit,
            progress=_recordings(tell),
        )
    result = extracted.assemble(
        files, store, settings, labels=known, species=species, drop_failed=drop_failed
    )
    failures = out.with_name("failures.csv")
    extracted.write_failures(result.failures, failures)
    print(f"{state.total} recordings, {state.kept} of them done before")
    for _, row in result.failures.head(5).iterrows():
        print(f"  {row['file']}: {row['reason']}")
    if len(result.failures):
        print(f"{len(result.failures)} gave no cell: {failures}")
    if result.cohort is None:
        print(f"crosspatch: no cell in {len(files)} recordings; see {failures}", file=sys.stderr)
        raise typer.Exit(2)
    table.write(result.cohort, out)
    _print_extracted(result.cohort)
    print(f"wrote {out}: {result.cohort.n_obs:,} cells, {result.cohort.n_vars} features")


def _find_extracted(
    paths: list[str], choice: Any, labels: str | None, data_dir: Path | None
) -> tuple[list[Any], pd.DataFrame | None]:
    """Recordings to be extracted, and their labels if they do not lie beside them."""
    from crosspatch.cohorts.download import Choice
    from crosspatch.cohorts.extracted import read_labels
    from crosspatch.features.extraction import find_recordings
    from crosspatch.recordings.dandi import Archive, Place, is_dandi

    places = [Place.parse(path) for path in paths if is_dandi(path)]
    if not places:
        if choice != Choice():
            raise CrosspatchError(
                "--subclass, --cells, --limit-cells and --unlabelled choose among the recordings "
                "of a dandiset (dandi:NUMBER); leave them out"
            )
        known = None if labels is None else read_labels(labels, data_dir)
        return find_recordings(paths), known
    if len(paths) > 1:
        raise CrosspatchError("give one dandiset at a time, and files in another command")
    chosen, known = _choose(Archive(), places[0], choice, labels, data_dir)
    return list(chosen), known


def _print_extracted(cohort: anndata.AnnData) -> None:
    obs = cohort.obs
    labelled = int(obs["subclass"].notna().sum())
    print(f"{labelled} cells have a label, {cohort.n_obs - labelled} have none")
    failed = obs[~obs["qc_passed"].astype(bool)]
    if len(failed):
        print(f"{len(failed)} cells fail quality control (qc_passed, qc_reasons), the first:")
        for name, reason in failed["qc_reasons"].head(3).items():
            print(f"  {name}: {reason}")
    if obs["simulated"].astype(bool).any():
        print(f"{int(obs['simulated'].sum())} cells are SIMULATED")
    if "bytes_read" in obs:
        read, whole = obs["bytes_read"].sum(), obs["file_bytes"].sum()
        share = (obs["bytes_read"] / obs["file_bytes"]).quantile([0, 0.5, 1])
        print(
            f"{read / 1e6:.1f} MB read of {whole / 1e6:.1f} MB ({read / whole:.1%}; of a file "
            f"{share.iloc[0]:.0%} to {share.iloc[2]:.0%}, half of them below {share.iloc[1]:.0%})"
        )


@contextmanager
def _progress(*, goes_on: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr with rate and remaining time.

    `goes_on` says whether the same command, given again after a stop, goes on where it was.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    lines: dict[str, TaskID] = {}
    started: dict[str, tuple[float, int]] = {}

    def tell(what: str, done: int, total: int) -> None:
        bar.start()
        name = what.split(" (")[0]
        if name not in lines:
            lines[name] = bar.add_task(what, total=total, rate="")
            started[name] = (time.monotonic(), done)
        begun, before = started[name]
        passed = time.monotonic() - begun
        rate = f"{(done - before) / passed:.2f}/s" if done > before and passed > 0 else ""
        bar.update(lines[name], description=what, completed=done, total=total, rate=rate)

    try:
        yield tell
    except KeyboardInterrupt:
        bar.stop()
        again = "; give the same command again to go on" if goes_on else ""
        print(f"crosspatch: stopped{again}", file=sys.stderr)
        raise typer.Exit(130) from None
    finally:
        if bar.live.is_started:
            bar.stop()


def _recordings(tell: Callable[[str, int, int], None]) -> Callable[[Any], None]:
    """Tells how many recordings are done, and how many failed."""
    return lambda state: tell(f"recordings ({state.failed} failed)", state.done, state.total)


@app.command("models")
def models() -> None:
    """List the models."""
    from crosspatch.models.registry import MODEL_NAMES, model_entry

    for name in MODEL_NAMES:
        print(f"{name:24s}{model_entry(name).about}")


CohortOption = Annotated[
    list[str] | None,
    typer.Option(
        help="allen, simulated, auto (allen if the data directory has it, else simulated), or "
        "cohort tables (.h5ad), one a species. (default: auto)"
    ),
]
FeaturesOption = Annotated[
    str | None,
    typer.Option(
        help="shared, or full (allen-human only); gouwens or paper for simulated cohorts. "
        "(default: shared; gouwens for simulated)"
    ),
]
Protocol = Annotated[str, typer.Option(help="donor, published or quick.")]
Alignment = Annotated[
    str, typer.Option(help="Mouse Sncg counts as Vip (hodge2019) or Lamp5 (published-code).")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of folds and models.")]


@app.command("run", cls=_ManyValues)
def run(
    cohort: CohortOption = None,
    data_dir: DataDir = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="mouse, human, transfer (default: all that the features allow); or "
            "learning-curve, by itself: what mouse is worth with few labelled human cells."
        ),
    ] = None,
    features: FeaturesOption = None,
    models: Annotated[
        list[str] | None,
        typer.Option(help="Models by name (`crosspatch models`). (default: a choice by task)"),
    ] = None,
    protocol: Protocol = "donor",
    alignment: Alignment = "hodge2019",
    seed: Seed = 0,
    jobs: Jobs = None,
    device: Device = "cpu",
    calibration: Annotated[
        bool,
        typer.Option(
            "--calibration",
            help="Evaluate models as `crosspatch train` makes them, with calibration, prediction "
            "sets, and scores by which families are present.",
        ),
    ] = False,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")] = Path(
        "results"
    ),
    unverified: Unverified = False,
) -> None:
    """Evaluate models on cohorts, print the results beside the published ones, write a report.

    A run that was stopped goes on where it was when the same command is given again.
    """
    from joblib import cpu_count

    from crosspatch.evaluation.benchmark import benchmark
    from crosspatch.evaluation.inputs import warning_about
    from crosspatch.evaluation.learning_curve import is_learning_curve, learning_curve

    jobs = jobs or cpu_count()
    curve = is_learning_curve(task, calibration)
    cohorts = _load_cohorts(
        cohort,
        ["transfer"] if curve else task,
        features,
        data_dir,
        unverified=unverified,
        simulate_in=_simulate_in(out),
        seed=seed,
        jobs=jobs,
    )
    with _progress() as tell:

        def folds(done: int, total: int) -> None:
            tell("draws" if curve else "folds", done, total)

        if curve:
            found = learning_curve(
                cohorts,
                models=models,
                protocol=protocol,
                alignment=alignment,
                seed=seed,
                jobs=jobs,
                device=device,
                out=out,
                progress=folds,
            )
        else:
            result = benchmark(
                cohorts,
                tasks=task,
                models=models,
                protocol=protocol,
                alignment=alignment,
                seed=seed,
                jobs=jobs,
                device=device,
                calibration=calibration,
                out=out,
                progress=folds,
            )
    if curve:
        _print_curve(found)
        tables = found.tables
    else:
        _print_result(result)
        if result.calibration is not None:
            _print_calibration(result)
        tables = result.tables
    _print_warning(warning_about(cohorts))
    print(f"wrote {out}/: {', '.join(f'{name}.csv' for name in tables)}, settings.json")
    _write_report([out], out / "report.html")


def _load_cohorts(
    given: list[str] | None,
    tasks: list[str] | None,
    features: str | None,
    data_dir: Path | None,
    *,
    unverified: bool,
    simulate_in: Path,
    seed: int,
    jobs: int,
) -> dict[str, anndata.AnnData]:
    """The cohorts of a command, with what must be said of them printed."""
    from crosspatch.evaluation.inputs import choose_cohorts, load_cohorts, warning_about

    names = given or ["auto"]
    chosen = choose_cohorts(names, data_dir)
    if chosen != names and chosen == ["simulated"]:
        print(
            "The Allen tables are not in the data directory: `crosspatch fetch tables` gets them "
            "(9 MB); --data-dir or CROSSPATCH_DATA names another directory."
        )
        _print_warning("Running on SIMULATED recordings instead")
    with _progress() as tell:
        cohorts = load_cohorts(
            chosen,
            features,
            tasks,
            data_dir,
            verify=not unverified,
            simulate_in=simulate_in,
            seed=seed,
            jobs=jobs,
            progress=tell,
        )
    for each in cohorts.values():
        _print_joined(each)
    _print_warning(warning_about(cohorts))
    return cohorts


def _simulate_in(out: Path) -> Path:
    """Where recordings are simulated; those of a run in the folder above are used again."""
    above = out.parent / "simulated"
    shared = above.is_dir() and (out.parent / "settings.json").is_file()
    return above if shared else out / "simulated"


def _write_report(folders: list[Path], out: Path) -> None:
    from crosspatch.reporting.report import write_report

    written = write_report(folders, out)
    print(f"wrote {len(written) - 1} figures (PNG, SVG) to {written[-1].parent}/")
    print(f"report: {out}")


@app.command("report")
def report(
    results: Annotated[
        list[Path],
        typer.Argument(help="Folders written by `crosspatch run` and `crosspatch explain`."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Page to write, .html.")] = Path(
        "report.html"
    ),
) -> None:
    """Make one page of results: what was done, tables, figures, settings.

    It needs no network. Every figure is saved beside it as PNG and SVG.
    """
    _write_report(results, out)


@app.command("train")
def train(
    target: Annotated[
        str, typer.Option(help="allen-human, allen-mouse, or a cohort table (.h5ad).")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the model.")],
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
    seed: Seed = 0,
    jobs: Jobs = None,
    device: Device = "cpu",
    data_dir: DataDir = None,
    unverified: Unverified = False,
) -> None:
    """Train a model on all cells of a cohort, calibrated, to be used by `crosspatch predict`."""
    from joblib import cpu_count

    from crosspatch.evaluation.inputs import load_cohort_named
    from crosspatch.prediction.training import left_out
    from crosspatch.prediction.training import train as train_model

    fold = left_out(leave_out)
    cohorts = [
        None if name is None else load_cohort_named(name, features, data_dir, not unverified)
        for name in (target, source)
    ]
    assert cohorts[0] is not None  # noqa: S101, for the type checker: target is required
    with _progress(goes_on=False) as tell:
        trained = train_model(
            cohorts[0],
            cohorts[1],
            model=model,
            alignment=alignment,
            seed=seed,
            jobs=jobs or cpu_count(),
            device=device,
            leave_out=fold,
            progress=lambda done, total: tell("train", done, total),
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
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Recordings (NWB, ABF), folders of them, tables (csv, Excel, parquet, h5ad)."
        ),
    ],
    model: Annotated[
        list[Path] | None,
        typer.Option(
            help="Model folder; repeat it for another species. (default: trained once from the "
            "data directory)"
        ),
    ] = None,
    species: Annotated[
        str | None,
        typer.Option(help="human or mouse, for cells whose file does not say. (default: both)"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="File to write, .csv or .h5ad.")
    ] = None,
    columns: Annotated[
        Path | None, typer.Option(help="YAML file that says which column of a table is what.")
    ] = None,
    sets: Annotated[
        str,
        typer.Option(
            help="Prediction sets that cover 90 % of all-cells, or of the cells by-class."
        ),
    ] = "all-cells",
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
    quality: Quality = "default",
    step_start: StepStart = None,
    step_end: StepEnd = None,
    amplitudes: Amplitudes = None,
    jobs: Jobs = None,
    limit: Limit = 300.0,
    data_dir: DataDir = None,
) -> None:
    """Predict the transcriptomic subclass of cells, with its uncertainty.

    Verdicts: confident (one subclass in the 90 % prediction set), ambiguous (several or none),
    outside reference (unlike the cells the model knows), insufficient data.
    """
    from joblib import cpu_count

    from crosspatch.cohorts.column_overrides import read_mapping
    from crosspatch.features.extraction import step_described
    from crosspatch.prediction.inputs import ReadSettings, read_inputs
    from crosspatch.prediction.output import open_output
    from crosspatch.prediction.predictor import load_predictor, predict_batches

    mapping = None if columns is None else read_mapping(columns)
    step = step_described(step_start, step_end, amplitudes)
    failed: list[str] = []
    said: list[str] = []
    ask = cache(_ask) if sys.stdin.isatty() else None

    def say(line: str) -> None:
        said.append(line)
        _say(line)

    with open_output(out, inputs, plot, report) as output:
        with _progress(goes_on=False) as tell:
            predictor = load_predictor(
                model or (),
                species,
                sets=sets,
                adapt=adapt,
                data_dir=data_dir,
                jobs=jobs or cpu_count(),
                say=say,
                progress=tell,
            )
        settings = ReadSettings(
            predictor.layout, species, mapping, quality, step, jobs or cpu_count(), limit
        )
        with _progress() as tell:
            batches = read_inputs(
                inputs,
                settings,
                say,
                ask=ask,
                progress=_recordings(tell),
                failed=failed,
            )
            for part in predict_batches(predictor, batches, say):
                output.add(part)
    if not output.rows:
        print("crosspatch: no cell could be read; nothing was predicted", file=sys.stderr)
        raise typer.Exit(2)
    _print_predictions(output)
    if plot is not None:
        from crosspatch.reporting.style import save_figure

        save_figure(output.first.plot(), plot)
        print(f"wrote {plot}")
    if report is not None:
        from datetime import datetime

        from crosspatch.prediction.explained import explain_cells
        from crosspatch.reporting.batch_report import write_batch_report

        with _progress(goes_on=False) as tell:
            # Recordings were kept when they were measured; what is said of inputs was said.
            explained = (
                ()
                if adapt
                else explain_cells(
                    inputs,
                    model=model or (),
                    species=species,
                    columns=mapping,
                    sets=sets,
                    quality=quality,
                    step=step,
                    data_dir=data_dir,
                    jobs=jobs or cpu_count(),
                    limit=limit,
                    say=lambda line: None,
                    ask=ask,
                )
            )
            write_batch_report(
                output.whole,
                report,
                explanations=explained,
                messages=said,
                failed=failed,
                when=datetime.now().astimezone(),
                progress=lambda done, total: tell("report", done, total),
            )
        print(f"wrote {report}")
    if out is not None:
        print(f"wrote {out}: {output.rows:,} rows")
    if failed:
        _say(f"{len(failed)} of the inputs could not be read: {', '.join(failed)}")
        raise typer.Exit(1)


@app.command("serve")
def serve_pages(
    model: Annotated[
        list[Path] | None,
        typer.Option(
            help="Model folder; repeat it for another species. (default: trained once from the "
            "data directory)"
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to answer at; any but loopback demands a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8700,
    open_browser: Annotated[
        bool, typer.Option("--open", help="Open the pages in the browser.")
    ] = False,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="CROSSPATCH_TOKEN", help="Demanded of everyone. (default: made up if needed)"
        ),
    ] = None,
    sets: Annotated[
        str,
        typer.Option(
            help="Prediction sets that cover 90 % of all-cells, or of the cells by-class."
        ),
    ] = "all-cells",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Files at a time, each about 0.5 GiB. (default: cores, at most 4)"
        ),
    ] = None,
    keep: Annotated[
        float, typer.Option(min=0.01, help="Hours after which files and results are deleted.")
    ] = 8.0,
    upload: Annotated[float, typer.Option(min=0.001, help="Largest file, GiB.")] = 1.0,
    storage: Annotated[float, typer.Option(min=0.001, help="All files together, GiB.")] = 20.0,
    memory: Annotated[float, typer.Option(min=1, help="Memory of a process, GiB.")] = 4.0,
    seconds: Limit = 300.0,
    data_dir: DataDir = None,
) -> None:
    """Answer in the browser: drop a recording, see the cell. Nothing leaves the machine."""
    from joblib import cpu_count

    from crosspatch.service.server import serve
    from crosspatch.service.settings import ServiceSettings

    settings = ServiceSettings(
        models=tuple(model or ()),
        sets=sets,
        data_dir=data_dir,
        host=host,
        port=port,
        token=token,
        workers=workers or min(cpu_count(), 4),
        seconds=seconds,
        memory=round(memory * 2**30),
        upload=round(upload * 2**30),
        storage=round(storage * 2**30),
        keep=keep,
    )
    with _progress(goes_on=False) as tell:

        def told(said: dict[str, Any]) -> None:
            if "say" in said:
                _say(said["say"])
            else:
                tell(said["what"], said["done"], said["total"])

        serve(settings, _say, told=told, open_browser=open_browser)


def _print_predictions(output: Any) -> None:
    shown = output.first.to_table().head(40)
    rows = [
        (
            str(row["cell_id"]),
            row["species"] + ("" if row["species_known"] else " (assumed)"),
            str(row["subclass"]),
            _number(row["probability"], 2),
            str(row["prediction_set"]).replace("|", ", "),
            str(row["verdict"]),
            _number(row["p_reference"], 3),
            f"{row['completeness']:.0%}",
        )
        for _, row in shown.iterrows()
    ]
    header = ("cell", "species", "subclass", "p", "90 % set", "verdict", "p reference", "measured")
    _print_rows("Predictions", header, rows, n_text=3, fold=(0, 1, 4, 5, 6, 7))
    for _, row in shown.drop_duplicates(["cell_id", "notes"]).iterrows():
        for kind in ("quality", "notes"):
            if row[kind]:
                print(
                    f"  {row['cell_id']}: {'fails quality control: ' * (kind == 'quality')}"
                    f"{row[kind]}"
                )
    if not shown["species_known"].all():
        print("species unknown: judged by both references; give --species human or mouse")
    if output.rows > len(shown):
        print(f"{output.rows:,} rows in all, the first {len(shown)} are shown; --out keeps all")
    counts = ", ".join(f"{name} {count:,}" for name, count in output.verdicts.most_common())
    print(f"verdicts: {counts}")
    if any(model["simulated"] for model in output.first.header["models"]):
        _print_warning("The model was trained on SIMULATED recordings")


def _print_warning(text: str) -> None:
    if text:
        print(f"\n*** {text} ***\n")


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
    if summary["published_macro_f1"].notna().any():
        print(
            "published: arXiv 2603.11000, other cells (after its own QC of recordings) and "
            "features, folds that ignore the donor; for orientation, not a like-for-like comparison"
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


_ABOUT_MODELS, _ABOUT_CELLS = "Of models (no INPUTS)", "Of cells (INPUTS)"


@app.command("explain", cls=_ManyValues)
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
    seed: Seed = 0,
    jobs: Jobs = None,
    data_dir: DataDir = None,
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
            help="human or mouse, for cells whose file does not say.", rich_help_panel=_ABOUT_CELLS
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
    step_start: StepStart = None,
    step_end: StepEnd = None,
    amplitudes: Amplitudes = None,
    limit: Limit = 300.0,
) -> None:
    """Explain models, and check it; or explain single cells.

    Without INPUTS: what models look at (attention) beside what happens without each family, on
    held-out donors; which features mean the same in mouse and human; how far subclasses lie apart.
    With INPUTS: a page a cell, with what spoke for and against its subclass.
    """
    from joblib import cpu_count

    if inputs:
        _explain_cells(
            inputs,
            out or Path("cells"),
            model=model or (),
            cells=cell or (),
            species=species,
            columns=columns,
            quality=quality,
            step=(step_start, step_end, amplitudes),
            data_dir=data_dir,
            jobs=jobs or cpu_count(),
            limit=limit,
            seed=seed,
        )
        return
    for option, given in (("--model", model), ("--cell", cell), ("--columns", columns)):
        if given:
            raise CrosspatchError(f"{option} is for cells: name their recordings or table")
    from crosspatch.evaluation.inputs import warning_about
    from crosspatch.explanation.study import DEFAULT_MODELS
    from crosspatch.explanation.study import explain as explain_models

    out = out or Path("explanation")
    cohorts = _load_cohorts(
        cohort,
        None,
        features,
        data_dir,
        unverified=unverified,
        simulate_in=_simulate_in(out),
        seed=seed,
        jobs=jobs or cpu_count(),
    )
    with _progress() as tell:
        found = explain_models(
            cohorts,
            models=models or DEFAULT_MODELS,
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
    _print_explanation(found)
    _print_warning(warning_about(cohorts))
    print(f"wrote {out}/: {', '.join(f'{name}.csv' for name in found.tables)}, settings.json")
    _write_report([out], out / "report.html")


def _explain_cells(inputs: list[str], out: Path, *, step: Any, **options: Any) -> None:
    from crosspatch.features.extraction import step_described
    from crosspatch.prediction.explained import explain_cells
    from crosspatch.reporting.cell_page import write_pages

    failed: list[str] = []
    with _progress() as tell:
        found = explain_cells(
            inputs,
            **options,
            step=step_described(*step),
            ask=_ask if sys.stdin.isatty() else None,
            say=_say,
            failed=failed,
            training=tell,
            progress=_recordings(tell),
        )
    written = write_pages(found, out, say=print)
    print(f"wrote {len(found)} pages (PNG, SVG) and {written[-1]}")
    if failed:
        _say(f"{len(failed)} of the inputs could not be read: {', '.join(failed)}")
        raise typer.Exit(1)


def _ask(column: str, candidates: Any) -> str | None:
    """Ask at the terminal what a column is."""
    from click import IntRange

    shown = ", ".join(f"{k} {name}" for k, name in enumerate(candidates, 1))
    choice = IntRange(0, len(candidates))
    answer = typer.prompt(f"Column '{column}' is: {shown}, 0 none of these", type=choice)
    return candidates[answer - 1] if answer else None


def _say(line: str) -> None:
    print(f"crosspatch: {line}", file=sys.stderr)


def _print_explanation(found: Any) -> None:
    def interval(row: Any) -> str:
        low, high = row["ci_low"], row["ci_high"]
        return "" if low != low else f"[{low:+.3f}, {high:+.3f}]"

    importance = found.tables["importance"]
    every = importance[importance["scope"] == "macro_f1"]
    _print_rows(
        "Fall in macro-F1 without a family, on held-out donors",
        ("species", "model", "family", "how", "fall", "95 % interval"),
        [
            (
                *(str(row[n]) for n in ("species", "model", "family", "how")),
                f"{row['drop']:+.3f}",
                interval(row),
            )
            for _, row in every.iterrows()
        ],
        n_text=4,
    )
    _print_rows(
        "Does attention say so? Rank correlation over families",
        ("compared", "species", "model", "Spearman", "95 % interval", "verdict"),
        [
            (
                *(str(row[n]) for n in ("what", "species", "model")),
                _number(row["spearman"], 2),
                interval(row),
                str(row["verdict"]),
            )
            for _, row in found.tables["agreement"].iterrows()
        ],
        n_text=3,
    )
    conserved = found.tables["conserved"]
    if len(conserved):
        counts = conserved.groupby(["level", "group"], sort=False)["verdict"].value_counts()
        kinds = ("same", "opposite", "mouse only", "human only", "neither")
        _print_rows(
            "Features that separate a group from the rest, in mouse and human",
            ("level", "group", *kinds),
            [
                (
                    str(level),
                    str(group),
                    *(str(counts.get((level, group, kind), 0)) for kind in kinds),
                )
                for level, group in dict.fromkeys((k[0], k[1]) for k in counts.index)
            ],
        )
    separation = found.tables["separation"]
    _print_rows(
        "How far subclasses lie apart in the sparse-PCA space",
        ("species", "measure", "a", "b", "value", "p"),
        [
            (
                *(str(row[n]) for n in ("species", "metric", "a", "b")),
                _number(row["value"], 2),
                _number(row["p_value"], 3),
            )
            for _, row in separation.iterrows()
        ],
        n_text=4,
    )


def _print_curve(curve: Any) -> None:
    def interval(row: Any) -> str:
        low, high = row["ci_low"], row["ci_high"]
        return "" if low != low else f"[{low:+.4f}, {high:+.4f}]"

    print(f"\n{curve.settings['protocol']}: {curve.settings['protocol_about']}")
    every = curve.summary[curve.summary["cut"] == "all"]
    _print_rows(
        "Macro-F1 by labelled human cells of each class (mean ± SD over draws)",
        ("model", "mouse", "cells a class", "macro-F1"),
        [
            (
                row["model"],
                "with" if row["mouse"] else "without",
                str(row["cells_per_class"]),
                f"{row['macro_f1_mean']:.4f} ± {row['macro_f1_sd']:.4f}",
            )
            for _, row in every.iterrows()
        ],
    )
    _print_rows(
        "What mouse adds, corrected resampled t-test",
        ("difference", "cut", "cells a class", "macro-F1", "95 % interval", "p"),
        [
            (
                f"{row['model']} − {row['without']}",
                row["cut"],
                str(row["cells_per_class"]),
                f"{row['delta_macro_f1']:+.4f}",
                interval(row),
                _number(row["p_value"], 3),
            )
            for _, row in curve.gains.iterrows()
        ],
    )


def _print_calibration(result: BenchmarkResult) -> None:
    found = result.calibration
    assert found is not None  # noqa: S101, for the type checker

    def spread(row: Any, name: str) -> str:
        mean, deviation = row[f"{name}_mean"], row[f"{name}_sd"]
        return f"{mean:.3f}" + ("" if deviation != deviation else f" ± {deviation:.3f}")

    who = ("task", "model")
    names: tuple[str, ...] = ("ece", "confident", "accuracy_confident", "outside", "refused")
    _print_rows(
        "Calibration (expected calibration error; shares of cells)",
        (*who, *(name.replace("_", " ") for name in names)),
        [
            (*(row[name] for name in who), *(spread(row, name) for name in names))
            for _, row in found.calibration.iterrows()
        ],
    )
    names = ("coverage", "set_size", "one_class", "empty")
    _print_rows(
        "90 % prediction sets",
        (*who, "sets", "class", *(name.replace("_", " ") for name in names)),
        [
            (*(row[n] for n in (*who, "sets", "class")), *(spread(row, name) for name in names))
            for _, row in found.coverage.iterrows()
        ],
        n_text=4,
    )
    names = ("macro_f1", "accuracy", "coverage", "set_size", "refused")
    _print_rows(
        "By what is present",
        (*who, "present", *(name.replace("_", " ") for name in names)),
        [
            (*(row[n] for n in (*who, "present")), *(spread(row, name) for name in names))
            for _, row in found.families.iterrows()
        ],
        n_text=3,
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
    title: str,
    header: Iterable[str],
    rows: Iterable[Iterable[str]],
    n_text: int = 2,
    fold: tuple[int, ...] = (),
) -> None:
    """Print a table; columns in `fold` are broken into lines where the terminal is narrow."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for number, name in enumerate(header):
        justify: Literal["left", "right"] = "left" if number < n_text else "right"
        table.add_column(name, justify=justify, no_wrap=number not in fold, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # not as markup: a cell may be called [/x]
    # Into a pipe or file, as wide as it needs to be.
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)


def main() -> None:
    """Run the command line; errors of the user are one line and exit code 2."""
    try:
        app()
    except CrosspatchError as error:
        print(f"crosspatch: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
