"""Faulty: leases that some other call ends, shortens or forgets, and calls that stop at what is lost."""

from __future__ import annotations

import heapq
import time
from collections.abc import Collection, Iterator, Sequence

import msgspec

from gotasks.broker import Lease, Record, State, Write
from gotasks.conformance.faulty import Faulty, faulty
from gotasks.memory import MemoryBroker, _Task


@faulty("LPS-01")
class ExtendBatchStopsAtLost(Faulty):
    """An extend of several leases stops at the first one that is lost."""

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        for lease in leases:
            lost = super().extend([lease], lease_for=lease_for)
            if lost:
                self.trip()
                return lost
        return frozenset()


@faulty("LPS-01")
class ExtendBatchAllLost(Faulty):
    """An extend of several leases, one of which is lost, extends the others, and says that all are lost."""

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        lost = super().extend(leases, lease_for=lease_for)
        if not lost:
            return lost
        self.trip()
        return frozenset(lease.receipt for lease in leases)


@faulty("LPS-01")
class ExtendBatchFirstOnly(Faulty):
    """An extend of several leases extends the first one."""

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        if len(leases) > 1:
            self.trip()
        return super().extend(leases[:1], lease_for=lease_for)


@faulty("LPS-02")
class SweepEndsReceipts(Faulty):
    """An acquire puts all tasks whose lease is over back, also those that it doesn't take: their receipts end."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        with self._opened():
            for task in list(self._leased[queue].values()):
                if task.until <= time.monotonic():
                    self._end_lease(task)
                    task.deaths += 1
                    self._put(task, 0.0, next(self._front))
                    self.trip()
        return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)


@faulty("LPS-02")
class SweepCountsDeaths(Faulty):
    """Each acquire counts a death for each task whose lease is over, also for those that it doesn't take."""

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        for other in self._leased[task.queue].values():
            if other is not task and other.until <= now:
                other.deaths += 1
                self.trip()
        return super()._lease(task, now, lease_for)


@faulty("LPS-03")
class CheckpointUndoesExtend(Faulty):
    """A checkpoint sets the end of the lease back to what acquire gave."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().checkpoint(writes)
        for write in writes:
            task = self._held(write.lease)
            if task is not None:
                self.trip()
                task.until = write.lease.deadline
        return lost


@faulty("LPS-03")
class CheckpointShortens(Faulty):
    """After a checkpoint a lease lasts a second at the most."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().checkpoint(writes)
        for write in writes:
            task = self._held(write.lease)
            if task is not None:
                self.trip()
                task.until = min(task.until, time.monotonic() + 1)
        return lost


@faulty("LPS-04")
class ExtendResetsSeq(Faulty):
    """After an extend a write counts that was overtaken before."""

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        lost = super().extend(leases, lease_for=lease_for)
        for lease in leases:
            task = self._held(lease)
            if task is not None and task.seq:
                self.trip()
                task.seq = 0
        return lost


class _EndsLease(Faulty):
    def _end_if_overtaken(self, writes: Sequence[Write]) -> None:
        for write in writes:
            task = self._held(write.lease)
            if task is not None and write.seq < task.seq:
                self.trip()
                task.until = 0.0


@faulty("LPS-04")
class LostInStaleSeqOnAckDrops(_EndsLease):
    """An ack that was overtaken is lost, but ends the lease."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        self._end_if_overtaken(writes)
        return super().ack(writes, keep_for=keep_for)


@faulty("LPS-04")
class StaleReleaseEndsLease(_EndsLease):
    """A release that was overtaken is lost, but ends the lease."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        self._end_if_overtaken(writes)
        return super().release(writes)


@faulty("LPS-05")
class PurgeDropsLeaseIndex(Faulty):
    """A purge forgets which tasks are held: they can be acked, but never come back."""

    def purge(self, queue: str) -> int:
        count = super().purge(queue)
        if self._leased[queue]:
            self.trip()
        self._leased[queue].clear()
        return count


@faulty("LPS-06")
class ByIdLeavesSchedule(Faulty):
    """A task that is taken by its id stays in the schedule: when it is due it is ready, though held."""

    def _make_due_ready(self, queue: str, now: float) -> None:
        scheduled = self._scheduled[queue]
        while scheduled and scheduled[0][0] <= now:
            _, place, task_id = heapq.heappop(scheduled)
            task = self._tasks.get(task_id)
            if task is None or task.place != place or task.state not in (State.SCHEDULED, State.LEASED):
                continue
            if task.state is State.LEASED:
                self.trip()
                self._end_lease(task)
            self._put(task, 0.0, next(self._back))


@faulty("LPS-07")
class TakesForeignLeaseQueue(Faulty):
    """An acquire with ids takes tasks whose lease is over from any queue."""

    def _named(self, queue: str, ids: Collection[str], now: float) -> Iterator[_Task]:
        for task in [self._tasks[each] for each in ids if each in self._tasks]:
            if task.state is State.LEASED and task.until <= now and task.queue != queue:
                self.trip()
                yield task
        yield from super()._named(queue, ids, now)


@faulty("LPS-08")
class BrowseHidesOver(Faulty):
    """Browse leaves out leases that are over."""

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        records = super().browse(queue, state=state, limit=limit, after=after)
        if state is not State.LEASED:
            return records
        now = time.monotonic()
        held = [each for each in records if self._tasks[each.id].until > now]
        if len(held) < len(records):
            self.trip()
        return held


@faulty("LPS-08")
class BrowseShowsOverOnly(Faulty):
    """Browse shows of what is leased only leases that are over."""

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        records = super().browse(queue, state=state, limit=limit, after=after)
        if state is not State.LEASED:
            return records
        self.trip()
        return [each for each in records if self._tasks[each.id].until <= time.monotonic()]


@faulty("LPS-09")
class LeasesEndBeforeTheLimit(Faulty):
    """A lease can be extended to two seconds in all, but ends after one."""

    limits = msgspec.structs.replace(MemoryBroker.limits, max_lease=2.0)

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        lost = super().extend(leases, lease_for=lease_for)
        for lease in leases:
            task = self._held(lease)
            if task is not None and task.until > lease.deadline:  # it was acquired for one second
                self.trip()
                task.until = lease.deadline
        return lost


@faulty("DTH-06")
class DeathsSaturate(Faulty):
    """No more than three deaths are counted."""

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        lease = super()._lease(task, now, lease_for)
        if task.deaths > 3:
            self.trip()
            task.deaths = 3
        return msgspec.structs.replace(lease, deaths=task.deaths)
