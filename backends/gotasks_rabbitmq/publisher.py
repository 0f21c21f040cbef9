"""Publisher: stores tasks, and waits until the server says that they are durable."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gotasks_rabbitmq.answers import Answers
from gotasks_rabbitmq.closed import Closed
from gotasks_rabbitmq.names import Names
from gotasks_rabbitmq.pika_channel import PikaChannel
from gotasks_rabbitmq.queues import Queues
from gotasks_rabbitmq.wire import Connection, Reopened

#: By tag: who waits for the confirm, and the stamp of the message.
_Waiting = dict[int, tuple[Answers[int, bool], int]]


class Unconfirmed(Exception):
    """The server didn't take it, or can't say."""


class Stamps:
    """Rising numbers, one for each message of this process: they tell the order of what arrives together."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> int:
        """The next one. Those of a process that starts later are higher, as far as clocks are right."""
        self._last = max(self._last + 1, time.time_ns())
        return self._last


class Publisher:
    """One connection's publisher. For the I/O thread."""

    def __init__(self, connection: Connection, queues: Queues, names: Names, stamps: Stamps) -> None:
        self._connection = connection
        self._queues = queues
        self._names = names
        self._stamps = stamps
        self._channel = Reopened(self._open)
        self._last = 0  #: the tag of the last message that was sent
        self._waiting: _Waiting = {}

    async def store(self, queue: str, tasks: Sequence[tuple[str, bytes]], *, again: bool = False) -> None:
        """Store tasks, each an id and a body, in this order. `again`: see `Held.again`.

        Raises Unconfirmed, Closed: each may be stored or not.
        """
        await self._queues.ensure(queue)
        await self._connection.unblocked()
        nowhere = await self._send(queue, tasks, again=again)
        if nowhere:  # the queue was deleted since
            self._queues.gone(queue)
            await self._queues.ensure(queue)
            if await self._send(queue, nowhere, again=again):
                raise Unconfirmed(f"queue {queue!r} was deleted while tasks were put there")

    async def _send(
        self, queue: str, tasks: Sequence[tuple[str, bytes]], *, again: bool
    ) -> list[tuple[str, bytes]]:
        """Send them and wait for the confirms; those for which there is no queue."""
        channel = await self._channel.get()
        name = self._names.tasks(queue)
        answers: Answers[int, bool] = Answers(len(tasks))
        sent: dict[int, tuple[str, bytes]] = {}
        frames = []
        for task in tasks:
            stamp = self._stamps.next()
            frames.append(channel.publish(name, task[0], stamp, task[1], again=again))
            sent[stamp] = task
            self._last += 1
            self._waiting[self._last] = (answers, stamp)
        self._connection.send(b"".join(frames))
        refused = 0
        for _, taken in await answers.all():
            if isinstance(taken, Closed):
                raise taken
            refused += not taken
        gone = [task for stamp, task in sent.items() if stamp in channel.returned]
        channel.returned.difference_update(sent)
        if refused:
            raise Unconfirmed(f"the server doesn't take {refused} of {len(tasks)} tasks for {queue!r}")
        return gone

    async def _open(self) -> PikaChannel:
        channel = await self._connection.channel()
        self._last = confirmed = 0
        waiting: _Waiting = {}
        self._waiting = waiting

        def on_confirm(last: int, and_before: bool, taken: bool) -> None:  # noqa: FBT001 - as it is called
            nonlocal confirmed
            for tag in range(confirmed + 1 if and_before else last, last + 1):
                if tag in waiting:
                    answers, stamp = waiting.pop(tag)
                    answers.add(stamp, taken)
            if and_before:
                confirmed = last

        def on_end(closed: Closed) -> None:
            for answers, stamp in waiting.values():
                answers.add(stamp, closed)
            waiting.clear()

        channel.at_end(on_end)
        await channel.confirm(on_confirm)
        return channel
