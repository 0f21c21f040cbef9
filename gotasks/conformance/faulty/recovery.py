"""Faulty: recovery that gives a task to two, to nobody, or only under the right circumstances."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator

from gotasks.broker import Envelope, Lease, QueueStats, State, Write
from gotasks.conformance.faulty import Faulty, FaultyClient, faulty
from gotasks.memory import _Task


class Sweeper(Faulty):
    """One that can acquire without a look at the leases that are over."""

    def without_recovery(self, queue: str, limit: int, lease_for: float) -> list[Lease]:
        with self._changed:
            leased = self._leased[queue]
            self._leased[queue] = {}
            try:
                return super().acquire(queue, limit=limit, wait=0, lease_for=lease_for)
            finally:
                self._leased[queue] |= leased
                if any(task.until <= time.monotonic() for task in leased.values()):
                    self.trip()


@faulty("LSE-04")
class DoubleReclaim(Faulty):
    """Looks for leases that are over first, and takes them over a moment later, without a second look."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        with self._changed:
            over = [task for task in self._leased[queue].values() if task.until <= time.monotonic()][:limit]
        time.sleep(0.001)
        with self._changed:
            if any(task.until > time.monotonic() for task in over):
                self.trip()
            if over:
                return [self._lease(task, time.monotonic(), lease_for) for task in over]
        return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)


@faulty("LSE-05")
class FirstPageOnly(Faulty):
    """Looks at the first hundred leases only, whether they are over or not."""

    def _eligible(self, queue: str, now: float) -> Iterator[_Task]:
        leased = self._leased[queue]
        if len(leased) > 100:
            self.trip()
        page = dict(list(leased.items())[:100])
        for task in super()._eligible(queue, now):
            if task.state is not State.LEASED or task.id in page:
                yield task


@faulty("LSE-06")
class ImmortalSweepLock(FaultyClient):
    """Takes a lock to acquire, and the lock of a client that died in between is there for ever."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        end = time.monotonic() + wait
        while self.enqueue([Envelope(id="lock", queue="lock", body=b"")]):
            if time.monotonic() > end:
                self.trip()
                return []
            time.sleep(0.001)
        leases = super().acquire(queue, limit=limit, wait=0, lease_for=lease_for, ids=ids)
        time.sleep(0.05)
        self.purge("lock")
        return leases


@faulty("LSE-07")
class OrphanBlind(Faulty):
    """Stops at an id whose record is gone, so whatever is behind it is offered to nobody."""

    def _eligible(self, queue: str, now: float) -> Iterator[_Task]:
        if any(task_id not in self._tasks for _, _, task_id in self._ready[queue][:1]):
            self.trip()
            return
        for task in super()._eligible(queue, now):
            yield task
            if any(task_id not in self._tasks for _, _, task_id in self._ready[queue][:1]):
                return


@faulty("LSE-07")
class OrphanTakesOthersAlong(Faulty):
    """Drops an id whose record is gone, and with it what stands behind it."""

    def _eligible(self, queue: str, now: float) -> Iterator[_Task]:
        ids = [task_id for _, _, task_id in sorted(self._ready[queue])]
        gone = [place for place, task_id in enumerate(ids) if task_id not in self._tasks]
        for task_id in ids[gone[0] :] if gone else ():
            self._tasks.pop(task_id, None)
            self.trip()
        yield from super()._eligible(queue, now)


@faulty("LSE-07")
class OrphanRaises(Faulty):
    """Raises at an id whose record is gone."""

    def _eligible(self, queue: str, now: float) -> Iterator[_Task]:
        for _, _, task_id in self._ready[queue]:
            if task_id not in self._tasks:
                self.trip()
                raise KeyError(task_id)
        yield from super()._eligible(queue, now)


@faulty("LSE-07")
class OrphanIsCounted(Faulty):
    """Counts for ever what it can't give to anybody any more."""

    _orphans = 0

    def evict(self, task_id: str) -> None:
        super().evict(task_id)
        self._orphans += 1
        self.trip()

    def stats(self, queue: str) -> QueueStats:
        seen = super().stats(queue)
        return QueueStats(
            ready=(seen.ready or 0) + self._orphans, scheduled=seen.scheduled, leased=seen.leased
        )


@faulty("LSE-08")
class SweepFresh(Faulty):
    """Takes a task first, and writes down the end of its lease a moment later."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        leases = super().acquire(queue, limit=limit, wait=wait, lease_for=0, ids=ids)
        time.sleep(0.001)
        with self._changed:
            for lease in leases:
                task = self._tasks[lease.envelope.id]
                if task.receipt != lease.receipt:
                    self.trip()
                task.until = time.monotonic() + lease_for
        return leases


@faulty("LSE-09")
class NameIsIdentity(FaultyClient):
    """Takes what it has held once for its own, and doesn't offer it to itself again."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        leases = super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
        mine = vars(self).setdefault("mine", set())
        fresh = [lease for lease in leases if lease.envelope.id not in mine]
        if len(fresh) < len(leases):
            self.trip()
        mine.update(lease.envelope.id for lease in fresh)
        return fresh


@faulty("LSE-09", "LSE-16")
class ReceiptIsTheTask(Faulty):
    """A task has one receipt for all its leases."""

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        lease = super()._lease(task, now, lease_for)
        task.receipt = f"of-{task.id}"
        self.trip()
        return Lease(
            envelope=lease.envelope, receipt=task.receipt, deaths=lease.deaths, deadline=lease.deadline
        )


@faulty("LSE-10")
class PruneLosesJobs(FaultyClient):
    """What a client holds when it is closed is forgotten with it."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        leases = super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
        vars(self).setdefault("held", []).extend(leases)
        return leases

    def close(self) -> None:
        held = vars(self).pop("held", [])
        if held:
            self.trip()
            self.settle([Write(lease=lease, body=lease.envelope.body, seq=1) for lease in held])
        super().close()

    def settle(self, writes: list[Write]) -> None:
        self.ack(writes, keep_for=0)


@faulty("LSE-10")
class CloseReleases(PruneLosesJobs):
    """What a client holds when it is closed is put back as if it had been released."""

    def settle(self, writes: list[Write]) -> None:
        self.release(writes)


@faulty("LSE-12")
class TwoClockSweep(Faulty):
    """Reads the clock to see which leases are over, and again to remove those that are."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        first = time.monotonic()
        time.sleep(0.001)
        with self._changed:
            second = time.monotonic()
            for task in list(self._leased[queue].values()):
                if first < task.until <= second:
                    self._end_lease(task)
                    del self._tasks[task.id]
                    self.trip()
        return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)


@faulty("LSE-13")
class SweepAtBootOnly(Sweeper):
    """Looks for leases that are over when it is used for the first time, and never again."""

    _booted = False

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        if self._booted and ids is None:
            return self.without_recovery(queue, limit, lease_for)
        self._booted = True
        return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)


@faulty("LSE-13")
class OnlyWaitersSweep(Sweeper):
    """Looks for leases that are over only while an acquire waits."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        if wait <= 0 and ids is None:
            return self.without_recovery(queue, limit, lease_for)
        return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
