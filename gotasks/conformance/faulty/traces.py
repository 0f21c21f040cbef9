"""Faulty: what is over has effects still."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

from gotasks.broker import Capability, Envelope, Lease, State, Write
from gotasks.conformance.faulty import Faulty, faulty
from gotasks.memory import _ALL, _Task


@faulty("DTH-07")
class DeathsOutliveTask(Faulty):
    """Deaths are counted by the id, and stay when the task has ended: a new one of the same id has them too."""

    def __init__(self, capabilities: Capability = _ALL) -> None:
        super().__init__(capabilities)
        self._deaths: dict[str, int] = {}

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        there = super().enqueue(envelopes)
        for each in envelopes:
            if each.id not in there and each.id in self._deaths:
                self.trip()
                self._tasks[each.id].deaths = self._deaths[each.id]
        return there

    def _end(self, task: _Task, state: State, keep_for: float) -> None:
        if task.deaths:
            self._deaths[task.id] = task.deaths
        super()._end(task, state, keep_for)


@faulty("DTH-08")
class DelayedMoveKeepsDeaths(Faulty):
    """A move into another queue with a delay leaves the deaths as they are."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().release(writes)
        for write in writes:
            if write.delay > 0 and write.queue is not None and write.lease.receipt not in lost:
                self.trip()
                self._tasks[write.lease.envelope.id].deaths = write.lease.deaths
        return lost


@faulty("DLV-17")
class StickyInterrupt(Faulty):
    """After an interrupt no acquire of that queue waits any more."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        if self._interrupts[queue]:
            self.trip()
            wait = 0.0
        return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)


@faulty("DLV-18")
class LimitZeroIsOne(Faulty):
    """A limit of 0 is taken for one that wasn't given."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        if limit == 0:
            self.trip()
        return super().acquire(queue, limit=limit or 1, wait=wait, lease_for=lease_for, ids=ids)


@faulty("DLV-18")
class LimitZeroTakes(Faulty):
    """With a limit of 0 nothing is given, but a task is leased before that is seen."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        leases = super().acquire(queue, limit=limit or 1, wait=wait, lease_for=lease_for, ids=ids)
        if limit == 0:
            self.trip()
        return leases[:limit]


@faulty("REC-05")
class RepeatAckRenewsRecord(Faulty):
    """A repeated ack is lost, but the record is kept for another `keep_for` from then on."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        lost = super().ack(writes, keep_for=keep_for)
        for write in writes:
            task = self._tasks.get(write.lease.envelope.id)
            if write.lease.receipt in lost and task is not None and task.state is State.DONE:
                self.trip()
                self._end(task, State.DONE, keep_for)
        return lost


@faulty("REC-05")
class RepeatAckBringsBack(Faulty):
    """An ack that is lost writes the record of its task anew, if there is none."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        lost = super().ack(writes, keep_for=keep_for)
        for write in writes:
            known = write.lease.envelope.id in self._tasks and self.get([write.lease.envelope.id])
            if write.lease.receipt in lost and not known and keep_for > 0:
                self.trip()
                task = self._tasks[write.lease.envelope.id] = _Task(write.lease.envelope)
                task.body, task.until = write.body, time.monotonic() + keep_for
                self._end(task, State.DONE, keep_for)
        return lost
