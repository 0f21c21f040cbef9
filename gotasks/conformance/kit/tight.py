"""Tight: a good broker that promises as little as a broker may, and refuses all that is beyond."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import msgspec

from gotasks.broker import Envelope, Lease, QueueStats, Write
from gotasks.conformance.kit.open_memory import OpenMemory
from gotasks.errors import PayloadTooLarge, Rejected
from gotasks.memory import _Task


class Tight(OpenMemory):
    """One thing a call, short leases and delays, small bodies; what was left comes late, and nothing is counted."""

    limits = msgspec.structs.replace(
        OpenMemory.limits,
        max_payload=200_000,
        max_batch=1,
        max_delay=10.0,
        max_lease=10.0,
        recovery=1.0,
        returned="any",
    )

    def _empty(self) -> None:
        super()._empty()
        self._front = self._back  # what is put back goes to the end

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self._fits([each.id for each in envelopes])
        for each in envelopes:
            self._allowed(each.id, each.body, each.delay)
        return super().enqueue(envelopes)

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        if limit > 1 or lease_for > 10.0:
            raise Rejected(f"acquire(limit={limit}, lease_for={lease_for:g}) is beyond the limits", ids=())
        return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)

    def extend(self, leases: Sequence[Lease], *, lease_for: float) -> frozenset[str]:
        self._fits([each.envelope.id for each in leases])
        if lease_for > 10.0:
            raise Rejected(f"extend(lease_for={lease_for:g}) is beyond the limit", ids=())
        with self._opened():
            lost = super().extend(leases, lease_for=lease_for)
            for task in filter(None, map(self._held, leases)):
                task.until = min(task.until, vars(task)["since"] + 10.0)
            return lost

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        for each in writes:
            self._allowed(each.lease.envelope.id, each.body, each.delay)
        return super().release(writes)

    def stats(self, queue: str) -> QueueStats:
        super().stats(queue)
        return QueueStats(ready=None, scheduled=None, leased=None)

    def _write(self, writes: Sequence[Write], change: Callable[[_Task, Write], None]) -> frozenset[str]:
        self._fits([each.lease.envelope.id for each in writes])
        for each in writes:
            self._allowed(each.lease.envelope.id, each.body, 0.0)
        return super()._write(writes, change)

    def _fits(self, ids: Sequence[str]) -> None:
        if len(ids) > 1:
            raise Rejected(f"{len(ids)} in one call, and it takes one", ids=ids)

    def _allowed(self, task_id: str, body: bytes, delay: float) -> None:
        if len(body) > 200_000:
            raise PayloadTooLarge(f"a body of {len(body)} bytes", ids=[task_id])
        if delay > 10.0:
            raise Rejected(f"a delay of {delay:g} s", ids=[task_id])

    # -- what a lease has left is offered a second after its end ------------------------------------------

    def _lease(self, task: _Task, now: float, lease_for: float) -> Lease:
        vars(task)["since"] = time.monotonic()
        return super()._lease(task, time.monotonic(), lease_for)

    def _eligible(self, queue: str, now: float) -> Iterator[_Task]:
        self._make_due_ready(queue, now)
        return super()._eligible(queue, now - self.limits.recovery)

    def _named(self, queue: str, ids: Collection[str], now: float) -> Iterator[_Task]:
        return super()._named(queue, ids, now - self.limits.recovery)

    def _next_change(self, queue: str) -> float:
        moments = [task.until + self.limits.recovery for task in self._leased[queue].values()]
        moments += [self._scheduled[queue][0][0]] if self._scheduled[queue] else []
        return min(moments, default=float("inf"))
