"""Faulty: acks and releases that don't count, count twice, or are taken from anybody."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from gotasks.broker import Lease, QueueStats, State, Write
from gotasks.conformance.faulty import Faulty, faulty
from gotasks.memory import _Task


class ById(Faulty):
    """One with the means to write without a valid receipt."""

    def former(self, write: Write | Lease) -> _Task | None:
        """The task of a write whose receipt doesn't hold, if it's there."""
        lease = write.lease if isinstance(write, Write) else write
        task = self._tasks.get(lease.envelope.id)
        return task if task is not None and self._held(lease) is None else None

    def copy(self, write: Write) -> None:
        """Put in one more task like this one."""
        task = _Task(write.lease.envelope)
        with self._changed:
            task.place = next(self._back)
            task.id += f"-{task.place}"
            self._tasks[task.id] = task
            self._put(task, 0.0, task.place)

    def requeue(self, task: _Task) -> None:
        """Put a task back, whoever holds it."""
        with self._changed:
            self._end_lease(task)
            self._put(task, 0.0, next(self._front))


@faulty("ACK-01")
class AckNoop(Faulty):
    """An ack does nothing."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        self.trip()
        return frozenset()


@faulty("ACK-01")
class AckSaysLost(Faulty):
    """An ack is carried out and said to be lost."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        super().ack(writes, keep_for=keep_for)
        self.trip()
        return frozenset(write.lease.receipt for write in writes)


@faulty("ACK-02")
class DoubleAckDecrements(Faulty):
    """Every ack takes one from what is counted as leased, also one that is lost."""

    _lost_acks = 0

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        lost = super().ack(writes, keep_for=keep_for)
        if lost:
            self._lost_acks += len(lost)
            self.trip()
        return lost

    def stats(self, queue: str) -> QueueStats:
        seen = super().stats(queue)
        leased = (seen.leased or 0) - self._lost_acks
        return QueueStats(ready=seen.ready, scheduled=seen.scheduled, leased=leased)


@faulty("ACK-02", "ACK-04", "ACK-08")
class GoneIsFine(Faulty):
    """A write of a task that has ended is said to have been carried out."""

    def _write(self, writes: Sequence[Write], change: Callable[[_Task, Write], None]) -> frozenset[str]:
        lost = super()._write(writes, change)
        living = {task.id for task in self._tasks.values() if task.state is not State.DONE}
        gone = {write.lease.receipt for write in writes if write.lease.envelope.id not in living}
        if lost & gone:
            self.trip()
        return lost - gone


@faulty("ACK-03", "ACK-04", "ACK-11")
class AckById(ById):
    """An ack goes by the id of the task, whoever holds it."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        lost = super().ack(writes, keep_for=keep_for)
        for write in writes:
            task = self.former(write)
            if task is not None:
                self._end_lease(task)
                self._end(task, State.DONE, keep_for)
                self.trip()
                lost -= {write.lease.receipt}
        return lost


@faulty("ACK-03")
class LateReleaseTakesBack(ById):
    """A former holder's release is said to be lost, but puts the task back."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().release(writes)
        for write in writes:
            task = self.former(write)
            if task is not None and write.lease.receipt in lost and task.state is State.LEASED:
                self.requeue(task)
                self.trip()
        return lost


@faulty("ACK-03")
class LateWritesSeemTaken(ById):
    """A former holder's writes change nothing, but are said to have been carried out."""

    def _write(self, writes: Sequence[Write], change: Callable[[_Task, Write], None]) -> frozenset[str]:
        late = {write.lease.receipt for write in writes if self.former(write)}
        if late:
            self.trip()
        return super()._write(writes, change) - late


