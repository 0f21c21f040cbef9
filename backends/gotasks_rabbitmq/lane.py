"""Lane: a channel in transaction mode, for one lease after the other. It is opened and closed without pika, which takes
longer for that than all the rest of a checkpoint does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from gotasks_rabbitmq import frames
from gotasks_rabbitmq.answers import Answers
from gotasks_rabbitmq.channel import Channel
from gotasks_rabbitmq.closed import GOODBYE, Closed
from gotasks_rabbitmq.driver import Driver

K = TypeVar("K")


class Delivery(NamedTuple):
    """A message that the server gave us, and how many more are ready in its queue."""

    tag: int
    message_id: str | None
    headers: dict[str, Any]
    body: bytes
    left: int


class Lane(Channel):
    """It may be used when it has opened, by one who asks one thing after the other."""

    def __init__(self, driver: Driver, number: int, gone: Callable[[int], None]) -> None:
        """`gone`: told the number when the server knows of no such channel any more."""
        super().__init__(driver, number)
        self._gone = gone
        self._asked: tuple[Answers[Any, Any], Any] | None = (
            None  #: of the one question that waits for its answer
        )
        self._coming: _Coming | None = None
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()  #: or closed
        self.left: asyncio.Future[None] = loop.create_future()  #: as `gone` is told
        self.published = False  #: a task was put into a queue on it
        self.cut = False  #: its connection has ended
        self.committed = 0.0  #: when a commit was last answered (monotonic)

    def open(self) -> bytes:
        """Open it, in transaction mode: writes count when they are committed."""
        return frames.open_for_transactions(self._number)

    def get(self, queue: str, answers: Answers[K, Delivery | None], key: K) -> bytes:
        """Ask for one message. The answer is None if none is ready."""
        self._check_open()
        self._asked = answers, key
        return frames.get(self._number, queue.encode())

    def publish(self, queue: str, task_id: str, stamp: int, body: bytes, *, again: bool = False) -> bytes:
        self.published = True
        return super().publish(queue, task_id, stamp, body, again=again)

    def ack(self, tag: int) -> bytes:
        """Acknowledge a delivery."""
        self._check_open()
        return frames.ack(self._number, tag)

    def commit(self, answers: Answers[K, None], key: K) -> bytes:
        """Commit the transaction."""
        self._check_open()
        self._asked = answers, key
        return frames.commit(self._number)

    def abandon(self) -> None:
        if self.closed is None:
            self._driver.send(frames.close(self._number))
            self._end(Closed(GOODBYE, "the channel was given up"))

    def lost(self, closed: Closed) -> None:
        """Its connection has ended."""
        self.cut = True
        if not self.left.done():
            self._leave()
        if self.closed is None:
            self._end(closed)

    def _on_frame(self, kind: int, payload: bytes) -> bool:
        if kind == frames.METHOD:
            self._on_method(payload[:4], payload)
        elif self._coming is not None and self._coming.add(kind, payload):
            coming, self._coming = self._coming, None
            if coming.returned:
                self.returned.add(coming.stamp())
            else:
                self._answer(coming.delivery())
        return True

    def _on_method(self, code: bytes, payload: bytes) -> None:
        if code == frames.CLOSE:
            self._driver.send(frames.close_ok(self._number))
            if self.closed is None:  # else we close it as well, and are told that it's done
                self._leave()
                self._end(Closed(*frames.reason_of(payload)))
        elif code == frames.CLOSE_OK:
            self._leave()
        elif self.closed is not None:
            pass  # what comes now isn't ours: it goes back with the channel
        elif code == frames.COMMIT_OK:
            self.committed = time.monotonic()
            self._answer(None)
        elif code in (frames.GET_OK, frames.RETURN):
            self._coming = _Coming(payload)
        elif code == frames.GET_EMPTY:
            self._answer(None)
        elif code == frames.SELECT_OK:
            self.opened.set_result(None)

    def _answer(self, answer: Delivery | Closed | None) -> None:
        if self._asked is not None:
            (answers, key), self._asked = self._asked, None
            answers.add(key, answer)

    def _leave(self) -> None:
        del self._driver.readers[self._number]
        self._gone(self._number)
        self.left.set_result(None)

    def _end(self, closed: Closed) -> None:
        super()._end(closed)
        self._coming = None
        self._answer(closed)
        if not self.opened.done():
            self.opened.set_result(None)


class _Coming:
    """A message of which not all frames are here yet: one that was asked for, or one that is returned."""

    def __init__(self, method: bytes) -> None:
        self.returned = method[:4] == frames.RETURN
        self._method = method
        self._header = b""
        self._parts: list[bytes] = []
        self._missing = 0

    def add(self, kind: int, payload: bytes) -> bool:
        """Take a frame of it; whether that was the last one."""
        if kind == frames.HEADER:
            self._header = payload
            self._missing = frames.size_of(payload)
        else:
            self._parts.append(payload)
            self._missing -= len(payload)
        return self._missing <= 0

    def delivery(self) -> Delivery:
        tag, _ = frames.tag_of(self._method)
        task_id, headers = frames.properties_of(self._header)
        return Delivery(tag, task_id, headers, b"".join(self._parts), frames.left_of(self._method))

    def stamp(self) -> int:
        return int(frames.properties_of(self._header)[1].get("gt-n", 0))
