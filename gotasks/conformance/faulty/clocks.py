"""Faulty: brokers that believe in clocks."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

import msgspec

from gotasks.broker import Capability, Envelope, Lease
from gotasks.conformance.faulty import Faulty, FaultyClient, faulty


class _Moments(FaultyClient):
    """Sends moments by a clock of its own where it should send how long."""

    leases = delays = False

    def off(self) -> float:
        """By how much its moments are off."""
        raise NotImplementedError

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        if self.leases and abs(self.off()) > 1:
            self.trip()
            lease_for += self.off()
        return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        if self.delays and abs(self.off()) > 1:
            self.trip()
            envelopes = [
                msgspec.structs.replace(each, delay=each.delay and each.delay + self.off())
                for each in envelopes
            ]
        return super().enqueue(envelopes)


class _OwnClock(_Moments):
    def off(self) -> float:
        return time.time() - time.clock_gettime(time.CLOCK_REALTIME)


class _LocalTime(_Moments):
    def off(self) -> float:
        return float(time.localtime().tm_gmtoff)


@faulty("CLK-01")
class ClientClockLease(_OwnClock):
    """Tells the server when a lease ends, by the client's clock."""

    leases = True


@faulty("CLK-01")
class ClientClockDelay(_OwnClock):
    """Tells the server when a task is due, by the client's clock."""

    delays = True


@faulty("CLK-03")
class NaiveLocalLease(_LocalTime):
    """Tells the server when a lease ends, in the client's local time."""

    leases = True


@faulty("CLK-03")
class NaiveLocalDelay(_LocalTime):
    """Tells the server when a task is due, in the client's local time."""

    delays = True


class _WallClock(Faulty):
    """Measures leases by the wall clock."""

    back, ahead = True, True

    def __init__(self, capabilities: Capability) -> None:
        super().__init__(capabilities)
        self._offset = time.time() - time.monotonic()

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        with self._changed:
            jumped = time.time() - time.monotonic() - self._offset
            self._offset += jumped
            if (jumped > 1 and self.ahead) or (jumped < -1 and self.back):
                for task in self._leased[queue].values():
                    self.trip()
                    task.until -= jumped
        return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)


@faulty("CLK-02")
class WallClockTimer(_WallClock):
    """Measures leases by the wall clock: one that is put back makes them last."""

    ahead = False


@faulty("CLK-02")
class WallClockExpiry(_WallClock):
    """Measures leases by the wall clock: one that is put ahead ends them."""

    back = False
