"""Pool: the lanes of one connection, one for each lease.

A lane is closed when a task was put back on it. A queue puts off the message of a transaction, but neither its ack nor
the end of its channel: if the client ends just then, the log has the ack, the end of the channel, and then the message.
From a channel that has ended a queue takes its first message still; a second one it throws away.
"""

from __future__ import annotations

import asyncio
from functools import partial

from gotasks_rabbitmq.closed import Closed
from gotasks_rabbitmq.lane import Lane
from gotasks_rabbitmq.wire import Connection

#: So many that aren't used are kept open.
_SPARE = 256

#: For so long one is waited for that is being closed, where there are no others. Seconds.
_SOON = 0.1


class Pool:
    """For the I/O thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._free: list[Lane] = []
        self._opening: set[asyncio.Future[None]] = set()
        self._closing: set[asyncio.Future[None]] = set()

    async def prepare(self) -> None:
        """Open a first one, so that to take a task is one question and one answer. Raises Closed."""
        for lane in await self.take(1):
            self.give_back(lane)

    async def take(self, count: int) -> list[Lane]:
        """So many lanes, or as many as the server allows now, which may be none. Raises Closed."""
        taken: list[Lane] = []
        try:
            while True:
                while self._free and len(taken) < count:
                    taken.append(self._free.pop())
                if len(taken) == count:
                    return taken
                if self._opening or self._open(count - len(taken)):
                    # Each goes on, and then is free, though nobody may wait for it any more.
                    await asyncio.wait(self._opening)
                elif taken or not await self._left_soon():
                    break
        except BaseException:
            for lane in taken:
                self.give_back(lane)
            raise
        if self._connection.closed is not None:
            raise self._connection.closed
        return taken

    def give_back(self, lane: Lane) -> None:
        """Nothing is held on it any more."""
        if lane.closed is not None:
            return
        room = len(self._free) + len(self._opening) < _SPARE
        if room and not lane.published:
            self._free.append(lane)
            return
        lane.abandon()
        if room:
            self._open(1)  # before it's wanted

    async def _left_soon(self) -> bool:
        """Wait for one that is being closed, which isn't long unless its queue doesn't answer; whether one was."""
        if not self._closing:
            return False
        left, _ = await asyncio.wait(self._closing, timeout=_SOON, return_when=asyncio.FIRST_COMPLETED)
        return bool(left)

    def _open(self, count: int) -> int:
        """Open so many, or as many as the server allows; how many that are."""
        lanes = self._connection.lanes(count)
        for lane in lanes:
            self._opening.add(lane.opened)
            lane.opened.add_done_callback(partial(self._on_opened, lane))
            lane.at_end(partial(self._on_end, lane))
        self._connection.send(b"".join(lane.open() for lane in lanes))
        return len(lanes)

    def _on_opened(self, lane: Lane, opened: asyncio.Future[None]) -> None:
        self._opening.discard(opened)
        if lane.closed is None:
            self._free.append(lane)

    def _on_end(self, lane: Lane, _: Closed) -> None:
        if lane in self._free:
            self._free.remove(lane)
        if not lane.left.done():
            self._closing.add(lane.left)
            lane.left.add_done_callback(self._closing.discard)
