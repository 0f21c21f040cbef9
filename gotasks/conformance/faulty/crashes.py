"""Faulty: what a broker, or the engine, loses or doubles when a worker process is killed, stopped or frozen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import msgspec

from gotasks import codec
from gotasks.broker import BrokerURL, Envelope, Lease, State, Write
from gotasks.conformance.faulty import Faulty, FaultyClient, engine_fault, faulty, trip
from gotasks.events import TaskReleased
from gotasks.job import Job, Step
from gotasks.memory import _Task
from gotasks.run import Answer, Commit, Run
from gotasks.runner import Runner
from gotasks.settler import Settler
from gotasks.worker.commits import GroupedCommits
from gotasks.worker.worker import Worker


@faulty("CRS-01", "CRS-02")
class AckOnAcquire(Faulty):
    """A task is done as soon as it is handed out."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        leases = super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
        self.ack([Write(lease=lease, body=lease.envelope.body, seq=1) for lease in leases], keep_for=60)
        if leases:
            self.trip()
        return leases

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        return frozenset()

    def _write(self, writes: Sequence[Write], change: Any) -> frozenset[str]:
        super()._write(writes, change)
        return frozenset()


@faulty("CRS-01", "CRS-02")
class PopsOnAcquire(Faulty):
    """A task leaves its queue with its worker: only that one's writes bring it back."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        leases = super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
        with self._changed:
            for lease in leases:
                self.trip()
                del self._leased[queue][lease.envelope.id]
                self._tasks[lease.envelope.id].queue = "nowhere"
        return leases

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        return frozenset()

    def _held(self, lease: Lease) -> _Task | None:
        task = super()._held(lease)
        if task is not None:
            task.queue = lease.envelope.queue
        return task


@faulty("CRS-01")
class ExpiryLeavesACopy(Faulty):
    """When a lease is over, the task is offered again, and stays offered."""

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        if task.state is State.LEASED:
            self.trip()
            copy = self._tasks[f"{task.id}-copy"] = _Task(
                Envelope(id=f"{task.id}-copy", queue=task.queue, body=task.body)
            )
            self._put(copy, 0.0, next(self._back))
        return super()._lease(task, now, lease_for)


@faulty("CRS-03", "CRS-06", "NRE-04")
class UpdateInMemory(FaultyClient):
    """Checkpoints stay in the client, and reach the server with the last write."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        self.trip()
        return frozenset()


@faulty("CRS-04")
class AckInMemory(FaultyClient):
    """An ack is answered at once, and sent with the next acquire."""

    def __init__(self, url: BrokerURL) -> None:
        super().__init__(url)
        self._acks: list[Write] = []

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        acks, self._acks = self._acks, []
        super().ack(acks, keep_for=60)
        return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        self.trip()
        self._acks += writes
        return frozenset()


@faulty("CRS-05")
class MoveInTwoCalls(FaultyClient):
    """A move takes the task away here, and brings it there with the next acquire."""

    def __init__(self, url: BrokerURL) -> None:
        super().__init__(url)
        self._moved: list[Envelope] = []

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        moved, self._moved = self._moved, []
        self.enqueue(moved)
        return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        lost: frozenset[str] = frozenset()
        for write in writes:
            if write.queue is None:
                lost |= super().release([write])
                continue
            self.trip()
            gone = self.ack([write], keep_for=0)
            lost |= gone
            if not gone:
                self._moved.append(Envelope(id=write.lease.envelope.id, queue=write.queue, body=write.body))
        return lost


@faulty("CRS-07")
class ReleaseCountsADeath(Faulty):
    """What is given back counts as a death."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().release(writes)
        with self._changed:
            for write in writes:
                task = self._tasks.get(write.lease.envelope.id)
                if write.lease.receipt not in lost and task is not None:
                    self.trip()
                    task.deaths = 1
        return lost


@faulty("CRS-08", "NRE-02")
class WelcomesZombies(Faulty):
    """Any receipt that a task ever had is good for a write."""

    def _held(self, lease: Lease) -> _Task | None:
        task = self._tasks.get(lease.envelope.id)
        if task is None or task.state in (State.DONE, State.CANCELLED):
            return None
        if task.receipt != lease.receipt:
            self.trip()
        return task


@faulty("CRS-09", "NRE-01")
class ForgetsDeaths(Faulty):
    """Every lease says that nobody died with its task."""

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        lease = super()._lease(task, now, lease_for)
        if lease.deaths:
            self.trip()
        return msgspec.structs.replace(lease, deaths=0)


@faulty("CRS-11")
class ReleaseKeepsTheOldBody(Faulty):
    """Puts a task back as it was when it was handed out."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        self.trip()
        return super().release(
            [msgspec.structs.replace(write, body=write.lease.envelope.body) for write in writes]
        )


