"""Faulty: brokers that a fork confuses."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence

from gotasks.broker import Envelope, Lease, Write
from gotasks.conformance.faulty import Faulty, FaultyClient, faulty


@faulty("FRK-01")
class ParentsLeasesLive(Faulty):
    """A fork's child goes on with its parent's leases."""

    def after_fork(self) -> None:
        self._changed = threading.Condition()
        self.trip()


@faulty("FRK-01")
class DeadInChild(Faulty):
    """Works no more in a fork's child."""

    def after_fork(self) -> None:
        self.trip()
        self._closed = True

    def checkpoint(self, writes: Sequence[Write]) -> frozenset[str]:
        return self._lost(writes) or super().checkpoint(writes)

    def release(self, writes: Sequence[Write]) -> frozenset[str]:
        return self._lost(writes) or super().release(writes)

    def ack(self, writes: Sequence[Write], *, keep_for: float) -> frozenset[str]:
        return self._lost(writes) or super().ack(writes, keep_for=keep_for)

    def _lost(self, writes: Sequence[Write]) -> frozenset[str]:
        return frozenset(each.lease.receipt for each in writes) if self._closed else frozenset()


@faulty("FRK-01")
class SharedSocket(FaultyClient):
    """A fork's child talks on its parent's connections."""

    def after_fork(self) -> None:
        if not hasattr(self, "_idle"):
            super().after_fork()
            return
        self.trip()
        self._lock, self._pid = threading.Lock(), os.getpid()


@faulty("FRK-01", "FRK-02")
class ChildEndsConnections(FaultyClient):
    """A fork's child ends its parent's connections in an orderly way."""

    def after_fork(self) -> None:
        for connection in [*getattr(self, "_idle", ()), *getattr(self, "_busy", ())]:
            self.trip()
            connection.shutdown(socket.SHUT_RDWR)
        super().after_fork()


@faulty("FRK-01")
class ChildsWritesReach(FaultyClient):
    """What a fork's child writes under its parent's leases is carried out, and only said to be lost."""

    def _theirs(self, lease: Lease) -> Lease:
        pid, _, _ = lease.receipt.partition(".")
        if pid != str(os.getpid()):
            self.trip()
        mine, self._pid = self._pid, int(pid)
        try:
            return super()._theirs(lease)
        finally:
            self._pid = mine

    def _write(self, call: object, writes: Sequence[Write]) -> frozenset[str]:
        lost = super()._write(call, writes)  # type: ignore[arg-type]
        return lost | {
            each.lease.receipt for each in writes if not each.lease.receipt.startswith(f"{self._pid}.")
        }


@faulty("FRK-02")
class ForkDeadlock(Faulty):
    """A fork's child keeps the locks of its parent's threads, which are locked for ever."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> dict[str, str]:
        with self._changed:
            threading.Event().wait(0.001)  # long enough to be forked in
            return dict(super().enqueue(envelopes))

    def after_fork(self) -> None:
        held = self._changed
        super().after_fork()
        if not held.acquire(blocking=False):
            self.trip()
            self._changed = held
        else:
            held.release()
