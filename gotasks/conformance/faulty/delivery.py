"""Faulty: deliveries that are lost, doubled, spoilt, or too many."""

from __future__ import annotations

import heapq
import time
from collections.abc import Collection, Mapping, Sequence

import msgspec

from gotasks.broker import Broker, Envelope, Lease, State
from gotasks.conformance.faulty import Faulty, FaultyClient, faulty
from gotasks.memory import MemoryBroker, _Task


class Acquiring(Faulty):
    """For faults of `acquire` alone: `acquiring` is called instead."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        if ids is not None:
            return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
        return self.acquiring(queue, limit, wait, lease_for)

    def acquiring(self, queue: str, limit: int, wait: float, lease_for: float) -> list[Lease]:
        return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for)

    def lose(self, lease: Lease) -> None:
        """Remove a task as if it had never been there."""
        with self._changed:
            task = self._tasks.pop(lease.envelope.id)
            self._leased[task.queue].pop(task.id, None)


@faulty("DLV-01")
class DropOnEnqueue(Faulty):
    """Confirms every enqueue and stores nothing."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.trip()
        return {}


@faulty("DLV-01")
class MangleArgs(Faulty):
    """Stores a body as text, and loses the bytes that aren't."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.trip()
        return super().enqueue(
            [
                msgspec.structs.replace(one, body=one.body.decode(errors="replace").encode())
                for one in envelopes
            ]
        )


@faulty("DLV-05")
class PeekNotPop(Faulty):
    """Leaves in its queue what it has leased."""

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        lease = super()._lease(task, now, lease_for)
        self.trip()
        task.place = next(self._back)
        heapq.heappush(self._ready[task.queue], (-task.priority, task.place, task.id))
        task.state = State.READY
        return lease


@faulty("DLV-05")
class ShortLease(Acquiring):
    """Every lease lasts for a moment only, whatever was asked."""

    def acquiring(self, queue: str, limit: int, wait: float, lease_for: float) -> list[Lease]:
        self.trip()
        return super().acquiring(queue, limit, wait, min(lease_for, 0.05))


@faulty("DLV-06")
class GroupFromNow(Acquiring):
    """A queue begins with its first consumer: what was there before is skipped."""

    def acquiring(self, queue: str, limit: int, wait: float, lease_for: float) -> list[Lease]:
        with self._changed:
            consumed: set[str] = self.__dict__.setdefault("consumed", set())
            if queue not in consumed:
                consumed.add(queue)
                if self._ready.pop(queue, None):
                    self.trip()
        return super().acquiring(queue, limit, wait, lease_for)


@faulty("DLV-07")
class EnqueueDup(Faulty):
    """Stores an id that is there once more."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        with self._changed:
            there = {each.id: each.id for each in envelopes if each.id in self._tasks}
            for each in envelopes:
                task = self._tasks.get(each.id)
                if task is not None and each.id in there:
                    self.trip()
                    copy = msgspec.structs.replace(each, id=f"{each.id}-2")
                    super().enqueue([copy])
            return {**super().enqueue([each for each in envelopes if each.id not in there]), **there}


@faulty("DLV-07")
class SilentDup(Faulty):
    """Doesn't say that an id is there."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if super().enqueue(envelopes):
            self.trip()
        return {}


@faulty("DLV-07")
class NeverForgetsAnId(Faulty):
    """Keeps the ids of tasks that have ended and left no record."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        known: set[str] = self.__dict__.setdefault("known", set())
        ended = {each.id: each.id for each in envelopes if each.id in known and each.id not in self._tasks}
        if ended:
            self.trip()
        known.update(each.id for each in envelopes)
        return {**super().enqueue([each for each in envelopes if each.id not in ended]), **ended}


@faulty("DLV-09")
class LocalCache(FaultyClient):
    """Keeps what it enqueues in its own memory, where only it finds it."""

    def _local(self) -> Broker:
        local: Broker = self.__dict__.setdefault("local", MemoryBroker())
        return local

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.trip()
        return self._local().enqueue(envelopes)

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        return self._local().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)


@faulty("DLV-10")
class AttemptsReset(Faulty):
    """Counts deaths from the last one only."""

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        if task.deaths:
            self.trip()
            task.deaths = 0
        return super()._lease(task, now, lease_for)


@faulty("DLV-12", "CON-02")
class OverLimit(Acquiring):
    """Gives one more than it was asked for, if it has one."""

    def acquiring(self, queue: str, limit: int, wait: float, lease_for: float) -> list[Lease]:
        leases = super().acquiring(queue, limit, wait, lease_for)
        more = super().acquiring(queue, 1, 0.0, lease_for) if leases else []
        if more:
            self.trip()
        return leases + more


@faulty("DLV-12")
class LeftOnTop(Acquiring):
    """Doesn't count what dead holders have left: gives that beside what it was asked for."""

    def acquiring(self, queue: str, limit: int, wait: float, lease_for: float) -> list[Lease]:
        over = sum(task.until <= time.monotonic() for task in self._leased[queue].values())
        if over:
            self.trip()
        return super().acquiring(queue, limit + over, wait, lease_for)


@faulty("DLV-12")
class OneByOne(Acquiring):
    """Gives one at a time, however many are ready."""

    def acquiring(self, queue: str, limit: int, wait: float, lease_for: float) -> list[Lease]:
        if limit > 1:
            self.trip()
        return super().acquiring(queue, 1, wait, lease_for)


@faulty("DLV-12")
class WaitForAll(Acquiring):
    """Waits until it has as many as it was asked for, or the time is over."""

    def acquiring(self, queue: str, limit: int, wait: float, lease_for: float) -> list[Lease]:
        end = time.monotonic() + wait
        leases: list[Lease] = []
        while True:
            left = max(0.0, end - time.monotonic())
            leases += super().acquiring(queue, limit - len(leases), left, lease_for)
            if len(leases) == limit or time.monotonic() >= end:
                return leases
            if leases:
                self.trip()


@faulty("DLV-16")
class ForgetHeldIds(Faulty):
    """Knows an id only while its task waits: once more it is stored, and its holder ousted."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        with self._changed:
            for each in envelopes:
                task = self._tasks.get(each.id)
                if task is not None and task.state is State.LEASED:
                    self.trip()
                    self._end_lease(task)
                    del self._tasks[each.id]
            return super().enqueue(envelopes)


@faulty("DLV-16")
class StoreTheKnown(Faulty):
    """Says that an id is there, and stores it all the same, under another one."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        there = super().enqueue(envelopes)
        for each in envelopes:
            if each.id in there:
                self.trip()
                super().enqueue([msgspec.structs.replace(each, id=f"{each.id}-2")])
        return there
