"""Faulty: priorities that are ignored, coarse, or lost on the way."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import msgspec

from gotasks import queue as engine_queue
from gotasks.broker import Lease, Write
from gotasks.conformance.faulty import Faulty, engine_fault, faulty, trip
from gotasks.handle import TaskHandle
from gotasks.memory import _Task


@faulty("PRI-01")
class OverClaimPriority(Faulty):
    """Claims PRIORITY and gives what came first."""

    def _put(self, task: _Task, delay: float, place: int) -> None:
        if task.priority:
            self.trip()
        known, task.priority = task.priority, 0
        super()._put(task, delay, place)
        task.priority = known


@faulty("PRI-01")
class ThreeLevels(Faulty):
    """Has three levels only: low, normal, high."""

    def _put(self, task: _Task, delay: float, place: int) -> None:
        if task.priority % 4:
            self.trip()
        known, task.priority = task.priority, task.priority // 4
        super()._put(task, delay, place)
        task.priority = known


@faulty("PRI-01")
class LifoWithin(Faulty):
    """Within one priority the last to come is the first to go."""

    def _put(self, task: _Task, delay: float, place: int) -> None:
        self.trip()
        super()._put(task, delay, -place)


@faulty("PRI-01")
class PriorityUntold(Faulty):
    """A lease doesn't say what priority its envelope has."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        leases = super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
        self.trip()
        plain = [msgspec.structs.replace(each.envelope, priority=0) for each in leases]
        return [
            msgspec.structs.replace(lease, envelope=envelope)
            for lease, envelope in zip(leases, plain, strict=True)
        ]


@faulty("PRI-02")
class PriorityLostOnRequeue(Faulty):
    """What is put back has no priority any more."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        for each in writes:
            self.trip()
            self._tasks[each.lease.envelope.id].priority = 0
        return super().release(writes)


@faulty("PRI-02")
class AbandonedFirst(Faulty):
    """What a dead holder leaves goes before everything, low as it may be."""

    def _eligible(self, queue: str, now: float) -> Iterator[_Task]:
        for task in self._leased[queue].values():
            if task.until <= now:
                self.trip()
                task.priority = 9
        return super()._eligible(queue, now)


@engine_fault("PRI-03")
@contextmanager
def refused_when_stored() -> Iterator[None]:
    """A priority is looked at when the task is stored already."""
    known = engine_queue.Queue.enqueue

    def changed(self: engine_queue.Queue, *args: Any, **options: Any) -> TaskHandle:
        trip()
        known(self, *args, **{**options, "priority": 0})
        return known(self, *args, **options)

    with mock.patch.object(engine_queue.Queue, "enqueue", changed):
        yield


@engine_fault("PRI-03")
@contextmanager
def priority_wraps() -> Iterator[None]:
    """Any priority is taken, and brought into the range."""
    known = engine_queue.Queue.enqueue

    def changed(self: engine_queue.Queue, *args: Any, priority: Any = 0, **options: Any) -> TaskHandle:
        trip()
        return known(self, *args, priority=hash(priority) % 10, **options)

    with mock.patch.object(engine_queue.Queue, "enqueue", changed):
        yield
