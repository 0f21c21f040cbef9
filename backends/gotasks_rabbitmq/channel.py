"""Channel: one of pika's, with answers that can be awaited. For the I/O thread only."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import pika

from gotasks_rabbitmq import frames
from gotasks_rabbitmq.answers import Answers
from gotasks_rabbitmq.closed import Closed
from gotasks_rabbitmq.driver import Driver

K = TypeVar("K")

#: What asks for direct replies.
_DIRECT = "amq.rabbitmq.reply-to"


class Delivery(NamedTuple):
    """A message that the server gave us, and how many more are ready in its queue."""

    tag: int
    message_id: str | None
    headers: dict[str, Any]
    body: bytes
    left: int


class Channel:
    """An open channel. Whatever is awaited raises Closed when it ends, and so does all that is asked of it after that.

    `get`, `ack`, `commit` and `publish` don't send a frame, but return it: who has many sends them at once.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._driver: Driver = inner.connection
        self._number: int = inner.channel_number
        self._awaited: set[asyncio.Future[Any]] = set()
        self._gets: deque[tuple[Answers[Any, Delivery | None], Any]] = deque()
        self._commits: deque[tuple[Answers[Any, None], Any]] = deque()
        self._committing = False
        self._held_back: deque[tuple[bytes, bool]] = deque()  #: frames, and whether each is a commit
        self._coming: _Coming | None = None
        self._confirmed: Callable[[int, bool, bool], None] | None = None
        self._endings: list[Callable[[Closed], None]] = []
        self._returning: asyncio.Future[Any] | None = None
        self.returned: set[int] = set()  #: the stamps of messages that no queue took
        self.closed: Closed | None = None
        inner.add_on_close_callback(self._on_close)
        inner.add_on_return_callback(self._on_return)
        self._driver.readers[self._number] = self._on_frame

    def at_end(self, call: Callable[[Closed], None]) -> None:
        """Have this called when the channel ends, before anybody who awaits something is told."""
        self._endings.append(call)

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

    def get(self, queue: str, answers: Answers[K, Delivery | None], key: K) -> bytes:
        """Ask for one message. The answer is None if none is ready."""
        self._check_open()
        self._gets.append((answers, key))
        return self._in_turn(frames.get(self._number, queue.encode()))

    async def consume(self, queue: str, heard: Callable[[], None]) -> str:
        """Have `heard` called for each message, which is gone with that; the consumer's tag, to cancel it."""
        answer = await self.call("basic_consume", queue, lambda *_: heard(), auto_ack=True)
        return str(answer.consumer_tag)

    async def confirm(self, confirmed: Callable[[int, bool, bool], None]) -> None:
        """From now on, call `confirmed` with a tag, whether all before it are meant too, and whether it was taken."""
        self._confirmed = confirmed
        await self.call("confirm_delivery", lambda _: None)

    def publish(self, queue: str, task_id: str, stamp: int, body: bytes, *, again: bool = False) -> bytes:
        """Put a task into a queue; `returned` tells if there is no such queue. `again`: see `Held.again`."""
        self._check_open()
        most = self._driver.body_max_length
        name, key = queue.encode(), task_id.encode()
        return self._in_turn(
            frames.publish(self._number, name, key, body, stamp=stamp, again=again, most=most)
        )

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

    def ack(self, tag: int) -> bytes:
        """Acknowledge a delivery; in a transaction it counts when that is committed."""
        self._check_open()
        return self._in_turn(frames.ack(self._number, tag))

    def commit(self, answers: Answers[K, None], key: K) -> bytes:
        """Commit the transaction."""
        self._check_open()
        self._commits.append((answers, key))
        return self._in_turn(frames.commit(self._number), commit=True)

    def abandon(self) -> None:
        """Close it, and so give back what is unsettled on it. Returns at once."""
        if self._inner.is_open:
            self._inner.close()

    async def select_tx(self) -> Channel:
        """From now on writes count when they are committed."""
        await self.call("tx_select")
        return self

    def _check_open(self) -> None:
        if self.closed is not None:
            raise self.closed
        if not self._inner.is_open:
            raise Closed(0, "the channel is being closed")

    def _in_turn(self, frame: bytes, *, commit: bool = False) -> bytes:
        """The frame, to be sent; nothing while a commit isn't answered, since the server allows none before that."""
        if self._committing:
            self._held_back.append((frame, commit))
            return b""
        self._committing = commit
        return frame

    def _on_commit(self) -> None:
        self._committing = False
        while self._held_back and not self._committing:
            frame, commit = self._held_back.popleft()
            self._driver.send(self._in_turn(frame, commit=commit))
        answers, key = self._commits.popleft()
        answers.add(key, None)

    def _on_frame(self, kind: int, payload: bytes) -> bool:
        """Take a frame, unless it is one for pika."""
        if kind == frames.METHOD:
            code = payload[:4]
            if code == frames.COMMIT_OK:
                self._on_commit()
            elif code == frames.GET_OK:
                self._coming = _Coming(payload)
            elif code == frames.GET_EMPTY:
                asked, key = self._gets.popleft()
                asked.add(key, None)
            elif code in (frames.ACK, frames.NACK) and self._confirmed is not None:
                tag, flags = frames.tag_of(payload)
                self._confirmed(tag, bool(flags & 1), code == frames.ACK)
            else:
                return False
            return True
        if self._coming is None:
            return False
        delivery = self._coming.add(kind, payload)
        if delivery is not None:
            self._coming = None
            if self._inner.is_open:  # else it goes back with the channel
                asked, key = self._gets.popleft()
                asked.add(key, delivery)
        return True

    def _on_return(self, _channel: object, _method: object, properties: Any, _body: bytes) -> None:
        if self._returning is not None:
            _answer(self._returning, properties)
        self.returned.add((properties.headers or {}).get("gt-n", 0))

    def _on_close(self, _: object, error: BaseException) -> None:
        closed = self.closed = Closed.by(error)
        del self._driver.readers[self._number]
        for call in self._endings:
            call(closed)
        for asked, key in self._gets:
            asked.add(key, closed)
        for answers, key in self._commits:
            answers.add(key, closed)
        for future in self._awaited:
            if not future.done():
                future.set_exception(closed)


class _Coming:
    """A message of which not all frames are here yet."""

    def __init__(self, get_ok: bytes) -> None:
        self._get_ok = get_ok
        self._header = b""
        self._parts: list[bytes] = []
        self._missing = 0

    def add(self, kind: int, payload: bytes) -> Delivery | None:
        """Take a frame of it; the message, if that was the last one."""
        if kind == frames.HEADER:
            self._header = payload
            self._missing = frames.size_of(payload)
        else:
            self._parts.append(payload)
            self._missing -= len(payload)
        if self._missing > 0:
            return None
        tag, _ = frames.tag_of(self._get_ok)
        task_id, headers = frames.properties_of(self._header)
        return Delivery(tag, task_id, headers, b"".join(self._parts), frames.left_of(self._get_ok))


def _answer(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)
