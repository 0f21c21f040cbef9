"""Transactional: a good broker in memory, in whose place a program has transactions of its own.

`memory://?place=NAME&batch=N`: an adapter finds the broker by its place. `batch` is `limits.max_batch`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from gotasks.broker import BrokerURL, Capability, Envelope
from gotasks.conformance.adapter import MemoryAdapter
from gotasks.conformance.kit.open_memory import OpenMemory
from gotasks.errors import BrokerUnavailable, ConfigurationError, PayloadTooLarge, Rejected

if TYPE_CHECKING:
    from typing_extensions import Self

#: Who waits so long for the end of a transaction gives up. Seconds.
_PATIENCE = 10.0

_PLACES: dict[str, Transactional] = {}


class Begun:
    """A transaction: what it has stored is applied by its commit, in one step. It is its own connection."""

    excludes = False

    def __init__(self, broker: Transactional) -> None:
        self.broker = broker
        self.since = time.monotonic()
        self.stored: list[tuple[Envelope, float]] = []  #: and when; monotonic
        self.noted: list[str] = []
        with broker._changed:  # noqa: SLF001 - it is that broker's
            broker.open.append(self)

    @property
    def connection(self) -> Begun:
        return self

    def note(self, text: str) -> None:
        self.noted.append(text)

    def notes(self) -> Sequence[str]:
        return [*self.broker.notes, *self.noted]

    def savepoint(self) -> Mark:
        return Mark(self)

    def commit(self) -> None:
        self.broker.end(self, commit=True)

    def rollback(self) -> None:
        self.broker.end(self, commit=False)


class Mark:
    """A savepoint: how much there was."""

    def __init__(self, begun: Begun) -> None:
        self._begun, self._sizes = begun, (len(begun.stored), len(begun.noted))

    def rollback(self) -> None:
        stored, noted = self._sizes
        self._begun.broker.go_back(self._begun, stored)
        del self._begun.noted[noted:]

    def commit(self) -> None:
        self._begun.broker.go_on(self._begun)


class Transactional(OpenMemory):
    """Who wants an id or a unique key that an open transaction holds waits for its end."""

    limits = msgspec.structs.replace(OpenMemory.limits, max_payload=200_000, max_delay=100.0)

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        url.only({"place", "batch", "without", "handoff"})
        self = cls(OpenMemory().capabilities | Capability.TRANSACTIONAL)
        self.limits = msgspec.structs.replace(cls.limits, max_batch=url.integer("batch", 1000, least=1))
        _PLACES.setdefault(url.text("place", ""), self)
        return self

    def _empty(self) -> None:
        super()._empty()
        self.open: list[Begun] = []
        self.notes: list[str] = []

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        with self._opened():
            self._check(envelopes)
            self._wait_for(envelopes, None)
            return super().enqueue(envelopes)

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        with self._opened():
            if not isinstance(connection, Begun) or connection.broker is not self:
                raise ConfigurationError(f"a {type(connection).__name__} is no transaction on this broker")
            self._check(envelopes)
            self._wait_for(envelopes, connection)
            self._forget_old_records()
            there: dict[str, str] = {}
            for each in envelopes:
                known = self._known(each, connection)
                if known is None:
                    connection.stored.append((each, time.monotonic()))
                else:
                    there[each.id] = known
            return there

    def end(self, begun: Begun, *, commit: bool) -> None:
        """Apply what the transaction has stored, or drop it. It holds nothing any more."""
        with self._changed:
            stored, noted = begun.stored, begun.noted
            begun.stored, begun.noted = [], []
            if commit:
                for each, moment in stored:
                    left = max(0.0, moment + each.delay - time.monotonic())
                    self.store(msgspec.structs.replace(each, delay=left))
                self.notes += noted
            self._changed.notify_all()

    def gone(self, begun: Begun) -> None:
        """The connection of a transaction has ended."""
        self.end(begun, commit=False)
        with self._changed:
            self.open.remove(begun)

    def go_back(self, begun: Begun, size: int) -> None:
        """A savepoint is rolled back: only the first `size` that it has stored are left."""
        with self._changed:
            del begun.stored[size:]
            self._changed.notify_all()

    def go_on(self, begun: Begun) -> None:
        """A savepoint is kept: that changes nothing."""

    def store(self, envelope: Envelope) -> None:
        """What a commit does with each."""
        super().enqueue([envelope])

    def _known(self, envelope: Envelope, begun: Begun) -> str | None:
        """The id that is there already, stored for all or in this transaction."""
        mine = {each.id: each.unique for each, _ in begun.stored}
        if envelope.id in self._tasks or envelope.id in mine:
            return envelope.id
        if envelope.unique is None:
            return None
        keys = {key: task_id for task_id, key in mine.items()}
        return self._unique.get(envelope.unique, keys.get(envelope.unique))

    def _wait_for(self, envelopes: Sequence[Envelope], own: Begun | None) -> None:
        """Until no transaction but `own` holds an id or a key of these."""
        ids = {each.id for each in envelopes}
        keys = {each.unique for each in envelopes} - {None}

        def free() -> bool:
            others = (each for begun in self.open if begun is not own for each, _ in begun.stored)
            return not any(each.id in ids or each.unique in keys for each in others)

        if not self._changed.wait_for(free, _PATIENCE):
            raise BrokerUnavailable("a transaction holds what is to be stored", ids=sorted(ids))

    def _check(self, envelopes: Sequence[Envelope]) -> None:
        self.refuse_unclaimed(envelopes)
        for each in envelopes:
            if len(each.body) > (self.limits.max_payload or 0):
                raise PayloadTooLarge(f"a body of {len(each.body)} bytes", ids=[each.id])
            if each.delay > (self.limits.max_delay or 0.0):
                raise Rejected(f"a delay of {each.delay:g} s", ids=[each.id])


class TransactionalAdapter(MemoryAdapter):
    """For `Transactional`, in this process."""

    broker_class = Transactional

    def url(self, namespace: str) -> str:
        return f"{self.broker_url}{'&' if '?' in self.broker_url else '?'}place={namespace}"

    def drop(self, url: str) -> None:
        _PLACES.pop(BrokerURL(url).text("place", ""), None)

    @contextmanager
    def transaction(self, url: str) -> Iterator[Begun]:
        begun = Begun(_PLACES[BrokerURL(url).text("place", "")])
        try:
            yield begun
        finally:
            begun.broker.gone(begun)
