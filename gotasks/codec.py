"""Task records to bytes and back. The only module that knows how a task looks on the wire: JSON, never pickle."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec

from gotasks.args import ArgsMap, check, dump_model
from gotasks.errors import GotasksError, InvalidArgs
from gotasks.task import Failure, Task

#: Version of the record that this code writes.
VERSION = 1

#: How much smaller than the payload limit a body must be at enqueue and at a checkpoint, in bytes, so that
#: its `result_log` always fits when it has to be buried.
ROOM_TO_BURY = 32 * 1024


class Noted(msgspec.Struct, gc=False):
    """The one field of a record that is looked at before it is read as a whole."""

    crashes: int = 0


_json = msgspec.json.Encoder(enc_hook=dump_model)
_record = msgspec.json.Decoder(Task)
_noted = msgspec.json.Decoder(Noted)
_map = msgspec.json.Decoder(dict[str, Any])
_DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)


class Unreadable(GotasksError):
    """A body isn't a task record."""


def encode(task: Task) -> bytes:
    """The record as JSON."""
    return _json.encode(task)


def decode(body: bytes) -> Task:
    """The record in `body`. Raises Unreadable."""
    try:
        task = _record.decode(body)
    except _DECODE_ERRORS as error:
        raise Unreadable(f"not a task record: {error}") from None
    if task.v > VERSION:
        raise Unreadable(f"a record of version {task.v}; this worker knows {VERSION}: upgrade gotasks here")
    if task.v == 0:  # as the Go library writes it, to which a map that is none is null
        task.args_map = _map_of_go(task.args_map)
        task.original_args_map = _map_of_go(task.original_args_map)
    if bytes(task.args_map)[:1] != b"{" or bytes(task.original_args_map)[:1] != b"{":
        raise Unreadable("not a task record: its args map isn't an object")
    return task


def _map_of_go(raw: msgspec.Raw) -> msgspec.Raw:
    return msgspec.Raw(b"{}") if bytes(raw) == b"null" else raw


def crashes(body: bytes) -> int:
    """The deaths that a record notes itself (see `Task.crashes`); 0 for what isn't a record. Quick where it's none."""
    if b'"crashes":' not in body:
        return 0
    try:
        return _noted.decode(body).crashes
    except _DECODE_ERRORS:
        return 0


def encode_args(args: Mapping[str, Any]) -> msgspec.Raw:
    """An args map as JSON text. Raises InvalidArgs for what JSON can't hold."""
    check(args)
    try:
        return msgspec.Raw(_json.encode(args))
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise InvalidArgs(f"the args map can't be stored as JSON: {error}") from error


def decode_args(raw: msgspec.Raw) -> ArgsMap:
    """A fresh args map from its JSON text. Raises Unreadable."""
    try:
        return _map.decode(raw)
    except _DECODE_ERRORS as error:
        raise Unreadable(f"the args map can't be read: {error}") from None


def now() -> str:
    """The time, RFC 3339 in UTC with microseconds."""
    return _rfc3339(datetime.now(timezone.utc))


def in_future(seconds: float) -> str:
    """The time `seconds` from now, as `now` writes it."""
    try:
        return _rfc3339(datetime.now(timezone.utc) + timedelta(seconds=seconds))
    except OverflowError:  # whether so long a delay is allowed is for the broker to say
        return _rfc3339(datetime.max.replace(tzinfo=timezone.utc))


def age(stamp: str) -> float | None:
    """Seconds since `stamp` by this machine's wall clock, never below 0; None if it isn't a time."""
    try:
        then = msgspec.convert(stamp, datetime)
    except (msgspec.ValidationError, ValueError):
        return None
    if then.tzinfo is None:
        return None
    return max(0.0, datetime.now(timezone.utc).timestamp() - then.timestamp())


def with_failure(task: Task, failure: Failure, limit: int) -> bytes:
    """The record with its `result_log`, cut so that the body holds in `limit` bytes."""
    body = encode(msgspec.structs.replace(task, result_log=failure, updated_at=now()))
    if len(body) <= limit:
        return body
    # JSON may need six bytes for one character, so halving what is too long always arrives.
    size = ROOM_TO_BURY // 2
    while size > 64:
        cut = msgspec.structs.replace(
            failure, error=_cut(failure.error, size // 2), traceback=_cut(failure.traceback, size)
        )
        body = encode(msgspec.structs.replace(task, result_log=cut, updated_at=now()))
        if len(body) <= limit:
            return body
        size //= 2
    return body


def wrap(task_id: str, queue: str, body: bytes, failure: Failure, limit: int) -> bytes:
    """A record for a body that couldn't be read, holding it as base64; the body as it came if that won't fit."""
    empty = msgspec.Raw(b"{}")
    stamp = now()
    task = Task(
        task_id=task_id,
        created_at=stamp,
        updated_at=stamp,
        queue_name=queue,
        job_name="",
        args_map=empty,
        current_handler_index=0,
        original_args_map=empty,
        v=VERSION,
        raw=base64.b64encode(body).decode(),
    )
    wrapped = with_failure(task, failure, limit)
    return wrapped if len(wrapped) <= limit else body


def clean(text: str) -> str:
    """Text that JSON can hold: what isn't valid Unicode (lone surrogates) is replaced by its escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _cut(text: str, size: int) -> str:
    # The end says most: the innermost frame and the exception.
    return text if len(text) <= size else "[cut] …" + text[-size:]
