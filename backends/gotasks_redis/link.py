"""Link: one redis-py connection to one server."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, cast

import redis

#: Where a server is: host and port.
Address = tuple[str, int]

#: With what a node of a cluster refuses a command before it has done anything. As a class of redis-py where it has
#: them for connections outside of its own cluster client; before, as the first word of any ResponseError.
_ELSEWHERE: Mapping[type[Exception], str] = {
    redis.exceptions.MovedError: "MOVED",
    redis.exceptions.AskError: "ASK",
    redis.exceptions.TryAgainError: "TRYAGAIN",
    redis.exceptions.ClusterDownError: "CLUSTERDOWN",
}

#: With what a server refuses that isn't the master, or doubts that it still is: the first word, or somewhere in what
#: Redis 6.2 says of a script.
_NOT_MASTER = ("READONLY", "NOREPLICAS", "MASTERDOWN")


class Link(Protocol):
    """What is used of a redis-py connection; the same from version 5 on. It connects with its first command."""

    def send_command(self, *args: Any) -> None: ...
    def read_response(self) -> Any: ...
    def can_read(self, timeout: float = 0) -> bool: ...
    def disconnect(self) -> None: ...


class Elsewhere(Exception):
    """A node of a cluster hasn't got all keys of a command (now), and has done nothing.

    `address`: where they are, if it says so.
    """

    def __init__(self, said: str, address: Address | None) -> None:
        super().__init__(said)
        self.address = address


class NotMaster(redis.exceptions.ConnectionError):
    """A server refuses a command since it isn't the master, or may not be it any more."""


class NotReplicated(redis.exceptions.ConnectionError):
    """A command was carried out, and too few replicas have it."""


def new_link(options: dict[str, Any]) -> Link:
    """A connection that isn't connected yet, by the arguments of `redis.Redis`."""
    return cast("Link", redis.Redis(**options).connection_pool.make_connection())


def ask(link: Link, *command: Any, within: float | None = None) -> Any:
    """Send one command and read its reply, which may be waited for `within` seconds where the timeout is longer.

    A connection whose reply didn't come whole is closed. Raises Elsewhere, NotMaster, the errors of redis-py, and
    OSError.
    """
    try:
        link.send_command(*command)
        if within is not None and not link.can_read(timeout=within):
            raise redis.exceptions.TimeoutError(f"no reply within {within:.3g} s")
        return link.read_response()
    except redis.exceptions.ResponseError as error:  # that was a whole reply
        raise _understood(error) from None
    except BaseException:
        link.disconnect()  # whatever may still arrive on it is no answer to the next command
        raise


def ask_replicated(
    link: Link,
    command: Sequence[Any],
    *,
    probe: Sequence[Any],
    replicas: int,
    hold: float,
    within: float | None = None,
) -> Any:
    """`ask`, and have the server wait `hold` seconds until so many replicas have what it has. In one round trip.

    WAIT waits for what the connection has written last, and a command may find that nothing is left to write: then it's
    for `probe`, a command that always writes something, that it waits.

    The replies may be waited for `within` seconds where the timeout is longer. Raises as `ask`, and NotReplicated if
    fewer replicas have it.
    """
    end = None if within is None else time.monotonic() + within
    try:
        for each in (command, probe, ("WAIT", replicas, int(hold * 1000))):
            link.send_command(*each)
        replies = [_reply_or_refusal(link, end) for _ in range(3)]
    except BaseException:
        link.disconnect()
        raise
    reply, _, have = replies
    if isinstance(reply, redis.exceptions.ResponseError):
        raise _understood(reply) from None
    for each in replies:
        # A replica refuses these: it wasn't one yet at the command, whose outcome is unknown.
        if isinstance(each, redis.exceptions.ResponseError):
            raise redis.exceptions.ConnectionError(str(each)) from None
    if have < replicas:
        raise NotReplicated(f"{have} of {replicas} replicas had it within {hold:.3g} s")
    return reply


def _reply_or_refusal(link: Link, end: float | None) -> Any:
    """The next reply, which is waited for until `end` (monotonic) where the timeout is longer."""
    if end is not None and not link.can_read(timeout=max(end - time.monotonic(), 0)):
        raise redis.exceptions.TimeoutError("no reply in time")
    try:
        return link.read_response()
    except redis.exceptions.ResponseError as error:
        return error


def ask_once(options: dict[str, Any], *command: Any) -> Any:
    """Ask a server one thing, on a connection of its own. Raises as `ask`."""
    link = new_link(options)
    try:
        return ask(link, *command)
    finally:
        with suppress(redis.exceptions.RedisError, OSError):
            link.disconnect()


def _understood(error: redis.exceptions.ResponseError) -> Exception:
    """What it is: itself, Elsewhere or NotMaster."""
    text = str(error)
    classes = (redis.exceptions.ReadOnlyError, redis.exceptions.MasterDownError)
    if isinstance(error, classes) or any(word in text for word in _NOT_MASTER):
        return NotMaster(text)
    code = _ELSEWHERE.get(type(error))
    if code is None:
        code, _, text = text.partition(" ")
        if code not in _ELSEWHERE.values():
            return error
    host, _, port = text.rpartition(" ")[2].rpartition(":")
    address = (host, int(port)) if code == "MOVED" and host and port.isdecimal() else None
    return Elsewhere(f"{code} {text}", address)


def has_ended(link: Link) -> bool:
    """Whether an idle connection has something to read: only its end can come unasked."""
    try:
        return bool(link.can_read(timeout=0))
    except (redis.exceptions.RedisError, OSError):
        return True


def bare(error: BaseException) -> BaseException:
    """The error without what it came from: a chain of tracebacks shows arguments, and these may be secrets."""
    error.__cause__ = error.__context__ = None
    return error
