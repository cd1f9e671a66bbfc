"""One file at a time in a child process that may hang or die without harm."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from crosspatch.errors import CrosspatchError, NetworkError, one_line
from crosspatch.features.outcome import CellFeatures, Failure

if TYPE_CHECKING:
    from crosspatch.features.extraction import ExtractionSettings
    from crosspatch.recordings.dandi import Asset

#: A child is replaced after this many files: memory that libraries leave behind goes with it.
_FILES_A_CHILD = 200
#: Starting a child means importing IPFX, s.
_START_LIMIT = 120.0

_local = threading.local()
_children: set[_Child] = set()
_lock = threading.Lock()


class _Child:
    """A process that waits for files on a pipe; it ends when this process does."""

    def __init__(self) -> None:
        to_child, from_us = os.pipe()
        to_us, from_child = os.pipe()
        self.process = subprocess.Popen(  # noqa: S603, our own interpreter and module
            [sys.executable, "-m", "crosspatch.features.isolation", str(to_child), str(from_child)],
            pass_fds=(to_child, from_child),
            stdin=subprocess.DEVNULL,
            # Ctrl-C is for us: it ends when we close its pipe.
            start_new_session=True,
        )
        os.close(to_child)
        os.close(from_child)
        self.send = Connection(from_us, readable=False)
        self.receive = Connection(to_us, writable=False)
        self.files = 0
        with _lock:
            _children.add(self)

    def ready(self) -> bool:
        """Wait until it has imported what it needs."""
        return self.receive.poll(_START_LIMIT) and self.receive.recv() == "ready"

    def close(self) -> None:
        with _lock:
            _children.discard(self)
        self.process.kill()
        self.process.wait()
        self.send.close()
        self.receive.close()


def extract_isolated(
    path: Path | Asset, settings: ExtractionSettings, limit: float
) -> CellFeatures | Failure:
    """Extract a file in this thread's child process.

    Parameters
    ----------
    path : Path or Asset
    settings : ExtractionSettings
    limit : float
        Seconds until the file is given up.

    Returns
    -------
    CellFeatures or Failure
        A failure if the file cannot be read, takes too long, or brings the child down.
    """
    child: _Child | None = getattr(_local, "child", None)
    if child is None or child.process.poll() is not None or child.files >= _FILES_A_CHILD:
        if child is not None:
            child.close()
        child = _local.child = _Child()
        try:
            started = child.ready()
        except EOFError:
            started = False
        if not started:
            child.close()
            _local.child = None
            return Failure("the process that reads files could not be started", again=True)
    child.files += 1
    try:
        child.send.send((path, settings))
        deadline = time.monotonic() + limit
        while not child.receive.poll(min(1.0, max(deadline - time.monotonic(), 0))):
            if time.monotonic() >= deadline:
                child.close()
                return Failure(f"gave up after {limit:g} s (--limit)", again=True)
        outcome: CellFeatures | Failure = child.receive.recv()
    except (EOFError, OSError):
        child.process.wait()
        code = child.process.returncode
        child.close()
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        return Failure(f"reading it brought the process down ({ended})", again=True)
    return outcome


def close_children() -> None:
    """End the child processes of all threads."""
    with _lock:
        children = list(_children)
    for child in children:
        child.close()


def _serve(receive: Connection, send: Connection) -> None:
    from threadpoolctl import threadpool_limits

    from crosspatch.features.extraction import extract_file
    from crosspatch.features.protocols import import_ipfx

    import_ipfx()
    send.send("ready")
    with threadpool_limits(1):  # as many files at a time as there are cores
        while True:
            try:
                path, settings = receive.recv()
            except EOFError:
                return
            outcome: CellFeatures | Failure
            try:
                outcome = extract_file(path, settings)
            except NetworkError as error:
                outcome = Failure(one_line(error), again=True)
            except CrosspatchError as error:
                outcome = Failure(one_line(error))
            except MemoryError:
                outcome = Failure("not enough memory", again=True)
            except Exception as error:  # a bug of ours or a library's: the others must go on
                outcome = Failure(f"unexpected {type(error).__name__}: {error}", again=True)
            send.send(outcome)


if __name__ == "__main__":
    _serve(
        Connection(int(sys.argv[1]), writable=False), Connection(int(sys.argv[2]), readable=False)
    )
