"""Recordings become features, each in a process that may die; many of them, resumable."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from crosspatch.errors import CrosspatchError, NetworkError, RecordingError
from crosspatch.features.extraction import ExtractionSettings, extract_cells
from crosspatch.features.finding import Source, find_recordings
from crosspatch.features.measuring.first_use import load_kernels, prepare
from crosspatch.features.outcome import Failure, Outcomes
from crosspatch.features.store import CellStore, stamp_of
from crosspatch.processes import (
    Child,
    DiedError,
    LateError,
    Tell,
    answer_requests,
    libraries_hidden,
)

#: Waiting this long for a Dask worker to appear, s.
_WORKERS_WITHIN = 60.0

#: A child is replaced after this many files: memory that libraries leave behind goes with it.
_FILES_PER_CHILD = 200


@dataclass(frozen=True)
class ExtractionProgress:
    """How far an extraction is."""

    done: int
    total: int
    failed: int
    kept: int


def extract_one(source: Source, settings: ExtractionSettings, limit: float = 300.0) -> Outcomes:
    """Extract one file in a child process of its own, which is given up after `limit` seconds.

    A failure if the file cannot be read, takes too long, or brings the child down.
    """
    with closing(Readers()) as readers:
        return readers.extract(source, settings, limit)


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

    Each finished cell is written at once, so that nothing is lost when the process is killed. Paths
    are as `find_recordings` reads them. So many `jobs` are done at a time on this machine; or the
    workers of a Dask `scheduler`, an address, do them, which must see the same files, or reach the
    archive. A file that takes longer than the `limit`, s, is given up; `progress` is told after
    every file. A RecordingError if there is nothing to extract, the store cannot be written, or no
    worker answers.
    """
    settings = settings or ExtractionSettings()
    files = find_recordings(paths)
    with CellStore(store_file) as store:
        key = settings.key
        # What it was before it is read: a file that changes meanwhile is done again.
        contents = {file: stamp_of(file) for file in files if not store.has(file, key)}
        todo = list(contents)
        kept = len(files) - len(todo)
        state = ExtractionProgress(kept, len(files), store.failures(files, key), kept)
        if progress is not None:
            progress(state)
        if not todo:
            return state
        if scheduler is None:
            outcomes = extract_here(todo, settings, limit, jobs)
        else:
            outcomes = _extract_elsewhere(todo, settings, limit, scheduler)
        with closing(outcomes):
            for path, cells in outcomes:
                store.put(path, key, cells, contents[path])
                wrong = all(isinstance(cell, Failure) for cell in cells)
                state = ExtractionProgress(state.done + 1, len(files), state.failed + wrong, kept)
                if progress is not None:
                    progress(state)
    return state


def store_beside(out: str | Path) -> Path:
    """The store that belongs to a cohort table: ``cohort.cells.sqlite`` beside ``cohort.h5ad``."""
    return Path(out).with_suffix(".cells.sqlite")


class Readers:
    """Child processes, as many as threads ask for; each reads one file at a time.

    A file that hangs or brings its process down costs that process and nothing else.
    """

    def __init__(self) -> None:
        self.idle: list[Child] = []
        self._closed = threading.Event()

    def extract(self, source: Source, settings: ExtractionSettings, limit: float) -> Outcomes:
        """Extract a file, as `extract_one` does, in a child that is idle or a new one.

        A `StoppedError` if it was closed meanwhile.
        """
        try:
            child = self._child()
        except DiedError:
            return [Failure("the process that reads files could not be started", again=True)]
        try:
            outcome: Outcomes = child.ask((source, settings), limit, stopped=self._closed.is_set)
        except LateError as error:
            return [Failure(str(error), again=True, hint="give it more time with {limit}")]
        except DiedError as error:
            return [Failure(f"reading it brought the process down ({error.how})", again=True)]
        self.idle.append(child)
        return outcome

    def _child(self) -> Child:
        with suppress(IndexError):
            while True:
                child = self.idle.pop()
                if child.alive and child.answers < _FILES_PER_CHILD:
                    return child
                child.close()
        child = Child(__name__)
        child.wait_ready(self._closed.is_set)
        return child

    def stop(self) -> None:
        """Have other threads give up what they wait for."""
        self._closed.set()

    def close(self) -> None:
        """End the processes."""
        self.stop()
        while self.idle:
            self.idle.pop().close()


