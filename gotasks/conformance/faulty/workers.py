"""Faulty: workers that take too much, forget what they hold, don't stop, or never come back from an outage."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar
from unittest.mock import patch

from gotasks.app import App
from gotasks.broker import Envelope, Lease, Write
from gotasks.conformance.faulty import Faulty, FaultyClient, engine_fault, faulty, trip
from gotasks.conformance.kit.wire import Call
from gotasks.dispatch import Backoff
from gotasks.errors import BrokerClosed, BrokerUnavailable
from gotasks.job import Job
from gotasks.logs import _Outage
from gotasks.run import Commit, Run
from gotasks.run_settings import RunSettings
from gotasks.runner import Runner
from gotasks.settings import QueueOptions
from gotasks.settler import Settler
from gotasks.worker.commits import UnfencedCommits
from gotasks.worker.committer import Committer
from gotasks.worker.fetcher import Fetcher
from gotasks.worker.heart import Heart
from gotasks.worker.slots import Slots
from gotasks.worker.worker import Worker

T = TypeVar("T")


@engine_fault("CHN-03", name="NoLimit")
@contextmanager
def _no_limit() -> Iterator[None]:
    """Runs as many handlers at once as there are tasks."""
    real = Slots.__init__

    def init(self: Slots, queue: str, count: int, work: Callable[[Run], None]) -> None:
        trip()
        real(self, queue, 100, work)

    with patch.object(Slots, "__init__", init):
        yield


# -- CHN-05 -------------------------------------------------------------------------------------------


@engine_fault("CHN-05", name="StopGoesOn")
@contextmanager
def _stop_goes_on() -> Iterator[None]:
    """A worker that is told to stop runs all chains to their ends that it has begun or taken."""
    real = Runner.__init__

    def init(self: Runner, *args: Any, **options: Any) -> None:
        trip()
        real(self, *args, **{**options, "stopping": threading.Event()})

    with patch.object(Runner, "__init__", init):
        yield


@contextmanager
def _at_stop(give_back: Callable[[Settler, Run], bool]) -> Iterator[None]:
    """What a stop gives back goes through `give_back` first; only if that says so, it's really given back."""
    real = Settler.give_back

    def gives_back(self: Settler, run: Run, why: str, delay: float = 0.0) -> None:
        trip()
        if give_back(self, run):
            real(self, run, why, delay)

    with patch.object(Settler, "give_back", gives_back):
        yield


@engine_fault("CHN-05", name="StopForgets")
def _stop_forgets() -> AbstractContextManager[None]:
    """A worker that stops leaves what it holds to the end of the leases."""

    def give_back(settler: Settler, run: Run) -> bool:
        settler._forget(run)  # noqa: SLF001 - a fault of its inside
        return False

    return _at_stop(give_back)


@engine_fault("CHN-05", name="StopLosesTheResult")
def _stop_loses_the_result() -> AbstractContextManager[None]:
    """A worker that stops gives tasks back as it got them, whatever their handlers have done since."""

    def give_back(settler: Settler, run: Run) -> bool:
        run.body = run.lease.envelope.body
        return True

    return _at_stop(give_back)


@engine_fault("CHN-05", name="StopBeginsOneMore")
def _stop_begins_one_more() -> AbstractContextManager[None]:
    """A worker that stops begins the next step of a chain, and doesn't wait for it."""

    def give_back(settler: Settler, run: Run) -> bool:
        if run.known.current_handler_index == 1:
            settler._settings.jobs[run.job].steps[1].func({})  # noqa: SLF001 - a fault of its inside
        return True

    return _at_stop(give_back)


@engine_fault("CHN-05", name="StopHangs")
@contextmanager
def _stop_hangs() -> Iterator[None]:
    """A stop waits for something that doesn't come."""
    real = Worker.stop

    def stop(self: Worker) -> bool:
        trip()
        drained = real(self)
        threading.Event().wait(30)
        return drained

    with patch.object(Worker, "stop", stop):
        yield


