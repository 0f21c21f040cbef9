"""Faulty: unique keys that are free in some state of their task, or taken after some end, or that another one frees."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

import msgspec

from gotasks.broker import Envelope, Lease, QueueStats, State, Write
from gotasks.conformance.faulty import Faulty, faulty
from gotasks.memory import _Task


@faulty("UNQ-06")
class DelayedHasNoKey(Faulty):
    """An envelope with a delay doesn't take its unique key."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if any(each.delay > 0 and each.unique is not None for each in envelopes):
            self.trip()
        return super().enqueue(
            [msgspec.structs.replace(each, unique=None) if each.delay > 0 else each for each in envelopes]
        )


@faulty("UNQ-06", "UNQ-07")
class TakeoverFreesKey(Faulty):
    """A unique key is free once its task's lease is over and another one has taken it."""

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        if task.state is State.LEASED and task.unique is not None:
            self.trip()
            self._unique.pop(task.unique, None)
        return super()._lease(task, now, lease_for)


@faulty("UNQ-06")
class CancelHeldKeepsKey(Faulty):
    """A cancel of what is held leaves its unique key taken."""

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        tasks = [self._tasks[each] for each in ids if each in self._tasks]
        keys = {
            each.unique: each.id for each in tasks if each.state is State.LEASED and each.unique is not None
        }
        ended = super().cancel(ids, keep_for=keep_for)
        if keys:
            self.trip()
        self._unique.update(keys)
        return ended


@faulty("UNQ-06")
class PurgeScheduledKeepsKey(Faulty):
    """A purge leaves the unique keys of what is scheduled taken."""

    def purge(self, queue: str) -> int:
        keys = {
            each.unique: each.id
            for each in self._tasks.values()
            if each.queue == queue and each.state is State.SCHEDULED and each.unique is not None
        }
        count = super().purge(queue)
        if keys:
            self.trip()
        self._unique.update(keys)
        return count


@faulty("UNQ-06")
class AckAfterMoveKeepsKey(Faulty):
    """Unique keys are filed under the queue of the enqueue: an ack after a move doesn't find them."""

    def _empty(self) -> None:
        super()._empty()
        self.moved: set[str] = set()

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = super().release(writes)
        self.moved.update(each.lease.envelope.id for each in writes if each.queue is not None)
        return lost

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        keys = {}
        for each in writes:
            task = self._held(each.lease)
            if task is not None and task.unique is not None and task.id in self.moved:
                self.trip()
                keys[task.unique] = task.id
        lost = super().ack(writes, keep_for=keep_for)
        self._unique.update(keys)
        return lost


@faulty("UNQ-06")
class CancelledKeyIsOpen(Faulty):
    """A unique key whose task was cancelled while it was held isn't watched any more."""

    def _empty(self) -> None:
        super()._empty()
        self.open: set[str | None] = set()

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        tasks = [self._tasks[each] for each in ids if each in self._tasks]
        self.open.update(each.unique for each in tasks if each.state is State.LEASED)
        return super().cancel(ids, keep_for=keep_for)

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if any(each.unique is not None and each.unique in self.open for each in envelopes):
            self.trip()
        return super().enqueue(
            [
                msgspec.structs.replace(each, unique=None) if each.unique in self.open else each
                for each in envelopes
            ]
        )


