"""What browsers sent: uploads, each of some files, in a private folder until they vanish."""

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
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from crosspatch.errors import CrosspatchError
from crosspatch.recordings.formats import UPLOAD_SUFFIXES, format_named
from crosspatch.recordings.reading_options import Reading
from crosspatch.service.messages import RECORDING, TABLE, Drawn, Fault, GivenFile
from crosspatch.service.settings import ServiceSettings
from crosspatch.tables.endings import TABLE_SUFFIXES

if TYPE_CHECKING:
    from crosspatch.service.mapping_screen import Columns
    from crosspatch.service.queue import QueuedTask

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


#: States in which nothing more happens at all.
FINAL = (State.DONE, State.FAILED, State.CANCELLED)
#: States in which a worker has a file, or will.
WORKED_ON = (State.WAITING, State.WORKING)


class RefusedUploadError(CrosspatchError):
    """Something the service does not do, with the HTTP status that says so."""

    def __init__(self, message: str, status: int, hint: str = ""):
        super().__init__(message, hint)
        self.status = status


def label_of(name: str) -> str:
    """What a file is called on pages and in tables, whatever the user calls it; never a path."""
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
    for kind, endings in ((RECORDING, UPLOAD_SUFFIXES), (TABLE, TABLE_SUFFIXES)):
        # ".csv.gz" before ".gz".
        for ending in sorted(endings, key=len, reverse=True):
            if lower.endswith(ending):
                return kind, ending
    return "", None


@dataclass(eq=False, kw_only=True)
class UploadedFile(GivenFile):
    """A file of an upload, and how far it is."""

    upload: Upload = field(repr=False)
    state: State = State.RECEIVING
    stage: str = ""  #: what is being done
    done: int = 0  #: rows predicted so far
    size: int = 0  #: bytes
    drawn: Drawn | None = None  #: of a recording, what can be drawn of it
    rows: int = 0  #: predicted rows
    fault: Fault | None = None
    messages: tuple[str, ...] = ()
    confirm: bool = True  #: whether a table's columns are shown before anything is predicted
    columns: Columns | None = None  #: those of a table, once they are known
    example: str | None = None  #: name of the simulated example it is
    #: What is done or waits to be done with it.
    task: QueuedTask | None = field(default=None, repr=False)

    @property
    def reason(self) -> str | None:
        """Why it failed, in words."""
        return None if self.fault is None else self.fault.words

    def refused(self, why: str, status: int, hint: str = "") -> RefusedUploadError:
        """Something that is not done with it."""
        return RefusedUploadError(f"{self.label}: {why}", status, hint)

    @property
    def given(self) -> GivenFile:
        """What a worker has to know of it now."""
        return GivenFile(*(getattr(self, each.name) for each in fields(GivenFile)))


@dataclass(eq=False)
class Upload:
    """Files that a browser or a program sent together."""

    id: str  #: cannot be guessed
    folder: Path
    species: str | None  #: of cells whose file does not say
    reading: Reading  #: how its recordings are read
    expires: float  #: seconds since 1970
    layer: str | None = None  #: the cortical layer of cells whose file does not say
    uploads: dict[int, UploadedFile] = field(default_factory=dict)  # its files, by number
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(1, 10**9)), repr=False)

    @property
    def url(self) -> str:
        """The address of its page."""
        return f"/batches/{self.id}"

    @property
    def files(self) -> list[UploadedFile]:
        """Its files now, in order."""
        return list(self.uploads.values())

    def file(self, number: int) -> UploadedFile:
        """The file of a number; refused where there is none."""
        found = self.uploads.get(number)
        if found is None:
            raise RefusedUploadError(f"the batch has no file {number}", 404)
        return found

    @property
    def finished(self) -> bool:
        """Whether nothing more happens by itself."""
        return not any(each.state in (State.RECEIVING, *WORKED_ON) for each in self.files)


