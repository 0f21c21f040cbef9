"""Tap: a broker between an app and the one under test, to see what is asked of it and to fail in its place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from gotasks.broker import Broker, Envelope, Lease, Record, Write
from gotasks.conformance.kit.wrapped import WrappedBroker

T = TypeVar("T")


class Tap(WrappedBroker):
    """Sees every call that workers make, and can make it fail: before it is carried out, or after (a lost reply)."""

    def __init__(self, inner: Broker) -> None:
        super().__init__(inner)
        #: By the name of a call: what to do before it, and after it. Either may raise.
        self.before: dict[str, Callable[[], None]] = {}
        self.after: dict[str, Callable[[], None]] = {}
        self.calls: list[str] = []
        #: The options of each `acquire`, and all leases that came of them.
        self.asked: list[dict[str, Any]] = []
        self.delivered: list[Lease] = []

    def _pass(self, name: str, call: Callable[[], T]) -> T:
        self.calls.append(name)
        self.before.get(name, _nothing)()
        result = call()
        self.after.get(name, _nothing)()
        return result

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        return self._pass("enqueue", lambda: self.inner.enqueue(envelopes))

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        return self._pass("enqueue_on", lambda: self.inner.enqueue_on(connection, envelopes))

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        self.asked.append({"queue": queue, "limit": limit, "wait": wait, "lease_for": lease_for, "ids": ids})
        leases = self._pass(
            "acquire",
            lambda: self.inner.acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids),
        )
        self.delivered += leases
        return leases

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        return self._pass("extend", lambda: self.inner.extend(leases, lease_for=lease_for))

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        return self._pass("checkpoint", lambda: self.inner.checkpoint(writes))

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        return self._pass("ack", lambda: self.inner.ack(writes, keep_for=keep_for))

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        return self._pass("release", lambda: self.inner.release(writes))

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        return self._pass("get", lambda: self.inner.get(ids))


def _nothing() -> None:
    return None
