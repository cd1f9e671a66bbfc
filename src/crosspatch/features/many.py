"""Many recordings become one table of features: in parallel, resumable, file by file."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crosspatch.errors import RecordingError
from crosspatch.features.extraction import ExtractionSettings
from crosspatch.features.finding import Source, find_recordings
from crosspatch.features.outcome import CellFeatures, Failure
from crosspatch.features.store import CellStore

#: Waiting this long for a Dask worker to appear, s.
_WORKERS_WITHIN = 60.0


@dataclass(frozen=True)
class ExtractionProgress:
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
    progress: Callable[[ExtractionProgress], None] | None = None,
) -> ExtractionProgress:
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
    ExtractionProgress
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
        state = ExtractionProgress(kept, len(files), failed, kept)
        if progress is not None:
            progress(state)
        if not todo:
            return state
        work = stack.enter_context(_Pool(jobs, scheduler))
        for path, outcome in work.map(todo, settings, limit):
            store.put(path, key, outcome)
            wrong = isinstance(outcome, Failure)
            state = ExtractionProgress(state.done + 1, len(files), state.failed + wrong, kept)
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
