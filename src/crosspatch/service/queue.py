"""A queue and the processes that work it off: fair to everyone, limited, stoppable."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

from crosspatch.errors import ModelError
from crosspatch.processes import Child, DiedError, LateError, StoppedError
from crosspatch.service import messages
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

    owner: str  #: owners take turns
    request: messages.WorkerRequest
    #: Told how far it is; called from another thread.
    told: Callable[[messages.Told], None] = lambda said: None
    outcome: Future[messages.WorkerOutcome] = field(default_factory=Future)
    #: Set where the outcome is no longer wanted.
    stopped: threading.Event = field(default_factory=threading.Event)


class Workers:
    """Processes with the models in memory, and what waits for them."""

    about: messages.Ready  #: what the workers say of their models, once they are started

    def __init__(self, settings: ServiceSettings):
        self.settings = settings
        self._waiting: OrderedDict[str, deque[QueuedTask]] = OrderedDict()
        self._running: set[QueuedTask] = set()
        self._changed = threading.Condition()
        self._closed = False
        self._threads: list[threading.Thread] = []

    def start(self, told: Callable[[messages.Told], None]) -> None:
        """Load the models in a first process, then work; a `ModelError` if none can be loaded."""
        for child in (self._child(told), *[None] * (self.settings.workers - 1)):
            thread = threading.Thread(target=self._work, args=(child,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Stop everything."""
        with self._changed:
            self._closed = True
            waiting = [task for tasks in self._waiting.values() for task in tasks]
            self._waiting.clear()
            for task in self._running:
                task.stopped.set()
            self._changed.notify_all()
        for task in waiting:
            task.outcome.cancel()
        for thread in self._threads:
            thread.join(timeout=10)

    def put(self, task: QueuedTask, *, first: bool = False) -> None:
        """Let a task wait for its turn, or before its owner's others where someone looks on."""
        with self._changed:
            waiting = self._waiting.setdefault(task.owner, deque())
            if first:
                waiting.appendleft(task)
            else:
                waiting.append(task)
            self._changed.notify()

    def _take(self) -> QueuedTask | None:
        """The next task of the owner whose turn it is; None when all is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting)
            if self._closed:
                return None
            owner, tasks = self._waiting.popitem(last=False)
            task = tasks.popleft()
            if tasks:
                self._waiting[owner] = tasks  # at the end of the line
            self._running.add(task)
            return task

    def _work(self, child: Child | None) -> None:
        with suppress(ModelError):  # told where a task fails for it
            child = child or self._child(lambda said: None)
        while (task := self._take()) is not None:
            try:
                outcome: messages.WorkerOutcome = messages.STOPPED
                if not task.stopped.is_set():
                    child = self._working(child)
                    outcome = self._outcome(child, task)
                task.outcome.set_result(outcome)
            except Exception as error:  # whatever it is, it must not take the queue with it
                task.outcome.set_result(messages.Fault(str(error) or type(error).__name__))
            finally:
                with self._changed:
                    self._running.discard(task)
        if child is not None and child.alive:
            child.close()

    def _working(self, child: Child | None) -> Child:
        """A process that can take a task: this one, or a new one."""
        if child is not None and child.alive:
            if child.answers < TASKS_A_CHILD:
                return child
            child.close()
        return self._child(lambda said: None)

    def _outcome(self, child: Child, task: QueuedTask) -> messages.WorkerOutcome:
        limit = self.settings.seconds
        try:
            answer: messages.Answer = child.ask(
                task.request, limit, told=task.told, stopped=task.stopped.is_set
            )
        except StoppedError:
            return messages.STOPPED
        except LateError:
            return messages.Fault(
                f"gave up after {limit:g} s", "start the server with more {seconds}"
            )
        except DiedError as error:
            gib = self.settings.memory / 2**30
            return messages.Fault(
                f"reading it brought the process down ({error.how})",
                f"it may be damaged, or need more than {gib:.3g} GiB of memory: start the server "
                "with more {memory}",
            )
        if answer.worn:
            child.close()
        return answer.outcome

    def _child(self, told: Callable[[messages.Told], None]) -> Child:
        """A process with the models in memory."""
        child = Child(_MODULE, memory=self.settings.memory)
        try:
            child.wait_ready()
            request = messages.Prepare(self.settings)
            answer: messages.Answer = child.ask(
                request, _PREPARE_LIMIT, told=told, stopped=lambda: self._closed
            )
        except (DiedError, LateError, StoppedError) as error:
            raise ModelError(f"the process that predicts cannot be started: {error}") from error
        outcome = answer.outcome
        if not isinstance(outcome, messages.Ready):
            child.close()
            fault = outcome if isinstance(outcome, messages.Fault) else messages.Fault("no models")
            raise ModelError(fault.message, fault.hint)
        self.about = outcome
        child.answers = 0
        return child
