"""Faulty: records that are missing, stale, invented, gone too early or never."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

import msgspec

from gotasks.broker import Envelope, Record, State, Write
from gotasks.conformance.faulty import Faulty, faulty


@faulty("REC-01")
class OverClaimRecords(Faulty):
    """Claims RECORDS and knows of no task."""

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        self.trip()
        return {}


@faulty("REC-01")
class FrozenRecords(Faulty):
    """A record shows the body that was enqueued, whatever was written since."""

    def _empty(self) -> None:
        super()._empty()
        self.sent: dict[str, bytes] = {}

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.sent.update((each.id, each.body) for each in envelopes)
        return super().enqueue(envelopes)

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        self.trip()
        return {
            each: msgspec.structs.replace(record, body=self.sent[each])
            for each, record in super().get(ids).items()
        }


@faulty("REC-01")
class InventedRecords(Faulty):
    """Has a record of every id that it is asked for."""

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        unknown = [each for each in ids if each not in self._tasks]
        if unknown:
            self.trip()
        done = {each: Record(id=each, queue="", state=State.DONE, body=b"") for each in unknown}
        return {**super().get(ids), **done}


@faulty("REC-02")
class KeepsByDefault(Faulty):
    """A `keep_for` of 0 is taken for "not given", and the default is a minute."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        if not keep_for:
            self.trip()
        return super().ack(writes, keep_for=keep_for or 60.0)


@faulty("REC-02")
class KeepsOldBody(Faulty):
    """The record of a finished task has the body of its last checkpoint."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        self.trip()
        return super().ack(
            [msgspec.structs.replace(each, body=each.lease.envelope.body) for each in writes],
            keep_for=keep_for,
        )


@faulty("REC-02")
class KeepsHalfAsLong(Faulty):
    """A record is gone when half of its time is over."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        self.trip()
        return super().ack(writes, keep_for=keep_for / 2)


@faulty("REC-03")
class DropsDoneId(Faulty):
    """Leaves out an id of which there is a record, and doesn't say so."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        there = super().enqueue(envelopes)
        if there:
            self.trip()
        return {}


@faulty("REC-03")
class SaysThereButStores(Faulty):
    """Says that a finished task's id is there already, and stores it all the same."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        there = super().enqueue(envelopes)
        for each in envelopes:
            task = self._tasks[each.id]
            if each.id in there and task.state is State.DONE:
                self.trip()
                with self._changed:
                    self._put(task, 0.0, next(self._back))
        return there


@faulty("REC-03")
class NewTaskOldBody(Faulty):
    """An id that is used again gets the final body of the task before."""

    def _empty(self) -> None:
        super()._empty()
        self.last: dict[str, bytes] = {}

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        self.last.update((each.lease.envelope.id, each.body) for each in writes)
        return super().ack(writes, keep_for=keep_for)

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if any(each.id in self.last for each in envelopes):
            self.trip()
        return super().enqueue(
            [msgspec.structs.replace(each, body=self.last.get(each.id, each.body)) for each in envelopes]
        )


@faulty("REC-04")
class PurgeOnePage(Faulty):
    """Purges a page of a thousand, and leaves the rest."""

    def purge(self, queue: str) -> int:
        with self._changed:
            waiting = [each for each in self._tasks.values() if each.queue == queue and each.receipt is None]
            if len(waiting) > 1000:
                self.trip()
            for each in waiting[:1000]:
                self._end(each, State.CANCELLED, 0)
            return min(len(waiting), 1000)


@faulty("REC-04")
class PurgeKeepsRecords(Faulty):
    """What is purged is kept as cancelled."""

    def purge(self, queue: str) -> int:
        ended = [each.id for each in self._tasks.values() if each.queue == queue and each.receipt is None]
        self.trip()
        return len(self.cancel(ended, keep_for=60.0))


@faulty("REC-04")
class PurgedIdIsTaken(Faulty):
    """Remembers the ids of purged tasks, and doesn't store them again."""

    def _empty(self) -> None:
        super()._empty()
        self.purged: set[str] = set()

    def purge(self, queue: str) -> int:
        self.purged.update(each.id for each in self._tasks.values() if each.queue == queue)
        return super().purge(queue)

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        taken = {each.id: each.id for each in envelopes if each.id in self.purged}
        if taken:
            self.trip()
        return {**super().enqueue([each for each in envelopes if each.id not in taken]), **taken}


@faulty("TTL-01")
class TtlOnLive(Faulty):
    """Tasks get their time to live when they are enqueued, not when they end."""

    def _empty(self) -> None:
        super()._empty()
        self.born: dict[str, float] = {}
        self.ttl = 1e9

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.born.update((each.id, time.monotonic()) for each in envelopes)
        return super().enqueue(envelopes)

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        self.ttl = keep_for or self.ttl
        return super().ack(writes, keep_for=keep_for)

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        for each in [each for each in self._tasks if time.monotonic() > self.born[each] + self.ttl]:
            if self._tasks.pop(each).state is not State.DONE:
                self.trip()
        return super().get(ids)


@faulty("TTL-02")
class AckLeavesGarbage(Faulty):
    """What is done is done for ever."""

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        self.trip()
        return super().ack(writes, keep_for=1e9)


@faulty("TTL-02")
class EventLog(Faulty):
    """Notes each checkpoint in one element that only grows."""

    def _empty(self) -> None:
        super()._empty()
        self.log = b""

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        self.trip()
        self.log += b"a checkpoint was written, somebody may want to know that\n" * len(writes)
        return super().checkpoint(writes)

    def dump(self) -> dict[str, int]:
        return {**super().dump(), "log": len(self.log)}
