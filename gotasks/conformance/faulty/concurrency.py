"""Faulty: brokers that go wrong only when two calls are at work at the same time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gotasks.broker import Lease, QueueStats, State, Write
from gotasks.conformance.faulty import faulty
from gotasks.conformance.faulty.delivery import Acquiring


class Crowded(Acquiring):
    """For faults that need two calls at once."""

    inside = 0

    @contextmanager
    def crowd(self) -> Iterator[bool]:
        """Stay for a moment; gives whether another call was there at that time."""
        with self._changed:
            self.inside += 1
        time.sleep(0.0005)
        try:
            yield self.inside > 1
        finally:
            with self._changed:
                self.inside -= 1


@faulty("CON-01", "CON-04")
class RacyPop(Acquiring):
    """Looks what is ready, and a moment later takes that, whoever has taken it in between."""

    def acquiring(self, queue: str, limit: int, wait: float, lease_for: float) -> list[Lease]:
        with self._changed:
            ready = [each for _, _, each in sorted(self._ready[queue]) if self._is(each, State.READY)][:limit]
        if not ready:
            return super().acquiring(queue, limit, wait, lease_for)
        time.sleep(0.001)
        leases = []
        with self._changed:
            for task in [self._tasks[each] for each in ready if each in self._tasks]:
                if task.state is State.LEASED:
                    self.trip()
                leases.append(self._lease(task, time.monotonic(), lease_for))
        return leases

    def _is(self, task_id: str, state: State) -> bool:
        return task_id in self._tasks and self._tasks[task_id].state is state


@faulty("CON-01")
class LosesUnderLoad(Crowded):
    """Forgets one of the tasks that it has leased, if another acquire is at work."""

    def acquiring(self, queue: str, limit: int, wait: float, lease_for: float) -> list[Lease]:
        with self.crowd() as crowded:
            leases = super().acquiring(queue, limit, 0.0, lease_for)
        if crowded and len(leases) > 1:
            self.trip()
            self.lose(leases.pop())
        return leases or super().acquiring(queue, limit, wait, lease_for)


@faulty("CON-01")
class AckLostUnderLoad(Crowded):
    """Says of an ack that it was lost, if another one is at work."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        with self.crowd() as crowded:
            lost = super().ack(writes, keep_for=keep_for)
        if crowded:
            self.trip()
            return frozenset(each.lease.receipt for each in writes)
        return lost


@faulty("CON-02")
class HiddenLease(Acquiring):
    """Leases one more than it was asked for, and keeps that to itself."""

    def acquiring(self, queue: str, limit: int, wait: float, lease_for: float) -> list[Lease]:
        leases = super().acquiring(queue, limit + 1, wait, lease_for)
        if len(leases) > limit:
            self.trip()
        return leases[:limit]


@faulty("CON-03")
class LeakDeadlock(Crowded):
    """Lets the caller see that two calls stood in each other's way."""

    def stats(self, queue: str) -> QueueStats:
        with self.crowd() as crowded:
            if crowded:
                self.trip()
                raise RuntimeError("deadlock detected")
            return super().stats(queue)


@faulty("CON-03")
class ReleaseLoses(Crowded):
    """A release beside another one takes the task out, and doesn't put it back."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        with self.crowd() as crowded:
            if not crowded or not writes:
                return super().release(writes)
            self.trip()
            return self.ack(writes, keep_for=0)
