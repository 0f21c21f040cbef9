"""MemoryBroker: the broker contract, spelled out in plain Python. `memory://`

It lives in one process and is gone with it; for tests, for trying things out, and for reading: what a backend
has to do is what this one does. Parameters of the URL make it a lesser broker, to see how an app does on one:
`?without=RECORDS,BROWSE` takes capabilities away, `?handoff=true` lets a checkpoint end the lease.
"""

from __future__ import annotations

import heapq
import itertools
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from gotasks.broker import (
    Broker,
    BrokerURL,
    Capability,
    Envelope,
    Lease,
    Limits,
    QueueStats,
    Record,
    State,
    Write,
)
from gotasks.errors import BrokerClosed, InvalidURL, Unsupported

if TYPE_CHECKING:
    from typing_extensions import Self

_REMOVABLE = (
    Capability.DELAY
    | Capability.PRIORITY
    | Capability.UNIQUE
    | Capability.RECORDS
    | Capability.BROWSE
    | Capability.CANCEL
    | Capability.ATOMIC_MOVE
)
_ALL = _REMOVABLE | Capability.IDEMPOTENT | Capability.TIMED_LEASE


class _Task:
    """An envelope and what has become of it."""

    def __init__(self, envelope: Envelope) -> None:
        self.id = envelope.id
        self.queue = envelope.queue
        self.body = envelope.body
        self.priority = envelope.priority
        self.unique = envelope.unique
        self.state = State.READY
        self.place = 0  #: order among the ready ones of one priority
        self.until = 0.0  #: due (scheduled), end of the lease (leased), end of the record (done, cancelled)
        self.receipt: str | None = None  #: of its last lease; None when a write has ended that
        self.seq = 0
        self.deaths = 0

    def record(self) -> Record:
        return Record(id=self.id, queue=self.queue, state=self.state, body=self.body)


