"""PikaChannel: a channel that pika opens, for all but leases: what is there to call has an answer to await."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pika

from gotasks_rabbitmq import frames
from gotasks_rabbitmq.channel import Channel
from gotasks_rabbitmq.closed import Closed

#: What asks for direct replies.
_DIRECT = "amq.rabbitmq.reply-to"


class PikaChannel(Channel):
    """One of pika's, open."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._awaited: set[asyncio.Future[Any]] = set()
        self._confirmed: Callable[[int, bool, bool], None] | None = None
        self._returning: asyncio.Future[Any] | None = None
        super().__init__(inner.connection, inner.channel_number)
        inner.add_on_close_callback(self._on_close)
        inner.add_on_return_callback(self._on_return)

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of pika's channel that has an answer; the answer's method."""
        self._check_open()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._awaited.add(future)
        try:
            getattr(self._inner, method)(*args, callback=lambda frame: _answer(future, frame), **kwargs)
            frame = await future
        finally:
            self._awaited.discard(future)
        return getattr(frame, "method", frame)

    async def consume(self, queue: str, heard: Callable[[], None]) -> str:
        """Have `heard` called for each message, which is gone with that; the consumer's tag, to cancel it."""
        answer = await self.call("basic_consume", queue, lambda *_: heard(), auto_ack=True)
        return str(answer.consumer_tag)

    async def confirm(self, confirmed: Callable[[int, bool, bool], None]) -> None:
        """From now on, call `confirmed` with a tag, whether all before it are meant too, and whether it was taken."""
        self._confirmed = confirmed
        await self.call("confirm_delivery", lambda _: None)

    def send_token(self, queue: str) -> None:
        """Send a token into a queue, if there is one."""
        self._check_open()
        self._inner.basic_publish("", queue, b"", pika.BasicProperties(delivery_mode=1))

    async def reply_to(self) -> str:
        """The name that the server gives this channel where it asks for direct replies."""
        await self.call("basic_consume", _DIRECT, lambda *_: None, auto_ack=True)
        self._returning = returning = asyncio.get_running_loop().create_future()
        self._awaited.add(returning)
        try:
            # To no queue, so it comes back at once, and the name is in it.
            self._inner.basic_publish("", "", b"", pika.BasicProperties(reply_to=_DIRECT), mandatory=True)
            properties = await returning
        finally:
            self._awaited.discard(returning)
        return str(properties.reply_to)

    def abandon(self) -> None:
        if self._inner.is_open:
            self._inner.close()

    def _check_open(self) -> None:
        super()._check_open()
        if not self._inner.is_open:
            raise Closed(0, "the channel is being closed")

    def _on_frame(self, kind: int, payload: bytes) -> bool:
        if kind != frames.METHOD or self._confirmed is None or payload[:4] not in (frames.ACK, frames.NACK):
            return False
        tag, flags = frames.tag_of(payload)
        self._confirmed(tag, bool(flags & 1), payload[:4] == frames.ACK)
        return True

    def _on_return(self, _channel: object, _method: object, properties: Any, _body: bytes) -> None:
        if self._returning is not None:
            _answer(self._returning, properties)
        self.returned.add((properties.headers or {}).get("gt-n", 0))

    def _on_close(self, _: object, error: BaseException) -> None:
        closed = Closed.by(error)
        del self._driver.readers[self._number]
        self._end(closed)
        for future in self._awaited:
            if not future.done():
                future.set_exception(closed)


def _answer(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)
