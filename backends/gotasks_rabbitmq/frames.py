"""Frames: the bytes of what is sent and received for each task. All other frames are made and read by pika.

pika could make and read these as well. It takes so long for that that it was most of what a task cost this process.
"""

from __future__ import annotations

import struct
from typing import Any

from pika import spec

#: A frame: its type, its channel, the size of what it carries; that, and one byte more.
HEAD = struct.Struct(">BHI")
AROUND = HEAD.size + 1

#: Types of frames.
METHOD, HEADER, BODY = spec.FRAME_METHOD, spec.FRAME_HEADER, spec.FRAME_BODY

_CODE = struct.Struct(">I")
GET_OK = _CODE.pack(spec.Basic.GetOk.INDEX)
GET_EMPTY = _CODE.pack(spec.Basic.GetEmpty.INDEX)
CLOSE = _CODE.pack(spec.Channel.Close.INDEX)
CLOSE_OK = _CODE.pack(spec.Channel.CloseOk.INDEX)
SELECT_OK = _CODE.pack(spec.Tx.SelectOk.INDEX)
RETURN = _CODE.pack(spec.Basic.Return.INDEX)
COMMIT_OK = _CODE.pack(spec.Tx.CommitOk.INDEX)
ACK = _CODE.pack(spec.Basic.Ack.INDEX)
NACK = _CODE.pack(spec.Basic.Nack.INDEX)

_OPEN = _CODE.pack(spec.Channel.Open.INDEX)
_SELECT = _CODE.pack(spec.Tx.Select.INDEX)
_GET = _CODE.pack(spec.Basic.Get.INDEX)
_PUBLISH = _CODE.pack(spec.Basic.Publish.INDEX)
_COMMIT = _CODE.pack(spec.Tx.Commit.INDEX)

_END = bytes([spec.FRAME_END])
_REASON = struct.Struct(">4xH")
_TAG = struct.Struct(">Q")
_COUNT = struct.Struct(">I")
_TAG_ETC = struct.Struct(">4xQB")
_CONTENT = struct.Struct(">HHQH")  # class, weight, size, which properties follow
_SIZE = struct.Struct(">4xQ")
_STAMP = struct.Struct(">q")

#: What our own messages have: headers, how they are stored, and an id.
_OURS = (
    spec.BasicProperties.FLAG_HEADERS
    | spec.BasicProperties.FLAG_DELIVERY_MODE
    | spec.BasicProperties.FLAG_MESSAGE_ID
)
_TABLE = b"\0\0\0\x0e\x04gt-nl"
_TABLE_AGAIN = b"\0\0\0\x20\x08gt-againl%b\x04gt-nl"
_FLAGS = struct.pack(">H", _OURS)
_STORED = b"\x02"
_LONG = ord("l")


def open_for_transactions(channel: int) -> bytes:
    """Open a channel, and have what is written on it count when it is committed."""
    return _method(channel, b"%b\0" % _OPEN) + _method(channel, _SELECT)


def close(channel: int) -> bytes:
    """Close a channel."""
    return _method(channel, b"%b\0\xc8\0\0\0\0\0" % CLOSE)


def close_ok(channel: int) -> bytes:
    """Say that it is closed, to the server, which wanted that."""
    return _method(channel, CLOSE_OK)


def get(channel: int, queue: bytes) -> bytes:
    """Ask for one message."""
    return _method(channel, b"%b\0\0%c%b\0" % (_GET, len(queue), queue))


def ack(channel: int, tag: int) -> bytes:
    """Acknowledge one delivery."""
    return _method(channel, b"%b%b\0" % (ACK, _TAG.pack(tag)))


def commit(channel: int) -> bytes:
    """Commit the transaction."""
    return _method(channel, _COMMIT)


def publish(
    channel: int, queue: bytes, task_id: bytes, body: bytes, *, stamp: int, again: bool, most: int
) -> bytes:
    """Put a task into a queue, or have it returned. `most`: as many bytes of a body go into one frame."""
    method = _method(channel, b"%b\0\0\0%c%b\x01" % (_PUBLISH, len(queue), queue))
    content = _CONTENT.pack(spec.Basic.INDEX, 0, len(body), _OURS)
    number = _STAMP.pack(stamp)
    table = _TABLE_AGAIN % number if again else _TABLE
    properties = b"%b%b%b%b%c%b" % (content, table, number, _STORED, len(task_id), task_id)
    header = _frame(HEADER, channel, properties)
    parts = [_frame(BODY, channel, body[at : at + most]) for at in range(0, len(body), most)]
    return b"".join((method, header, *parts))


def tag_of(method: bytes) -> tuple[int, int]:
    """Of an ack, a nack or a get-ok: the tag and the byte of flags that follows it."""
    tag, flags = _TAG_ETC.unpack_from(method)
    return tag, flags


def reason_of(close: bytes) -> tuple[int, str]:
    """AMQP's code for why the server closes a channel, and what it says of it."""
    return int(_REASON.unpack_from(close)[0]), close[7 : 7 + close[6]].decode("utf-8", "replace")


def left_of(get_ok: bytes) -> int:
    """How many more messages are ready."""
    return int(_COUNT.unpack_from(get_ok, len(get_ok) - 4)[0])


def size_of(header: bytes) -> int:
    """How long the body is."""
    return int(_SIZE.unpack_from(header)[0])


def properties_of(header: bytes) -> tuple[str | None, dict[str, Any]]:
    """The id of a message, if it has one, and its headers."""
    if header.startswith(_FLAGS, 12):
        headers: dict[str, Any] = {}
        at = 18
        end = at + _COUNT.unpack_from(header, 14)[0]
        while at < end:
            kind = at + 1 + header[at]
            if header[kind] != _LONG:
                break
            (headers[header[at + 1 : kind].decode("latin-1")],) = _STAMP.unpack_from(header, kind + 1)
            at = kind + 9
        else:
            return header[end + 2 :].decode("latin-1"), headers
    properties = spec.BasicProperties()
    try:
        properties.decode(header[12:])
    except Exception:  # whatever somebody else has put there
        return None, {}
    name = properties.message_id
    return name if isinstance(name, str) else None, properties.headers or {}


def _method(channel: int, payload: bytes) -> bytes:
    return _frame(METHOD, channel, payload)


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return b"%b%b%b" % (HEAD.pack(kind, channel, len(payload)), payload, _END)
