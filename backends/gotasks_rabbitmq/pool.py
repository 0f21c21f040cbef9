"""Pool: channels in transaction mode. A lease has one for itself, as long as the server allows that many."""

from __future__ import annotations

import asyncio

from gotasks_rabbitmq.channel import Channel
from gotasks_rabbitmq.closed import Closed
from gotasks_rabbitmq.wire import Connection

#: So many that aren't used are kept open.
_SPARE = 256


class Pool:
    """One connection's channels for leases. For the I/O thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._free: list[Channel] = []
        self._used: dict[Channel, int] = {}  #: → how many leases, and gets under way, are on it

    async def prepare(self) -> None:
        """Open a first one, so that to take a task is one question and one answer. Raises Closed."""
        self.give_back(*await self.take(1))

    async def take(self, count: int) -> list[Channel]:
        """So many channels that aren't in use; when there are no more, some that are. Raises Closed."""
        taken = [self._next() for _ in range(min(count, len(self._free)))]
        missing = count - len(taken)
        if not missing:
            return taken
        try:
            room = self._connection.most_channels - len(self._used)
            opening = [asyncio.ensure_future(self._open()) for _ in range(min(missing, room))]
            if opening:  # each goes on, and then is free, though nobody may wait for it any more
                await asyncio.wait(opening)
            taken += [self._next() for _ in range(missing)]
        except BaseException:
            for channel in taken:
                self.give_back(channel)
            raise
        return taken

    def give_back(self, channel: Channel) -> None:
        """One lease less is on it, or one get that found nothing."""
        count = self._used.get(channel, 0) - 1
        if count > 0:
            self._used[channel] = count
            return
        self._used.pop(channel, None)
        if channel.closed is None:
            if len(self._free) < _SPARE:
                self._free.append(channel)
            else:
                channel.abandon()

    async def _open(self) -> None:
        try:
            channel = await (await self._connection.channel()).select_tx()
        except Closed:
            return
        channel.at_end(lambda _: self._forget(channel))
        self._free.append(channel)

    def _next(self) -> Channel:
        if self._free:
            channel = self._free.pop()
            self._used[channel] = 1
            return channel
        if not self._used:
            raise self._connection.closed or Closed(0, "the server opens no channel")
        channel = min(self._used, key=self._used.__getitem__)
        self._used[channel] += 1
        return channel

    def _forget(self, channel: Channel) -> None:
        self._used.pop(channel, None)
        if channel in self._free:
            self._free.remove(channel)
