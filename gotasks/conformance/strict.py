"""StrictBroker: wraps any broker, and objects when its *user* breaks the contract: the other side of the suite.

    strict = StrictBroker(open_broker("memory://"))
    app = App(strict)
    ...
    assert strict.misuses == []     # a thread of a worker that swallows the error can't hide it

A broker may rely on what is checked here: ids and queues are well formed, batches are no larger than it takes, what
it doesn't claim isn't asked for, one write of a lease at a time, each with a higher `seq`. It remembers every lease
that it gave out, so it is for tests only.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gotasks.broker import (
    Broker,
    BrokerURL,
    Capability,
    Envelope,
    Lease,
    Limits,
    QueueStats,
    Record,
    State,
    Write,
)
from gotasks.codec import ROOM_TO_BURY
from gotasks.conformance.kit.rules import Misuse, Rules
from gotasks.errors import InvalidURL, Rejected

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Misuse", "StrictBroker"]


class _Given:
    """A lease that was given out, and the writes under it."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.since = time.monotonic()
        self.pid = os.getpid()
        self.last: tuple[str, Write, float] | None = None  #: the latest write: its kind, itself, its keep_for
        self.answered = True  #: the latest write was; else its outcome is unknown
        self.settled: int | None = None  #: the thread that was told that the lease has ended
        self.writer: int | None = None  #: the thread whose write is on its way
        self.extended_late = False  #: it was extended once after it had been settled


