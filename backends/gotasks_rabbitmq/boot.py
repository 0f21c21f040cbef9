"""Boot: tells one start of the server from the next, which AMQP doesn't.

A server that is asked for direct replies gives the channel a name, by which the reply finds it. In it is the id of the
process that has the channel, and in that, besides the node, a number that is another one each time that the node starts
(its "creation").
"""

from __future__ import annotations

import asyncio
import base64

from gotasks_rabbitmq.closed import Closed
from gotasks_rabbitmq.wire import Connection

#: How the id of a process begins, in Erlang's external format.
_PROCESS = b"\x83X"

#: Within the node, two numbers of four bytes tell one process from the others; the last four are the creation.
_WHICH, _CREATION = slice(-12, -4), slice(-4, None)


class Boot:
    """Which start of which node a connection leads to. For the I/O thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._asking: asyncio.Task[bytes] | None = None

    async def name(self) -> bytes:
        """The same for all connections to one start of a node; empty where the server doesn't let that be seen.

        Raises Closed. The server is asked once.
        """
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> bytes:
        try:
            channel = await self._connection.channel()
            try:
                return read(await channel.reply_to())
            finally:
                channel.abandon()
        except Closed:
            if self._connection.closed is not None:
                raise
            return b""  # it refuses such names


def read(reply_to: str) -> bytes:
    """What is said of the node in the name of a channel; empty if that isn't understood."""
    try:
        process = base64.b64decode(reply_to.split(".")[3], validate=True)
    except (IndexError, ValueError):
        return b""
    if not process.startswith(_PROCESS):
        return b""
    return process[: _WHICH.start] + process[_CREATION]