@faulty("ACK-04")
class LostButWritten(ById):
    """A release that is lost replaces the body all the same."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().release(writes)
        for write in writes:
            task = self.former(write)
            if task is not None and write.lease.receipt in lost:
                task.body = write.body
                self.trip()
        return lost


@faulty("ACK-04", "ACK-10")
class ReceiptSurvivesRelease(Faulty):
    """A receipt holds on after a release, until somebody else has the task."""

    def _end_lease(self, task: _Task) -> None:
        receipt = task.receipt
        super()._end_lease(task)
        task.receipt = receipt
        self.trip()


@faulty("ACK-06")
class AckRace(Faulty):
    """An ack looks whether its receipt holds, and ends the task a moment later."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        held = [write for write in writes if self._held(write.lease)]
        time.sleep(0.002)
        with self._changed:
            for write in held:
                task = self._tasks.get(write.lease.envelope.id)
                if task is not None:
                    if task.receipt != write.lease.receipt:
                        self.trip()
                    self._end_lease(task)
                    self._end(task, State.DONE, keep_for)
        return frozenset(write.lease.receipt for write in writes if write not in held)


@faulty("ACK-06")
class LateAckEndsTheTask(Faulty):
    """An ack after the end of the lease is said to be lost, but the task is gone."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        late = {
            write.lease.receipt
            for write in writes
            if (task := self._held(write.lease)) is not None and task.until <= time.monotonic()
        }
        lost = super().ack(writes, keep_for=keep_for)
        if late - lost:  # else somebody has taken them over meanwhile, and all is right
            self.trip()
        return lost | late


@faulty("ACK-08", "ACK-10")
class LateFail(Faulty):
    """A move stores the task in the other queue before it looks whether the receipt holds."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().release(writes)
        for write in writes:
            if write.queue is not None and write.lease.receipt in lost:
                task = self._tasks.setdefault(write.lease.envelope.id, _Task(write.lease.envelope))
                task.queue = write.queue
                with self._changed:
                    self._put(task, 0.0, next(self._back))
                self.trip()
        return lost


@faulty("ACK-09")
class AckKeepsTheOldBody(Faulty):
    """The record of an acked task has the body that it had before."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        self.trip()
        unchanged = [Write(lease=each.lease, body=each.lease.envelope.body, seq=each.seq) for each in writes]
        return super().ack(unchanged, keep_for=keep_for)


@faulty("ACK-09")
class AckAlwaysKeeps(Faulty):
    """An acked task's record is kept, also if it wasn't asked for."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        self.trip()
        return super().ack(writes, keep_for=keep_for or 60)


@faulty("ACK-10", "CKP-06")
class RepeatedCheckpointLost(Faulty):
    """A repeated checkpoint is said to be lost, as if something newer had been written."""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        repeats = {
            each.lease.receipt for each in writes if (task := self._held(each.lease)) and task.seq == each.seq
        }
        if repeats:
            self.trip()
        return super().checkpoint(writes) | repeats


@faulty("ACK-10")
class RepeatedReleaseCopies(ById):
    """A repeated release is said to be lost, but puts one more copy into the queue."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().release(writes)
        for write in writes:
            if write.lease.receipt in lost:
                self.copy(write)
                self.trip()
        return lost


@faulty("ACK-11")
class ReceiptOfAnyTask(Faulty):
    """A receipt opens every task, if only somebody holds one with it."""

    def _held(self, lease: Lease) -> _Task | None:
        if super()._held(lease) is None and any(
            task.receipt == lease.receipt for task in self._tasks.values()
        ):
            self.trip()
            return self._tasks.get(lease.envelope.id)
        return super()._held(lease)


@faulty("ACK-11")
class EmptyReceiptIsNone(Faulty):
    """An empty receipt is that of a task that nobody holds."""

    def _held(self, lease: Lease) -> _Task | None:
        task = self._tasks.get(lease.envelope.id)
        if task is not None and task.receipt is None and not lease.receipt:
            self.trip()
            return task
        return super()._held(lease)


@faulty("ACK-11")
class ForgeryEndsTheLease(ById):
    """A write with a wrong receipt is lost, and takes the task from its holder."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().release(writes)
        for write in writes:
            task = self.former(write)
            if task is not None and task.state is State.LEASED:
                self.requeue(task)
                self.trip()
        return lost