@faulty("CHN-05")
class ReleaseIsADeath(Faulty):
    """Counts a release as a death."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().release(writes)
        for write in writes:
            self.trip()
            self._tasks[write.lease.envelope.id].deaths = 1
        return lost


# -- CHN-06 -------------------------------------------------------------------------------------------


@engine_fault("CHN-06", name="AckAtTheEnd")
@contextmanager
def _ack_at_the_end() -> Iterator[None]:
    """Acks a task after its last step, whatever `ack_when` says."""

    def ack_first(self: Runner, run: Run) -> bool:
        trip()
        return True

    with patch.object(Runner, "_ack_first", ack_first):
        yield


@engine_fault("CHN-06", name="AckedFailureLost")
@contextmanager
def _acked_failure_lost() -> Iterator[None]:
    """What fails after its ack is nowhere."""

    def enqueue(self: UnfencedCommits, commit: Commit) -> None:
        trip()

    with patch.object(UnfencedCommits, "_enqueue", enqueue):
        yield


# -- CHN-09, CHN-10, CHN-11 ---------------------------------------------------------------------------


@engine_fault("CHN-09", name="LockedWhileRunning")
@contextmanager
def _locked_while_running() -> Iterator[None]:
    """Handlers run under the lock that registering a job needs."""
    lock = threading.Lock()
    run_chain, register = Runner.run_chain, App.register

    def locked_run_chain(self: Runner, run: Run) -> None:
        with lock:
            run_chain(self, run)

    def locked_register(self: App, name: str, *handlers: Callable[..., Any]) -> Job:
        if not lock.acquire(timeout=5):  # it would be for ever
            trip()
            raise RuntimeError("a deadlock")
        lock.release()
        return register(self, name, *handlers)

    with patch.object(Runner, "run_chain", locked_run_chain), patch.object(App, "register", locked_register):
        yield


@engine_fault("CHN-09", name="JobsAsAtStart")
@contextmanager
def _jobs_as_at_start() -> Iterator[None]:
    """A worker knows only the jobs that were registered before it started."""
    real = RunSettings.of

    def of(app: App, options: QueueOptions) -> RunSettings:
        trip()
        settings = real(app, options)
        return RunSettings(**{**vars(settings), "jobs": dict(settings.jobs)})

    with patch.object(RunSettings, "of", of):
        yield


@engine_fault("CHN-10", name="OptionsLost")
@contextmanager
def _options_lost() -> Iterator[None]:
    """A worker makes queues of its own, with the options that queues have by default."""

    def worker_options(self: App, queues: Collection[str]) -> dict[str, QueueOptions]:
        trip()
        return {name: QueueOptions(monitor_interval=0.05) for name in queues or self.queues}

    with patch.object(App, "worker_options", worker_options):
        yield


@engine_fault("CHN-10", name="MeasuredSeldom")
@contextmanager
def _measured_seldom() -> Iterator[None]:
    """A worker measures its queues as often as it likes."""
    real = App.worker_options

    def worker_options(self: App, queues: Collection[str]) -> dict[str, QueueOptions]:
        trip()
        options = real(self, queues)
        return {
            name: QueueOptions(**{**vars(each), "monitor_interval": 5.0}) for name, each in options.items()
        }

    with patch.object(App, "worker_options", worker_options):
        yield


@faulty("CHN-11")
class WaitsForATask(Faulty):
    """An `acquire` ends when there is a task, and not before."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        if wait == 0 or ids is not None:
            return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
        self.trip()
        while not (leases := super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for)):
            pass
        return leases


# -- DLV-08 -------------------------------------------------------------------------------------------


@engine_fault("DLV-08", name="FirstQueueOnly")
@contextmanager
def _first_queue_only() -> Iterator[None]:
    """A worker takes from its second queue when there is nothing in the first."""
    real = Fetcher._acquire  # noqa: SLF001 - a fault of its inside
    first: list[str] = []

    def acquire(self: Fetcher, limit: int) -> list[Lease]:
        first.append(self._queue)
        broker = self._dispatch.broker
        if self._queue != first[0] and broker.stats(first[0]).ready:
            trip()
            self.stopping.wait(0.02)
            return []
        return real(self, limit)

    with patch.object(Fetcher, "_acquire", acquire):
        yield