class StrictBroker(Broker):
    """`inner`, and a Misuse for each call that the contract doesn't allow. `misuses`: all that were raised."""

    def __init__(self, inner: Broker) -> None:
        self.inner = inner
        self.capabilities: Capability = inner.capabilities
        self.limits: Limits = inner.limits
        self._rules = Rules(inner.capabilities, inner.limits)
        self.misuses = self._rules.misuses
        self._given: dict[str, _Given] = {}
        self._ids: set[str] = set()  #: of tasks that were leased
        self._closed = False
        self._lock = threading.Lock()

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:  # noqa: ARG003 - there is no such URL
        raise InvalidURL("a StrictBroker is made around a broker: StrictBroker(open_broker(url))")

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    # -- the nine ---------------------------------------------------------------------------------

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self._check_open("enqueue")
        self._check_envelopes("enqueue", envelopes)
        return self.inner.enqueue(envelopes)

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        self._check_open("acquire")
        self._rules.queue(queue)
        self._rules.lease_for("acquire", lease_for)
        if limit < 1:
            raise self._rules.broken(f"acquire(limit={limit}): it is 1 at least")
        if not wait >= 0:
            raise self._rules.broken(f"acquire(wait={wait:g}): it is 0 at least")
        if ids is not None:
            self._rules.need(Capability.BROWSE, "acquire(ids=…)")
            self._rules.ids(ids)
        leases = self.inner.acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
        with self._lock:
            for lease in leases:
                self._given[lease.receipt] = _Given(lease)
                self._ids.add(lease.envelope.id)
        return leases

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        self._check_open("extend")
        self._rules.lease_for("extend", lease_for)
        self._rules.batch("extend", [each.envelope.queue for each in leases])
        for lease in leases:
            given = self._known("extend", lease)
            self._check_age("extend", given)
            if given.settled is None:
                continue
            # Another thread may have been told a moment ago, but only once: then it's no longer on any list.
            if given.settled == threading.get_ident() or given.extended_late:
                raise self._rules.broken(
                    f"extend of the lease of {lease.envelope.id}, which was settled and answered"
                )
            given.extended_late = True
        return self.inner.extend(leases, lease_for=lease_for)

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        self._check_open("checkpoint")
        for each in writes:
            self._rules.size("checkpoint", each.body, room=ROOM_TO_BURY)
            self._rules.plain("checkpoint", each)
        ends = Capability.HANDOFF in self.capabilities
        return self._write("checkpoint", writes, lambda: self.inner.checkpoint(writes), ends=ends)

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        self._check_open("ack")
        self._rules.keep_for("ack", keep_for)
        for each in writes:
            self._rules.size("ack", each.body)
            self._rules.plain("ack", each)
        return self._write(
            "ack", writes, lambda: self.inner.ack(writes, keep_for=keep_for), ends=True, keep_for=keep_for
        )

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        self._check_open("release")
        for each in writes:
            self._rules.size("release", each.body)
            self._rules.delay(each.delay)
            if each.queue is not None:
                self._rules.queue(each.queue)
        return self._write("release", writes, lambda: self.inner.release(writes), ends=True)

    def stats(self, queue: str) -> QueueStats:
        self._check_open("stats")
        self._rules.queue(queue)
        return self.inner.stats(queue)

    def purge(self, queue: str) -> int:
        self._check_open("purge")
        self._rules.queue(queue)
        return self.inner.purge(queue)

    def interrupt(self, queue: str) -> None:
        self._rules.queue(queue)
        self.inner.interrupt(queue)

    def close(self) -> None:
        self._closed = True
        self.inner.close()

    # -- capabilities -----------------------------------------------------------------------------

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        self._check_open("browse")
        self._rules.need(Capability.BROWSE, "browse")
        self._rules.queue(queue)
        if limit < 1:
            raise self._rules.broken(f"browse(limit={limit}): it is 1 at least")
        if after is not None:
            self._rules.id(after)
        return self.inner.browse(queue, state=state, limit=limit, after=after)

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        self._check_open("get")
        self._rules.need(Capability.RECORDS, "get")
        self._rules.ids(ids)
        return self.inner.get(ids)

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        self._check_open("cancel")
        self._rules.need(Capability.CANCEL, "cancel")
        self._rules.keep_for("cancel", keep_for)
        self._rules.ids(ids)
        return self.inner.cancel(ids, keep_for=keep_for)

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self._check_open("enqueue_on")
        self._rules.need(Capability.TRANSACTIONAL, "enqueue_on")
        self._check_envelopes("enqueue_on", envelopes)
        return self.inner.enqueue_on(connection, envelopes)

    async def aenqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self._check_open("aenqueue_on")
        self._rules.need(Capability.TRANSACTIONAL, "aenqueue_on")
        self._check_envelopes("aenqueue_on", envelopes)
        return await self.inner.aenqueue_on(connection, envelopes)

    def warnings(self) -> Sequence[str]:
        self._check_open("warnings")
        return self.inner.warnings()

    def _check_envelopes(self, what: str, envelopes: Sequence[Envelope]) -> None:
        self._rules.batch(what, [each.queue for each in envelopes])
        for each in envelopes:
            self._rules.id(each.id)
            self._rules.delay(each.delay)
            if each.priority:
                self._rules.need(Capability.PRIORITY, "an envelope with a priority")
            if not 0 <= each.priority <= 9:
                raise self._rules.broken(f"priority {each.priority}, which isn't one of 0 to 9")
            if each.unique is not None:
                self._rules.need(Capability.UNIQUE, "an envelope with a unique key")
            # One that was acked before its first step comes back to be buried, and uses the room for that.
            self._rules.size(what, each.body, room=0 if each.id in self._ids else ROOM_TO_BURY)

    # -- writes -----------------------------------------------------------------------------------

    def _write(
        self,
        kind: str,
        writes: Sequence[Write],
        call: Callable[[], frozenset[str]],
        *,
        ends: bool,
        keep_for: float = 0.0,
    ) -> frozenset[str]:
        """Check the writes, make the call, and remember what became of them. `ends`: a held one ends its lease."""
        self._rules.batch(kind, [each.lease.envelope.queue for each in writes])
        with self._on_its_way(kind, writes, keep_for) as given:
            try:
                lost = call()
            except Rejected as error:
                for each in given:  # of these it is certain: another write may follow
                    each.answered = each.lease.envelope.id in error.ids
                raise
            for each in given:
                each.answered = True
                if ends or each.lease.receipt in lost:
                    each.settled = threading.get_ident()
            return lost

    @contextmanager
    def _on_its_way(self, kind: str, writes: Sequence[Write], keep_for: float) -> Iterator[list[_Given]]:
        here = threading.get_ident()
        begun: list[_Given] = []
        try:
            for write in writes:
                given = self._known(kind, write.lease)
                with self._lock:
                    busy, given.writer = given.writer, given.writer or here
                if busy is not None:
                    raise self._rules.broken(
                        f"{kind} of {write.lease.envelope.id} while a write of it is on its way"
                    )
                begun.append(given)
                self._check_order(given, (kind, write, keep_for))
            for given, write in zip(begun, writes, strict=True):
                given.last, given.answered = (kind, write, keep_for), False
            yield begun
        finally:
            for given in begun:
                given.writer = None

    def _check_order(self, given: _Given, new: tuple[str, Write, float]) -> None:
        kind, write, _ = new
        what = f"{kind}(seq={write.seq}) of {write.lease.envelope.id}"
        if given.settled is not None:
            raise self._rules.broken(f"{what}, after the lease had been settled and that was answered")
        if given.last is None:
            if write.seq < 1:
                raise self._rules.broken(f"{what}: a seq is 1 at least")
        elif write.seq < given.last[1].seq:
            raise self._rules.broken(f"{what}, after seq {given.last[1].seq}: it has to rise")
        elif write.seq == given.last[1].seq:
            if _content(new) != _content(given.last):
                raise self._rules.broken(f"{what} differs from the write that had this seq before")
            if given.answered:
                raise self._rules.broken(
                    f"{what}: a write with this seq was answered, so the next one needs a higher one"
                )
            return
        self._check_age(what, given)

    def _known(self, what: str, lease: Lease) -> _Given:
        given = self._given.get(lease.receipt)
        if given is None or given.lease.envelope != lease.envelope:
            raise self._rules.broken(
                f"{what} of {lease.envelope.id} under a lease that this broker never gave out"
            )
        if given.pid != os.getpid():
            raise self._rules.broken(
                f"{what} of {lease.envelope.id} in a forked process: its lease is the parent's"
            )
        return given

    def _check_open(self, what: str) -> None:
        if self._closed:
            raise self._rules.broken(f"{what} after close")

    def _check_age(self, what: str, given: _Given) -> None:
        most = self.limits.max_lease
        if most is not None and time.monotonic() - given.since > most:
            raise self._rules.broken(
                f"{what} of {given.lease.envelope.id}, held for longer than limits.max_lease ({most:g} s)"
            )


def _content(write: tuple[str, Write, float]) -> tuple[object, ...]:
    kind, it, keep_for = write
    return kind, it.body, it.delay, it.queue, keep_for