class Batches:
    """All uploads, in a folder that only this user can read and that ends with the process.

    What a killed server left behind is removed by the next one. How long uploads are kept, how many
    there may be, of how many files and bytes, is settled.
    """

    def __init__(self, settings: ServiceSettings):
        self.settings = settings
        #: Seconds since 1970.
        self.now = time.time
        _remove_abandoned()
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))  # for this user only
        self._held: int | None = _hold(self.folder)
        self._uploads: dict[str, Upload] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Remove everything."""
        with self._lock:
            self._uploads.clear()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def new(self, species: str | None, reading: Reading, layer: str | None = None) -> Upload:
        """An empty upload; refused where there are too many."""
        with self._lock:
            if len(self._uploads) >= self.settings.batches:
                why = f"there are {self.settings.batches} batches already"
                raise RefusedUploadError(why, 503, "delete one, or come back later")
            name = secrets.token_urlsafe(16)
            folder = self.folder / secrets.token_hex(8)
            folder.mkdir(mode=0o700)
            expires = self.now() + 3600 * self.settings.keep
            upload = Upload(name, folder, species, reading, expires, layer)
            self._uploads[name] = upload
            return upload

    def get(self, name: str) -> Upload:
        """The upload of this id; refused where there is none, or it has vanished."""
        found = self._uploads.get(name)
        if found is None or found.expires < self.now():
            kept = f"files and results are deleted after {self.settings.keep:g} hours"
            raise RefusedUploadError(f"there is no such batch; {kept}", 404)
        return found

    def all(self) -> list[Upload]:
        """Every upload."""
        return list(self._uploads.values())

    def remove(self, upload: Upload) -> None:
        """Delete an upload with all its files."""
        with self._lock:
            self._uploads.pop(upload.id, None)
        shutil.rmtree(upload.folder, ignore_errors=True)

    def clear_leftovers(self) -> None:
        """Delete what came into the folder of an upload while it was deleted."""
        with self._lock:
            kept = {upload.folder.name for upload in self._uploads.values()} | {_LOCK}
            gone = [each for each in self.folder.iterdir() if each.name not in kept]
        for each in gone:
            shutil.rmtree(each, ignore_errors=True)

    def expired(self) -> list[Upload]:
        """Uploads whose time is over."""
        return [upload for upload in self.all() if upload.expires < self.now()]

    def add(
        self, upload: Upload, name: str, *, confirm: bool, example: str | None = None
    ) -> UploadedFile:
        """A file that is about to come; refused where it cannot be read, or there are too many."""
        label = label_of(name)
        kind, ending = kind_of(label)
        if ending is None:
            if known := format_named(label):
                why = f"{label}: a recording of {known.name}, which cannot be read alone"
                raise RefusedUploadError(why, 415, known.export)
            recordings, tables = ", ".join(UPLOAD_SUFFIXES), ", ".join(TABLE_SUFFIXES)
            hint = f"give recordings ({recordings}) or tables ({tables})"
            raise RefusedUploadError(f"{label}: not a file that can be read", 415, hint)
        with upload.lock:
            if len(upload.uploads) >= self.settings.files:
                why = f"a batch has at most {self.settings.files} files"
                raise RefusedUploadError(why, 413, "begin another one, or use the command line")
            number = next(upload.numbers)
            folder = upload.folder / f"{number}-{secrets.token_hex(8)}"
            folder.mkdir(mode=0o700)
            # The name on disk is long and random: it can be told from the user's own in messages.
            path = folder / f"upload-{secrets.token_hex(8)}{ending}"
            given = (upload.folder, number, path, label, kind, upload.species, upload.reading)
            file = UploadedFile(
                *given, layer=upload.layer, upload=upload, confirm=confirm, example=example
            )
            upload.uploads[number] = file
            return file

    def drop(self, file: UploadedFile) -> None:
        """Delete a file."""
        with file.upload.lock:
            file.upload.uploads.pop(file.number, None)
        shutil.rmtree(file.path.parent, ignore_errors=True)

    def require_room(self, more: int) -> None:
        """Refuse bytes that do not fit any more."""
        left = self.settings.storage - self.used()
        if more > min(left, shutil.disk_usage(self.folder).free - 2**28):
            hint = "delete a batch, or wait until one vanishes"
            raise RefusedUploadError("the server has no room left for files", 507, hint)

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
    made = folder / "unlocked"  # a lock that nobody held yet would look abandoned
    held = os.open(made, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    made.rename(folder / _LOCK)
    return held


def _remove_abandoned() -> None:
    """Delete what servers of this user left behind that were killed."""
    pattern = re.compile(re.escape(_PREFIX) + r"\w+")
    for folder in Path(tempfile.gettempdir()).iterdir():
        if not pattern.fullmatch(folder.name) or folder.is_symlink():
            continue
        with contextlib.suppress(OSError):  # its server lives
            if folder.stat().st_uid != os.getuid():
                continue
            with (folder / _LOCK).open("rb+", buffering=0) as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