@faulty("UNQ-07")
class LostAckFreesKey(Faulty):
    """An ack that is lost frees the unique key all the same."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        for each in writes:
            key = each.lease.envelope.unique
            if key is not None and self._held(each.lease) is None:
                self.trip()
                self._unique.pop(key, None)
        return super().ack(writes, keep_for=keep_for)


@faulty("UNQ-07")
class ForgottenRecordFreesNewKey(Faulty):
    """With a record its unique key goes, whoever has it by now."""

    def _forget_old_records(self) -> None:
        now = time.monotonic()
        for until, task_id in self._ended:
            task = self._tasks.get(task_id)
            if until <= now and task is not None and task.unique in self._unique:
                self.trip()
                self._unique.pop(task.unique, None)
        super()._forget_old_records()


@faulty("UNQ-07")
class CancelFreesNewKey(Faulty):
    """A cancel of what has ended frees the unique key that it had, whoever has it by now."""

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        for each in ids:
            task = self._tasks.get(each)
            if task is not None and task.state is State.CANCELLED and task.unique in self._unique:
                self.trip()
                self._unique.pop(task.unique, None)
        return super().cancel(ids, keep_for=keep_for)


@faulty("UNQ-07")
class PurgeFreesHeldKey(Faulty):
    """A purge frees all unique keys of its queue, those of what is held too."""

    def purge(self, queue: str) -> int:
        for task in self._tasks.values():
            if task.queue == queue and task.state is State.LEASED and task.unique is not None:
                self.trip()
                self._unique.pop(task.unique, None)
        return super().purge(queue)


@faulty("UNQ-08")
class RefusedIdIsKnown(Faulty):
    """The id of an envelope that was refused for its unique key is known from then on: sent again, it is dropped."""

    def _empty(self) -> None:
        super()._empty()
        self.refused: set[str] = set()

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        again = {each.id: each.id for each in envelopes if each.id in self.refused}
        if again:
            self.trip()
        there = super().enqueue([each for each in envelopes if each.id not in again])
        self.refused.update(new for new, old in there.items() if new != old)
        return {**there, **again}


@faulty("UNQ-08")
class RefusedKeyIsCounted(Faulty):
    """Counts envelopes that were refused for their unique key."""

    def _empty(self) -> None:
        super()._empty()
        self.refused = 0

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        there = super().enqueue(envelopes)
        self.refused += sum(new != old for new, old in there.items())
        return there

    def stats(self, queue: str) -> QueueStats:
        stats = super().stats(queue)
        if self.refused:
            self.trip()
        return msgspec.structs.replace(stats, ready=(stats.ready or 0) + self.refused)


@faulty("UNQ-09")
class LeaseHidesKey(Faulty):
    """A lease doesn't say what unique key its envelope has."""

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        if task.unique is not None:
            self.trip()
        lease = super()._lease(task, now, lease_for)
        return msgspec.structs.replace(lease, envelope=msgspec.structs.replace(lease.envelope, unique=None))


@faulty("UNQ-09")
class MovedHidesKey(Faulty):
    """What was moved has a lease without its unique key and its priority."""

    def _empty(self) -> None:
        super()._empty()
        self.moved: set[str] = set()

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        self.moved.update(each.lease.envelope.id for each in writes if each.queue is not None)
        return super().release(writes)

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        lease = super()._lease(task, now, lease_for)
        if task.id not in self.moved:
            return lease
        self.trip()
        envelope = msgspec.structs.replace(lease.envelope, unique=None, priority=0)
        return msgspec.structs.replace(lease, envelope=envelope)


@faulty("UNQ-10")
class SecondReleaseFreesKey(Faulty):
    """A task that is put back for the second time leaves its unique key behind."""

    def _empty(self) -> None:
        super()._empty()
        self.released: set[str] = set()

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        for each in writes:
            task = self._held(each.lease)
            if task is not None and task.id in self.released and task.unique is not None:
                self.trip()
                self._unique.pop(task.unique, None)
            self.released.add(each.lease.envelope.id)
        return super().release(writes)


@faulty("UNQ-10")
class CancelOfReleasedKeepsKey(Faulty):
    """A cancel of what was put back, and is held once more, leaves its unique key taken."""

    def _empty(self) -> None:
        super()._empty()
        self.released: set[str] = set()

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        self.released.update(each.lease.envelope.id for each in writes)
        return super().release(writes)

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        tasks = [self._tasks[each] for each in ids if each in self._tasks and each in self.released]
        keys = {each.unique: each.id for each in tasks if each.unique is not None and each.receipt}
        ended = super().cancel(ids, keep_for=keep_for)
        if keys:
            self.trip()
        self._unique.update(keys)
        return ended
