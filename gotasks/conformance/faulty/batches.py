"""Faulty: batches of which some items are forgotten, or settled together with others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gotasks.broker import Envelope, Write
from gotasks.conformance.faulty import Faulty, faulty
from gotasks.memory import _Task


@faulty("BAT-02")
class BatchPartial(Faulty):
    """Stores the first five hundred of a batch."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if len(envelopes) > 500:
            self.trip()
        return super().enqueue(envelopes[:500])


@faulty("BAT-02")
class EmptyIsSomething(Faulty):
    """Answers an empty batch with a receipt that was lost."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        if not writes:
            self.trip()
            return frozenset({""})
        return super().ack(writes, keep_for=keep_for)


@faulty("BAT-03")
class AckMultiple(Faulty):
    """An ack settles all that were acquired before it, as some protocols do."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        for task in list(self._tasks.values()):
            if any(task.place < self._place(write) for write in writes) and task.receipt is not None:
                self.trip()
                self._end_lease(task)
                del self._tasks[task.id]
        return super().ack(writes, keep_for=keep_for)

    def _place(self, write: Write) -> int:
        task = self._tasks.get(write.lease.envelope.id)
        return task.place if task is not None else 0


@faulty("BAT-03")
class AckReleasesTheRest(Faulty):
    """An ack gives the others of its batch back to the queue, where anybody may take them."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        lost = super().ack(writes, keep_for=keep_for)
        for task in list(self._leased[writes[0].lease.envelope.queue].values() if writes else ()):
            self.trip()
            task.until = 0.0
        return lost


@faulty("BAT-04")
class StopAtLost(Faulty):
    """Leaves a batch of writes at the first one that is lost, and doesn't name the others."""

    def _write(self, writes: Sequence[Write], change: Callable[[_Task, Write], None]) -> frozenset[str]:
        for index, write in enumerate(writes):
            if super()._write([write], change):
                if index + 1 < len(writes):
                    self.trip()
                return frozenset({write.lease.receipt})
        return frozenset()


@faulty("BAT-04")
class AllOrNothingLost(Faulty):
    """Says of a whole batch that it is lost, if one of its writes is."""

    def _write(self, writes: Sequence[Write], change: Callable[[_Task, Write], None]) -> frozenset[str]:
        lost = super()._write(writes, change)
        if lost and len(writes) > 1:
            self.trip()
            return frozenset(write.lease.receipt for write in writes)
        return lost
