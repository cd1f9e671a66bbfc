"""Child processes that may hang, die or run out of memory without harm to their parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, Pipe
from typing import Any

#: Starting a child means importing what it works with, s.
_START_LIMIT = 120.0
# How often a parent looks whether it should stop waiting, s.
_LOOK = 0.1
# Of Linux' <sys/prctl.h>; the parent is the thread that started the process.
_PR_SET_PDEATHSIG = 1

#: How many threads libraries take.
_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")

#: Tells the parent how far a request is.
Tell = Callable[[Any], None]


def cores() -> int:
    """How many processes there can be at a time."""
    from joblib import cpu_count

    return int(cpu_count())


def use_one_thread() -> None:
    """Have numpy, if it is imported after this, take one thread where the user says nothing.

    Others would wait for work on arrays that are too small to share, and spin meanwhile.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def may_die() -> bool:
    """Whether this process is a child of limited memory, whose parent goes on without it."""
    return resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY


@contextmanager
def libraries_hidden(*names: str) -> Iterator[None]:
    """Hide libraries that others import where they find them, and that are not used here.

    Those that are imported already stay.
    """
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


class ChildError(Exception):
    """A child process gave no answer."""


class DiedError(ChildError):
    """The process ended unasked; its status is None if it did not start."""

    def __init__(self, status: int | None = None) -> None:
        self.code = status if status is not None and status >= 0 else None
        self.signal = -status if status is not None and status < 0 else None
        #: In words.
        self.how = f"exit code {self.code}" if self.signal is None else f"signal {self.signal}"
        super().__init__("it could not be started" if status is None else f"it ended ({self.how})")


class LateError(ChildError):
    """The process took too long, and was ended."""


class StoppedError(ChildError):
    """The answer is no longer wanted, and the process was ended."""


class Child:
    """A process of this package that answers requests; it ends when this process does.

    Requests and answers are pickled: the child is ours. Its module calls `answer_requests`; beyond
    so many bytes of memory it is refused more. There is one for each core, so each has one thread.
    """

    def __init__(self, module: str, *, memory: int | None = None) -> None:
        self.answers = 0
        self._pipe, its_end = Pipe()
        with its_end:
            self.process = subprocess.Popen(  # noqa: S603, our own interpreter and module
                [sys.executable, "-m", module, str(its_end.fileno()), str(memory or 0)],
                pass_fds=(its_end.fileno(),),
                stdin=subprocess.DEVNULL,
                env={
                    **os.environ,
                    **dict.fromkeys(_THREADS, "1"),
                    # Arrow's own pool takes a GiB of what a process may have before it is used.
                    "ARROW_DEFAULT_MEMORY_POOL": "system",
                },
                # Ctrl-C is for us: it ends when we close its pipe.
                start_new_session=True,
            )

    def wait_ready(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Wait until the child has imported what it needs.

        It is closed and DiedError raised if it ends or takes minutes, StoppedError if `stopped`.
        """
        try:
            self._hear(_START_LIMIT, None, stopped)
        except (DiedError, LateError):
            self.close()
            raise DiedError from None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def ask(
        self,
        request: object,
        limit: float,
        *,
        told: Tell | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Any:
        """The answer to a request, within so many seconds. A child that gives none is closed.

        `told` is told what the child says meanwhile; `stopped`, asked often, says whether the
        answer is no longer wanted. Without one there is a DiedError, LateError or StoppedError.
        """
        self.answers += 1
        with contextlib.suppress(OSError):  # it has ended: nothing is heard of it either
            self._pipe.send(request)
        return self._hear(limit, told, stopped)

    def _hear(self, limit: float, told: Tell | None, stopped: Callable[[], bool]) -> Any:
        deadline = time.monotonic() + limit
        try:
            while True:
                said = self._pipe.poll(min(_LOOK, max(deadline - time.monotonic(), 0)))
                if stopped():
                    self.close()
                    raise StoppedError("stopped")
                if said:
                    kind, content = self._pipe.recv()
                    if kind == "answer":
                        return content
                    if told is not None:
                        told(content)
                if time.monotonic() >= deadline:  # whatever it says meanwhile
                    self.close()
                    raise LateError(f"gave up after {limit:g} s")
        except (EOFError, OSError):
            status = self.process.wait()
            self.close()
            raise DiedError(status) from None

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        self._pipe.close()


def answer_requests(answer: Callable[[Any, Tell], object], arguments: Sequence[str]) -> None:
    """Answer the parent's requests until it ends; a module run by `Child` gives its arguments."""
    pipe: Connection[object, Any] = Connection(int(arguments[0]))
    with contextlib.suppress(OSError, AttributeError):
        # Linux ends this process with its parent, which may be killed while this one is busy.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # A process that dies leaves no picture of a user's data behind.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory := int(arguments[1]):
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    with contextlib.suppress(OSError):  # the parent has ended while this was imported
        pipe.send(("answer", "ready"))
    while True:
        try:
            request = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(("answer", answer(request, lambda said: pipe.send(("told", said)))))
