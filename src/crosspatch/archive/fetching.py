"""Recordings of the archive on disk: many at a time, resumable, each one verified."""

from __future__ import annotations

import fcntl
import queue
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from crosspatch.archive.dandi import Archive, Asset
from crosspatch.archive.web import Web, digests_of
from crosspatch.errors import NetworkError, one_line

#: What is known to be right: the file as it was when its checksum was compared.
_LEDGER = ".fetched.sqlite"
#: A connection that brings nothing is left behind after this time when a fetch is stopped, s.
_WITHIN = 0.5
_SPARE = 200 * 1024 * 1024  #: left free on the disk, bytes


@dataclass(frozen=True)
class FetchProgress:
    """How far a fetch is."""

    done: int  # Files
    total: int
    bytes_done: int
    bytes_total: int
    failed: int = 0  #: files that could not be had
    kept: int = 0  #: files that were there before


@dataclass(frozen=True)
class Fetched:
    """What a fetch brought."""

    files: dict[Asset, Path]  #: asset to its file on disk, each one verified
    kept: int  #: files that were there before
    failures: dict[Asset, str]  #: asset to the reason why it is not there


def fetch_assets(
    assets: Sequence[Asset],
    folder: str | Path,
    *,
    archive: Archive | None = None,
    jobs: int = 4,
    progress: Callable[[FetchProgress], None] | None = None,
) -> Fetched:
    """Download files of the archive into a folder, with the paths they have in their dandiset.

    A file has its name only when all its checksums are right. What was fetched before, whole or in
    part, is not fetched again, not even after the process was killed. The archive is asked for
    checksums that are not known yet; `jobs` files are fetched at a time. A `NetworkError` if the
    folder cannot be written, has too little space, or another process fetches into it.
    """
    folder = Path(folder)
    archive = archive or Archive()
    with _alone(folder), _ledger(folder) as ledger:
        assets = list(dict.fromkeys(assets))
        known, failures = _there(assets, folder, archive, ledger)
        kept = len(known)
        missing = [asset for asset in assets if asset not in known and asset not in failures]
        _require_space(folder, missing)
        bringing = _Bringing(folder, archive, missing, known, failures, progress)
        # Closed, so that what still runs is told to stop.
        with closing(bringing.run(jobs)) as arriving:
            for asset, file in arriving:
                _keep_right(ledger, asset, file)
    return Fetched(known, kept, failures)


def _there(
    assets: Sequence[Asset], folder: Path, archive: Archive, ledger: sqlite3.Connection
) -> tuple[dict[Asset, Path], dict[Asset, str]]:
    """Files that are there, and why others cannot be."""
    known: dict[Asset, Path] = {}
    failures: dict[Asset, str] = {}
    taken: set[Path] = set()
    for asset in assets:
        file = folder / asset.path
        try:
            if file in taken:
                raise NetworkError(f"{file} is another file of the list already")
            taken.add(file)
            if file.exists() and _is_right(ledger, asset, file, archive):
                known[asset] = file
        except NetworkError as error:
            failures[asset] = one_line(error)
        except OSError as error:
            failures[asset] = f"{file} cannot be read: {error.strerror or error}"
    return known, failures


