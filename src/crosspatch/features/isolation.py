"""One file at a time in a child process that may hang or die without harm."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosspatch.errors import CrosspatchError, NetworkError, one_line
from crosspatch.features.outcome import CellFeatures, Failure
from crosspatch.processes import Child, DiedError, LateError, Tell, answer_requests

if TYPE_CHECKING:
    from crosspatch.archive.dandi import Asset
    from crosspatch.features.extraction import ExtractionSettings

#: A child is replaced after this many files: memory that libraries leave behind goes with it.
_FILES_A_CHILD = 200

_local = threading.local()
_children: set[Child] = set()
_lock = threading.Lock()


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
    child: Child | None = getattr(_local, "child", None)
    if child is None or not child.alive or child.answers >= _FILES_A_CHILD:
        if child is not None:
            _close(child)
        child = _local.child = Child(__name__)
        with _lock:
            _children.add(child)
        try:
            child.wait_ready()
        except DiedError:
            _close(child)
            return Failure("the process that reads files could not be started", again=True)
    outcome: CellFeatures | Failure
    try:
        outcome = child.ask((path, settings), limit)
    except LateError as error:
        outcome = Failure(f"{error} (--limit)", again=True)
    except DiedError as error:
        how = str(error).removeprefix("it ended ")
        outcome = Failure(f"reading it brought the process down {how}", again=True)
    return outcome


def _close(child: Child) -> None:
    with _lock:
        _children.discard(child)
    child.close()


def close_children() -> None:
    """End the child processes of all threads."""
    with _lock:
        children = list(_children)
    for child in children:
        _close(child)


def _serve() -> None:
    from threadpoolctl import threadpool_limits

    from crosspatch.features.analysis import import_ipfx
    from crosspatch.features.extraction import extract_file

    def answer(request: Any, tell: Tell) -> CellFeatures | Failure:
        path, settings = request
        try:
            return extract_file(path, settings)
        except NetworkError as error:
            return Failure(one_line(error), again=True)
        except CrosspatchError as error:
            return Failure(one_line(error))
        except MemoryError:
            return Failure("not enough memory", again=True)
        except Exception as error:  # a bug of ours or a library's: the others must go on
            return Failure(f"unexpected {type(error).__name__}: {error}", again=True)

    import_ipfx()
    with threadpool_limits(1):  # as many files at a time as there are cores
        answer_requests(answer, sys.argv[1:])


if __name__ == "__main__":
    _serve()
