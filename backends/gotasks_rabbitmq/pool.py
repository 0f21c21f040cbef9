"""Pool: the lanes of one connection. A lease has one for itself, as long as the server allows that many.

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


class Pool:
    """For the I/O thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._free: list[Lane] = []
        self._used: dict[Lane, int] = {}  #: → how many leases, and gets under way, are on it
        self._opening: set[asyncio.Future[None]] = set()
        self._closing: set[asyncio.Future[None]] = set()

    async def prepare(self) -> None:
        """Open a first one, so that to take a task is one question and one answer. Raises Closed."""
        self.give_back(*await self.take(1))

    async def take(self, count: int) -> list[Lane]:
        """So many lanes that aren't in use; when there are no more, some that are. Raises Closed."""
        taken: list[Lane] = []
        try:
            while len(taken) < count:
                if self._free:
                    lane = self._free.pop()
                    self._used[lane] = 1
                    taken.append(lane)
                elif self._opening or self._open(count - len(taken)):
                    # Each goes on, and then is free, though nobody may wait for it any more.
                    await asyncio.wait(self._opening)
                elif self._closing:
                    await asyncio.wait(self._closing, return_when=asyncio.FIRST_COMPLETED)
                else:
                    taken.append(self._shared())
        except BaseException:
            for lane in taken:
                self.give_back(lane)
            raise
        return taken

    def give_back(self, lane: Lane) -> None:
        """One lease less is on it, or one get that found nothing."""
        count = self._used.get(lane, 0) - 1
        if count > 0:
            self._used[lane] = count
            return
        self._used.pop(lane, None)
        if lane.closed is not None:
            return
        room = len(self._free) + len(self._opening) < _SPARE
        if room and not lane.published:
            self._free.append(lane)
            return
        lane.abandon()
        if room:
            self._open(1)  # before it's wanted

    def _open(self, count: int) -> int:
        """Open so many, or as many as the server allows; how many that are."""
        lanes = self._connection.lanes(count)
        for lane in lanes:
            self._opening.add(lane.opened)
            lane.opened.add_done_callback(partial(self._on_opened, lane))
            lane.at_end(partial(self._forget, lane))
        self._connection.send(b"".join(lane.open() for lane in lanes))
        return len(lanes)

    def _on_opened(self, lane: Lane, opened: asyncio.Future[None]) -> None:
        self._opening.discard(opened)
        if lane.closed is None:
            self._free.append(lane)

    def _shared(self) -> Lane:
        """The one that has the least to do, of those on which no task was put back, as long as there are some."""
        if not self._used:
            raise self._connection.closed or Closed(0, "the server opens no channel")
        lane = min(self._used, key=lambda each: (each.published, self._used[each]))
        self._used[lane] += 1
        return lane

    def _forget(self, lane: Lane, _: Closed) -> None:
        self._used.pop(lane, None)
        if lane in self._free:
            self._free.remove(lane)
        if not lane.left.done():
            self._closing.add(lane.left)
            lane.left.add_done_callback(self._closing.discard)
