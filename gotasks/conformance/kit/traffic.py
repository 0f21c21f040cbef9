"""Traffic: what a proxy holds of the connections that go through it: their two directions, and the cuts that wait."""

from __future__ import annotations

import socket
import struct
import threading
from collections import deque
from enum import Enum
from typing import Literal

#: "requests" flow from the client to the server, "replies" the other way.
Direction = Literal["requests", "replies"]
BOTH: tuple[Direction, ...] = ("requests", "replies")


class Flow(Enum):
    """What becomes of bytes that go in one direction."""

    PASS = "pass"  # noqa: S105 - not a password
    HOLD = "hold"  #: kept until the flow passes again
    DROP = "drop"


class Trap:
    """A cut that waits for its byte."""

    def __init__(self, direction: Direction, left: int, *, reset: bool) -> None:
        self.direction = direction
        self.left = left  #: bytes that may still pass
        self.reset = reset
        self._sprung = threading.Event()
        self._settled = threading.Event()

    @property
    def sprung(self) -> bool:
        """Whether the connection has been cut."""
        return self._sprung.is_set()

    def wait(self, timeout: float) -> bool:
        """Wait for the cut; whether it has come."""
        return self._sprung.wait(timeout)

    def settled(self, timeout: float) -> bool:
        """Wait until the server has closed its end too: then it has done whatever it will with what it got."""
        return self._settled.wait(timeout)

    def spring(self) -> None:
        """The proxy has cut the connection."""
        self._sprung.set()

    def settle(self) -> None:
        """The server has closed its end."""
        self._settled.set()


class Pipe:
    """One direction of one connection."""

    def __init__(self, direction: Direction, source: socket.socket, target: socket.socket) -> None:
        self.direction = direction
        self.source = source
        self.target = target
        self.waiting: deque[tuple[float, memoryview]] = deque()  # when it's due, and what; empty is the end
        self.ended = False  # the source has said that nothing more will come
        self.stuck = False  # the target takes no more at this moment


class Link:
    """A connection from a client, and the one to the server that belongs to it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.requests = Pipe("requests", client, server)
        self.replies = Pipe("replies", server, client)
        self.gap = False  # something was dropped, so what follows makes no sense to the receiver
        self.dead = False  # nothing passes any more

    @property
    def pipes(self) -> tuple[Pipe, Pipe]:
        return self.requests, self.replies


def close(end: socket.socket, *, reset: bool = False) -> None:
    """Close a socket: its peer sees an end, or a reset."""
    if reset:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
