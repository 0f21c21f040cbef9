"""App: the jobs, the queues and the broker of one program. No module globals: make as many as you need."""

from __future__ import annotations

import difflib
import importlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gotasks import settings
from gotasks.broker import Broker, BrokerURL, Capability, QueueStats
from gotasks.calling import run_here
from gotasks.codec import ROOM_TO_BURY
from gotasks.discovery import open_broker
from gotasks.dispatch import Dispatch
from gotasks.errors import ConfigurationError, DuplicateJob, UnknownJob, Unsupported
from gotasks.events import Events
from gotasks.fatal import FatalQueue
from gotasks.handle import TaskHandle
from gotasks.job import Job
from gotasks.queue import Queue
from gotasks.settings import QueueOptions
from gotasks.task import check_queue_name

if TYPE_CHECKING:
    from gotasks.metrics import Metrics
    from gotasks.worker.worker import Worker

#: How long the record of a finished task stays where App(task_ttl=…) doesn't say, in seconds.
DEFAULT_TASK_TTL = 1000.0


class App:
    """Jobs, queues and a broker. Nothing connects before it is needed. Safe from any thread.

    Args:
        broker: a URL such as "redis://127.0.0.1:6379/0", or a Broker object. The environment variable
            GOTASKS_BROKER_URL goes before a URL given here, `gotasks --broker` before both.
        task_ttl: seconds for which a finished task can still be asked for. None: 1000 where the broker keeps
            records. A value above 0 is refused by a broker that keeps none.
        fatal_queue: the queue where failed tasks wait to be resumed.
        include: modules that register jobs, imported when they are needed.
        max_payload: bytes of a stored task, both args maps and its log together; 32 KiB of it are kept for the log.
    """

    def __init__(
        self,
        broker: str | Broker | None = None,
        *,
        task_ttl: float | None = None,
        fatal_queue: str = "fatal",
        include: Iterable[str] = (),
        max_payload: int = 1024 * 1024,
    ) -> None:
        if task_ttl is not None and not 0 <= task_ttl < float("inf"):
            raise ConfigurationError(f"task_ttl is a number of seconds from 0, not {task_ttl!r}")
        if max_payload < 2 * ROOM_TO_BURY:
            raise ConfigurationError(f"max_payload is at least {2 * ROOM_TO_BURY} bytes")
        if isinstance(include, str):
            raise ConfigurationError(f"include takes a list of modules: include=[{include!r}]")
        self.fatal_queue = check_queue_name(fatal_queue)
        self.events = Events()
        self.fatal = FatalQueue(self)
        self._given = broker
        self._override: str | Broker | None = None
        self._task_ttl = task_ttl
        self._max_payload = max_payload
        self._include = list(include)
        self._jobs: dict[str, Job] = {}
        self._external: set[str] = set()
        self._queues: dict[str, Queue] = {}
        self._lock = threading.RLock()
        self._dispatch: Dispatch | None = None
        self._metrics: Metrics | None = None

    def __repr__(self) -> str:
        return f"<App jobs={sorted(self._jobs)} queues={sorted(self._queues)}>"

    # -- jobs -------------------------------------------------------------------------------------

    def register(self, name: str, *handlers: Callable[..., Any]) -> Job:
        """Register a chain of handlers under `name`. Raises DuplicateJob, InvalidName, ConfigurationError."""
        job = Job(name, handlers, run_here)
        with self._lock:
            if name in self._jobs:
                raise DuplicateJob(f"job {name!r} is registered already: {self._jobs[name].describe()}")
            self._jobs[name] = job
        return job

    def job(self, name: str) -> Callable[[Callable[..., Any]], Job]:
        """Register the decorated handler as a job of one step."""
        return lambda handler: self.register(name, handler)

    def external(self, name: str) -> str:
        """Allow `name` to be enqueued though its job is registered elsewhere only. Returns the name."""
        with self._lock:
            self._external.add(name)
        return name

    @property
    def jobs(self) -> Mapping[str, Job]:
        """The registered jobs by name, a live view; imports the modules of `include` first."""
        self.import_included()
        return MappingProxyType(self._jobs)

    def include(self, *modules: str) -> None:
        """Add modules that register jobs."""
        with self._lock:
            self._include += modules

    def import_included(self) -> None:
        """Import the modules of `include` that haven't been. Raises what the import raises."""
        while True:
            with self._lock:
                if not self._include:
                    return
                module = self._include[0]
            # Not under the lock: the module registers jobs, maybe from a thread.
            importlib.import_module(module)
            with self._lock:
                if module in self._include:
                    self._include.remove(module)

    def chain(self, job: Job | str) -> tuple[str, tuple[str, ...] | None]:
        """A job's name and step names (None for one that is external). Raises UnknownJob with the nearest name."""
        name = job.name if isinstance(job, Job) else job
        known = self._jobs.get(name)
        if known is None and self._include:
            known = self.jobs.get(name)
        if isinstance(job, Job) and known is not job:
            raise UnknownJob(f"job {name!r} belongs to another App: register it in this one")
        if known is not None:
            return name, known.step_names
        if name in self._external:
            return name, None
        close = difflib.get_close_matches(str(name), [*self._jobs, *self._external], n=1)
        hint = (
            f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(self._jobs)) or 'none'}."
        )
        raise UnknownJob(
            f"no job {name!r} is registered; {hint} "
            f"A job that only the worker knows is declared by app.external({name!r})"
        )

    # -- queues -----------------------------------------------------------------------------------

    def queue(self, name: str, **options: Any) -> Queue:
        """Declare a queue, or get one that is declared. `options`: the fields of QueueOptions.

        Raises ConfigurationError on options that are unknown, out of range, or not those declared before.
        """
        check_queue_name(name)
        if name == self.fatal_queue:
            raise ConfigurationError(
                f"{name!r} is the fatal queue: enqueue elsewhere, or set App(fatal_queue=…)"
            )
        try:
            wanted = QueueOptions(**options)
        except TypeError:
            fields = ", ".join(QueueOptions.__dataclass_fields__)
            raise ConfigurationError(f"a queue's options are {fields}, not {', '.join(options)}") from None
        with self._lock:
            known = self._queues.get(name)
            if known is None:
                known = self._queues[name] = Queue(self, name, wanted)
            elif options and known.options != wanted:
                raise ConfigurationError(
                    f"queue {name!r} is declared already, with other options: {known.options}"
                )
            return known

    @property
    def queues(self) -> Mapping[str, Queue]:
        """The declared queues by name."""
        return dict(self._queues)

    def task(self, task_id: str) -> TaskHandle:
        """A handle of a task whose id is known."""
        return TaskHandle(self, task_id)

    def queue_len(self, queue: str) -> int:
        """How many tasks are ready in `queue`. Raises Unsupported where the server can't say."""
        ready = self.stats(queue).ready
        if ready is None:
            raise Unsupported("this broker can't say how long a queue is")
        return ready

    def stats(self, queue: str) -> QueueStats:
        """How many tasks of `queue` are ready, scheduled and leased."""
        return self.dispatch.stats(check_queue_name(queue))

    # -- the broker -------------------------------------------------------------------------------

    @property
    def dispatch(self) -> Dispatch:
        """The broker, behind the refusals and repeats that the core adds; opened at first use, not connected."""
        dispatch = self._dispatch
        if dispatch is None:
            with self._lock:
                dispatch = self._dispatch = self._dispatch or self._open()
        return dispatch

    @property
    def capabilities(self) -> Capability:
        """What the broker can do."""
        return self.dispatch.capabilities

    @property
    def keep_for(self) -> float:
        """Seconds for which the record of a finished task stays."""
        if Capability.RECORDS not in self.capabilities:
            return 0.0
        return DEFAULT_TASK_TTL if self._task_ttl is None else self._task_ttl

    @property
    def max_body(self) -> int:
        """Bytes of a stored task: the app's limit, or the broker's if that is lower."""
        most = self.dispatch.limits.max_payload
        return self._max_payload if most is None else min(most, self._max_payload)

    @property
    def broker(self) -> str:
        """The broker's URL without its secrets, or the class of a Broker object. Raises ConfigurationError."""
        chosen = self._chosen()
        return type(chosen).__name__ if isinstance(chosen, Broker) else str(BrokerURL(chosen))

    def use_broker(self, broker: str | Broker) -> None:
        """Use this broker from now on, whatever the environment and the constructor say."""
        self.close()
        self._override = broker

    @contextmanager
    def using(self, broker: str | Broker) -> Iterator[App]:
        """Use another broker inside the `with` block: `with app.using("memory://"): …`. Not for several threads."""
        with self._lock:
            before = self._override, self._dispatch
            self._override, self._dispatch = broker, None
        try:
            yield self
        finally:
            self.close()
            with self._lock:
                self._override, self._dispatch = before

    def close(self) -> None:
        """Close the broker's connections. Idempotent; the next use opens a URL again. A Broker object stays closed."""
        with self._lock:
            dispatch, self._dispatch = self._dispatch, None
        if dispatch is not None:
            dispatch.close()

    def _chosen(self) -> str | Broker:
        """What goes first: `use_broker` or `using`, the environment (before a URL, not an object), the constructor."""
        chosen = self._override or (None if isinstance(self._given, Broker) else settings.broker_url())
        if chosen is None:
            chosen = self._given
        if chosen is None:
            raise ConfigurationError(
                "no broker: give App a URL, as in App('redis://127.0.0.1:6379/0'), or set GOTASKS_BROKER_URL"
            )
        return chosen

    def _open(self) -> Dispatch:
        broker = self._chosen()
        opened = broker if isinstance(broker, Broker) else open_broker(BrokerURL(broker))
        if self._task_ttl and Capability.RECORDS not in opened.capabilities:
            raise Unsupported(
                f"task_ttl needs a broker that keeps records, and {type(opened).__name__} keeps none"
            )
        keep_for = DEFAULT_TASK_TTL if self._task_ttl is None else self._task_ttl
        return Dispatch(opened, self.events, keep_for=keep_for)

    # -- running ----------------------------------------------------------------------------------

    def worker(self, *queues: str, grace: float | None = None) -> Worker:
        """A worker in this process, for these queues (none named: all declared). Start it by `with`, or `.start()`.

        It uses threads and no signal handlers, and may be started from any thread. Leaving the block is a clean
        stop: running handlers finish within `grace` seconds (default 30, or GOTASKS_GRACE), no step follows, and
        what isn't done is given back. Raises ConfigurationError if there is nothing to serve or to run.
        """
        from gotasks.worker.worker import Worker  # the worker is built on the app, not the other way round

        return Worker(self, self.worker_options(queues), grace=settings.grace() if grace is None else grace)

    def run(self, *queues: str, grace: float | None = None) -> None:
        """Work until SIGTERM or SIGINT, then stop cleanly; a second signal exits at once. Main thread only."""
        from gotasks.worker.signals import run_until_signal

        run_until_signal(self.worker(*queues, grace=grace))

    def drain(self, *queues: str, raises: bool = True) -> int:
        """Run all that is due in these queues (none named: all declared), in this thread; for tests.

        Returns how many deliveries were run. Failed tasks end in the fatal queue as they would in a worker; with
        `raises`, TaskFailed is raised for the first one when all are done.
        """
        from gotasks.worker.drain import drain

        return drain(self, self.worker_options(queues), raises=raises)

    def worker_options(self, queues: Iterable[str]) -> dict[str, QueueOptions]:
        """The options of each queue that a worker shall serve. Raises ConfigurationError."""
        names = list(dict.fromkeys(queues)) or list(self._queues)
        if not names:
            raise ConfigurationError("no queue to serve: declare one with app.queue('orders'), or name one")
        return {name: self.queue(name).options.overridden() for name in names}

    @property
    def metrics(self) -> Metrics:
        """The app's Prometheus metrics; what is counted begins at the first use."""
        with self._lock:
            if self._metrics is None:
                from gotasks.metrics import Metrics

                self._metrics = Metrics(self)
            return self._metrics
