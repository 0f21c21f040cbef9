"""Faulty: tasks that leave in a wrong order, come back to a wrong place, or after a wrong kind of checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from gotasks.broker import Capability, Envelope, State, Write
from gotasks.conformance.faulty import Faulty, faulty
from gotasks.memory import _Task


@faulty("ORD-01", "ORD-03")
class Lifo(Faulty):
    """The last one in is the first one out."""

    def _empty(self) -> None:
        super()._empty()
        self._back = self._front

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.trip()
        return super().enqueue(envelopes)


@faulty("ORD-01", "BAT-02")
class BatchReversed(Faulty):
    """Stores a batch from its end."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if len(envelopes) > 1:
            self.trip()
        return super().enqueue(envelopes[::-1])


@faulty("ORD-02")
class ReleaseWrongEnd(Faulty):
    """Puts a released task behind all others, and says that it goes to the front."""

    def _empty(self) -> None:
        super()._empty()
        self._front = self._back

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        self.trip()
        return super().release(writes)


@faulty("ORD-02")
class ExpiryWrongEnd(Faulty):
    """Puts what a dead holder left behind all others, and says that it goes to the front."""

    def _eligible(self, queue: str, now: float) -> Iterator[_Task]:
        left = [task for task in self._leased[queue].values() if task.until <= now]
        for task in left:
            task.until = now + 3600
        yield from super()._eligible(queue, now)
        for task in left:
            task.until = min(task.until, time.monotonic())
            if task.state is State.LEASED:
                self.trip()
                yield task


@faulty("ORD-04")
class HandoffLie(Faulty):
    """Claims HANDOFF, and a checkpoint leaves the lease as it was."""

    def __init__(self, capabilities: Capability) -> None:
        super().__init__(capabilities | Capability.HANDOFF)

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        self.trip()
        claimed, self.capabilities = self.capabilities, self.capabilities & ~Capability.HANDOFF
        try:
            return super().checkpoint(writes)
        finally:
            self.capabilities = claimed


@faulty("ORD-04")
class SilentHandoff(Faulty):
    """Claims no HANDOFF, and a checkpoint puts the task back into its queue."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        self.trip()
        return self.release(writes)


@faulty("ORD-04")
class HandoffOldBody(Faulty):
    """A checkpoint that ends the lease puts the old body back."""

    def __init__(self, capabilities: Capability) -> None:
        super().__init__(capabilities | Capability.HANDOFF)

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        self.trip()
        return super().checkpoint(
            [Write(lease=each.lease, body=each.lease.envelope.body, seq=each.seq) for each in writes]
        )


@faulty("ORD-04")
class HandoffAckSilent(Faulty):
    """Doesn't say that an ack is lost, after a checkpoint that has ended the lease."""

    def __init__(self, capabilities: Capability) -> None:
        super().__init__(capabilities | Capability.HANDOFF)

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        if super().ack(writes, keep_for=keep_for):
            self.trip()
        return frozenset()


@faulty("ORD-04")
class TornLease(Faulty):
    """The third checkpoint of a lease ends it, and offers the task to nobody."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().checkpoint(writes)
        for write in writes:
            task = self._tasks.get(write.lease.envelope.id)
            if task is not None and write.seq == 3:
                self.trip()
                task.receipt = None
        return lost
