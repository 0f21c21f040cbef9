"""Wire: connections, with answers that can be awaited. All of it is for the I/O thread only."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pika

from gotasks.errors import ConfigurationError
from gotasks_rabbitmq.address import Address
from gotasks_rabbitmq.closed import Closed
from gotasks_rabbitmq.driver import Driver
from gotasks_rabbitmq.lane import Lane
from gotasks_rabbitmq.pika_channel import PikaChannel

logger = logging.getLogger("gotasks")

#: How long the end of a connection takes that was given up while it was opened. Seconds.
_GIVES_UP = 0.5

#: Channels of a connection that are kept free for other ends than lanes.
_RESERVED = 8

#: With fewer channels a connection is of no use.
_FEWEST = 2 * _RESERVED


class Connection:
    """An open connection."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.closed: Closed | None = None
        self._lanes: dict[int, Lane] = {}
        # pika takes the lowest that it doesn't use itself, so what is taken here comes from the other end.
        self._numbers = list(range(_RESERVED + 1, self.most_channels + 1))
        self._ended = asyncio.Event()
        self._unblocked = asyncio.Event()
        self._unblocked.set()
        inner.add_on_connection_blocked_callback(self._on_blocked)
        inner.add_on_connection_unblocked_callback(self._on_unblocked)

    @classmethod
    async def open(cls, address: Address, purpose: str) -> Connection:
        """Connect. Raises Closed, ConfigurationError."""
        opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        ended = asyncio.Event()
        connection: list[Connection] = []

        def on_open_error(_: object, error: BaseException) -> None:
            ended.set()
            if not opened.done():
                opened.set_exception(_why(error))

        def on_close(_: object, error: BaseException) -> None:
            ended.set()
            if connection:
                connection[0]._on_close(error)  # noqa: SLF001 - its own

        inner = Driver(
            address.parameters(purpose),
            on_open_callback=lambda _: _answer(opened, None),
            on_open_error_callback=on_open_error,
            on_close_callback=on_close,
        )
        try:
            await opened
        except asyncio.CancelledError:
            if not inner.is_closed and not inner.is_closing:
                inner.close()
            with suppress(asyncio.TimeoutError):  # else the loop may end before that is done
                await asyncio.wait_for(ended.wait(), _GIVES_UP)
            raise
        connection.append(cls(inner))
        channels = connection[0].most_channels
        if channels < _FEWEST:
            await connection[0].close(_GIVES_UP)
            raise ConfigurationError(
                f"{address.shown} allows a connection {channels} channels, and {_FEWEST} are needed: raise channel_max "
                "in its configuration"
            )
        return connection[0]

    @property
    def version(self) -> tuple[str, tuple[int, ...]]:
        """The product's name and version, as the server gives them."""
        properties = self._inner.server_properties or {}
        parts = str(properties.get("version", "")).split(".")[:3]
        return str(properties.get("product", "")), tuple(int(part) for part in parts if part.isdecimal())

    @property
    def most_channels(self) -> int:
        """How many channels the server allows it."""
        return int(self._inner.params.channel_max or 2047)

    @property
    def blocked(self) -> bool:
        """Whether the server has said that it takes nothing at the moment."""
        return not self._unblocked.is_set()

    async def unblocked(self) -> None:
        """Wait until the server takes writes. Raises Closed."""
        while self.blocked:
            await self._unblocked.wait()
        if self.closed is not None:
            raise self.closed

    def send(self, frames: bytes) -> None:
        """Send frames, of any of its channels."""
        self._inner.send(frames)

    def lanes(self, count: int) -> list[Lane]:
        """So many new lanes, to be opened; fewer if the server allows no more, none if the connection has ended."""
        count = min(count, len(self._numbers)) if self.closed is None else 0
        new = [self._numbers.pop() for _ in range(count)]
        made = {number: Lane(self._inner, number, self._on_gone) for number in new}
        self._lanes.update(made)
        return list(made.values())

    async def channel(self) -> PikaChannel:
        """A new channel. Raises Closed."""
        if self.closed is not None:
            raise self.closed
        opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            self._inner.channel(on_open_callback=lambda inner: _answer(opened, inner))
        except pika.exceptions.AMQPError as error:
            raise Closed.by(error) from None
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({opened, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
        if not opened.done():
            raise self.closed or Closed(0, "the connection ended")
        return PikaChannel(opened.result())

    async def close(self, within: float) -> None:
        """Say goodbye and leave; after `within` seconds without an answer leave all the same."""
        if self.closed is None and self._inner.is_open:
            self._inner.close()
        try:
            await asyncio.wait_for(self._ended.wait(), within)
        except asyncio.TimeoutError:
            # There is no public way to leave a peer that doesn't answer.
            self._inner._terminate_stream(pika.exceptions.StreamLostError("no answer"))  # noqa: SLF001
            await asyncio.wait_for(self._ended.wait(), 1.0)

    def _on_gone(self, number: int) -> None:
        del self._lanes[number]
        self._numbers.append(number)

    def _on_close(self, error: BaseException) -> None:
        self.closed = Closed.by(error)
        for lane in list(self._lanes.values()):
            lane.lost(self.closed)
        self._ended.set()
        self._unblocked.set()

    def _on_blocked(self, _: object, frame: Any) -> None:
        self._unblocked.clear()
        logger.warning("RabbitMQ takes no writes: %s; they wait until it does again", frame.method.reason)

    def _on_unblocked(self, *_: object) -> None:
        self._unblocked.set()
        logger.info("RabbitMQ takes writes again")


class Reopened:
    """A channel that is opened when it's first wanted, and again when it was lost."""

    def __init__(self, open_: Callable[[], Coroutine[Any, Any, PikaChannel]]) -> None:
        self._open = open_
        self._opening: asyncio.Task[PikaChannel] | None = None

    async def get(self) -> PikaChannel:
        """The channel. Raises Closed."""
        opening = self._opening
        if opening is None or (opening.done() and (opening.exception() or opening.result().closed)):
            opening = self._opening = asyncio.ensure_future(self._open())
        return await asyncio.shield(opening)


def _answer(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)


def _why(error: Any) -> Closed:
    """Why no connection came about, without what pika tells around it."""
    last = error
    for _ in range(10):
        inner = getattr(last, "exceptions", None) or getattr(last, "exception", None) or last.__cause__
        inner = inner[-1] if isinstance(inner, (list, tuple)) and inner else inner
        if not isinstance(inner, BaseException):
            break
        last = inner
    if isinstance(last, pika.exceptions.ProbableAuthenticationError):
        return Closed(403, "it refuses the user or password of the URL")
    if isinstance(last, pika.exceptions.ProbableAccessDeniedError):
        return Closed(403, "it refuses the virtual host of the URL")
    return Closed.by(last)
