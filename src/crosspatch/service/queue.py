"""A queue and the processes that work it off: fair to everyone, limited, stoppable."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from crosspatch.errors import ModelError
from crosspatch.processes import Child, DiedError, LateError, StoppedError
from crosspatch.service.settings import ServiceSettings

#: A process is replaced after so many tasks, and before where it keeps memory: starting one takes
#: ten seconds in which others wait.
TASKS_A_CHILD = 5000

#: Training the default models takes minutes, s.
_PREPARE_LIMIT = 7200.0

_MODULE = "crosspatch.service.worker"


@dataclass(eq=False)
class QueuedTask:
    """Something for a worker to do."""

    #: Owners take turns.
    owner: str
    #: For `crosspatch.service.worker.Worker`.
    request: dict[str, Any]
    #: Told how far it is; called from another thread.
    told: Callable[[dict[str, Any]], None] = lambda said: None
    #: Of the worker's answer, always a dict with ``error``.
    answer: Future[dict[str, Any]] = field(default_factory=Future)
    stopped: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """Say that the answer is no longer wanted."""
        self.stopped.set()


class Workers:
    """Processes with the models in memory, and what waits for them.

    Parameters
    ----------
    settings : ServiceSettings
    """

    def __init__(self, settings: ServiceSettings):
        self.settings = settings
        self.about: dict[str, Any] = {}
        self._waiting: OrderedDict[str, deque[QueuedTask]] = OrderedDict()
        self._running: set[QueuedTask] = set()
        self._changed = threading.Condition()
        self._closed = False
        self._threads: list[threading.Thread] = []

    def start(self, told: Callable[[dict[str, Any]], None]) -> None:
        """Load the models in a first process, then begin to work.

        Parameters
        ----------
        told : callable
            Told of the training of default models.

        Raises
        ------
        ModelError
            If the models cannot be loaded; the message says why.
        """
        first = self._child(told)
        for number in range(self.settings.workers):
            thread = threading.Thread(
                target=self._work, args=(first if number == 0 else None,), daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Stop everything."""
        with self._changed:
            self._closed = True
            waiting = [task for tasks in self._waiting.values() for task in tasks]
            self._waiting.clear()
            for task in self._running:
                task.stop()
            self._changed.notify_all()
        for task in waiting:
            task.answer.cancel()
        for thread in self._threads:
            thread.join(timeout=10)

    def put(self, task: QueuedTask, *, first: bool = False) -> QueuedTask:
        """Let a task wait for its turn.

        Parameters
        ----------
        task : QueuedTask
        first : bool
            Before its owner's others: someone is looking at the screen.
        """
        with self._changed:
            waiting = self._waiting.setdefault(task.owner, deque())
            if first:
                waiting.appendleft(task)
            else:
                waiting.append(task)
            self._changed.notify()
        return task

    def _take(self) -> QueuedTask | None:
        """The next task of the owner whose turn it is; None when all is over."""
        with self._changed:
            while True:
                if self._closed:
                    return None
                while self._waiting:
                    owner, tasks = self._waiting.popitem(last=False)
                    task = tasks.popleft()
                    if tasks:
                        self._waiting[owner] = tasks  # at the end of the line
                    self._running.add(task)
                    return task
                self._changed.wait()

    def _work(self, child: Child | None) -> None:
        with suppress(ModelError):  # told where a task fails for it
            child = child or self._child(lambda said: None)
        while (task := self._take()) is not None:
            try:
                if task.stopped.is_set():
                    task.answer.set_result({"error": "stopped", "stopped": True})
                    continue
                if child is None or not child.alive or child.answers >= TASKS_A_CHILD:
                    if child is not None and child.alive:
                        child.close()
                    child = self._child(lambda said: None)
                answer = self._done(child, task)
                if answer.pop("worn", False):
                    child.close()
                task.answer.set_result(answer)
            except Exception as error:  # whatever it is, it must not take the queue with it
                task.answer.set_result({"error": str(error) or type(error).__name__})
            finally:
                with self._changed:
                    self._running.discard(task)
        if child is not None and child.alive:
            child.close()

    def _done(self, child: Child, task: QueuedTask) -> dict[str, Any]:
        limit = self.settings.seconds
        try:
            answer: dict[str, Any] = child.ask(
                task.request, limit, told=task.told, stopped=task.stopped.is_set
            )
        except StoppedError:
            return {"error": "stopped", "stopped": True}
        except LateError:
            return {"error": f"gave up after {limit:g} s; see --seconds of `crosspatch serve`"}
        except DiedError as error:
            gib = self.settings.memory / 2**30
            return {
                "error": f"reading it brought the process down ({error.how}); it may need more "
                f"than {gib:.3g} GiB of memory (--memory of `crosspatch serve`), or be damaged"
            }
        return answer

    def _child(self, told: Callable[[dict[str, Any]], None]) -> Child:
        """A process with the models in memory."""
        child = Child(_MODULE, memory=self.settings.memory)
        try:
            child.wait_ready()
            request = {"task": "prepare", "settings": self.settings}
            answer = child.ask(request, _PREPARE_LIMIT, told=told, stopped=lambda: self._closed)
        except (DiedError, LateError, StoppedError) as error:
            raise ModelError(f"the process that predicts cannot be started: {error}") from error
        answer.pop("worn")
        if answer["error"] is not None:
            child.close()
            raise ModelError(answer["error"])
        self.about = answer
        child.answers = 0
        return child