class MemoryBroker(Broker):
    """Every call takes one lock, so each is atomic as a whole. Thread-safe; a fork's child starts empty."""

    limits = Limits(
        max_payload=None,
        max_batch=1000,
        max_delay=None,
        max_lease=None,
        recovery=0.0,
        fifo=True,
        returned="front",
        durability="none",
        server_crash_duplicates="none",
    )

    def __init__(self, capabilities: Capability = _ALL) -> None:
        self.capabilities = capabilities
        self._closed = False
        self._empty()

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        url.only({"without", "handoff"})
        capabilities = _ALL
        for name in filter(None, url.text("without", "").split(",")):
            if name not in Capability.__members__ or not Capability[name] & _REMOVABLE:
                can = ", ".join(each.name or "" for each in Capability if each & _REMOVABLE)
                raise InvalidURL(f"memory://?without= takes some of {can}, not {name!r}")
            capabilities &= ~Capability[name]
        if url.boolean("handoff", default=False):
            capabilities |= Capability.HANDOFF
        return cls(capabilities)

    def _empty(self) -> None:
        self._changed = threading.Condition()
        self._tasks: dict[str, _Task] = {}
        self._unique: dict[str, str] = {}  # key → id
        # Heaps; they may hold stale entries.
        self._ready: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
        self._scheduled: dict[str, list[tuple[float, int, str]]] = defaultdict(list)
        self._leased: dict[str, dict[str, _Task]] = defaultdict(dict)
        self._interrupts: dict[str, int] = defaultdict(int)
        self._ended: list[tuple[float, str]] = []
        self._back = itertools.count(1)
        self._front = itertools.count(-1, -1)

    def after_fork(self) -> None:
        self._empty()  # the parent has its tasks still: run here as well, they would run twice

    # -- the nine ---------------------------------------------------------------------------------

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.refuse_unclaimed(envelopes)
        with self._opened():
            there: dict[str, str] = {}
            for envelope in envelopes:
                self._forget_old_records()
                known = envelope.id if envelope.id in self._tasks else None
                if known is None and envelope.unique is not None:
                    known = self._unique.get(envelope.unique)
                if known is not None:
                    there[envelope.id] = known
                    continue
                task = self._tasks[envelope.id] = _Task(envelope)
                if task.unique is not None:
                    self._unique[task.unique] = task.id
                self._put(task, envelope.delay, next(self._back))
            return there

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        if ids is not None and Capability.BROWSE not in self.capabilities:
            raise Unsupported("this broker can't acquire by id (BROWSE)")
        end = time.monotonic() + wait
        with self._opened():
            interrupts = self._interrupts[queue]
            while True:
                now = time.monotonic()
                tasks = self._eligible(queue, now) if ids is None else self._named(queue, ids, now)
                leases = [
                    self._lease(task, now, lease_for) for task in itertools.islice(tasks, max(limit, 0))
                ]
                if leases or ids is not None or now >= end or interrupts != self._interrupts[queue]:
                    return leases
                self._changed.wait(min(end, self._next_change(queue)) - now)
                self._check_open()

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        with self._opened():
            lost = set()
            for lease in leases:
                task = self._held(lease)
                if task is None:
                    lost.add(lease.receipt)
                else:
                    task.until = time.monotonic() + lease_for
            self._changed.notify_all()  # who waits for the end of one may have to wait less
            return frozenset(lost)

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        def keep(task: _Task, write: Write) -> None:
            task.body, task.deaths = write.body, 0
            if Capability.HANDOFF in self.capabilities:
                self._end_lease(task)
                self._put(task, 0.0, next(self._back))

        return self._write(writes, keep)

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        def end(task: _Task, write: Write) -> None:
            task.body = write.body
            self._end_lease(task)
            self._end(task, State.DONE, keep_for)

        return self._write(writes, end)

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        self.refuse_unclaimed(writes)

        def put_back(task: _Task, write: Write) -> None:
            task.body, task.deaths = write.body, 0
            self._end_lease(task)
            moved = write.queue is not None and write.queue != task.queue
            task.queue = write.queue or task.queue
            self._put(task, write.delay, next(self._back if moved else self._front))

        return self._write(writes, put_back)

    def stats(self, queue: str) -> QueueStats:
        with self._opened():
            self._make_due_ready(queue, time.monotonic())
            states = [task.state for task in self._tasks.values() if task.queue == queue]
            return QueueStats(
                ready=states.count(State.READY),
                scheduled=states.count(State.SCHEDULED),
                leased=states.count(State.LEASED),
            )

    def purge(self, queue: str) -> int:
        with self._opened():
            waiting = [
                task
                for task in self._tasks.values()
                if task.queue == queue and task.state in (State.READY, State.SCHEDULED)
            ]
            for task in waiting:
                self._end(task, State.CANCELLED, keep_for=0)
            return len(waiting)

    def interrupt(self, queue: str) -> None:
        with self._changed:
            self._interrupts[queue] += 1
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # -- capabilities -----------------------------------------------------------------------------

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        if Capability.BROWSE not in self.capabilities:
            return super().browse(queue, state=state, limit=limit, after=after)
        if state in (State.DONE, State.CANCELLED):
            raise Unsupported("what has ended is in no queue: `get` finds it by its id")
        with self._opened():
            self._make_due_ready(queue, time.monotonic())
            tasks = [task for task in self._tasks.values() if task.queue == queue and task.state is state]
            if state is State.READY:
                tasks.sort(key=lambda task: (-task.priority, task.place))
            else:
                tasks.sort(key=lambda task: (task.until, task.id))
            if after is not None:
                places = [index for index, task in enumerate(tasks) if task.id == after]
                tasks = tasks[places[0] + 1 :] if places else []
            return [task.record() for task in tasks[:limit]]

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        if Capability.RECORDS not in self.capabilities:
            return super().get(ids)
        with self._opened():
            self._forget_old_records()
            for task in [self._tasks[each] for each in ids if each in self._tasks]:
                self._make_due_ready(task.queue, time.monotonic())
            return {each: self._tasks[each].record() for each in ids if each in self._tasks}

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        if Capability.CANCEL not in self.capabilities:
            return super().cancel(ids, keep_for=keep_for)
        with self._opened():
            ended = []
            for task in [self._tasks[each] for each in dict.fromkeys(ids) if each in self._tasks]:
                if task.state not in (State.DONE, State.CANCELLED):
                    self._end_lease(task)
                    self._end(task, State.CANCELLED, keep_for)
                    ended.append(task.id)
            return ended

    # -- how it is done ---------------------------------------------------------------------------

    def _opened(self) -> threading.Condition:
        self._check_open()
        return self._changed

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerClosed("the memory broker is closed")

    def _put(self, task: _Task, delay: float, place: int) -> None:
        """Into its queue: at once, or when the delay is over."""
        task.place = place
        if delay > 0:
            task.state, task.until = State.SCHEDULED, time.monotonic() + delay
            heapq.heappush(self._scheduled[task.queue], (task.until, task.place, task.id))
        else:
            task.state = State.READY
            heapq.heappush(self._ready[task.queue], (-task.priority, task.place, task.id))
        self._changed.notify_all()

    def _make_due_ready(self, queue: str, now: float) -> None:
        scheduled = self._scheduled[queue]
        while scheduled and scheduled[0][0] <= now:
            _, place, task_id = heapq.heappop(scheduled)
            task = self._tasks.get(task_id)
            if task is not None and task.state is State.SCHEDULED and task.place == place:
                self._put(task, 0.0, next(self._back))

    def _eligible(self, queue: str, now: float) -> Iterator[_Task]:
        """What may be leased; within a priority what a lease left behind goes first. Each leaves its queue."""
        self._make_due_ready(queue, now)
        left = [task for task in self._leased[queue].values() if task.until <= now]
        left.sort(key=lambda task: -task.priority)
        left.reverse()  # the first to go is the last one
        ready = self._ready[queue]
        while left or ready:
            if left and (not ready or -left[-1].priority <= ready[0][0]):
                yield left.pop()
                continue
            _, place, task_id = heapq.heappop(ready)
            task_or_none = self._tasks.get(task_id)
            if task_or_none is not None and task_or_none.state is State.READY and task_or_none.place == place:
                yield task_or_none

    def _named(self, queue: str, ids: Collection[str], now: float) -> Iterator[_Task]:
        for task in [self._tasks[each] for each in ids if each in self._tasks]:
            held = task.state is State.LEASED and task.until > now
            if task.queue == queue and not held and task.state not in (State.DONE, State.CANCELLED):
                yield task

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        if task.state is State.LEASED:
            task.deaths += 1  # its last lease ended unsettled
        task.state, task.until = State.LEASED, now + lease_for
        task.receipt, task.seq = secrets.token_hex(16), 0
        self._leased[task.queue][task.id] = task
        envelope = Envelope(
            id=task.id, queue=task.queue, body=task.body, priority=task.priority, unique=task.unique
        )
        return Lease(envelope=envelope, receipt=task.receipt, deaths=task.deaths, deadline=task.until)

    def _held(self, lease: Lease) -> _Task | None:
        """The task, if the receipt still holds: time alone doesn't end it."""
        task = self._tasks.get(lease.envelope.id)
        return task if task is not None and task.receipt == lease.receipt else None

    def _write(self, writes: Sequence[Write], change: Callable[[_Task, Write], None]) -> frozenset[str]:
        with self._opened():
            lost = set()
            for write in writes:
                task = self._held(write.lease)
                if task is None or write.seq < task.seq:
                    lost.add(write.lease.receipt)
                elif write.seq > task.seq:  # an equal one is a repeat: held, and done already
                    task.seq = write.seq
                    change(task, write)
            return frozenset(lost)

    def _end_lease(self, task: _Task) -> None:
        self._leased[task.queue].pop(task.id, None)
        task.receipt = None

    def _end(self, task: _Task, state: State, keep_for: float) -> None:
        if task.unique is not None and self._unique.get(task.unique) == task.id:
            del self._unique[task.unique]
        if keep_for > 0 and Capability.RECORDS in self.capabilities:
            task.state, task.until = state, time.monotonic() + keep_for
            heapq.heappush(self._ended, (task.until, task.id))
        else:
            del self._tasks[task.id]

    def _forget_old_records(self) -> None:
        now = time.monotonic()
        while self._ended and self._ended[0][0] <= now:
            _, task_id = heapq.heappop(self._ended)
            task = self._tasks.get(task_id)
            if task is not None and task.state in (State.DONE, State.CANCELLED) and task.until <= now:
                del self._tasks[task_id]

    def _next_change(self, queue: str) -> float:
        """When, by time alone, something becomes eligible."""
        moments = [task.until for task in self._leased[queue].values()]
        moments += [self._scheduled[queue][0][0]] if self._scheduled[queue] else []
        return min(moments, default=float("inf"))
