"""What users uploaded: batches of files in a private folder, until they vanish."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from crosspatch.errors import CrosspatchError
from crosspatch.features.extraction import StepDescription
from crosspatch.recordings.opening import RECORDING_SUFFIXES
from crosspatch.tables.reading import TABLE_SUFFIXES

RECORDING, TABLE = "recording", "table"

_PREFIX = "crosspatch-serve-"
_LOCK = "lock"
_LABEL_LENGTH = 120


class State(StrEnum):
    """How far a file is."""

    RECEIVING = "receiving"
    WAITING = "waiting"
    WORKING = "working"
    COLUMNS = "columns"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


#: States in which nothing more happens by itself.
FINAL = (State.DONE, State.FAILED, State.CANCELLED)


class RefusedUploadError(CrosspatchError):
    """Something the service does not do, with the HTTP status that says so."""

    def __init__(self, line: str, status: int):
        super().__init__(line)
        self.status = status


def label_of(name: str) -> str:
    """What a file is called on pages and in tables; never a path on this machine.

    Parameters
    ----------
    name : str
        From the user, so anything.
    """
    text = unicodedata.normalize("NFC", name).replace("\\", "/").split("/")[-1]
    # Spaces of all kinds, ends of lines among them, become one; control characters vanish.
    text = " ".join(text.split())
    text = "".join(c for c in text if unicodedata.category(c)[0] != "C").strip()
    if len(text) > _LABEL_LENGTH:
        ending = kind_of(text)[1] or ""
        text = text[: _LABEL_LENGTH - len(ending)] + ending
    return text.strip(". ") or "unnamed"


def kind_of(label: str) -> tuple[str, str | None]:
    """Whether a file is a recording or a table by its name, and its ending; None if neither."""
    lower = label.lower()
    for kind, endings in ((RECORDING, RECORDING_SUFFIXES), (TABLE, TABLE_SUFFIXES)):
        # ".csv.gz" before ".gz".
        for ending in sorted(endings, key=len, reverse=True):
            if lower.endswith(ending):
                return kind, ending
    return "", None


@dataclass
class UploadedFile:
    """A file of a batch."""

    #: In the batch, from 1.
    number: int
    #: Its name as the user gave it, made harmless.
    label: str
    #: ``recording`` or ``table``.
    kind: str
    #: Where it is; the name has nothing of the user's.
    path: Path
    state: State = State.RECEIVING
    #: What is being done.
    stage: str = ""
    #: Rows predicted so far.
    done: int = 0
    #: Bytes; predicted rows.
    size: int = 0
    rows: int = 0
    #: Why it failed.
    reason: str | None = None
    messages: list[str] = field(default_factory=list)
    #: Whether a table's columns are shown before anything is predicted.
    confirm: bool = True
    #: From `crosspatch.service.worker.Worker.columns`.
    columns: dict[str, Any] | None = None
    #: What the user chose of its columns.
    choices: dict[str, dict[str, Any]] = field(default_factory=dict)
    step: StepDescription | None = None
    #: Name of the simulated example it is.
    example: str | None = None

    @property
    def folder(self) -> Path:
        """The folder that only this file is in."""
        return self.path.parent


@dataclass
class Upload:
    """Files that were given together."""

    #: Cannot be guessed.
    id: str
    folder: Path
    #: Of cells whose file does not say.
    species: str | None
    quality: str
    #: Seconds since 1970.
    expires: float
    #: By number.
    uploads: dict[int, UploadedFile] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(1, 10**9)), repr=False)

    def upload(self, number: int) -> UploadedFile:
        """A file of the batch.

        Raises
        ------
        RefusedUploadError
            If there is none.
        """
        found = self.uploads.get(number)
        if found is None:
            raise RefusedUploadError(f"the batch has no file {number}", 404)
        return found

    @property
    def busy(self) -> bool:
        """Whether something still happens by itself."""
        waiting = (State.RECEIVING, State.WAITING, State.WORKING)
        return any(each.state in waiting for each in list(self.uploads.values()))


class Batches:
    """All batches, in a folder that only this user can read and that ends with the process.

    What a killed server left behind is removed by the next one.

    Parameters
    ----------
    keep : float
        Hours after which a batch is deleted.
    most, files : int
        Batches, and files of one.
    storage : int
        Bytes of everything together.
    now : callable
        Seconds since 1970.
    """

    def __init__(
        self,
        *,
        keep: float,
        most: int,
        files: int,
        storage: int,
        now: Callable[[], float] = time.time,
    ):
        self.keep, self.most, self.files, self.storage, self.now = keep, most, files, storage, now
        _remove_abandoned()
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))  # for this user only
        self._held: int | None = _hold(self.folder)
        self._batches: dict[str, Upload] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Remove everything."""
        with self._lock:
            self._batches.clear()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def new(self, species: str | None, quality: str) -> Upload:
        """An empty batch.

        Raises
        ------
        RefusedUploadError
            If there are too many.
        """
        with self._lock:
            if len(self._batches) >= self.most:
                raise RefusedUploadError(
                    f"there are {self.most} batches already; delete one, or come back later",
                    503,
                )
            name = secrets.token_urlsafe(16)
            folder = self.folder / secrets.token_hex(8)
            folder.mkdir(mode=0o700)
            batch = Upload(name, folder, species, quality, self.now() + 3600 * self.keep)
            self._batches[name] = batch
            return batch

    def get(self, name: str) -> Upload:
        """The batch of this id.

        Raises
        ------
        RefusedUploadError
            If there is none, or it has vanished.
        """
        found = self._batches.get(name)
        if found is None or found.expires < self.now():
            raise RefusedUploadError(
                f"there is no such batch; files and results are deleted after {self.keep:g} hours",
                404,
            )
        return found

    def all(self) -> list[Upload]:
        """Every batch."""
        return list(self._batches.values())

    def remove(self, batch: Upload) -> None:
        """Delete a batch with all its files."""
        with self._lock:
            self._batches.pop(batch.id, None)
        shutil.rmtree(batch.folder, ignore_errors=True)

    def clear_leftovers(self) -> None:
        """Delete what came into the folder of a batch while the batch was deleted."""
        with self._lock:
            kept = {batch.folder.name for batch in self._batches.values()} | {_LOCK}
            gone = [each for each in self.folder.iterdir() if each.name not in kept]
        for each in gone:
            shutil.rmtree(each, ignore_errors=True)

    def expired(self) -> list[Upload]:
        """Batches whose time is over."""
        return [batch for batch in self.all() if batch.expires < self.now()]

    def add(
        self, batch: Upload, name: str, *, confirm: bool, example: str | None = None
    ) -> UploadedFile:
        """A file that is about to come.

        Parameters
        ----------
        batch : Upload
        name : str
            What the user calls it.
        confirm : bool
            See `UploadedFile`.
        example : str, optional

        Raises
        ------
        RefusedUploadError
            If it is of a kind that cannot be read, or there are too many.
        """
        label = label_of(name)
        kind, ending = kind_of(label)
        if ending is None:
            raise RefusedUploadError(
                f"{label}: not a file that can be read; give recordings "
                f"({', '.join(RECORDING_SUFFIXES)}) or tables ({', '.join(TABLE_SUFFIXES)})",
                415,
            )
        with batch.lock:
            if len(batch.uploads) >= self.files:
                raise RefusedUploadError(
                    f"a batch has at most {self.files} files; begin another one, or use "
                    "`crosspatch predict`",
                    413,
                )
            number = next(batch.numbers)
            folder = batch.folder / f"{number}-{secrets.token_hex(8)}"
            folder.mkdir(mode=0o700)
            # The name on disk is long and random: it can be told from the user's own in messages.
            path = folder / f"upload-{secrets.token_hex(8)}{ending}"
            upload = UploadedFile(number, label, kind, path, confirm=confirm, example=example)
            batch.uploads[number] = upload
            return upload

    def drop(self, batch: Upload, upload: UploadedFile) -> None:
        """Delete a file of a batch."""
        with batch.lock:
            batch.uploads.pop(upload.number, None)
        shutil.rmtree(upload.folder, ignore_errors=True)

    def require_room(self, more: int) -> None:
        """Refuse what does not fit any more.

        Parameters
        ----------
        more : int
            Bytes that are about to come.

        Raises
        ------
        RefusedUploadError
        """
        free = min(self.storage - self.used(), shutil.disk_usage(self.folder).free - 2**28)
        if more > free:
            raise RefusedUploadError(
                "the server has no room left for files; delete a batch, or wait until one vanishes",
                507,
            )

    def used(self) -> int:
        """Bytes of everything."""
        total = 0
        for folder, _, names in os.walk(self.folder):
            for name in names:
                with contextlib.suppress(OSError):
                    total += os.lstat(os.path.join(folder, name)).st_size
        return total


def _hold(folder: Path) -> int:
    """Lock a folder for as long as this process lives."""
    held = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return held


def _remove_abandoned() -> None:
    """Delete what servers of this user left behind that were killed."""
    pattern = re.compile(re.escape(_PREFIX) + r"\w+")
    for folder in Path(tempfile.gettempdir()).iterdir():
        if not pattern.fullmatch(folder.name) or folder.is_symlink():
            continue
        try:
            if folder.stat().st_uid != os.getuid():
                continue
            held = os.open(folder / _LOCK, os.O_RDWR)
        except OSError:
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            pass  # its server lives
        finally:
            os.close(held)
