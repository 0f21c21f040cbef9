"""Faulty: counts that drift, and purges that take too much, too little, or half of a task."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from gotasks.broker import QueueStats, State, Write
from gotasks.conformance.faulty import Faulty, faulty


@faulty("CNT-01")
class CounterDrift(Faulty):
    """Counts a task that was moved away as ready there, for ever."""

    def _empty(self) -> None:
        super()._empty()
        self.drift: dict[str, int] = {}

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        for write in writes:
            queue = write.lease.envelope.queue
            if write.queue not in (None, queue):
                self.trip()
                self.drift[queue] = self.drift.get(queue, 0) + 1
        return super().release(writes)

    def stats(self, queue: str) -> QueueStats:
        seen = super().stats(queue)
        return msgspec.structs.replace(seen, ready=(seen.ready or 0) + self.drift.get(queue, 0))


@faulty("CNT-01")
class OverIsNotLeased(Faulty):
    """Counts a lease that is over no longer, although nobody has taken it over."""

    def stats(self, queue: str) -> QueueStats:
        over = sum(task.until <= time.monotonic() for task in self._leased[queue].values())
        if over:
            self.trip()
        seen = super().stats(queue)
        return msgspec.structs.replace(seen, leased=(seen.leased or 0) - over)


@faulty("PUR-01")
class GlobPurge(Faulty):
    """Purges every queue whose name begins like this one's."""

    def purge(self, queue: str) -> int:
        for other in {task.queue for task in self._tasks.values()}:
            if other != queue and other.startswith(queue):
                self.trip()
                super().purge(other)
        return super().purge(queue)


@faulty("PUR-01")
class PurgeInflight(Faulty):
    """Purges what somebody holds, too."""

    def purge(self, queue: str) -> int:
        count = super().purge(queue)
        for task in list(self._leased[queue].values()):
            self.trip()
            self._end_lease(task)
            self._end(task, State.CANCELLED, 0)
        return count


@faulty("PUR-01")
class PurgeCountsTheHeld(Faulty):
    """Says that a purge has removed what is held, and doesn't remove it."""

    def purge(self, queue: str) -> int:
        self.trip()
        return len(self._leased[queue]) + super().purge(queue)


@faulty("PUR-01")
class PurgeLeavesOne(Faulty):
    """Purges all but the last one, and counts that."""

    def purge(self, queue: str) -> int:
        ready = [each for each in self._tasks.values() if each.queue == queue and each.state is State.READY]
        for task in ready[-1:]:
            self.trip()
            task.state = State.LEASED  # the purge passes it over
        count = super().purge(queue)
        for task in ready[-1:]:
            task.state = State.READY
        return count + len(ready[-1:])


@faulty("PUR-02")
class PurgeHalf(Faulty):
    """Looks what is ready, and a moment later removes that, whoever has taken it in between."""

    def purge(self, queue: str) -> int:
        with self._changed:
            ready = [
                each for each in self._tasks.values() if each.queue == queue and each.state is State.READY
            ]
        time.sleep(0.0005)
        with self._changed:
            there = [task for task in ready if task.id in self._tasks]
            for task in there:
                if task.state is State.LEASED:
                    self.trip()
                    self._end_lease(task)
                self._end(task, State.CANCELLED, 0)
        return len(there)


@faulty("PUR-02")
class PurgeCountsEarly(Faulty):
    """Counts what is ready, and a moment later removes what is ready then."""

    def purge(self, queue: str) -> int:
        count = super().stats(queue).ready or 0
        time.sleep(0.0005)
        if super().purge(queue) != count:
            self.trip()
        return count
