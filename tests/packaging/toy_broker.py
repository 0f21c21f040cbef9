"""A toy: the whole of what an author writes into the skeleton. Tasks of one process, in order, under one lock."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gotasks.broker import Broker, BrokerURL, Capability, Envelope, Lease, Limits, QueueStats, Write
from gotasks.errors import BrokerClosed, Unsupported

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(eq=False)  # two of one id and body are two
class Task:
    id: str
    queue: str
    body: bytes
    receipt: str = ""
    until: float = 0.0
    deaths: int = 0
    seq: int = 0


class ToyBroker(Broker):
    capabilities = Capability.TIMED_LEASE
    limits = Limits(
        max_payload=None, max_batch=100, max_delay=None, max_lease=None, recovery=0.1, fifo=True, returned="front",
        durability="none", server_crash_duplicates="none",
    )  # fmt: skip

    def __init__(self) -> None:
        self.closed = False
        self.after_fork()

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        url.only(())
        return cls()

    def after_fork(self) -> None:
        self.tasks: list[Task] = []
        self.changed = threading.Condition()

    def opened(self) -> threading.Condition:
        if self.closed:
            raise BrokerClosed("the toy is closed")
        return self.changed

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.refuse_unclaimed(envelopes)
        with self.opened():
            self.tasks += [Task(each.id, each.queue, each.body) for each in envelopes]
            self.changed.notify_all()
        return {}

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        if ids is not None:
            raise Unsupported("the toy can't acquire by id (BROWSE)")
        end = time.monotonic() + wait
        with self.opened():
            while True:
                now = time.monotonic()
                free = [each for each in self.tasks if each.queue == queue and each.until <= now]
                if free or now >= end:
                    return [self.lease(each, now + lease_for) for each in free[: max(limit, 0)]]
                ends = [each.until for each in self.tasks if each.queue == queue]
                self.changed.wait(min([end, *ends]) - now)
                self.opened()

    def lease(self, task: Task, until: float) -> Lease:
        task.deaths += bool(task.receipt)
        task.receipt, task.until, task.seq = secrets.token_hex(8), until, 0
        envelope = Envelope(id=task.id, queue=task.queue, body=task.body)
        return Lease(envelope=envelope, receipt=task.receipt, deaths=task.deaths, deadline=until)

    def each(self, leases: Sequence[Lease], do: Callable[[Task, int], bool]) -> frozenset[str]:
        with self.opened():
            held = {each.receipt: each for each in self.tasks if each.receipt}
            lost = set()
            for place, lease in enumerate(leases):
                task = held.get(lease.receipt)
                if task is None or task.id != lease.envelope.id or not do(task, place):
                    lost.add(lease.receipt)
            self.changed.notify_all()
        return frozenset(lost)

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        def extended(task: Task, _place: int) -> bool:
            task.until = time.monotonic() + lease_for
            return True

        return self.each(leases, extended)

    def write(self, writes: Sequence[Write], change: Callable[[Task, Write], None]) -> frozenset[str]:
        def written(task: Task, place: int) -> bool:
            write = writes[place]
            if write.seq > task.seq:
                task.body, task.deaths, task.seq = write.body, 0, write.seq
                change(task, write)
            return write.seq >= task.seq

        return self.each([each.lease for each in writes], written)

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        return self.write(writes, lambda _task, _write: None)

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        return self.write(writes, lambda task, _write: self.tasks.remove(task))

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        def put_back(task: Task, write: Write) -> None:
            task.receipt, task.until = "", 0.0
            if write.queue not in (None, task.queue):
                self.tasks.remove(task)
                self.tasks.append(task)
                task.queue = write.queue or task.queue

        self.refuse_unclaimed(writes)
        return self.write(writes, put_back)

    def stats(self, queue: str) -> QueueStats:
        with self.opened():
            held = [bool(each.receipt) for each in self.tasks if each.queue == queue]
        return QueueStats(ready=held.count(False), scheduled=0, leased=held.count(True))

    def purge(self, queue: str) -> int:
        with self.opened():
            gone = [each for each in self.tasks if each.queue == queue and not each.receipt]
            self.tasks = [each for each in self.tasks if each not in gone]
        return len(gone)

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()
