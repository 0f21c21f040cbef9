"""Faulty: brokers that end, break or trust what isn't theirs: the transaction of the program that calls them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import msgspec

from gotasks.broker import Envelope
from gotasks.conformance.faulty import FaultyClient, faulty
from gotasks.conformance.faulty.transactions import FaultyTransactional
from gotasks.conformance.kit.served_transaction import ServedTransaction
from gotasks.conformance.kit.transactional import Begun, Transactional
from gotasks.errors import ConfigurationError, PayloadTooLarge, Rejected


@faulty("TXN-09")
class CommitsForYou(FaultyTransactional):
    """Commits when it has stored."""

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        there = super().enqueue_on(connection, envelopes)
        self.trip()
        self.of(connection).commit()
        return there


@faulty("TXN-09")
class BeginsAfresh(FaultyTransactional):
    """Rolls back what is open, so as to begin a transaction of its own."""

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.trip()
        self.of(connection).rollback()
        return super().enqueue_on(connection, envelopes)


@faulty("TXN-09")
class ClosesYours(FaultyClient):
    """Closes with itself the connections on which it has enqueued."""

    served = Transactional

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.yours = connection
        return super().enqueue_on(connection, envelopes)

    def close(self) -> None:
        yours = vars(self).get("yours")
        if isinstance(yours, ServedTransaction):
            self.trip()
            yours.close()
        super().close()


@faulty("TXN-10")
class CutsOff(FaultyTransactional):
    """Cuts a body that is too large to the size that fits."""

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        most = self.limits.max_payload
        if any(len(each.body) > (most or 0) for each in envelopes):
            self.trip()
        return super().enqueue_on(
            connection, [msgspec.structs.replace(each, body=each.body[:most]) for each in envelopes]
        )


@faulty("TXN-10")
class RejectionRollsBack(FaultyTransactional):
    """Asks the server to store what is too large: its error ends the caller's transaction."""

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        try:
            return super().enqueue_on(connection, envelopes)
        except PayloadTooLarge:
            self.trip()
            self.of(connection).rollback()
            raise


@faulty("TXN-10")
class KnownIdRollsBack(FaultyTransactional):
    """Learns from a server's error that an id is there, and that error ends the caller's transaction."""

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        there = super().enqueue_on(connection, envelopes)
        if there:
            self.trip()
            self.of(connection).rollback()
        return there


@faulty("TXN-11")
class OwnUnseen(FaultyTransactional):
    """Looks only at what is committed: an id that comes again in one transaction is answered as new."""

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        mine = {each.id for each, _ in self.of(connection).stored}
        there = super().enqueue_on(connection, envelopes)
        if mine & there.keys():
            self.trip()
        return {key: value for key, value in there.items() if key not in mine}


@faulty("TXN-11")
class OneThereAllThere(FaultyTransactional):
    """If one id of a call is there, it stores none, and says so of all."""

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if len(envelopes) > 1 and any(each.id in self._tasks for each in envelopes):
            self.trip()
            return {each.id: each.id for each in envelopes}
        return super().enqueue_on(connection, envelopes)


@faulty("TXN-12")
class OwnKeysUnseen(FaultyTransactional):
    """A unique key that comes again in one transaction is answered as new."""

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        mine = {each.id for each, _ in self.of(connection).stored}
        there = super().enqueue_on(connection, envelopes)
        if mine & set(there.values()):
            self.trip()
        return {key: value for key, value in there.items() if value not in mine}


@faulty("TXN-12")
class CommitDropsKeys(FaultyTransactional):
    """A task that was enqueued in a transaction doesn't hold its unique key afterwards."""

    def store(self, envelope: Envelope) -> None:
        if envelope.unique is not None:
            self.trip()
        super().store(msgspec.structs.replace(envelope, unique=None))


@faulty("TXN-13")
class SaysTakenAndStores(FaultyTransactional):
    """Says that a unique key is taken, and stores the task without it."""

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        there = super().enqueue_on(connection, envelopes)
        bare = [msgspec.structs.replace(each, unique=None) for each in envelopes]
        again = [each for each in bare if there.get(each.id, each.id) != each.id]
        if again:
            self.trip()
            super().enqueue_on(connection, again)
        return there


@faulty("TXN-13")
class NobodyWaits(FaultyTransactional):
    """Doesn't see what is in other transactions: all who race are answered that they came first."""

    def _wait_for(self, envelopes: Sequence[Envelope], own: Begun | None) -> None:
        if own is None:
            super()._wait_for(envelopes, own)

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        there = super().enqueue_on(connection, envelopes)
        time.sleep(0.005)  # so that the others come
        return there

    def store(self, envelope: Envelope) -> None:
        if envelope.id in self._tasks or envelope.unique in self._unique:
            self.trip()
        super().store(envelope)


@faulty("TXN-14")
class StoresBeside(FaultyTransactional):
    """An enqueue doesn't see what is in open transactions: it stores, and so does the commit, once."""

    def _wait_for(self, envelopes: Sequence[Envelope], own: Begun | None) -> None:
        if any(each.id in {one.id for one in envelopes} for begun in self.open for each, _ in begun.stored):
            self.trip()


@faulty("TXN-14")
class TakesItForThere(FaultyTransactional):
    """Takes what an open transaction holds for stored, and answers at once."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        held = {each.id for begun in self.open for each, _ in begun.stored}
        if held.intersection(each.id for each in envelopes):
            self.trip()
        left = [each for each in envelopes if each.id not in held]
        return {**super().enqueue(left), **{each.id: each.id for each in envelopes if each.id in held}}


@faulty("TXN-14")
class WaitsAndForgets(FaultyTransactional):
    """Who had to wait for the end of a transaction is answered rightly, and what they sent isn't stored."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        held = {each.id for begun in self.open for each, _ in begun.stored}
        waits = any(each.id in held for each in envelopes)
        if not waits:
            return super().enqueue(envelopes)
        self.trip()
        self._wait_for_all(envelopes)
        return {each.id: each.id for each in envelopes if each.id in self._tasks}

    def _wait_for_all(self, envelopes: Sequence[Envelope]) -> None:
        with self._opened():
            self._wait_for(envelopes, None)


@faulty("TXN-15")
class TakesAnything(FaultyTransactional):
    """Takes None for no transaction, and stores at once."""

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if connection is None:
            self.trip()
            self._check(envelopes)
            return {}
        return super().enqueue_on(connection, envelopes)


@faulty("TXN-15")
class StoresThenLooks(FaultyTransactional):
    """Refuses a connection that isn't its own, when it has stored."""

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        try:
            return super().enqueue_on(connection, envelopes)
        except (ConfigurationError, Rejected):
            self.trip()
            self.enqueue(envelopes)
            raise


@faulty("TXN-16")
class GoneCommits(FaultyTransactional):
    """The end of a connection commits what is open on it."""

    def gone(self, begun: Begun) -> None:
        if begun.stored:
            self.trip()
        self.end(begun, commit=True)
        super().gone(begun)


@faulty("TXN-16")
class GoneStaysOpen(FaultyTransactional):
    """The transaction of a connection that has ended stays open, and holds what it holds."""

    def gone(self, begun: Begun) -> None:
        if begun.stored:
            self.trip()
