"""Wire: how a served broker and its clients talk. A frame is four bytes of length and a msgpack document."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import cast

import msgspec

from gotasks import errors
from gotasks.broker import Envelope, Lease, QueueStats, Record, State, Write
from gotasks.errors import Rejected

_LENGTH = struct.Struct(">I")


class Call(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A request: a method's name, and whichever arguments it takes."""

    method: str
    namespace: str = ""
    queue: str = ""
    envelopes: list[Envelope] = []
    leases: list[Lease] = []
    writes: list[Write] = []
    ids: list[str] | None = None
    state: State = State.READY
    after: str | None = None
    limit: int = 0
    seconds: float = 0.0  #: `wait` of acquire, `keep_for` of ack and cancel
    lease_for: float = 0.0
    data: bytes = b""


class Reply(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An answer: a value, or the error that was raised."""

    value: msgspec.Raw = msgspec.Raw(b"\xc0")
    error: str = ""
    message: str = ""
    ids: list[str] = []


# Made here, on one thread: msgspec's learning of a class isn't for two at once. The third knows what answers hold.
CALLS, REPLIES = msgspec.msgpack.Decoder(Call), msgspec.msgpack.Decoder(Reply)
_VALUES = msgspec.msgpack.Decoder(tuple[Lease, QueueStats, Record])


def send(connection: socket.socket, data: bytes) -> None:
    """Send one frame."""
    connection.sendall(_LENGTH.pack(len(data)) + data)


def receive(connection: socket.socket) -> bytes:
    """Receive one frame. Raises EOFError or OSError."""
    (size,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    return _exactly(connection, size)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = connection.recv(min(65536, size - len(data)))
        if not part:
            raise EOFError("the connection has ended")
        data += part
    return bytes(data)


def shut(connection: socket.socket) -> None:
    """Shut and close."""
    with contextlib.suppress(OSError):  # it may be gone already
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def error_of(reply: Reply) -> Exception:
    """The error that a reply tells of."""
    cls = getattr(errors, reply.error, None)
    if cls is None:
        return RuntimeError(f"{reply.error}: {reply.message}")
    error = cls(reply.message, ids=reply.ids) if issubclass(cls, Rejected) else cls(reply.message)
    return cast(Exception, error)
