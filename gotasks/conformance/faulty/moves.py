"""Faulty: moves that take two steps, end at the wrong place, or don't move."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

import msgspec

from gotasks.broker import Record, Write
from gotasks.conformance.faulty import Faulty, faulty


@faulty("MOV-01")
class MoveLeavesCopy(Faulty):
    """A move leaves the task where it was, with its old body, for the next one who asks."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().release(writes)
        for each in writes:
            if each.queue is not None and each.lease.receipt not in lost:
                self.trip()
                copy = msgspec.structs.replace(each.lease.envelope, id=f"copy-{each.lease.envelope.id}")
                self.enqueue([copy])
        return lost


@faulty("MOV-01")
class MoveToFront(Faulty):
    """A moved task goes before what waits in its new queue."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        if any(each.queue is not None for each in writes):
            self.trip()
        back, self._back = self._back, self._front
        try:
            return super().release(writes)
        finally:
            self._back = back


@faulty("MOV-01")
class OneTarget(Faulty):
    """All of one call go where the first one goes."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        if len({each.queue for each in writes}) > 1:
            self.trip()
        return super().release([msgspec.structs.replace(each, queue=writes[0].queue) for each in writes])


@faulty("MOV-01")
class MoveKeepsBody(Faulty):
    """A move forgets the new body."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        self.trip()
        return super().release(
            [
                msgspec.structs.replace(each, body=each.lease.envelope.body) if each.queue else each
                for each in writes
            ]
        )


@faulty("MOV-02")
class OverClaimAtomicMove(Faulty):
    """Claims ATOMIC_MOVE, takes the task away here, and stores it there a moment later."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        taken = {
            each.lease.envelope.id: self._tasks.pop(each.lease.envelope.id) for each in writes if each.queue
        }
        if taken:
            self.trip()
        time.sleep(0.002)
        self._tasks.update(taken)
        return super().release(writes)


@faulty("MOV-02")
class MoveByWay(Faulty):
    """A task on its way is in a queue of the broker's own."""

    def _empty(self) -> None:
        super()._empty()
        self.moving: set[str] = set()

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        self.moving = {each.lease.envelope.id for each in writes if each.queue}
        time.sleep(0.002)
        try:
            return super().release(writes)
        finally:
            self.moving = set()

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        moving = self.moving.intersection(ids)
        if moving:
            self.trip()
        found = super().get(ids)
        return {
            key: msgspec.structs.replace(each, queue="moving") if key in moving else each
            for key, each in found.items()
        }