@faulty("DLV-08")
class BusiestQueueFirst(Faulty):
    """Hands out nothing of a queue while another one holds more."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        with self._changed:
            queues = [task.queue for task in self._tasks.values()]
        if any(queues.count(each) > queues.count(queue) for each in set(queues)):
            self.trip()
            self._changed_soon(wait)
            return []
        return super().acquire(queue, limit=limit, wait=min(wait, 0.05), lease_for=lease_for, ids=ids)

    @staticmethod
    def _changed_soon(wait: float) -> None:
        threading.Event().wait(min(wait, 0.02))


# -- THR-02 -------------------------------------------------------------------------------------------


@engine_fault("THR-02", name="HeartbeatInHandlerThread")
@contextmanager
def _heartbeat_in_handler_thread() -> Iterator[None]:
    """A lease is extended by the thread that runs the handler, so only between two steps."""

    def fades(run: Run, pulse: object, now: float) -> bool:
        trip()
        return False

    with patch.object(Heart, "_fades", staticmethod(fades)):
        yield


@faulty("THR-02")
class ShowsWhatIsHeld(Faulty):
    """Hands out what is held, under the same receipt, to whoever doesn't wait."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        leases = super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
        if wait or leases:
            return leases
        held = list(self._leased[queue].values())[:limit]
        for _ in held:
            self.trip()
        return [
            Lease(
                envelope=Envelope(id=task.id, queue=queue, body=task.body),
                receipt=task.receipt or "",
                deaths=task.deaths,
                deadline=task.until,
            )
            for task in held
        ]


# -- SRV-03 -------------------------------------------------------------------------------------------


@faulty("SRV-03")
class NeverConnectsAgain(FaultyClient):
    """Once its connection was lost it never makes another."""

    _stuck = False

    def _ask(self, call: Call, kind: Callable[..., T]) -> T:
        if self._stuck:
            self.trip()
            raise BrokerUnavailable("the connection was lost")
        try:
            return super()._ask(call, kind)
        except BrokerUnavailable:
            self._stuck = True
            raise


@engine_fault("SRV-03", name="FetcherGivesUp")
@contextmanager
def _fetcher_gives_up() -> Iterator[None]:
    """A worker takes no more tasks once the server was away."""
    real = Fetcher._acquire  # noqa: SLF001 - a fault of its inside

    def acquire(self: Fetcher, limit: int) -> list[Lease]:
        try:
            return real(self, limit)
        except BrokerUnavailable:
            trip()
            raise BrokerClosed from None

    with patch.object(Fetcher, "_acquire", acquire):
        yield


@engine_fault("SRV-03", name="CommitterGivesUp")
@contextmanager
def _committer_gives_up() -> Iterator[None]:
    """What a worker couldn't write at once it takes for lost."""
    real = Committer._call  # noqa: SLF001 - a fault of its inside

    def call(self: Committer, commits: Sequence[Commit]) -> frozenset[str]:
        try:
            return real(self, commits)
        except BrokerUnavailable:
            trip()
            return frozenset(commit.write.lease.receipt for commit in commits)

    with patch.object(Committer, "_call", call):
        yield


@engine_fault("SRV-03", name="NoBackoff")
@contextmanager
def _no_backoff() -> Iterator[None]:
    """A worker asks a server that is away as fast as it can."""

    def delay(self: Backoff) -> float:
        trip()
        return 0.005

    with patch.object(Backoff, "delay", delay):
        yield


@engine_fault("SRV-03", name="LogsEachAttempt")
@contextmanager
def _logs_each_attempt() -> Iterator[None]:
    """The log says of each attempt that the server is away."""

    def mention(self: _Outage, what: str) -> bool:
        trip()
        return True

    with patch.object(_Outage, "mention", mention):
        yield
