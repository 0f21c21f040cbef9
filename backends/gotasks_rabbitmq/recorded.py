"""RecordedBroker: RabbitMQ beside a record store. `amqp://…?records=URL`

The store has the tasks; all that is promised of them is its promise. In RabbitMQ there are pointers, which wake who
waits. So a pointer that is lost, doubled or out of date is harmless: whoever gets one asks the store what is next.
It doesn't ask for the pointer's own task, since that may be delayed by now, or come after others.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from gotasks.broker import Broker, BrokerURL, Capability, Envelope, Lease, QueueStats, Record, State, Write
from gotasks.discovery import open_broker
from gotasks.errors import BrokerClosed, BrokerUnavailable, InvalidURL
from gotasks_rabbitmq.address import Address
from gotasks_rabbitmq.broker import RabbitBroker
from gotasks_rabbitmq.pointers import Pointers
from gotasks_rabbitmq.strangers import Strangers

if TYPE_CHECKING:
    from typing_extensions import Self

#: What has no pointer (a delay or a lease is over, a pointer was lost) is looked for that often. Seconds.
_LOOK = 0.75

#: What a look adds to the store's own recovery, with the time that it takes. Seconds.
_RECOVERY = 1.0

#: What a store must have, or it can't be the only truth of a task.
_NEEDED = (
    Capability.RECORDS
    | Capability.BROWSE
    | Capability.IDEMPOTENT
    | Capability.TIMED_LEASE
    | Capability.ATOMIC_MOVE
)


class RecordedBroker(Broker):
    """Two brokers that are one: `line` has pointers, `store` has the tasks. Thread-safe.

    It claims what the store claims, and the store's limits; a batch is what both take.
    """

    def __init__(self, line: Broker, store: Broker) -> None:
        self.capabilities = store.capabilities
        self.limits = msgspec.structs.replace(
            store.limits,
            max_batch=min(line.limits.max_batch, store.limits.max_batch),
            recovery=store.limits.recovery + _RECOVERY,
        )
        self._store = store
        self._pointers = Pointers(line)
        self._strangers = Strangers(store)
        self._closed = False
        self._interrupts: defaultdict[str, int] = defaultdict(int)
        self._look_at: dict[str, float] = {}  #: queue → when to look into the store, on this process's clock

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        if "management" in url.params:
            raise InvalidURL(
                "management= is of no use with records=: no policy of RabbitMQ loses a task there"
            )
        return cls(RabbitBroker(Address.of(url)), _store_of(url))

    def after_fork(self) -> None:
        # The two are told by themselves.
        self._pointers.after_fork()
        self._strangers.after_fork()

    # -- the nine ---------------------------------------------------------------------------------

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        there = self._store.enqueue(envelopes)
        # What is there under its own id may be a repeat of ours, whose first attempt got no further than the store.
        ready = [each for each in envelopes if each.delay <= 0 and there.get(each.id, each.id) == each.id]
        if ready:
            self._pointers.put(ready[0].queue, [each.id for each in ready])
        return there

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        self._check_open()
        if limit < 1:
            return []
        if ids is not None:
            return self._acquire_ids(queue, limit, lease_for, ids)
        most = min(limit, self.limits.max_batch)
        end = time.monotonic() + wait
        interrupts = self._interrupts[queue]

        def over() -> bool:
            return time.monotonic() >= end or interrupts != self._interrupts[queue]

        looked = False
        while True:
            now = time.monotonic()
            left = max(end - now, 0.0)
            due = self._look_at.get(queue, 0.0)
            pointers = self._pointers.take(queue, limit=most, wait=min(left, max(due - now, 0.0)))
            last = over()
            leases: list[Lease] = []
            if pointers is None:  # the store wakes us, for want of better
                leases = self._look(queue, most, 0.0 if last else min(left, _LOOK), lease_for)
                last = over()
            elif pointers or time.monotonic() >= due or (last and not looked):
                looked = True
                self._settle(pointers)  # before: what is leased doesn't wait for RabbitMQ
                leases = self._look(queue, most, 0.0, lease_for)
            if leases or last:
                return leases

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        return self._store.extend(leases, lease_for=lease_for)

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        return self._store.checkpoint(writes)

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        return self._store.ack(writes, keep_for=keep_for)

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        lost = self._store.release(writes)
        ready: defaultdict[str, list[str]] = defaultdict(list)
        for write in writes:
            if write.delay <= 0 and write.lease.receipt not in lost:
                envelope = write.lease.envelope
                ready[write.queue or envelope.queue].append(envelope.id)
        for queue, ids in ready.items():
            self._pointers.put(queue, ids)
        return lost

    def stats(self, queue: str) -> QueueStats:
        return self._store.stats(queue)

    def purge(self, queue: str) -> int:
        removed = self._store.purge(queue)
        self._pointers.purge(queue)
        return removed

    def interrupt(self, queue: str) -> None:
        self._interrupts[queue] += 1
        self._pointers.interrupt(queue)
        self._store.interrupt(queue)

    def close(self) -> None:
        self._closed = True
        self._pointers.close()
        self._store.close()

    # -- capabilities -----------------------------------------------------------------------------

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        return self._store.browse(queue, state=state, limit=limit, after=after)

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        return self._store.get(ids)

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        return self._store.cancel(ids, keep_for=keep_for)

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        # When it commits, nobody tells us: a look finds them.
        return self._store.enqueue_on(connection, envelopes)

    async def aenqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        return await self._store.aenqueue_on(connection, envelopes)

    def warnings(self) -> Sequence[str]:
        return [*self._pointers.warnings(), *self._store.warnings()]

    def migrate(self) -> Sequence[str]:
        return self._store.migrate()

    # -- how it is done ---------------------------------------------------------------------------

    def _look(self, queue: str, limit: int, wait: float, lease_for: float) -> list[Lease]:
        """Lease what is next in the store, and see when to look again: at once, if there may be more."""
        leases = self._store.acquire(queue, limit=limit, wait=wait, lease_for=lease_for)
        self._look_at[queue] = 0.0 if len(leases) == limit else time.monotonic() + _LOOK
        return leases

    def _acquire_ids(self, queue: str, limit: int, lease_for: float, ids: Collection[str]) -> list[Lease]:
        leases = self._store.acquire(queue, limit=limit, wait=0.0, lease_for=lease_for, ids=ids)
        if leases:
            # As many pointers go: in a queue for which nobody waits, as the fatal one, they would pile up.
            most = min(len(leases), self.limits.max_batch)
            with suppress(BrokerClosed, BrokerUnavailable):
                self._settle(self._pointers.take(queue, limit=most, wait=0.0) or [])
        return leases

    def _settle(self, pointers: Sequence[Lease]) -> None:
        """Be done with pointers, and have what is none of them in the store. Raises BrokerUnavailable."""
        served = [each for each in pointers if not each.envelope.body]
        try:
            served += self._strangers.store([each for each in pointers if each.envelope.body])
        finally:
            self._pointers.settle(served)

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerClosed("the broker is closed")


def _store_of(url: BrokerURL) -> Broker:
    """The broker that `records=` names. Raises InvalidURL if it can't be the store, and what `open_broker` raises."""
    try:
        records = BrokerURL(url.params["records"])
    except InvalidURL as error:
        raise InvalidURL(f"records= in the {url.scheme}:// URL: {error}") from None
    if "records" in records.params:
        raise InvalidURL(
            f"records={records}: a record store has no records= of its own; name that one at once"
        )
    store = open_broker(records)
    missing = ", ".join(
        str(each.name) for each in Capability if each in _NEEDED and each not in store.capabilities
    )
    if missing:
        raise InvalidURL(
            f"records={records}: a record store needs {missing}, and this broker doesn't have that"
        )
    if Capability.HANDOFF in store.capabilities:
        raise InvalidURL(
            f"records={records}: a checkpoint there ends the lease (HANDOFF); a record store keeps it"
        )
    return store