@dataclass
class _Bringing:
    """The threads that download, and what they have done so far."""

    folder: Path
    archive: Archive
    missing: Sequence[Asset]
    known: dict[Asset, Path]
    failures: dict[Asset, str]
    progress: Callable[[FetchProgress], None] | None
    bytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.before = len(self.known)
        self.total = len(self.missing) + len(self.known) + len(self.failures)
        self.bytes_total = sum(asset.size for asset in self.missing)

    def run(self, jobs: int) -> Generator[tuple[Asset, Path], None, None]:
        """Every file as it arrives."""
        self._tell()
        waiting: queue.SimpleQueue[Asset] = queue.SimpleQueue()
        ended: queue.SimpleQueue[tuple[Asset, Path | Exception]] = queue.SimpleQueue()
        for asset in self.missing:
            waiting.put(asset)
        # Daemons, for a process that is interrupted does not wait for a server that says nothing.
        threads = [
            threading.Thread(target=self._work, args=(waiting, ended), daemon=True)
            for _ in range(min(jobs, len(self.missing)))
        ]
        try:
            for thread in threads:
                thread.start()
            left = len(self.missing)
            while left:
                try:
                    asset, outcome = ended.get(timeout=1.0)
                except queue.Empty:
                    self._tell()
                    continue
                left -= 1
                if isinstance(outcome, Path):
                    self.known[asset] = outcome
                    yield asset, outcome
                elif isinstance(outcome, NetworkError):
                    self.failures[asset] = one_line(outcome)
                else:
                    raise outcome
                self._tell()
        finally:
            self.stop.set()
            until = time.monotonic() + _WITHIN
            for thread in threads:
                thread.join(max(until - time.monotonic(), 0))

    def _work(
        self,
        waiting: queue.SimpleQueue[Asset],
        ended: queue.SimpleQueue[tuple[Asset, Path | Exception]],
    ) -> None:
        with suppress(queue.Empty):
            while not self.stop.is_set():
                asset = waiting.get_nowait()
                try:
                    ended.put((asset, self._bring(asset)))
                except Exception as error:
                    ended.put((asset, error))

    def _bring(self, asset: Asset) -> Path:
        asset = self.archive.complete(asset)
        file = self.folder / asset.path
        Web(self.archive.web.settings).download(
            asset.address,
            file,
            size=asset.size,
            digests=asset.digests,
            told=self._count,
            stop=self.stop,
        )
        return file

    def _count(self, came: int) -> None:
        with self.lock:
            self.bytes += came

    def _tell(self) -> None:
        if self.progress is not None:
            done, failed = len(self.known) + len(self.failures), len(self.failures)
            of_bytes = (self.bytes, self.bytes_total)
            self.progress(FetchProgress(done, self.total, *of_bytes, failed, self.before))


def _is_right(ledger: sqlite3.Connection, asset: Asset, file: Path, archive: Archive) -> bool:
    """Whether a file on disk is the asset; another one is left alone: a `NetworkError`."""
    row = ledger.execute(
        "SELECT size, modified, digest FROM files WHERE path = ?", (asset.path,)
    ).fetchone()
    if row is not None and row[:2] == _stamp(file) and row[2] in (asset.digest, _any(asset)):
        return True
    asset = archive.complete(asset)
    if digests_of(file, asset.digests) == dict(asset.digests):
        _keep_right(ledger, asset, file)
        return True
    raise NetworkError(
        f"{file} is there, but is not {asset}: its checksum is another; move or delete it and "
        "give the same command again"
    )


def _keep_right(ledger: sqlite3.Connection, asset: Asset, file: Path) -> None:
    row = (asset.path, *_stamp(file), _any(asset))
    with ledger:
        ledger.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", row)


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _any(asset: Asset) -> str:
    return asset.digests.get("dandi-etag", asset.digest)


@contextmanager
def _ledger(folder: Path) -> Iterator[sqlite3.Connection]:
    """Which files were found right, so that a terabyte is not read again to make sure."""
    try:
        with closing(sqlite3.connect(folder / _LEDGER, timeout=60)) as base:
            base.execute(
                "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER, "
                "modified INTEGER, digest TEXT)"
            )
            yield base
    except sqlite3.Error as error:
        raise NetworkError(f"{folder / _LEDGER} cannot be used: {error}; delete it") from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process fetches into this folder meanwhile."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".fetch.lock").open("w")
    except OSError as error:
        raise NetworkError(f"{folder} cannot be written: {error.strerror or error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            hint = "wait for it, or give another {out}"
            raise NetworkError(f"another process is fetching into {folder}", hint) from error
        yield


def _require_space(folder: Path, missing: Sequence[Asset]) -> None:
    parts = sum(part.stat().st_size for part in folder.rglob(".*.part"))
    needed = max(sum(asset.size for asset in missing) - parts, 0)
    free = shutil.disk_usage(folder).free
    if needed and needed + _SPARE > free:
        raise NetworkError(
            f"{folder}: {needed / 1e9:.2f} GB are needed for {len(missing):,} files, "
            f"{free / 1e9:.2f} GB are free",
            hint="free space, choose fewer cells ({limit}), or stream them by extracting from "
            "dandi:…",
        )
