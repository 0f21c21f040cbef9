"""FilesystemBroker: the broker contract of gotasks on a `Store`. `filesystem:///var/spool/shop`"""

from __future__ import annotations

import heapq
import itertools
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

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
from gotasks.errors import InvalidURL, Unsupported
from gotasks_filesystem.entry import ENDED, Entry, Task, envelope, importance, record
from gotasks_filesystem.store import Store

if TYPE_CHECKING:
    from typing_extensions import Self

#: How long a waiting `acquire` leaves the directory alone, at first and at the most. Seconds.
_SHORT, _LONG = 0.002, 0.05

#: The clock of a file system moves in steps; a lease must not end before its holder thinks. Seconds.
_TICK = 0.01


class FilesystemBroker(Broker):
    """Tasks as files of one directory, for all processes of a machine. Thread-safe.

    `?sync=true`: a change is on the disk before it's confirmed; without it a power cut may take the last ones.
    """

    capabilities = (
        Capability.DELAY
        | Capability.PRIORITY
        | Capability.IDEMPOTENT
        | Capability.UNIQUE
        | Capability.RECORDS
        | Capability.BROWSE
        | Capability.CANCEL
        | Capability.ATOMIC_MOVE
        | Capability.TIMED_LEASE
        | Capability.SHARED
    )
    limits = Limits(
        max_payload=None,
        max_batch=500,
        max_delay=None,
        max_lease=None,
        recovery=_LONG,
        fifo=True,
        returned="front",
        durability="kill",
        server_crash_duplicates="none",
    )

    def __init__(self, root: Path, *, sync: bool = False) -> None:
        self._store = Store(root, sync=sync)
        self._refused: tuple[str, ...] = ()
        self._begin()

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        url.only({"sync"})
        if url.hosts or url.user or url.password or len(url.path) < 2:
            raise InvalidURL("filesystem:// takes the path of a directory: filesystem:///var/spool/shop")
        return cls(Path(url.path), sync=url.boolean("sync", default=False))

    def _begin(self) -> None:
        self._session = secrets.token_hex(8)
        self._calls = itertools.count()
        self._woken = threading.Condition()
        self._interrupts = 0

    def after_fork(self) -> None:
        self._refused += (self._session,)  # those leases are the parent's
        self._begin()
        self._store.forked()

    # -- the nine ---------------------------------------------------------------------------------

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        there: dict[str, str] = {}
        with self._opened() as now:
            for each in envelopes:
                known = each.id if self._known(each.id, now) is not None else None
                if known is None and each.unique is not None:
                    known = self._store.owner(each.unique)
                if known is not None:
                    there[each.id] = known
                    continue
                entry = Entry(id=each.id, queue=each.queue, priority=each.priority, unique=each.unique)
                self._put(entry, each.body, now + each.delay, now, before=None)
        return there

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        end, since, pause = time.monotonic() + wait, self._interrupts, _SHORT
        leases: list[Lease] = []
        while True:
            asked = time.monotonic()
            with self._opened() as now:
                tasks = self._eligible(queue, now) if ids is None else self._named(queue, ids, now)
                try:
                    for entry, body in itertools.islice(tasks, max(limit, 0)):
                        leases.append(self._lease(entry, body, now + lease_for + _TICK, asked + lease_for))
                except OSError:
                    if not leases:
                        raise  # else the disk is full by now, and what was leased before has to be returned
            if leases or ids is not None:
                return leases
            while (
                True
            ):  # without the lock: who waits must not keep others waiting, least of all when it is stopped
                left = end - time.monotonic()
                if left <= 0 or since != self._interrupts:
                    return leases
                with self._woken:
                    self._woken.wait_for(lambda: since != self._interrupts, min(pause, left))
                pause = min(pause * 2, _LONG)
                if self._store.closed or self._store.offers(queue):
                    break

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        lost = set()
        with self._opened() as now:
            for lease in leases:
                found = self._held(lease)
                if found is None:
                    lost.add(lease.receipt)
                else:
                    extended = replace(found[0], until=now + lease_for + _TICK)
                    self._store.write(extended, found[1], before=found[0])
        return frozenset(lost)

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        def keep(entry: Entry, write: Write, _now: float) -> None:
            self._store.write(replace(entry, seq=write.seq, deaths=0), write.body, before=entry)

        return self._write(writes, keep)

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        def end(entry: Entry, write: Write, now: float) -> None:
            self._end(entry, write.body, State.DONE, keep_for, now)

        return self._write(writes, end)

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        def put_back(entry: Entry, write: Write, now: float) -> None:
            free = replace(entry, queue=write.queue or entry.queue, receipt="", deaths=0, seq=0)
            self._put(free, write.body, now + write.delay, now, before=entry, front=free.queue == entry.queue)

        return self._write(writes, put_back)

    def stats(self, queue: str) -> QueueStats:
        with self._opened() as now:
            self._make_due_ready(queue, now)
            states = (State.LEASED, State.SCHEDULED, State.READY)
            found = (self._store.queue(queue, each, bodies=False) for each in states)
            leased, scheduled, ready = (sum(1 for _ in tasks) for tasks in found)
            return QueueStats(ready=ready, scheduled=scheduled, leased=leased)

    def purge(self, queue: str) -> int:
        with self._opened():
            states = (State.SCHEDULED, State.READY)
            waiting = [entry for each in states for entry, _ in self._store.queue(queue, each, bodies=False)]
            for entry in waiting:
                self._store.remove(entry)
            return len(waiting)

    def interrupt(self, queue: str) -> None:
        with self._woken:
            self._interrupts += 1  # of all queues: a hint may come to more than it is meant for
            self._woken.notify_all()

    def close(self) -> None:
        self._store.close()
        self.interrupt("")  # whoever waits finds it closed

    # -- capabilities -----------------------------------------------------------------------------

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        if state in ENDED:
            raise Unsupported("what has ended is found by its id only")
        with self._opened() as now:
            self._make_due_ready(queue, now)
            found = list(map(record, self._store.queue(queue, state)))
        if after is not None:
            found = list(itertools.dropwhile(lambda each: each.id != after, found))[1:]
        return found[:limit]

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        with self._opened() as now:
            found = {each: self._known(each, now) for each in ids}
            return {each: record(task) for each, task in found.items() if task is not None}

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        ended = []
        with self._opened() as now:
            for each in ids:
                found = self._known(each, now)
                if found is not None and found[0].state not in ENDED:
                    self._end(*found, State.CANCELLED, keep_for, now)
                    ended.append(each)
        return ended

    # -- how it is done ---------------------------------------------------------------------------

    @contextmanager
    def _opened(self) -> Iterator[float]:
        """Nobody else changes anything within the block; gives the time. Raises BrokerClosed."""
        with self._store.locked():
            now = self._store.now()
            self._store.forget(now)
            yield now

    def _known(self, task_id: str, now: float) -> Task | None:
        """The task, as it is at this moment: due ones are ready, and a record whose time is over is gone."""
        found = self._store.read(task_id)
        if found is None or found[0].until > now:
            return found
        entry, body = found
        if entry.state in ENDED:
            self._store.remove(entry)
            return None
        if entry.state is State.SCHEDULED:
            return self._put(entry, body, now, now, before=entry), body
        return found

    def _put(
        self, entry: Entry, body: bytes, due: float, now: float, *, before: Entry | None, front: bool = False
    ) -> Entry:
        """Into its queue: at once, or when it's due."""
        state, until = (State.SCHEDULED, due) if due > now else (State.READY, 0.0)
        entry = replace(entry, state=state, until=until, place=self._store.place(front=front))
        self._store.write(entry, body, before=before)
        return entry

    def _make_due_ready(self, queue: str, now: float) -> None:
        for entry, body in self._store.queue(queue, State.SCHEDULED):
            if entry.until > now:
                return
            self._put(entry, body, now, now, before=entry)

    def _eligible(self, queue: str, now: float) -> Iterator[Task]:
        """What may be leased: of each priority, first what a lease left behind."""
        self._make_due_ready(queue, now)
        held = self._store.queue(queue, State.LEASED)
        left = sorted(itertools.takewhile(lambda task: task[0].until <= now, held), key=importance)
        return heapq.merge(left, self._store.queue(queue, State.READY), key=importance)

    def _named(self, queue: str, ids: Collection[str], now: float) -> Iterator[Task]:
        for entry, body in filter(None, map(self._store.read, ids)):
            held = entry.state is State.LEASED and entry.until > now
            if entry.queue == queue and not held and entry.state not in ENDED:
                yield entry, body

    def _lease(self, entry: Entry, body: bytes, until: float, deadline: float) -> Lease:
        deaths = entry.deaths + (entry.state is State.LEASED)  # its last lease ended unsettled
        receipt = f"{self._session}-{next(self._calls)}"
        leased = replace(entry, state=State.LEASED, until=until, receipt=receipt, seq=0, deaths=deaths)
        self._store.write(leased, body, before=entry)
        return Lease(envelope=envelope((entry, body)), receipt=receipt, deaths=deaths, deadline=deadline)

    def _held(self, lease: Lease) -> Task | None:
        """The task, if the receipt still holds: time alone doesn't end it."""
        found = self._store.read(lease.envelope.id)
        forged = not lease.receipt or lease.receipt.startswith(self._refused)
        return None if found is None or forged or found[0].receipt != lease.receipt else found

    def _write(
        self, writes: Sequence[Write], change: Callable[[Entry, Write, float], None]
    ) -> frozenset[str]:
        lost = set()
        with self._opened() as now:
            for write in writes:
                found = self._held(write.lease)
                if found is None or write.seq < found[0].seq:
                    lost.add(write.lease.receipt)
                elif write.seq > found[0].seq:  # an equal one is a repeat: held, and done already
                    change(found[0], write, now)
        return frozenset(lost)

    def _end(self, entry: Entry, body: bytes, state: State, keep_for: float, now: float) -> None:
        if keep_for > 0:
            ended = replace(entry, state=state, until=now + keep_for, receipt="")
            self._store.write(ended, body, before=entry)
        else:
            self._store.remove(entry)
