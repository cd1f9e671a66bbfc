"""Many recordings become one table of features: in parallel, resumable, file by file."""

from __future__ import annotations

import glob
import hashlib
import json
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from crosspatch.errors import RecordingError
from crosspatch.features.families import vector_families
from crosspatch.features.layouts import VECTOR_LAYOUTS, load_layout
from crosspatch.features.outcome import CellFeatures, Failure
from crosspatch.features.protocols import Protocols, analyse
from crosspatch.features.scalars import scalar_features
from crosspatch.features.store import CellStore
from crosspatch.recordings.dandi import Archive, Asset, Place, is_dandi
from crosspatch.recordings.model import Recording
from crosspatch.recordings.nwb import DoubtfulBytesError
from crosspatch.recordings.opening import RECORDING_SUFFIXES, open_recording
from crosspatch.recordings.quality import QUALITIES
from crosspatch.web import Web

#: Waiting this long for a Dask worker to appear, s.
_WORKERS_WITHIN = 60.0


@dataclass(frozen=True)
class StepDescription:
    """A step that the user describes because the files have no command waveform."""

    start: float
    end: float
    amplitudes: tuple[float, ...]


def step_described(
    start: float | None, end: float | None, amplitudes: str | None
) -> StepDescription | None:
    """The step that a user describes in words.

    Parameters
    ----------
    start, end : float or None
        s.
    amplitudes : str or None
        pA, separated by commas, or first:last:step (the last included).

    Raises
    ------
    RecordingError
        If only a part is given, or the amplitudes are no numbers.
    """
    if start is None and end is None and amplitudes is None:
        return None
    if start is None or end is None or amplitudes is None:
        raise RecordingError(
            "--step-start, --step-end and --amplitudes go together; give all three"
        )
    try:
        if ":" in amplitudes:
            first, last, step = (float(part) for part in amplitudes.split(":"))
            count = round((last - first) / step)
            if count < 0 or abs(first + count * step - last) > 1e-6 * abs(step):
                raise ValueError
            values = [first + step * k for k in range(count + 1)]
        else:
            values = [float(part) for part in amplitudes.split(",")]
        if not np.isfinite([start, end, *values]).all():
            raise ValueError
    except (ValueError, ZeroDivisionError) as error:
        raise RecordingError(
            f"--amplitudes {amplitudes}: not understood; write -100,-50,0,50 or -100:300:20"
        ) from error
    return StepDescription(start, end, tuple(values))


