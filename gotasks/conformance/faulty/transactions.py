"""Faulty: transactions whose end decides nothing, too early, too late, or not for all that was enqueued in them."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import cast

import msgspec

from gotasks.broker import Envelope, Lease, QueueStats, Record, State
from gotasks.conformance.faulty import faulty, trip
from gotasks.conformance.kit.transactional import Begun, Transactional


class FaultyTransactional(Transactional):
    """A broker with transactions, and with a fault."""

    @staticmethod
    def trip() -> None:
        trip()

    def of(self, connection: object) -> Begun:
        """The transaction on this connection."""
        return cast(Begun, connection)


@faulty("TXN-02", "TXN-07")
class StoresAtOnce(FaultyTransactional):
    """Enqueues by a connection of its own, whatever becomes of the caller's."""

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.trip()
        return self.enqueue(envelopes)


@faulty("TXN-01")
class AnswersOwn(FaultyTransactional):
    """Finds what it has just stored in the transaction, and answers that it is there."""

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        there = super().enqueue_on(connection, envelopes)
        self.trip()
        return {**{each.id: each.id for each in envelopes}, **there}


@faulty("TXN-01")
class KeepsLastCall(FaultyTransactional):
    """Only what the last call in a transaction stored is there after the commit."""

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if envelopes and self.of(connection).stored:
            self.trip()
            self.of(connection).stored.clear()
        return super().enqueue_on(connection, envelopes)


@faulty("TXN-01")
class CommitTurnsRound(FaultyTransactional):
    """A commit stores the last one first."""

    def end(self, begun: Begun, *, commit: bool) -> None:
        if len(begun.stored) > 1:
            self.trip()
        begun.stored.reverse()
        super().end(begun, commit=commit)


@faulty("TXN-01")
class EmptyCallRollsBack(FaultyTransactional):
    """A call with nothing to store begins the transaction afresh: the program's own row is gone."""

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if not envelopes:
            self.trip()
            self.of(connection).noted.clear()
        return super().enqueue_on(connection, envelopes)


class _Remembers(FaultyTransactional):
    """Knows which ids were taken back."""

    def _empty(self) -> None:
        super()._empty()
        self.taken_back: set[str] = set()

    def end(self, begun: Begun, *, commit: bool) -> None:
        if not commit:
            self.taken_back.update(each.id for each, _ in begun.stored)
        super().end(begun, commit=commit)

    def go_back(self, begun: Begun, size: int) -> None:
        self.taken_back.update(each.id for each, _ in begun.stored[size:])
        super().go_back(begun, size)


@faulty("TXN-02", "TXN-16")
class RollbackKeepsIds(_Remembers):
    """Answers that an id is there which was rolled back, and stores it all the same."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        there = super().enqueue(envelopes)
        known = {each.id: each.id for each in envelopes if each.id in self.taken_back}
        if known:
            self.trip()
        return {**there, **known}


@faulty("TXN-02", "TXN-16")
class RollbackBarsIds(_Remembers):
    """An id that was rolled back is never stored any more, and nobody is told so."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if any(each.id in self.taken_back for each in envelopes):
            self.trip()
        return super().enqueue([each for each in envelopes if each.id not in self.taken_back])


@faulty("TXN-03")
class GetSeesAll(FaultyTransactional):
    """`get` knows what isn't committed."""

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        records = dict(super().get(ids))
        for each in [each for begun in self.open for each, _ in begun.stored if each.id in ids]:
            self.trip()
            records[each.id] = Record(id=each.id, queue=each.queue, state=State.READY, body=each.body)
        return records


@faulty("TXN-03")
class StatsCountAll(FaultyTransactional):
    """A queue counts what isn't committed."""

    def stats(self, queue: str) -> QueueStats:
        found = super().stats(queue)
        more = sum(each.queue == queue for begun in self.open for each, _ in begun.stored)
        if more:
            self.trip()
        return msgspec.structs.replace(found, ready=(found.ready or 0) + more)