def extract_here(
    files: Sequence[Source], settings: ExtractionSettings, limit: float, jobs: int
) -> Generator[tuple[Source, Outcomes], None, None]:
    """Extract in child processes of this one, in the order in which they finish."""
    prepare()  # once, not in every child
    readers = Readers()
    threads = ThreadPoolExecutor(jobs)
    try:
        for file, future in _finished(threads, readers.extract, files, settings, limit, 2 * jobs):
            yield file, future.result()
    finally:
        readers.stop()
        threads.shutdown(cancel_futures=True)
        readers.close()


def _finished(
    executor: Executor,
    extract: Callable[[Source, ExtractionSettings, float], Outcomes],
    files: Sequence[Source],
    settings: ExtractionSettings,
    limit: float,
    most: int,
    idle: Callable[[float], None] = lambda seconds: None,
) -> Iterator[tuple[Source, Future[Outcomes]]]:
    """Files that were extracted, in the order in which they finish; so many are given at a time.

    `idle` is told, often, for how many seconds none did.
    """
    waiting = iter(files)

    def started(count: int) -> dict[Future[Outcomes], Source]:
        return {
            executor.submit(extract, file, settings, limit): file for file in islice(waiting, count)
        }

    running, last = started(most), time.monotonic()  # what is waiting costs memory
    while running:
        done = wait(running, 2.0, return_when=FIRST_COMPLETED).done
        last = time.monotonic() if done else last
        idle(time.monotonic() - last)
        for future in done:
            file = running.pop(future)
            running |= started(1)
            yield file, future


#: Of a Dask worker: they end with it.
_worker_readers = Readers()


def _extract_on_worker(source: Source, settings: ExtractionSettings, limit: float) -> Outcomes:
    return _worker_readers.extract(source, settings, limit)


def _extract_elsewhere(
    files: Sequence[Source], settings: ExtractionSettings, limit: float, scheduler: str
) -> Generator[tuple[Source, Outcomes], None, None]:
    """Extract on the workers of a Dask scheduler, in the order in which they finish."""
    import logging

    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        client = Client(scheduler, timeout=10)
    except (OSError, TimeoutError, ValueError) as error:
        raise RecordingError(
            f"no Dask scheduler answers at {scheduler}",
            hint="start one with `dask scheduler`, or leave out {scheduler} to use this machine",
        ) from error

    def threads() -> int:
        return sum(client.nthreads().values())

    def require_worker(idle: float) -> None:
        if idle > _WORKERS_WITHIN and not threads():
            raise RecordingError(
                f"no Dask worker has answered at {scheduler} for {_WORKERS_WITHIN:g} s",
                hint="start one with `dask worker ADDRESS` and give the same command again: what "
                "is done is kept",
            )

    with client:
        executor, most = client.get_executor(pure=False, retries=0), 2 * max(threads(), 1)
        for file, future in _finished(
            executor, _extract_on_worker, files, settings, limit, most, require_worker
        ):
            try:
                outcome = future.result()
            except Exception as error:  # Dask's, and whatever a worker raises
                outcome = [Failure(f"its worker failed: {error!r}", again=True)]
            yield file, outcome


def _answer(request: tuple[Source, ExtractionSettings], tell: Tell) -> Outcomes:
    """What a child does with a file."""
    try:
        return extract_cells(*request)
    except NetworkError as error:
        return [Failure.of(error, again=True)]
    except CrosspatchError as error:
        return [Failure.of(error)]
    except MemoryError:
        return [Failure("not enough memory", again=True)]
    except Exception as error:  # a bug of ours or a library's: the others must go on
        return [Failure(f"unexpected {type(error).__name__}: {error}", again=True)]


if __name__ == "__main__":
    with libraries_hidden("scipy.linalg"):  # numba would import it, and none of it is used
        load_kernels()  # now, not within the first file's time limit
    answer_requests(_answer, sys.argv[1:])
