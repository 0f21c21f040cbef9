"""WrappedBroker: any broker, as it is. Subclass it to do something around a call."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from gotasks.broker import Broker, BrokerURL, Envelope, Lease, QueueStats, Record, State, Write

if TYPE_CHECKING:
    from typing_extensions import Self


class WrappedBroker(Broker):
    """Hands every call to `inner`, which it owns: to close this one is to close that one."""

    def __init__(self, inner: Broker) -> None:
        self.inner = inner
        self.capabilities = inner.capabilities
        self.limits = inner.limits

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        raise NotImplementedError("it is made around another broker")

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        return self.inner.enqueue(envelopes)

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        return self.inner.acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        return self.inner.extend(leases, lease_for=lease_for)

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        return self.inner.checkpoint(writes)

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        return self.inner.ack(writes, keep_for=keep_for)

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        return self.inner.release(writes)

    def stats(self, queue: str) -> QueueStats:
        return self.inner.stats(queue)

    def purge(self, queue: str) -> int:
        return self.inner.purge(queue)

    def interrupt(self, queue: str) -> None:
        self.inner.interrupt(queue)

    def close(self) -> None:
        self.inner.close()

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        return self.inner.browse(queue, state=state, limit=limit, after=after)

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        return self.inner.get(ids)

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        return self.inner.cancel(ids, keep_for=keep_for)

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        return self.inner.enqueue_on(connection, envelopes)

    async def aenqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        return await self.inner.aenqueue_on(connection, envelopes)

    def warnings(self) -> Sequence[str]:
        return self.inner.warnings()