@faulty("TXN-03")
class NoRecord(FaultyTransactional):
    """What was enqueued in a transaction has no record until somebody has held it."""

    def _empty(self) -> None:
        super()._empty()
        self.unseen: set[str] = set()

    def store(self, envelope: Envelope) -> None:
        self.unseen.add(envelope.id)
        super().store(envelope)

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        if self.unseen.intersection(ids) & self._tasks.keys():
            self.trip()
        return super().get([each for each in ids if each not in self.unseen])


@faulty("TXN-04")
class LocksTable(FaultyTransactional):
    """Whoever enqueues waits for the end of every transaction that has enqueued."""

    def _wait_for(self, envelopes: Sequence[Envelope], own: Begun | None) -> None:
        def free() -> bool:
            return not any(begun.stored for begun in self.open if begun is not own)

        if not free():
            self.trip()
        self._changed.wait_for(free, 10.0)


@faulty("TXN-04")
class AcquireDropsOpen(FaultyTransactional):
    """Whoever acquires takes the rows that aren't committed as well, and finds no task for them."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        for begun in self.open:
            if begun.stored:
                self.trip()
                begun.stored.clear()
        return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)


@faulty("TXN-05")
class SavepointKeepsIds(_Remembers):
    """Answers that an id is there which a savepoint took back, and stores it all the same."""

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        there = super().enqueue_on(connection, envelopes)
        known = {each.id: each.id for each in envelopes if each.id in self.taken_back}
        if known:
            self.trip()
        return {**there, **known}


@faulty("TXN-05")
class SavepointCommits(FaultyTransactional):
    """Takes the end of a savepoint for that of the transaction."""

    def go_on(self, begun: Begun) -> None:
        self.trip()
        begun.commit()


@faulty("TXN-05")
class SavepointKeeps(FaultyTransactional):
    """Stores at the commit also what a savepoint took back: it was in a list of its own."""

    def go_back(self, begun: Begun, size: int) -> None:
        self.trip()


@faulty("TXN-05")
class SavepointTakesAll(FaultyTransactional):
    """A savepoint takes back all that was enqueued in the transaction."""

    def go_back(self, begun: Begun, size: int) -> None:
        self.trip()
        super().go_back(begun, 0)


@faulty("TXN-06")
class DelayFromBegin(FaultyTransactional):
    """A delay counts from the transaction's beginning: the server's clock stands still in it."""

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        there = super().enqueue_on(connection, envelopes)
        begun = self.of(connection)
        if any(each.delay for each, _ in begun.stored):
            self.trip()
        begun.stored = [(each, begun.since) for each, _ in begun.stored]
        return there


@faulty("TXN-06")
class DelayFromCommit(FaultyTransactional):
    """A delay counts from the commit."""

    def end(self, begun: Begun, *, commit: bool) -> None:
        if any(each.delay for each, _ in begun.stored):
            self.trip()
        begun.stored = [(each, time.monotonic()) for each, _ in begun.stored]
        super().end(begun, commit=commit)


@faulty("TXN-07")
class CommitWakesInVain(FaultyTransactional):
    """A commit wakes who waits before the task is there: they leave with nothing."""

    def end(self, begun: Begun, *, commit: bool) -> None:
        for queue in {each.queue for each, _ in begun.stored}:
            self.trip()
            self.interrupt(queue)
            threading.Event().wait(0.1)  # they have left by then
        super().end(begun, commit=commit)


@faulty("TXN-07")
class CommitLate(FaultyTransactional):
    """What was committed comes into its queue four seconds later."""

    def store(self, envelope: Envelope) -> None:
        self.trip()
        super().store(msgspec.structs.replace(envelope, delay=4.0))


@faulty("TXN-08")
class TwinAnswersOwn(FaultyTransactional):
    """On an event loop it answers that new ids are there."""

    async def aenqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.trip()
        return {
            **await super().aenqueue_on(connection, envelopes),
            **{each.id: each.id for each in envelopes},
        }


@faulty("TXN-08")
class TwinNeverAwaits(FaultyTransactional):
    """On an event loop it makes the call and doesn't wait for it."""

    async def aenqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.trip()
        return {}
