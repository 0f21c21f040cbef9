"""CountingBroker: wraps any broker, and counts its calls, what they carried and the time that they took."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from gotasks.broker import Broker, BrokerURL, Envelope, Lease, QueueStats, Record, State, Write
from gotasks.errors import InvalidURL

if TYPE_CHECKING:
    from typing_extensions import Self


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of one method."""

    calls: int = 0
    items: int = 0  #: envelopes, leases, writes or ids that they carried; what `acquire` returned
    seconds: float = 0.0  #: all calls together; those that are under way at the same time count side by side
    cpu: float = 0.0  #: of which the calling threads were at work, in seconds


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted so far, or between two moments."""

    seconds: float  #: by the clock
    cpu: float  #: seconds for which this process was at work, in all its threads
    busy: float  #: seconds in which one call at least was under way
    methods: dict[str, Count]  #: those that were called

    def since(self, before: Counts) -> Counts:
        """What has come since `before`."""
        methods = {}
        for name, now in self.methods.items():
            then = before.methods.get(name, Count())
            if now.calls > then.calls:
                methods[name] = Count(
                    calls=now.calls - then.calls,
                    items=now.items - then.items,
                    seconds=now.seconds - then.seconds,
                    cpu=now.cpu - then.cpu,
                )
        return Counts(
            seconds=self.seconds - before.seconds,
            cpu=self.cpu - before.cpu,
            busy=self.busy - before.busy,
            methods=methods,
        )


class _Call:
    """A call under way. What is in `items` at its end is counted with it."""

    __slots__ = ("_began", "_broker", "_cpu", "_method", "items")

    def __init__(self, broker: CountingBroker, method: str, items: int) -> None:
        self._broker, self._method, self.items = broker, method, items

    def __enter__(self) -> Self:
        self._broker.begin()
        self._cpu, self._began = time.thread_time(), time.monotonic()
        return self

    def __exit__(self, *_exc: object) -> None:
        one = Count(
            calls=1,
            items=self.items,
            seconds=time.monotonic() - self._began,
            cpu=time.thread_time() - self._cpu,
        )
        self._broker.end(self._method, one)


class CountingBroker(Broker):
    """`inner`, counted. Thread-safe as that is."""

    def __init__(self, inner: Broker) -> None:
        self.inner = inner
        self.capabilities = inner.capabilities
        self.limits = inner.limits
        self._methods: dict[str, Count] = {}
        self._under_way = 0
        self._since = 0.0  #: while one is: when the first of them began
        self._busy = 0.0  #: before that
        self._lock = threading.Lock()

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:  # noqa: ARG003 - there is no such URL
        raise InvalidURL("a CountingBroker is made around a broker: CountingBroker(open_broker(url))")

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def counts(self) -> Counts:
        """What was counted so far; of calls under way only that they are."""
        with self._lock:
            now = time.monotonic()
            busy = self._busy + (now - self._since if self._under_way else 0.0)
            return Counts(seconds=now, cpu=time.process_time(), busy=busy, methods=dict(self._methods))

    def begin(self) -> None:
        """A call begins."""
        with self._lock:
            if self._under_way == 0:
                self._since = time.monotonic()
            self._under_way += 1

    def end(self, method: str, one: Count) -> None:
        """A call has ended, however it did."""
        with self._lock:
            self._under_way -= 1
            if self._under_way == 0:
                self._busy += time.monotonic() - self._since
            sum_ = self._methods.get(method, Count())
            self._methods[method] = Count(
                calls=sum_.calls + one.calls,
                items=sum_.items + one.items,
                seconds=sum_.seconds + one.seconds,
                cpu=sum_.cpu + one.cpu,
            )

    # -- the nine ---------------------------------------------------------------------------------

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        with _Call(self, "enqueue", len(envelopes)):
            return self.inner.enqueue(envelopes)

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        with _Call(self, "acquire", 0) as call:
            leases = self.inner.acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
            call.items = len(leases)
            return leases

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        with _Call(self, "extend", len(leases)):
            return self.inner.extend(leases, lease_for=lease_for)

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        with _Call(self, "checkpoint", len(writes)):
            return self.inner.checkpoint(writes)

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        with _Call(self, "ack", len(writes)):
            return self.inner.ack(writes, keep_for=keep_for)

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        with _Call(self, "release", len(writes)):
            return self.inner.release(writes)

    def stats(self, queue: str) -> QueueStats:
        with _Call(self, "stats", 0):
            return self.inner.stats(queue)

    def purge(self, queue: str) -> int:
        with _Call(self, "purge", 0):
            return self.inner.purge(queue)

    def interrupt(self, queue: str) -> None:
        self.inner.interrupt(queue)

    def close(self) -> None:
        self.inner.close()

    # -- capabilities -----------------------------------------------------------------------------

    def browse(self, queue: str, *, state: State, limit: int, after: str | None = None) -> Sequence[Record]:
        with _Call(self, "browse", 0):
            return self.inner.browse(queue, state=state, limit=limit, after=after)

    def get(self, ids: Collection[str]) -> Mapping[str, Record]:
        with _Call(self, "get", len(ids)):
            return self.inner.get(ids)

    def cancel(self, ids: Collection[str], *, keep_for: float) -> Collection[str]:
        with _Call(self, "cancel", len(ids)):
            return self.inner.cancel(ids, keep_for=keep_for)

    def enqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        with _Call(self, "enqueue_on", len(envelopes)):
            return self.inner.enqueue_on(connection, envelopes)

    async def aenqueue_on(self, connection: object, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        with _Call(self, "enqueue_on", len(envelopes)):
            return await self.inner.aenqueue_on(connection, envelopes)

    def warnings(self) -> Sequence[str]:
        return self.inner.warnings()

    def migrate(self) -> Sequence[str]:
        return self.inner.migrate()
