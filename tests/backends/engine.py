"""An app on a broker, and somebody who watches it: what the tests of the engine work with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from gotasks import App, ArgsMap, TaskHandle, context
from gotasks.broker import Broker, Lease
from gotasks.discovery import open_broker
from gotasks.events import Event, TaskBuried, TaskSucceeded
from gotasks.fatal import FatalTask
from gotasks.task import Failure
from tests.backends.contract import eventually, stats

E = TypeVar("E", bound=Event)

#: The queue that a test uses where it needs only one.
QUEUE = "orders"

#: Nothing takes that long; a busy machine gets the time. Seconds.
PATIENCE = 20.0


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

    def all(self, kind: type[E], task: TaskHandle | None = None) -> list[E]:
        """The facts of this kind so far, all or those of one task."""
        with self._changed:
            found = [fact for fact in self._facts if isinstance(fact, kind)]
        return [fact for fact in found if task is None or getattr(fact, "task_id", None) == task.id]

    def wait(self, kind: type[E], task: TaskHandle | None = None, *, count: int = 1) -> list[E]:
        """Wait until there are that many."""
        end = time.monotonic() + PATIENCE
        while len(found := self.all(kind, task)) < count:
            with self._changed:
                known = [fact for fact in self._facts if isinstance(fact, kind)]
                if len(known) <= len(found) and not self._changed.wait(min(0.5, end - time.monotonic())):
                    assert time.monotonic() < end, (
                        f"{len(found)} {kind.__name__}, not {count}, in {self._facts}"
                    )
        return found


class Engine:
    """An app, and one of the ways in which its tasks are run."""

    def __init__(self, url: str | Broker, *, how: str = "worker", **options: Any) -> None:
        self.app = App(url, **options)
        self.watch = Watch(self.app)
        self.how = how
        #: What the last step of a chain, `keep`, was given, by task id.
        self.kept: dict[str, ArgsMap] = {}
        #: A lease that a test can wait for. Seconds.
        self.short = 0.5 if isinstance(url, str) and url.startswith("redis") else 0.2

    @property
    def broker(self) -> Broker:
        """The broker itself, as another client of the same app sees it."""
        return self.app.dispatch.broker

    def keep(self, args: ArgsMap) -> None:
        """A handler for the end of a chain: the args map that arrived is in `kept`."""
        self.kept[context.current().task_id] = args

    def enqueue(self, *handlers: Callable[..., Any], args: Any = None, **options: Any) -> TaskHandle:
        """Register a job of these handlers and enqueue a task of it. `options` are those of the queue."""
        job = self.app.register(f"job-{len(self.app.jobs)}", *handlers)
        return self.app.queue(QUEUE, **options).enqueue(job, {} if args is None else args)

    def run(self, *, within: float = PATIENCE) -> None:
        """Run tasks until no queue holds any but the fatal one."""
        queues = list(self.app.queues)

        def done() -> bool:
            if self.how == "drain":
                self.app.drain(raises=False)
            return all(self.app.stats(name) == stats() for name in queues)

        if self.how == "drain":
            eventually(done, within=within, what="an empty queue")
            return
        with self.app.worker():
            eventually(done, within=within, what="an empty queue")

    def result(self, task: TaskHandle) -> ArgsMap:
        """What `keep` was given, of a task that has succeeded."""
        assert len(self.watch.all(TaskSucceeded, task)) == 1, self.watch.all(TaskBuried)
        return self.kept[task.id]

    def buried(self, task: TaskHandle) -> FatalTask:
        """The task in the fatal queue."""
        assert self.watch.all(TaskSucceeded, task) == []
        return self.app.fatal.show(task.id)

    def failure(self, task: TaskHandle) -> Failure:
        """Why it lies in the fatal queue."""
        return self.buried(task).failure

    def crash(self, *, times: int = 1, queue: str = QUEUE) -> list[Lease]:
        """Do as a worker that takes a task and is killed, that many times; the leases that it leaves behind."""
        leases: list[Lease] = []
        for _ in range(times):
            leases += self.broker.acquire(queue, limit=1, wait=PATIENCE, lease_for=self.short)
        assert len(leases) == times
        return leases

    def close(self) -> None:
        self.app.close()


class Gate:
    """A handler that waits until it is opened, and counts how many are inside."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.inside = 0
        self.most = 0
        self.calls = 0
        self._lock = threading.Lock()

    def handler(self, args: ArgsMap) -> None:
        with self._lock:
            self.calls += 1
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            self.open.wait(20)
        finally:
            with self._lock:
                self.inside -= 1


class Steps:
    """Handlers that count their calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def one(self, args: ArgsMap) -> ArgsMap:
        self.calls.append("one")
        return {**args, "one": True}

    def two(self, args: ArgsMap) -> ArgsMap:
        self.calls.append("two")
        return {**args, "two": True}


class Faulty(Broker):
    """A real broker whose calls can be made to fail: before they are carried out, or after (a lost reply)."""

    def __init__(self, url: str) -> None:
        self._inner = open_broker(url)
        self.capabilities = self._inner.capabilities
        self.limits = self._inner.limits
        #: By the name of a call: what to do before it, and after it. Either may raise.
        self.before: dict[str, Callable[[], None]] = {}
        self.after: dict[str, Callable[[], None]] = {}
        self.calls: list[str] = []

    def _call(self, name: str, *args: Any, **options: Any) -> Any:
        self.calls.append(name)
        self.before.get(name, lambda: None)()
        result = getattr(self._inner, name)(*args, **options)
        self.after.get(name, lambda: None)()
        return result

    @classmethod
    def from_url(cls, url: Any) -> Faulty:
        raise NotImplementedError

    def enqueue(self, envelopes: Any) -> Any:
        return self._call("enqueue", envelopes)

    def acquire(self, queue: str, **options: Any) -> Any:
        return self._call("acquire", queue, **options)

    def extend(self, leases: Any, **options: Any) -> Any:
        return self._call("extend", leases, **options)

    def checkpoint(self, writes: Any) -> Any:
        return self._call("checkpoint", writes)

    def ack(self, writes: Any, **options: Any) -> Any:
        return self._call("ack", writes, **options)

    def release(self, writes: Any) -> Any:
        return self._call("release", writes)

    def stats(self, queue: str) -> Any:
        return self._inner.stats(queue)

    def purge(self, queue: str) -> Any:
        return self._inner.purge(queue)

    def get(self, ids: Any) -> Any:
        return self._call("get", ids)

    def browse(self, queue: str, **options: Any) -> Any:
        return self._inner.browse(queue, **options)

    def close(self) -> None:
        self._inner.close()


def times(count: int, error: Callable[[], BaseException]) -> Callable[[], None]:
    """For `Faulty`: raise `error()` the first `count` times."""
    left = iter(range(count))

    def fail() -> None:
        if next(left, None) is not None:
            raise error()

    return fail
