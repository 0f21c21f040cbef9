"""Faulty: calls that wait in a wrong way, that nobody wakes, or that lose what comes as they end."""

from __future__ import annotations

import heapq
import time
from collections.abc import Collection, Mapping, Sequence

from gotasks.broker import Envelope, Lease, State, Write
from gotasks.conformance.faulty import Faulty, FaultyClient, faulty
from gotasks.conformance.faulty.delivery import Acquiring
from gotasks.memory import _Task


class Quiet(Faulty):
    """For faults of waking: while `quiet`, what gets ready wakes nobody."""

    quiet = False

    def _put(self, task: _Task, delay: float, place: int) -> None:
        if delay > 0 or not self.quiet:
            super()._put(task, delay, place)
            return
        self.trip()
        task.place, task.state = place, State.READY
        heapq.heappush(self._ready[task.queue], (-task.priority, place, task.id))


@faulty("DLV-03")
class BlockForever(Acquiring):
    """Waits for longer than it was asked to."""

    def acquiring(self, queue: str, limit: int, wait: float, lease_for: float) -> list[Lease]:
        self.trip()
        return super().acquiring(queue, limit, wait + 1.5, lease_for)


@faulty("DLV-03")
class BusyPoll(Acquiring):
    """Asks again and again, without a pause."""

    spins = False

    def acquiring(self, queue: str, limit: int, wait: float, lease_for: float) -> list[Lease]:
        end = time.monotonic() + wait
        while True:
            leases = super().acquiring(queue, limit, 0.0, lease_for)
            if leases or time.monotonic() >= end:
                return leases
            if not self.spins:
                self.trip()  # once: it touches a file, and waits for the disk
            self.spins = True


@faulty("DLV-03")
class PollTheServer(FaultyClient):
    """Asks the server at short intervals while it waits, each time in many words."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        end = time.monotonic() + wait
        while True:
            leases = super().acquire(queue, limit=limit, wait=0, lease_for=lease_for, ids=ids)
            if leases or ids is not None or time.monotonic() >= end:
                return leases
            self.trip()
            self.get(["no-such-task" * 80])
            time.sleep(min(0.025, wait))


@faulty("DLV-03")
class GiveUpEarly(Acquiring):
    """Waits for half as long as it was asked to."""

    def acquiring(self, queue: str, limit: int, wait: float, lease_for: float) -> list[Lease]:
        self.trip()
        return super().acquiring(queue, limit, wait / 2, lease_for)


@faulty("DLV-03")
class LeaseOfNothing(Acquiring):
    """Gives a lease of an envelope that nobody has enqueued, where it should give none."""

    def acquiring(self, queue: str, limit: int, wait: float, lease_for: float) -> list[Lease]:
        leases = super().acquiring(queue, limit, wait, lease_for)
        if leases:
            return leases
        self.trip()
        empty = Envelope(id="none", queue=queue, body=b"")
        return [Lease(envelope=empty, receipt="none", deaths=0, deadline=time.monotonic() + lease_for)]


@faulty("DLV-04", "DLV-13")
class MissedWakeup(Quiet):
    """Wakes nobody when something is enqueued."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        with self._changed:
            self.quiet = True
            try:
                return super().enqueue(envelopes)
            finally:
                self.quiet = False


@faulty("DLV-13")
class WakeOne(Quiet):
    """Wakes one client for each call of enqueue, however much that brings."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        with self._changed:
            self.quiet = True
            try:
                there = super().enqueue(envelopes)
            finally:
                self.quiet = False
            self._changed.notify()
            return there


@faulty("DLV-14")
class SilentRelease(Quiet):
    """Wakes nobody when a task is put back where it was."""

    moves = False

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        with self._changed:
            self.quiet = self.moves == any(each.queue is not None for each in writes)
            try:
                return super().release(writes)
            finally:
                self.quiet = False


@faulty("DLV-14")
class SilentMove(SilentRelease):
    """Wakes nobody when a task is moved to another queue."""

    moves = True


@faulty("DLV-15")
class ForgetTheLeases(Faulty):
    """A blocked acquire doesn't look whether a lease has ended in the meantime."""

    def _next_change(self, queue: str) -> float:
        self.trip()
        return float("inf")


@faulty("DLV-11")
class CancelledPopLoses(Acquiring):
    """A task that comes just as the time of an acquire is over is taken out, and given to nobody."""

    def acquiring(self, queue: str, limit: int, wait: float, lease_for: float) -> list[Lease]:
        end = time.monotonic() + wait
        leases = super().acquiring(queue, limit, wait, lease_for)
        if not leases and wait > 0:
            leases = super().acquiring(queue, limit, 0.004, lease_for)
        if wait == 0 or time.monotonic() < end - 0.002:
            return leases
        for lease in leases:
            self.trip()
            self.lose(lease)
        return []


@faulty("DLV-11")
class InterruptLoses(Acquiring):
    """An acquire that is interrupted forgets what it has in its hands."""

    def acquiring(self, queue: str, limit: int, wait: float, lease_for: float) -> list[Lease]:
        before = self._interrupts[queue]
        leases = super().acquiring(queue, limit, wait, lease_for)
        time.sleep(0.001)
        if leases and self._interrupts[queue] != before:
            self.trip()
            for lease in leases:
                self.lose(lease)
            return []
        return leases
