"""Faulty: cancels that do nothing, or too much, or of which the holder isn't told."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

import msgspec

from gotasks.broker import QueueStats, Record, State, Write
from gotasks.conformance.faulty import Faulty, faulty
from gotasks.memory import _Task


@faulty("CAN-01")
class OverClaimCancel(Faulty):
    """Claims CANCEL, says that it did, and lets the tasks go on."""

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        self.trip()
        return list(ids)


@faulty("CAN-01")
class CancelSaysNothing(Faulty):
    """Cancels, and doesn't say what."""

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        self.trip()
        super().cancel(ids, keep_for=keep_for)
        return []


@faulty("CAN-01")
class CancelKeepsCount(Faulty):
    """A queue counts its cancelled tasks as leased."""

    def _empty(self) -> None:
        super()._empty()
        self.cancelled = 0

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        ended = super().cancel(ids, keep_for=keep_for)
        self.cancelled += len(ended)
        return ended

    def stats(self, queue: str) -> QueueStats:
        if self.cancelled:
            self.trip()
        return msgspec.structs.replace(super().stats(queue), leased=self.cancelled)


@faulty("CAN-02")
class CancelUntold(Faulty):
    """A held task that is cancelled is marked, and its holder's writes go on being accepted."""

    def _empty(self) -> None:
        super()._empty()
        self.marked: set[str] = set()

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        self.marked.update(ids)
        return super().cancel(ids, keep_for=keep_for)

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().checkpoint(writes)
        told = frozenset(each.lease.receipt for each in writes if each.lease.envelope.id not in self.marked)
        if lost - told:
            self.trip()
        return lost & told


@faulty("CAN-02")
class ReleaseRevives(Faulty):
    """A release under a cancelled lease is lost, and puts the task back all the same."""

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().release(writes)
        with self._changed:
            for each in writes:
                if each.lease.receipt in lost and each.lease.envelope.id not in self._tasks:
                    self.trip()
                    task = self._tasks[each.lease.envelope.id] = _Task(each.lease.envelope)
                    self._put(task, 0.0, next(self._back))
        return lost


@faulty("CAN-03")
class CancelledIsDone(Faulty):
    """The record of a cancelled task says done."""

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        records = super().get(ids)
        if any(each.state is State.CANCELLED for each in records.values()):
            self.trip()
        return {
            key: msgspec.structs.replace(
                each, state=State.DONE if each.state is State.CANCELLED else each.state
            )
            for key, each in records.items()
        }


@faulty("CAN-03")
class CancelledForever(Faulty):
    """The record of a cancelled task stays for ever."""

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        self.trip()
        return super().cancel(ids, keep_for=1e9 if keep_for else 0.0)


@faulty("CAN-04")
class CancelsAgain(Faulty):
    """Says of each id that it ended it."""

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        self.trip()
        super().cancel(ids, keep_for=keep_for)
        return list(ids)


@faulty("CAN-04")
class CancelsDone(Faulty):
    """A task that is done becomes a cancelled one."""

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        for each in ids:
            task = self._tasks.get(each)
            if task is not None and task.state is State.DONE:
                self.trip()
                task.state = State.CANCELLED
        return super().cancel(ids, keep_for=keep_for)


@faulty("CAN-05")
class CancelRaces(Faulty):
    """Looks whether a task lives, and cancels it a moment later, though it may have ended."""

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        alive = [each for each in ids if each in self._tasks]
        time.sleep(0.005)
        if set(super().cancel(ids, keep_for=keep_for)) != set(alive):
            self.trip()
        return alive


@faulty("CAN-05")
class CancelModest(Faulty):
    """A cancel ends the lease first; if the holder's ack comes then, it says that it ended nothing."""

    def _empty(self) -> None:
        super()._empty()
        self.tried: set[str] = set()

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        lost = super().ack(writes, keep_for=keep_for)
        self.tried.update(each.lease.envelope.id for each in writes)
        return lost

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        ended = super().cancel(ids, keep_for=keep_for)
        time.sleep(0.005)
        if self.tried.intersection(ended):
            self.trip()
        return [each for each in ended if each not in self.tried]