@engine_fault("CRS-03", "CRS-04", name="IndexPersistedAsI")
def _index_persisted_as_i() -> AbstractContextManager[None]:
    """A checkpoint has the new args and the old index."""
    checkpoint = GroupedCommits.checkpoint

    def wrong(self: GroupedCommits, commit: Commit) -> Answer:
        trip()
        task = codec.decode(commit.write.body)
        index = task.current_handler_index - 1
        body = codec.encode(msgspec.structs.replace(task, current_handler_index=index))
        commit.write = msgspec.structs.replace(commit.write, body=body)
        return checkpoint(self, commit)

    return patched(GroupedCommits, "checkpoint", wrong)


@engine_fault("CRS-07", name="DropPrefetchOnStop")
def _drop_prefetch_on_stop() -> AbstractContextManager[None]:
    """What a worker hasn't begun when it stops, it forgets."""
    return _at_stop(lambda settler, run: settler._forget(run))  # noqa: SLF001


@engine_fault("CRS-11", name="StopRewinds")
def _stop_rewinds() -> AbstractContextManager[None]:
    """A worker that stops gives its tasks back as it got them."""

    def rewind(settler: Settler, run: Run) -> None:
        fact = TaskReleased(run.id, run.queue, run.job, "stop", 0.0)
        settler._release(run, run.lease.envelope.body, fact)  # noqa: SLF001

    return _at_stop(rewind)


def _at_stop(instead: Callable[[Settler, Run], None]) -> AbstractContextManager[None]:
    give_back = Settler.give_back

    def wrong(self: Settler, run: Run, why: str, delay: float = 0.0) -> None:
        if why != "stop":
            give_back(self, run, why, delay)
            return
        trip()
        instead(self, run)

    return patched(Settler, "give_back", wrong)


@engine_fault("CRS-11", name="StopRunsOn")
def _stop_runs_on() -> AbstractContextManager[None]:
    """A worker that stops runs its chains to their ends first."""
    may_start, advance = Runner._may_start, Runner._advance  # noqa: SLF001

    def deaf(self: Runner) -> None:
        if self._stopping.is_set():
            trip()
            self._stopping = threading.Event()

    def start(self: Runner, run: Run) -> bool:
        deaf(self)
        return may_start(self, run)

    def go_on(self: Runner, run: Run, job: Job, step: Step, args: msgspec.Raw) -> bool:
        deaf(self)
        return advance(self, run, job, step, args)

    @contextmanager
    def both() -> Iterator[None]:
        with patched(Runner, "_may_start", start), patched(Runner, "_advance", go_on):
            yield

    return both()


@engine_fault("CRS-10", name="HalfStopLoses")
def _half_stop_loses() -> AbstractContextManager[None]:
    """A worker that is told to stop acks what still runs."""
    stop = Worker.stop

    def wrong(self: Worker) -> bool:
        broker = self._dispatch.broker
        for pulse in self._heart._pulses.values():  # noqa: SLF001
            for run in list(pulse.runs.values()):
                trip()
                broker.ack([Write(lease=run.lease, body=run.lease.envelope.body, seq=1000)], keep_for=0)
        return stop(self)

    return patched(Worker, "stop", wrong)


@engine_fault("CRS-09", name="PoisonLoop")
def _poison_loop() -> AbstractContextManager[None]:
    """However many workers a task has killed, the next one runs it."""
    admit = Runner._admit  # noqa: SLF001

    def wrong(self: Runner, run: Run) -> Job | None:
        if run.lease.deaths > 1:
            trip()
            self._settings = replace(self._settings, max_crashes=1000)
        return admit(self, run)

    return patched(Runner, "_admit", wrong)


@engine_fault("CRS-09", name="PoisonSpreads")
def _poison_spreads() -> AbstractContextManager[None]:
    """Whatever was running when its worker died is taken for poison."""
    admit = Runner._admit  # noqa: SLF001

    def wrong(self: Runner, run: Run) -> Job | None:
        if run.lease.deaths:
            trip()
            self._settings = replace(self._settings, max_crashes=1)
        return admit(self, run)

    return patched(Runner, "_admit", wrong)


@contextmanager
def patched(owner: type, name: str, instead: Callable[..., Any]) -> Iterator[None]:
    """`owner.name` is `instead`, inside the block."""
    with patch.object(owner, name, instead):
        yield
