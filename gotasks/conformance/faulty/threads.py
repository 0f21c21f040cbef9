"""Faulty: clients that only one thread at a time may use."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence

from gotasks.broker import Capability, Envelope, Lease, Write
from gotasks.conformance.faulty import Faulty, faulty


@faulty("THR-01")
class NotThreadSafe(Faulty):
    """Collects what is enqueued in one buffer for all threads, and takes it for its own."""

    buffer: Sequence[Envelope] = ()

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        self.buffer = envelopes
        time.sleep(0.0005)  # another thread comes in
        if self.buffer is not envelopes:
            self.trip()
        super().enqueue(self.buffer)
        return {}


@faulty("THR-01")
class ThreadBoundLeases(Faulty):
    """Takes an ack only from the thread that holds the lease."""

    def __init__(self, capabilities: Capability) -> None:
        super().__init__(capabilities)
        self._takers: dict[str, int] = {}

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        leases = super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
        self._takers.update((each.receipt, threading.get_ident()) for each in leases)
        return leases

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        here = threading.get_ident()
        foreign = {each.lease.receipt for each in writes if self._takers[each.lease.receipt] != here}
        if foreign:
            self.trip()
        # It is done all the same: only the answer is wrong.
        return super().ack(writes, keep_for=keep_for) | foreign