@dataclass(frozen=True)
class ExtractionSettings:
    """What is computed from a recording; a change means that files are done again."""

    #: One of `crosspatch.features.layouts.LAYOUT_NAMES`.
    layout: str = "gouwens"
    #: One of `crosspatch.recordings.quality.QUALITIES`.
    quality: str = "default"
    #: Where the files have no command waveform.
    step: StepDescription | None = None

    def __post_init__(self) -> None:
        load_layout(self.layout)
        if self.quality not in QUALITIES:
            raise RecordingError(
                f"no quality settings '{self.quality}'; choose from: {', '.join(QUALITIES)}"
            )

    def described(self) -> dict[str, Any]:
        """Settings and versions, as they are kept in the table."""
        return asdict(self) | {
            "thresholds": asdict(QUALITIES[self.quality]),
            "crosspatch": version("crosspatch"),
            "ipfx": version("ipfx"),
        }

    @property
    def tools(self) -> str:
        """Versions and settings in one line, for every row of a table."""
        found = self.described()
        return f"crosspatch {found['crosspatch']}, ipfx {found['ipfx']}, settings {self.key}"

    @property
    def key(self) -> str:
        """Changes with any setting or version."""
        text = json.dumps(self.described(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def extract_recording(recording: Recording, settings: ExtractionSettings) -> CellFeatures:
    """Compute the features of one open recording.

    Parameters
    ----------
    recording : Recording
    settings : ExtractionSettings

    Raises
    ------
    RecordingError
        If no feature of the layout can be measured; the message says why.
    """
    recording, protocols = analysed(recording, settings)
    return features_of(recording, protocols, settings)


def analysed(recording: Recording, settings: ExtractionSettings) -> tuple[Recording, Protocols]:
    """Measure an open recording.

    Parameters
    ----------
    recording : Recording
    settings : ExtractionSettings

    Returns
    -------
    Recording
        With the step that the settings describe, if they do.
    Protocols

    Raises
    ------
    RecordingError
        If no sweep has a command waveform, or the step does not fit the sweeps.
    """
    if settings.step is not None:
        step = settings.step
        recording = recording.with_steps(step.start, step.end, step.amplitudes)
    return recording, analyse(recording, QUALITIES[settings.quality])


def features_of(
    recording: Recording, protocols: Protocols, settings: ExtractionSettings
) -> CellFeatures:
    """The features of a recording that was measured by `analysed`.

    Raises
    ------
    RecordingError
        If no feature of the layout can be measured; the message says why.
    """
    layout = load_layout(settings.layout)
    notes = list(protocols.notes)
    values = np.full(len(layout.features), np.nan)
    if settings.layout in VECTOR_LAYOUTS:
        families, more = vector_families(protocols, VECTOR_LAYOUTS[settings.layout])
        notes += more
        for family, vector in families.items():
            values[layout.columns[family]] = vector
    else:
        scalars = scalar_features(protocols)
        for position, name in enumerate(layout.feature_names):
            values[position] = scalars.get(name, np.nan)
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    single[~np.isfinite(single)] = np.nan
    if np.isnan(single).all():
        raise RecordingError(
            f"{recording.name}: no feature of layout '{layout.name}' can be measured: "
            f"{'; '.join(notes) or 'nothing was recorded'}"
        )
    present = layout.present(single[None])[0]
    qualities = protocols.qualities.values()
    head = asdict(recording.recorded) | {
        "format": recording.format,
        "sweeps": len(recording.current_clamp) + recording.left_out,
        "sweeps_rejected": sum(not quality.passed for quality in qualities),
        "families_missing": ", ".join(
            name for name, there in zip(layout.families, present, strict=True) if not there
        ),
        "qc_passed": protocols.cell.passed,
        "qc_reasons": "; ".join(protocols.cell.reasons),
        "seal": protocols.cell.seal,
        "access_resistance": protocols.cell.access_resistance,
        "bridge_error": protocols.cell.bridge,
        "notes": "; ".join(dict.fromkeys(notes)),
    }
    return CellFeatures(recording.cell_id, single, head)


#: A file on disk, or one of the DANDI archive.
Source = Path | Asset


def extract_file(source: str | Source, settings: ExtractionSettings | None = None) -> CellFeatures:
    """Compute the features of one file.

    Parameters
    ----------
    source : path or Asset
        NWB or ABF on disk, or NWB in the DANDI archive, of which only what is needed is fetched.
    settings : ExtractionSettings, optional

    Raises
    ------
    RecordingError
        If the file cannot be read or no feature can be measured.
    NetworkError
        If a file of the archive cannot be had.
    """
    settings = settings or ExtractionSettings()
    if isinstance(source, Asset):
        web = Web()
        # Without TLS, what looks like a poor recording may be bytes that came wrong.
        doubts = (DoubtfulBytesError,) if source.api.startswith("https://") else _DOUBTS
        try:
            cell = _extract_asset(source, settings, web, verified=False)
        except doubts:
            cell = _extract_asset(source, settings, web, verified=True)
        cell.head["sha256"] = source.digests.get("sha256", source.digest)
        cell.head["recording_source"] = str(source)
        cell.head["file_bytes"] = source.size
        cell.head["bytes_read"] = web.received
        cell.head["requests"] = web.requests
        return cell
    path = Path(source)
    with open_recording(path, measured_only=True) as recording:
        cell = extract_recording(recording, settings)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror or error}") from error
    cell.head["sha256"] = digest
    cell.head["recording_source"] = str(path)
    return cell


_DOUBTS = (DoubtfulBytesError, RecordingError)


def _extract_asset(
    asset: Asset, settings: ExtractionSettings, web: Web, *, verified: bool
) -> CellFeatures:
    with open_recording(asset, measured_only=True, verified=verified, web=web) as recording:
        return extract_recording(recording, settings)


def find_recordings(paths: Sequence[str | Source]) -> list[Source]:
    """Recordings among files, folders (searched to the bottom), patterns and dandisets.

    Parameters
    ----------
    paths : sequence
        Paths and patterns; ``dandi:000636`` and what else `crosspatch.recordings.dandi.Place`
        reads; assets are taken as they are.

    Raises
    ------
    RecordingError
        If a path does not exist, or nothing is found.
    NetworkError
        If the archive does not say what a dandiset holds.
    """
    found: dict[Source, None] = {}
    for each in paths:
        if isinstance(each, Asset):
            found[each] = None
            continue
        if isinstance(each, str) and is_dandi(each):
            found |= dict.fromkeys(Archive().recordings(Place.parse(each)))
            continue
        try:
            for file in _below(each):
                found[file.resolve()] = None
        except OSError as error:
            raise RecordingError(f"{each} cannot be searched: {error}") from error
    if not found:
        names = ", ".join(str(each) for each in paths)
        raise RecordingError(
            f"no recording in {names}; looked for files ending in {', '.join(RECORDING_SUFFIXES)}"
        )
    return list(found)


def _below(each: str | Path) -> Iterator[Path]:
    """A file; or the recordings in a folder, or in what a pattern matches."""
    path = Path(each)
    if path.exists() and not path.is_dir():
        yield path
        return
    matches = [path] if path.is_dir() else sorted(map(Path, glob.glob(str(each), recursive=True)))
    if not matches:
        raise RecordingError(f"{each} does not exist")
    for match in matches:
        for file in sorted(match.rglob("*")) if match.is_dir() else [match]:
            wanted = file.suffix.lower() in RECORDING_SUFFIXES and not file.name.startswith(".")
            if wanted and file.is_file():
                yield file


@dataclass(frozen=True)
class Progress:
    """How far an extraction is."""

    done: int
    total: int
    failed: int
    kept: int


def extract_many(
    paths: Sequence[str | Source],
    store_file: str | Path,
    settings: ExtractionSettings | None = None,
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    limit: float = 300.0,
    progress: Callable[[Progress], None] | None = None,
) -> Progress:
    """Extract many files into a store; what is there already and unchanged is not done again.

    Each finished cell is written at once, so that nothing is lost when the process is killed.

    Parameters
    ----------
    paths : sequence
        As `find_recordings` reads them.
    store_file : path
        Written by `crosspatch.features.store.CellStore`.
    settings : ExtractionSettings, optional
    jobs : int
        Files at a time on this machine.
    scheduler : str, optional
        Address of a Dask scheduler whose workers do the work; they must see the same files, or
        reach the archive.
    limit : float
        A file that takes longer is given up, s.
    progress : callable, optional
        Told after every file.

    Returns
    -------
    Progress
        Totals.

    Raises
    ------
    RecordingError
        If there is nothing to extract, the store cannot be written, or no worker answers.
    """
    settings = settings or ExtractionSettings()
    files = find_recordings(paths)
    with ExitStack() as stack:
        store = stack.enter_context(CellStore(store_file))
        key = settings.key
        todo = [file for file in files if not store.has(file, key)]
        kept = len(files) - len(todo)
        failed = store.failures(files, key)
        state = Progress(kept, len(files), failed, kept)
        if progress is not None:
            progress(state)
        if not todo:
            return state
        work = stack.enter_context(_Pool(jobs, scheduler))
        for path, outcome in work.map(todo, settings, limit):
            store.put(path, key, outcome)
            wrong = isinstance(outcome, Failure)
            state = Progress(state.done + 1, len(files), state.failed + wrong, kept)
            if progress is not None:
                progress(state)
    return state


class _Pool:
    """Dask workers: a cluster of this process's threads, or one that runs already.

    Every thread has a child process that does the reading and computing, so that a file that
    hangs or brings its process down costs that child and nothing else.
    """

    def __init__(self, jobs: int, scheduler: str | None):
        self.jobs = jobs
        self.scheduler = scheduler

    def __enter__(self) -> _Pool:
        import logging

        import dask
        from distributed import Client, LocalCluster

        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        self._stack = ExitStack()
        if self.scheduler is None:
            from crosspatch.features.isolation import close_children

            self._stack.callback(close_children)
            self._stack.enter_context(
                dask.config.set({"distributed.worker.memory.terminate": False})
            )
            cluster = self._stack.enter_context(
                LocalCluster(
                    n_workers=1,
                    threads_per_worker=self.jobs,
                    processes=False,
                    dashboard_address="127.0.0.1:0",  # a free port, seen from here only
                    silence_logs=logging.CRITICAL,
                )
            )
            self.client = self._stack.enter_context(Client(cluster))
        else:
            try:
                self.client = self._stack.enter_context(Client(self.scheduler, timeout=10))
            except (OSError, TimeoutError, ValueError) as error:
                raise RecordingError(
                    f"no Dask scheduler answers at {self.scheduler}; start one with "
                    "`dask scheduler`, or leave out --scheduler to use this machine"
                ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def map(
        self, files: Sequence[Source], settings: ExtractionSettings, limit: float
    ) -> Iterable[tuple[Source, CellFeatures | Failure]]:
        from crosspatch.features.isolation import extract_isolated

        finished: queue.Queue[Any] = queue.Queue()
        waiting = iter(files)
        running: dict[str, tuple[Any, Source]] = {}

        def submit() -> None:
            path = next(waiting, None)
            if path is not None:
                future = self.client.submit(
                    extract_isolated, path, settings, limit, pure=False, retries=0
                )
                running[future.key] = (future, path)
                future.add_done_callback(finished.put)

        for _ in range(2 * max(self._threads(), 1)):  # what is waiting costs memory
            submit()
        last = time.monotonic()
        while running:
            try:
                future = finished.get(timeout=2.0)
            except queue.Empty:
                self._require_workers(last)
                continue
            last = time.monotonic()
            _, path = running.pop(future.key)
            if future.status == "finished":
                outcome = future.result()
            else:
                outcome = Failure(f"its worker failed: {future.exception()!r}", again=True)
            submit()
            yield path, outcome

    def _threads(self) -> int:
        return sum(self.client.nthreads().values())

    def _require_workers(self, since: float) -> None:
        if self._threads():
            return
        if time.monotonic() - since > _WORKERS_WITHIN:
            raise RecordingError(
                f"no Dask worker has answered at {self.scheduler} for {_WORKERS_WITHIN:g} s; start "
                "one with `dask worker ADDRESS` and give the same command again: what is done is "
                "kept"
            )


def store_beside(out: str | Path) -> Path:
    """The store that belongs to a cohort table: ``cohort.cells.sqlite`` beside ``cohort.h5ad``."""
    return Path(out).with_suffix(".cells.sqlite")
