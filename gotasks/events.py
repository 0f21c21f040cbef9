"""Facts: what happened in a worker, one frozen struct for each. Metrics, logs and traces only listen.

A listener is any callable that takes one event. It runs on the thread where the fact arose, so it has to be
quick; an exception in it is logged once and never touches a task.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Collection
from typing import Protocol

import msgspec

logger = logging.getLogger("gotasks")


class Event(msgspec.Struct, frozen=True, gc=False):
    """A fact."""


class TaskEvent(Event, frozen=True, gc=False):
    """A fact about one task."""

    task_id: str
    queue: str  #: the queue that it was acquired from
    job: str  #: empty where the record couldn't be read


class TaskStarted(TaskEvent, frozen=True, gc=False):
    """A worker took a task up (after the checks that may bury it)."""

    ready_at: str | None  #: RFC 3339, by the clock of who enqueued it; None for a task that was begun before


class StepDone(TaskEvent, frozen=True, gc=False):
    """A handler returned, or raised."""

    step: str
    seconds: float
    ok: bool


class StepRetried(TaskEvent, frozen=True, gc=False):
    """A reentrant handler raised and will be tried again after `delay` seconds."""

    step: str
    tries: int  #: failed tries of this step so far
    delay: float
    error: str


class Checkpointed(TaskEvent, frozen=True, gc=False):
    """The state before `step` is durable."""

    step: str


class TaskSucceeded(TaskEvent, frozen=True, gc=False):
    """The last handler's result is durable, and the task has ended."""

    seconds: float  #: in this worker, from taking it up


class TaskBuried(TaskEvent, frozen=True, gc=False):
    """The task went to the fatal queue."""

    step: str
    outcome: str  #: a value of `gotasks.task.Outcome`
    error: str
    seconds: float


class TaskReleased(TaskEvent, frozen=True, gc=False):
    """The task was given back with its state: at a stop, for a later retry, or because it could not start."""

    why: str
    delay: float


class TaskCrashed(TaskEvent, frozen=True, gc=False):
    """A task came back after `deaths` leases that ended unsettled."""

    deaths: int


class LeaseLost(TaskEvent, frozen=True, gc=False):
    """The task is somebody else's now, or cancelled; what this worker did since its last checkpoint is discarded."""

    sure: bool  #: False on a repeated write, which may have taken effect itself


class BrokerDown(Event, frozen=True, gc=False):
    """A call to the broker failed; it is repeated."""

    what: str
    error: str
    attempt: int

    @classmethod
    def by(cls, error: Exception, what: str, attempt: int) -> BrokerDown:
        """The fact that `error` was raised; an error without a message is called by its type."""
        return cls(what, str(error) or type(error).__name__, attempt)


class BrokerUp(Event, frozen=True, gc=False):
    """The call that had failed was answered."""

    what: str
    attempts: int


class LoopStalled(Event, frozen=True, gc=False):
    """The event loop of the async handlers made no progress for `seconds`."""

    seconds: float
    stack: str


class QueueMeasured(Event, frozen=True, gc=False):
    """The gauge asked the broker how much a queue holds."""

    queue: str
    ready: int | None
    scheduled: int | None
    leased: int | None


Listener = Callable[[Event], None]


class Source(Protocol):
    """A worker, as one who listens sees it: what events can't tell, it can be asked."""

    @property
    def queues(self) -> Collection[str]:
        """The queues that it serves."""

    def in_flight(self, queue: str) -> int:
        """How many tasks of `queue` it holds."""

    @property
    def loop_stalled(self) -> bool:
        """Whether the event loop of its async handlers makes no progress."""


class Events:
    """Hands each fact to every listener. Safe from any thread."""

    def __init__(self) -> None:
        self._listeners: tuple[Listener, ...] = ()
        self._sources: tuple[weakref.ref[Source], ...] = ()
        self._broken: set[int] = set()
        self._lock = threading.Lock()

    def listen(self, listener: Listener) -> None:
        """Add a listener."""
        with self._lock:
            self._listeners += (listener,)

    def unlisten(self, listener: Listener) -> None:
        """Remove a listener that was added."""
        with self._lock:
            self._listeners = tuple(each for each in self._listeners if each is not listener)

    @property
    def sources(self) -> list[Source]:
        """The workers that were started and still exist."""
        return [source for ref in self._sources if (source := ref()) is not None]

    def add_source(self, source: Source) -> None:
        """A worker starts. It is kept as long as others keep it."""
        with self._lock:
            self._sources = (*(ref for ref in self._sources if ref() is not None), weakref.ref(source))

    def emit(self, event: Event) -> None:
        """Tell every listener."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                if id(listener) not in self._broken:
                    self._broken.add(id(listener))
                    logger.exception(
                        "a listener of gotasks events failed on %r; later failures aren't logged", event
                    )
