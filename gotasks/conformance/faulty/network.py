"""Faulty: clients that hide what the network does, hang on it, never come back, mix up replies, or tell secrets."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Collection, Mapping, Sequence

import msgspec

from gotasks.broker import BrokerURL, Envelope, Lease, QueueStats
from gotasks.conformance.faulty import FaultyClient, faulty
from gotasks.errors import BrokerUnavailable


@faulty("DLV-02")
class SwallowEnqueueError(FaultyClient):
    """Takes an enqueue for done whose connection broke."""

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        try:
            return super().enqueue(envelopes)
        except BrokerUnavailable:
            super().stats(envelopes[0].queue)  # the server is there, so nothing can be wrong
            self.trip()
            return {}


@faulty("DLV-02")
class Outbox(FaultyClient):
    """Keeps what it can't send, returns, and sends it when it's next called on a network that has healed."""

    def __init__(self, url: BrokerURL) -> None:
        super().__init__(url)
        self._kept: list[Envelope] = []

    def enqueue(self, envelopes: Sequence[Envelope]) -> Mapping[str, str]:
        try:
            return super().enqueue(envelopes)
        except BrokerUnavailable as error:
            if "didn't answer" in str(error):
                raise
            self.trip()
            self._kept += envelopes
            return {}

    def stats(self, queue: str) -> QueueStats:
        super().enqueue(self._kept)
        return super().stats(queue)


@faulty("NET-03")
class StuckAfterReconnect(FaultyClient):
    """Waits for a wake-up that its new connection was never told to expect."""

    _stuck = False

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        if self._stuck:
            self.trip()
            super().stats(queue)
            threading.Event().wait(min(wait, 0.05))
            return []
        try:
            return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
        except BrokerUnavailable:
            self._stuck = True
            raise


@faulty("NET-03")
class ForgetsToClose(FaultyClient):
    """Forgets to close a connection that is broken."""

    def __init__(self, url: BrokerURL) -> None:
        super().__init__(url)
        self._forgotten: list[socket.socket] = []

    def _drop(self, connection: socket.socket) -> None:
        self.trip()
        self._forgotten.append(connection)


@faulty("NET-04")
class NoSocketTimeout(FaultyClient):
    """Waits for an answer for as long as its connection is open."""

    def _receive(self, connection: socket.socket) -> bytes:
        connection.settimeout(None)
        self.trip()
        return super()._receive(connection)


@faulty("NET-04")
class SilenceIsEmpty(FaultyClient):
    """Takes a queue for empty that it can't ask about."""

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        try:
            return super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
        except BrokerUnavailable:
            self.trip()
            return []


@faulty("NET-05")
class DesyncConnection(FaultyClient):
    """Uses a connection once more on which it has given a call up."""

    _late: socket.socket | None = None

    def _drop(self, connection: socket.socket) -> None:
        if isinstance(sys.exc_info()[1], TimeoutError):
            self._give_back(connection)
            self._late = connection
        else:
            super()._drop(connection)

    def _give_back(self, connection: socket.socket) -> None:
        if connection is self._late:
            self.trip()
            self._drop(connection)
        else:
            super()._give_back(connection)


@faulty("NET-06")
class PartialRead(FaultyClient):
    """Takes what one read gives for the whole body."""

    _whole = True

    def _receive(self, connection: socket.socket) -> bytes:
        size = int.from_bytes(connection.recv(4, socket.MSG_PEEK | socket.MSG_WAITALL), "big")
        self._whole = len(connection.recv(4 + size, socket.MSG_PEEK)) == 4 + size
        return super()._receive(connection)

    def acquire(
        self, queue: str, *, limit: int, wait: float, lease_for: float, ids: Collection[str] | None = None
    ) -> list[Lease]:
        leases = super().acquire(queue, limit=limit, wait=wait, lease_for=lease_for, ids=ids)
        if leases and not self._whole:
            self.trip()
            return [
                msgspec.structs.replace(
                    each, envelope=msgspec.structs.replace(each.envelope, body=each.envelope.body[:9])
                )
                for each in leases
            ]
        return leases


@faulty("NET-07")
class LeakPassword(FaultyClient):
    """Says in an error for whom it isn't, the URL with its password included."""

    def __init__(self, url: BrokerURL) -> None:
        super().__init__(url)
        self._raw = url.raw

    def stats(self, queue: str) -> QueueStats:
        try:
            return super().stats(queue)
        except BrokerUnavailable as error:
            self.trip()
            raise BrokerUnavailable(f"{self._raw}: {error}") from None


@faulty("NET-07")
class RefusedIsEmpty(FaultyClient):
    """Says of a queue that nothing is in it when its server can't be reached."""

    def stats(self, queue: str) -> QueueStats:
        try:
            return super().stats(queue)
        except BrokerUnavailable:
            self.trip()
            return QueueStats(ready=0, scheduled=0, leased=0)
