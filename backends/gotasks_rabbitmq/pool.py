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

    async def prepare(self) -> None:
        """Open a first one, so that to take a task is one question and one answer. Raises Closed."""
        self.give_back(*await self.take(1))

    async def take(self, count: int) -> list[Lane]:
        """So many lanes that aren't in use; when there are no more, some that are. Raises Closed."""
        taken = [self._next() for _ in range(min(count, len(self._free)))]
        missing = count - len(taken)
        if not missing:
            return taken
        try:
            self._open(missing - len(self._opening))
            if self._opening:  # each goes on, and then is free, though nobody may wait for it any more
                await asyncio.wait(self._opening)
            taken += [self._next() for _ in range(missing)]
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

    def _open(self, count: int) -> None:
        lanes = self._connection.lanes(count)
        for lane in lanes:
            self._opening.add(lane.opened)
            lane.opened.add_done_callback(partial(self._on_opened, lane))
            lane.at_end(partial(self._forget, lane))
        self._connection.send(b"".join(lane.open() for lane in lanes))

    def _on_opened(self, lane: Lane, opened: asyncio.Future[None]) -> None:
        self._opening.discard(opened)
        if lane.closed is None:
            self._free.append(lane)

    def _next(self) -> Lane:
        if self._free:
            lane = self._free.pop()
            self._used[lane] = 1
            return lane
        if not self._used:
            raise self._connection.closed or Closed(0, "the server opens no channel")
        lane = min(self._used, key=lambda each: (each.published, self._used[each]))
        self._used[lane] += 1
        return lane

    def _forget(self, lane: Lane, _: Closed) -> None:
        self._used.pop(lane, None)
        if lane in self._free:
            self._free.remove(lane)
