"""Faulty: delays and priorities of one for all of a call, and tasks that are due where, or when, nobody gets them."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

import msgspec

from gotasks.broker import Envelope, State, Write
from gotasks.conformance.faulty import Faulty, faulty
from gotasks.memory import _Task


@faulty("DLY-07")
class EnqueueBatchDelayOfFirst(Faulty):
    """The delay of the first envelope is that of the whole call."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if any(each.delay != envelopes[0].delay for each in envelopes):
            self.trip()
        return super().enqueue(
            [msgspec.structs.replace(each, delay=envelopes[0].delay) for each in envelopes]
        )


@faulty("DLY-07")
class EnqueueBatchShortestDelay(Faulty):
    """A call is stored as a whole, and is due as a whole, when the first of it is."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        shortest = min((each.delay for each in envelopes), default=0.0)
        if any(each.delay > shortest for each in envelopes):
            self.trip()
        return super().enqueue([msgspec.structs.replace(each, delay=shortest) for each in envelopes])


@faulty("DLY-08")
class BatchDelayOfFirst(Faulty):
    """The delay of the first write is that of the whole release."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        if any(each.delay != writes[0].delay for each in writes):
            self.trip()
        return super().release([msgspec.structs.replace(each, delay=writes[0].delay) for each in writes])


@faulty("DLY-08")
class MoveEndsAtRelease(Faulty):
    """A release is sorted by queue before it is sent, and its delays go to others than they were meant for."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        delays = sorted(each.delay for each in writes)
        if delays != [each.delay for each in writes]:
            self.trip()
        return super().release(
            [msgspec.structs.replace(each, delay=delay) for each, delay in zip(writes, delays, strict=True)]
        )


@faulty("DLY-08")
class MoveForgetsDelay(Faulty):
    """A move is at once, whatever its delay."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        if any(each.queue is not None and each.delay for each in writes):
            self.trip()
        return super().release(
            [msgspec.structs.replace(each, delay=0.0) if each.queue else each for each in writes]
        )


@faulty("DLY-08")
class MoveDelayComesBackHome(Faulty):
    """A task that is moved with a delay becomes ready in the queue where it was."""

    def _empty(self) -> None:
        super()._empty()
        self.homes: dict[str, str] = {}

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        for each in writes:
            if each.queue is not None and each.delay:
                self.homes[each.lease.envelope.id] = each.lease.envelope.queue
        return super().release(writes)

    def _make_due_ready(self, queue: str, now: float) -> None:
        scheduled = self._scheduled[queue]
        while scheduled and scheduled[0][0] <= now:
            _, place, task_id = heapq.heappop(scheduled)
            task = self._tasks.get(task_id)
            if task is not None and task.state is State.SCHEDULED and task.place == place:
                home = self.homes.get(task_id, task.queue)
                if home != task.queue:
                    self.trip()
                task.queue = home
                self._put(task, 0.0, next(self._back))


@faulty("DLY-09")
class DelayedReleaseWakesNobody(Faulty):
    """Who waits already isn't told of a release with a delay, and sleeps until the time that was known before."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        notify = self._changed.notify_all
        if any(each.delay for each in writes):
            self.trip()
            self._changed.notify_all = lambda: None  # type: ignore[method-assign]
        try:
            return super().release(writes)
        finally:
            self._changed.notify_all = notify  # type: ignore[method-assign]


@faulty("DLY-10")
class DelayClipped(Faulty):
    """Delays are 15 minutes at the most, and longer ones are cut to that."""

    def _put(self, task: _Task, delay: float, place: int) -> None:
        if delay > 900.0:
            self.trip()
        super()._put(task, min(delay, 900.0), place)


@faulty("DLY-10")
class ReleaseDelayClipped(Faulty):
    """The delay of a release is kept in 32 bits of milliseconds: longer ones are cut to 50 days."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        most = 2.0**32 / 1000
        if any(each.delay > most for each in writes):
            self.trip()
        return super().release(
            [msgspec.structs.replace(each, delay=min(each.delay, most)) for each in writes]
        )


@faulty("PRI-04")
class EnqueueBatchPriorityOfFirst(Faulty):
    """The priority of the first envelope is that of the whole call."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if any(each.priority != envelopes[0].priority for each in envelopes):
            self.trip()
        return super().enqueue(
            [msgspec.structs.replace(each, priority=envelopes[0].priority) for each in envelopes]
        )


@faulty("PRI-05")
class DueHasNoPriority(Faulty):
    """What was delayed has no priority when it is due."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if any(each.delay > 0 and each.priority for each in envelopes):
            self.trip()
        return super().enqueue(
            [msgspec.structs.replace(each, priority=0) if each.delay > 0 else each for each in envelopes]
        )
