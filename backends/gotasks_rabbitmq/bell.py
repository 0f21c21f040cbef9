"""Bell: wakes those who wait for a task, wherever they are.

Nobody waits on the tasks themselves: a consumer of a quorum queue that goes away just as a task comes would count as
a death of that task. A token is sent to a queue beside it instead, which holds one at the most. Whoever gets it looks
for tasks, and rings again if there are more. A token that is lost costs no more than the time until the next look.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pika

from gotasks_rabbitmq.closed import Closed
from gotasks_rabbitmq.names import Names
from gotasks_rabbitmq.pika_channel import PikaChannel
from gotasks_rabbitmq.wire import Connection, Reopened

#: Between two tokens for the same queue. Seconds.
_PAUSE = 0.005

#: Who has what he waited for waits no longer than this to be out of the way of others. Seconds.
_LEAVES = 1.0

#: A wake queue that nobody has used for so long is removed by the server. Milliseconds.
_UNUSED = 60_000


class Bell:
    """One connection's bell. For the I/O thread."""

    def __init__(self, connection: Connection, names: Names) -> None:
        self._names = names
        self._channel = Reopened(connection.channel)
        self._ringing: set[asyncio.Task[None]] = set()
        self._rung: dict[str, float] = {}
        self._later: dict[str, asyncio.TimerHandle] = {}

    def ring(self, queue: str) -> None:
        """Wake somebody who waits for a task of `queue`: now, or in a moment if that was just done. Never raises."""
        if queue in self._later:
            return
        wait = self._rung.get(queue, 0.0) + _PAUSE - time.monotonic()
        if wait <= 0:
            self._send(queue)
        else:
            self._later[queue] = asyncio.get_running_loop().call_later(wait, self._send, queue)

    async def flush(self) -> None:
        """Ring now where it was to be done in a moment, and return when that is sent."""
        for queue in list(self._later):
            self._later[queue].cancel()
            self._send(queue)
        await asyncio.gather(*self._ringing)

    @asynccontextmanager
    async def heard(self, queue: str, woken: asyncio.Event, *, within: float) -> AsyncIterator[None]:
        """Within the block `woken` is set when somebody rings. Raises Closed, also after `within` seconds."""
        name = self._names.wake(queue)
        channel: PikaChannel | None = None
        try:
            channel = await asyncio.wait_for(self._channel.get(), within)
            kind = {"x-queue-type": "classic", "x-max-length": 1, "x-expires": _UNUSED}
            declared = channel.call("queue_declare", name, durable=True, arguments=kind)
            await asyncio.wait_for(declared, within)
            consumer = await asyncio.wait_for(channel.consume(name, woken.set), within)
        except asyncio.TimeoutError:
            if channel is not None:
                channel.abandon()
            raise Closed(0, f"no answer within {within:g} s") from None
        try:
            yield
        finally:
            try:
                await asyncio.wait_for(channel.call("basic_cancel", consumer), _LEAVES)
            except (Closed, asyncio.TimeoutError):
                channel.abandon()  # what was found meanwhile isn't lost for that

    def _send(self, queue: str) -> None:
        self._later.pop(queue, None)
        self._rung[queue] = time.monotonic()
        task = asyncio.ensure_future(self._ring(queue))
        self._ringing.add(task)
        task.add_done_callback(self._ringing.discard)

    async def _ring(self, queue: str) -> None:
        with suppress(Closed, pika.exceptions.AMQPError):  # a token is no more than a hint
            (await self._channel.get()).send_token(self._names.wake(queue))
