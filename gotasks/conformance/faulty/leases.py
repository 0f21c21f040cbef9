"""Faulty: leases that end too early, too late or never, receipts that open what they shouldn't, extends that don't."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Collection, Sequence

import msgspec

from gotasks.broker import Lease, QueueStats, State, Write
from gotasks.conformance.faulty import Faulty, faulty
from gotasks.memory import _Task


@faulty("LSE-01")
class ExpireEarly(Faulty):
    """A lease ends when half of its time is over."""

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        lease = super()._lease(task, now, lease_for)
        task.until = now + lease_for / 2
        self.trip()
        return lease


@faulty("LSE-01", "LSE-09", "LSE-10", "LSE-13")
class NeverExpire(Faulty):
    """A lease never ends."""

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        lease = super()._lease(task, now, lease_for)
        task.until = math.inf
        self.trip()
        return lease


@faulty("LSE-02")
class HeartbeatNoop(Faulty):
    """An extend does nothing."""

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        self.trip()
        return frozenset()


@faulty("LSE-02")
class ExtendSaysLost(Faulty):
    """An extend says that all receipts are lost."""

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        super().extend(leases, lease_for=lease_for)
        self.trip()
        return frozenset(lease.receipt for lease in leases)


@faulty("LSE-02")
class ExtendAddsUp(Faulty):
    """An extend counts from the end of the lease, not from now."""

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        with self._opened():
            for lease in leases:
                task = self._held(lease)
                if task is not None:
                    task.until += lease_for
                    self.trip()
        return frozenset()


@faulty("LSE-02")
class ExtendOnlyLengthens(Faulty):
    """An extend never makes a lease shorter."""

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        longest = max((task.until for lease in leases if (task := self._held(lease))), default=0.0)
        if longest > time.monotonic() + lease_for:
            self.trip()
        return super().extend(leases, lease_for=max(lease_for, longest - time.monotonic()))


@faulty("LSE-03")
class HeartbeatResurrects(Faulty):
    """An extend goes by the id: a former holder's one lengthens or shortens the new holder's lease."""

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        for lease in leases:
            task = self._tasks.get(lease.envelope.id)
            if task is not None and task.state is State.LEASED:
                task.until = time.monotonic() + lease_for
                self.trip()
        return frozenset()


@faulty("LSE-03")
class LateExtendLengthens(Faulty):
    """A former holder's extend is refused, but lengthens the new holder's lease."""

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        lost = super().extend(leases, lease_for=lease_for)
        for lease in leases:
            task = self._tasks.get(lease.envelope.id)
            if lease.receipt in lost and task is not None:
                task.until = max(task.until, time.monotonic() + lease_for)
                self.trip()
        return lost


@faulty("LSE-03")
class ExtendTakesBack(Faulty):
    """An extend by a former holder makes the lease its own again."""

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        lost = super().extend(leases, lease_for=lease_for)
        for lease in leases:
            task = self._tasks.get(lease.envelope.id)
            if lease.receipt in lost and task is not None and task.state is State.LEASED:
                task.receipt = lease.receipt
                self.trip()
        return lost


@faulty("LSE-14")
class DeadlineOfTheWallClock(Faulty):
    """A deadline is a time of day."""

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        self.trip()
        lease = super()._lease(task, now, lease_for)
        return msgspec.structs.replace(lease, deadline=time.time() + 1e9 + lease_for)


@faulty("LSE-14")
class DeadlineIsADuration(Faulty):
    """A deadline is the number of seconds that the lease lasts."""

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        self.trip()
        return msgspec.structs.replace(super()._lease(task, now, lease_for), deadline=lease_for - 1e9)


@faulty("LSE-15")
class LeaseRunsWhileWaiting(Faulty):
    """A lease begins when it is asked for, though its holder is told that it begins when it's given."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        began = time.monotonic()
        leases = super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
        for lease in leases:
            task = self._held(lease)
            if task is not None:
                task.until = began + lease_for
                self.trip()
        return leases


@faulty("LSE-16")
class ReceiptCountsFromOne(Faulty):
    """Receipts are numbered, and each client and each call begins again."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        self._numbers = itertools.count(1)
        self.trip()
        return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        lease = super()._lease(task, now, lease_for)
        task.receipt = f"{task.id}.{next(self._numbers)}"
        return msgspec.structs.replace(lease, receipt=task.receipt)


@faulty("LSE-17")
class ExpiryEndsReceipt(Faulty):
    """A write after the end of the lease is lost, though nobody has taken the task."""

    def _held(self, lease: Lease) -> _Task | None:
        task = super()._held(lease)
        if task is not None and task.until <= time.monotonic():
            self.trip()
            return None
        return task


@faulty("LSE-17")
class LateWritesVanish(Faulty):
    """A write after the end of the lease is accepted, and has no effect."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        late = [
            write for write in writes if (task := self._held(write.lease)) and task.until <= time.monotonic()
        ]
        if late:
            self.trip()
        return super().checkpoint([write for write in writes if write not in late])


@faulty("LSE-18", "ACK-03", "CKP-05")
class TakeoverNeedsAWrite(Faulty):
    """A takeover ends the former receipt only when the new holder writes something."""

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        former = task.receipt if task.state is State.LEASED else None
        lease = super()._lease(task, now, lease_for)
        vars(task)["former"] = former
        return lease

    def _held(self, lease: Lease) -> _Task | None:
        task = self._tasks.get(lease.envelope.id)
        if task is not None and lease.receipt == vars(task).get("former"):
            self.trip()
            return task
        return super()._held(lease)


@faulty("LSE-19")
class OverIsReady(Faulty):
    """A task whose lease is over is counted as ready."""

    def stats(self, queue: str) -> QueueStats:
        seen = super().stats(queue)
        over = sum(task.until <= time.monotonic() for task in self._leased[queue].values())
        if over:
            self.trip()
        return QueueStats(
            ready=(seen.ready or 0) + over, scheduled=seen.scheduled, leased=(seen.leased or 0) - over
        )


@faulty("LSE-19")
class TakeoverCountsTwice(Faulty):
    """A task that was taken over is counted once for each holder."""

    def stats(self, queue: str) -> QueueStats:
        seen = super().stats(queue)
        more = sum(task.deaths for task in self._leased[queue].values())
        if more:
            self.trip()
        return QueueStats(ready=seen.ready, scheduled=seen.scheduled, leased=(seen.leased or 0) + more)
