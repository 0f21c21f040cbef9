"""Faulty: delays that are ignored, cut short, drawn out, doubled, or that hold up others."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

import msgspec

from gotasks.broker import Envelope, Lease, State, Write
from gotasks.conformance.faulty import Faulty, faulty
from gotasks.errors import Rejected


@faulty("DLY-01")
class OverClaimDelay(Faulty):
    """Claims DELAY and has every task ready at once."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if any(each.delay > 0 for each in envelopes):
            self.trip()
        return super().enqueue([msgspec.structs.replace(each, delay=0.0) for each in envelopes])


@faulty("DLY-01")
class DelayEarly(Faulty):
    """Tasks are due a tenth before their time."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if any(each.delay > 0 for each in envelopes):
            self.trip()
        return super().enqueue([msgspec.structs.replace(each, delay=each.delay * 0.9) for each in envelopes])


@faulty("DLY-01")
class DelayPolled(Faulty):
    """Who waits for a task learns only every three seconds that one is due."""

    def _next_change(self, queue: str) -> float:
        self.trip()
        return time.monotonic() + 3.0

    def _put(self, *args: object) -> None:
        notify, self._changed.notify_all = self._changed.notify_all, lambda: None  # type: ignore[method-assign]
        try:
            super()._put(*args)  # type: ignore[arg-type]
        finally:
            self._changed.notify_all = notify  # type: ignore[method-assign]


@faulty("DLY-01")
class DelayGivesOther(Faulty):
    """A task that was delayed comes under an id of its own."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if any(each.delay > 0 for each in envelopes):
            self.trip()
        return super().enqueue(
            [
                msgspec.structs.replace(each, id=f"{each.id}-later"[-64:]) if each.delay > 0 else each
                for each in envelopes
            ]
        )


@faulty("ACK-05")
class ReleaseIgnoresDelay(Faulty):
    """A release puts back at once, whatever its delay."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        self.trip()
        return super().release([msgspec.structs.replace(each, delay=0.0) for each in writes])


@faulty("ACK-05")
class DelayKeepsBody(Faulty):
    """A release with a delay forgets the new body."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        self.trip()
        return super().release(
            [msgspec.structs.replace(each, body=each.lease.envelope.body) for each in writes]
        )


@faulty("ACK-05")
class DelayedTwice(Faulty):
    """What was released with a delay is held for nobody: the next `acquire` gets it as well."""

    def _empty(self) -> None:
        super()._empty()
        self.delayed: set[str] = set()

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        self.delayed.update(each.lease.envelope.id for each in writes if each.delay)
        return super().release(writes)

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        leases = super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
        for each in leases:
            if each.envelope.id in self.delayed:
                self.trip()
                self._tasks[each.envelope.id].until = 0.0
        return leases


@faulty("DLY-02")
class HeadOfLineDelay(Faulty):
    """Delayed tasks wait in the order in which they came: a long delay holds up all behind it."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        latest = [
            task.until - time.monotonic() for task in self._tasks.values() if task.state is State.SCHEDULED
        ]
        if latest and any(each.delay > 0 for each in envelopes):
            self.trip()
        return super().enqueue(
            [
                msgspec.structs.replace(each, delay=max([each.delay, *latest])) if each.delay > 0 else each
                for each in envelopes
            ]
        )


@faulty("DLY-03")
class DelayInsideLease(Faulty):
    """A delayed task is held until it is due, by a lease that counts as one."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        for task in self._tasks.values():
            if task.queue == queue and task.state is State.SCHEDULED:
                self.trip()
                task.state = State.LEASED
                self._leased[queue][task.id] = task
        return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)


@faulty("DLY-03")
class DelayEndsWithLease(Faulty):
    """A delay lasts no longer than the leases that are taken meanwhile."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        with self._changed:
            for task in [*self._tasks.values()]:
                end = time.monotonic() + lease_for
                if task.queue == queue and task.state is State.SCHEDULED and task.until > end:
                    self.trip()
                    self._put(task, lease_for, next(self._back))
        return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)


@faulty("DLY-05")
class DoubleMover(Faulty):
    """Looks for what is due, and then moves it, though another mover may have done so and somebody holds it."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        until = time.monotonic() + wait
        with self._changed:
            due = [
                each for each in self._tasks.values() if each.state is State.SCHEDULED and each.until <= until
            ]
            if wait and not self._ready[queue]:
                self._changed.wait(min(until, self._next_change(queue)) - time.monotonic())
            for task in due:
                if task.state is State.LEASED:
                    self.trip()
                    self._end_lease(task)
                    self._put(task, 0.0, next(self._back))
        return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)


@faulty("DLY-05")
class DueLost(Faulty):
    """Of what becomes due in one moment, a page is moved, and the rest is gone."""

    def _make_due_ready(self, queue: str, now: float) -> None:
        due = [each for each in self._scheduled[queue] if each[0] <= now]
        super()._make_due_ready(queue, now)
        for _, _, task_id in due[20:]:
            self.trip()
            self._tasks.pop(task_id, None)


class Limited(Faulty):
    """A broker that delays for an hour at the most. Nothing is wrong with it."""

    limits = msgspec.structs.replace(Faulty.limits, max_delay=3600.0)

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.check({each.id: each.delay for each in envelopes})
        return super().enqueue(envelopes)

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        self.check({each.lease.envelope.id: each.delay for each in writes})
        return super().release(writes)

    def check(self, delays: Mapping[str, float]) -> None:
        """Raise Rejected."""
        late = [each for each, delay in delays.items() if delay > 3600.0]
        if late:
            raise Rejected("more than an hour", ids=late)


@faulty("DLY-06")
class DelayOverflow(Limited):
    """Delays are kept in 16 bits of seconds: the longest that it declares is at once."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.check({each.id: each.delay for each in envelopes})
        if any(each.delay >= 3600.0 for each in envelopes):
            self.trip()
        short = [
            msgspec.structs.replace(each, delay=each.delay % 3600.0) if each.delay > 0 else each
            for each in envelopes
        ]
        return super().enqueue(short)


@faulty("DLY-06")
class NegativeWaits(Limited):
    """The sign of a delay is lost."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if any(each.delay < 0 for each in envelopes):
            self.trip()
        return super().enqueue(
            [
                msgspec.structs.replace(each, delay=min(-each.delay, 3600.0)) if each.delay < 0 else each
                for each in envelopes
            ]
        )


@faulty("DLY-06")
class LongDelayDropped(Limited):
    """A release with too long a delay isn't carried out, and nobody is told."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        if any(each.delay > 3600.0 for each in writes):
            self.trip()
        return super().release([each for each in writes if each.delay <= 3600.0])


@faulty("DLY-06")
class RejectedButReleased(Limited):
    """A release with too long a delay is Rejected, and has ended the lease."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        if any(each.delay > 3600.0 for each in writes):
            self.trip()
            super().release([msgspec.structs.replace(each, delay=0.0) for each in writes])
        return super().release(writes)
