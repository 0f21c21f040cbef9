"""Engine: an app on a broker, and somebody who watches it: what rows of the engine work with."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from gotasks import App, ArgsMap, TaskHandle, context
from gotasks.broker import Broker, Capability
from gotasks.conformance.expect import Nonconformance
from gotasks.errors import TaskNotFound
from gotasks.events import Event, TaskBuried, TaskSucceeded
from gotasks.fatal import FatalTask
from gotasks.logs import LogListener
from gotasks.task import Failure

if TYPE_CHECKING:
    from typing_extensions import Self

    from gotasks.conformance.scene import Scene
    from gotasks.worker.worker import Worker

E = TypeVar("E", bound=Event)

#: Nothing that a worker does takes that long; a busy machine gets the time. Seconds.
PATIENCE = 20.0

#: What the shell of whoever runs the suite may say about workers; it must not change what a row shows.
_SETTINGS = ("GOTASKS_MAX_LIMIT", "GOTASKS_MONITOR_INTERVAL", "GOTASKS_LEASE", "GOTASKS_GRACE")


_NOWHERE = logging.NullHandler()


class Watch:
    """Listens to all facts of an app."""

    def __init__(self, app: App) -> None:
        self._facts: list[Event] = []
        self._changed = threading.Condition()
        app.events.listen(self)

    def __call__(self, event: Event) -> None:
        with self._changed:
            self._facts.append(event)
            self._changed.notify_all()

    def all(self, kind: type[E], task: TaskHandle | str | None = None) -> list[E]:
        """The facts of this kind so far, all or those of one task (its handle or its id)."""
        task_id = task.id if isinstance(task, TaskHandle) else task
        with self._changed:
            found = [fact for fact in self._facts if isinstance(fact, kind)]
        return [fact for fact in found if task_id is None or getattr(fact, "task_id", None) == task_id]

    def wait(
        self,
        kind: type[E],
        task: TaskHandle | str | None = None,
        *,
        count: int = 1,
        within: float = PATIENCE,
    ) -> list[E]:
        """Wait until there are that many; all of them."""
        what = f"{count} {kind.__name__}" + (f" of {task}" if task is not None else "")
        self.until(lambda: len(self.all(kind, task)) >= count, what, within=within)
        return self.all(kind, task)

    def until(self, holds: Callable[[], object], what: str, *, within: float = PATIENCE) -> None:
        """Wait until `holds()`; looked at with each fact, and now and then."""
        end = time.monotonic() + within
        while not holds():
            if time.monotonic() > end:
                raise Nonconformance(f"within {within:g} s not seen: {what}; but {self._summary()}")
            with self._changed:
                self._changed.wait(0.02)

    def _summary(self) -> str:
        with self._changed:
            names = [type(fact).__name__ for fact in self._facts]
            last = self._facts[-3:]
        counts = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
        return f"{counts or 'no fact at all'}; the last ones: {last!r:.500}"


class Engine:
    """An app with one queue of its own, and what became of its tasks."""

    def __init__(self, app: App, queue: str) -> None:
        self.app = app
        self.queue = queue
        self.watch = Watch(app)
        #: What the last step of a chain, `keep`, was given, by task id.
        self.kept: dict[str, ArgsMap] = {}

    @classmethod
    def on(cls, it: Scene, *, by: Broker | None = None, **options: Any) -> Engine:
        """An app on a client of this scene (`by`, or one more), with the scene's queue and fatal queue."""
        # Rows frighten workers on purpose. What these say is for who asks to see it, not for everybody's terminal.
        logging.getLogger("gotasks").addHandler(_NOWHERE)
        return cls(App(it.client() if by is None else by, fatal_queue=it.fatal, **options), it.queue)

    @property
    def broker(self) -> Broker:
        """The broker itself, as another client of the same app sees it."""
        return self.app.dispatch.broker

    # -- tasks ----------------------------------------------------------------------------------------

    def keep(self, args: ArgsMap) -> None:
        """A handler for the end of a chain: the args map that arrived is in `kept`."""
        self.kept[context.current().task_id] = args

    def declare(self, queue: str | None = None, **options: Any) -> None:
        """Declare the queue, or another one, with these options and a lease that the broker can hold."""
        longest = self.app.dispatch.limits.max_lease
        if longest is not None:
            options = {**options, "lease": min(options.get("lease", 30.0), longest)}
        self.app.queue(queue or self.queue, **options)

    def enqueue(self, *handlers: Callable[..., Any], args: Any = None, **options: Any) -> TaskHandle:
        """Register a job of these handlers and enqueue a task of it. `options` are those of the queue."""
        job = self.app.register(f"job-{len(self.app.jobs)}", *handlers)
        if options or self.queue not in self.app.queues:
            self.declare(**options)
        return self.app.queue(self.queue).enqueue(job, {} if args is None else args)

    # -- running them ---------------------------------------------------------------------------------

    def worker(self, *queues: str, grace: float = 10.0) -> Worker:
        """A worker, whatever the shell says about workers."""
        with _plain_environment():
            return self.app.worker(*queues, grace=grace)

    def run(self, *tasks: TaskHandle | str, within: float = PATIENCE) -> None:
        """Run a worker until each of these has ended (once more): it has succeeded, or lies in the fatal queue."""
        ids = [task.id if isinstance(task, TaskHandle) else task for task in tasks]
        before = {task_id: len(self._ends(task_id)) for task_id in ids}
        with self.worker():
            for task_id in ids:
                self.watch.until(
                    partial(self._has_ended, task_id, before[task_id]),
                    f"the end of task {task_id}",
                    within=within,
                )

    def _ends(self, task_id: str) -> list[Event]:
        facts = self.watch.all(Event, task_id)
        return [fact for fact in facts if isinstance(fact, (TaskSucceeded, TaskBuried))]

    def _has_ended(self, task_id: str, before: int) -> bool:
        ends = self._ends(task_id)
        if len(ends) <= before:
            return False
        # A move that isn't atomic goes on after the fact: the task is marked first, then moved.
        at_once = isinstance(ends[-1], TaskSucceeded) or Capability.ATOMIC_MOVE in self.app.capabilities
        return at_once or self._in_fatal(task_id) is not None

    # -- what became of them --------------------------------------------------------------------------

    def result(self, task: TaskHandle) -> ArgsMap:
        """What `keep` was given, of a task that has succeeded. Raises Nonconformance."""
        if len(self.watch.all(TaskSucceeded, task)) != 1 or task.id not in self.kept:
            raise Nonconformance(f"{task} didn't succeed, once and wholly: {self._ends(task.id)}")
        return self.kept[task.id]

    def buried(self, task: TaskHandle | str) -> FatalTask:
        """The task in the fatal queue. Raises Nonconformance."""
        task_id = task.id if isinstance(task, TaskHandle) else task
        found = self._in_fatal(task_id)
        if self.watch.all(TaskSucceeded, task_id) or found is None:
            raise Nonconformance(
                f"task {task_id} should lie in the fatal queue, which holds {self._fatal_ids()}; of the task is known: "
                f"{self.watch.all(Event, task_id)!r:.500}"
            )
        return found

    def failure(self, task: TaskHandle) -> Failure:
        """Why it lies in the fatal queue. Raises Nonconformance."""
        return self.buried(task).failure

    def _in_fatal(self, task_id: str) -> FatalTask | None:
        try:
            return self.app.fatal.show(task_id)
        except TaskNotFound:
            return None

    def _fatal_ids(self) -> str:
        ids = [found.id for found in self.app.fatal.list()]
        return ", ".join(ids) or "nothing"


@contextmanager
def _plain_environment() -> Iterator[None]:
    hidden = {name: os.environ.pop(name) for name in _SETTINGS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


class Log(logging.Handler):
    """What a worker says in the log. `with Log(app) as log: …`; nothing of it reaches the log of the suite's user."""

    def __init__(self, app: App) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._app = app
        self._logger = logging.getLogger(f"{__name__}.{id(self)}")
        self._logger.propagate = False
        self._logger.setLevel(logging.INFO)
        self._listener = LogListener(self._logger)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def __enter__(self) -> Self:
        self._logger.addHandler(self)
        self._app.events.listen(self._listener)
        return self

    def __exit__(self, *exc: object) -> None:
        self._app.events.unlisten(self._listener)
        self._logger.removeHandler(self)
