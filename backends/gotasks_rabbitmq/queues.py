"""Queues: the queues of a namespace as one connection sees them: made when first needed, counted, emptied."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import Any

from gotasks_rabbitmq.closed import NOT_FOUND, Closed
from gotasks_rabbitmq.lock import alone
from gotasks_rabbitmq.names import Names
from gotasks_rabbitmq.policies import Policies
from gotasks_rabbitmq.wire import Connection, Reopened

logger = logging.getLogger("gotasks")

#: After so many milliseconds the server deletes the queue that is there for a moment, if its client couldn't.
_MOMENT = 60_000

#: A queue is there, with other arguments than ours.
_PRECONDITION_FAILED = 406

#: How often a task may be delivered.
_LIMIT = "x-delivery-limit"

#: How the server says in what it differs.
_INEQUIVALENT = re.compile(r"inequivalent arg '([^']*)' .*: (received .*)")

#: Differences with which a queue may lose tasks, or forget how often one was delivered.
_LOSES = frozenset(
    {"x-queue-type", "durable", "auto_delete", "exclusive", "x-expires", "x-message-ttl"}
    | {"x-max-length", "x-max-length-bytes", "x-single-active-consumer"}
)


def arguments(version: tuple[int, ...]) -> Mapping[str, Any]:
    """What a queue for tasks is declared with, on a server of this version.

    From 4.0 on a quorum queue throws away, unless told otherwise, what was delivered more than 20 times.
    """
    declared: dict[str, Any] = {"x-queue-type": "quorum"}
    if version >= (4,):
        declared[_LIMIT] = -1
    return declared


class Queues:
    """For the I/O thread. Every method raises Closed."""

    def __init__(
        self,
        connection: Connection,
        names: Names,
        known: dict[str, asyncio.Task[None]],
        policies: Policies | None,
    ) -> None:
        """`known`: of which queues is known that they are there, or who sees to that; for all connections.

        `policies`: what the server's policies would do to them, where that can be seen.
        """
        self._connection = connection
        self._names = names
        self._known = known
        self._policies = policies
        self._probe = Reopened(connection.channel)
        self._one = asyncio.Lock()

    async def ensure(self, queue: str) -> None:
        """See that there is a queue for the tasks of `queue`; what is put there from now on outlives a crash.

        Where policies can be seen: that none loses its tasks, or what `Policies.check` raises, before there is a queue.
        """
        if self._policies is not None:
            await self._policies.check(self._names.tasks(queue))
        await self._made(queue)

    async def _made(self, queue: str) -> None:
        making = self._known.get(queue)
        if making is None or making.cancelled():
            making = self._known[queue] = asyncio.ensure_future(self._alone(queue))
        try:
            await asyncio.shield(making)
        except Closed:
            self.forget(queue)
            raise

    def gone(self, queue: str) -> None:
        """There is no such queue. If there was one, somebody has deleted it, and the log says so."""
        making = self._known.get(queue)
        if making is not None and making.done():
            name = self._names.tasks(queue)
            logger.warning(
                "RabbitMQ has no queue %r any more: what waited there is gone. It is made anew", name
            )
        self.forget(queue)

    def forget(self, queue: str) -> None:
        """The queue is gone, or was never there."""
        making = self._known.get(queue)
        if making is not None and making.done():  # else somebody here is about to see, and holds the lock
            del self._known[queue]

    async def ready(self, queue: str) -> int | None:
        """How many tasks are ready; None if there is no such queue."""
        try:
            answer = await self.asking("queue_declare", self._names.tasks(queue), passive=True)
        except Closed as closed:
            if closed.code == NOT_FOUND:
                self.gone(queue)
                return None
            raise
        await self._made(queue)  # somebody may be just making it
        return int(answer.message_count)

    async def purge(self, queue: str) -> int:
        """Remove what is ready; how many that were."""
        if await self.ready(queue) is None:  # else it was made, if that was under way
            return 0
        try:
            answer = await self.asking("queue_purge", self._names.tasks(queue))
        except Closed as closed:
            if closed.code == NOT_FOUND:
                self.gone(queue)
                return 0
            raise
        return int(answer.message_count)

    async def ping(self) -> None:
        """Ask something that changes nothing."""
        await self.asking("basic_qos", prefetch_count=0)

    async def asking(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method, on a channel that may be lost with it: so nobody else asks on it meanwhile."""
        async with self._one:
            return await (await self._probe.get()).call(method, *args, **kwargs)

    async def _alone(self, queue: str) -> None:
        """Make the queue, or see that it's right, while no other client does either.

        Who used a queue that somebody else is just making would lose his connection to it ("noproc"), or what he has
        confirmed (see `_flush`).
        """
        async with alone(self.asking, self._names.making(queue)):
            await self._make(self._names.tasks(queue))

    async def _make(self, name: str) -> None:
        try:
            await self.asking("queue_declare", name, passive=True)
        except Closed as closed:
            if closed.code != NOT_FOUND:
                raise
            await self._declare(name)
            await self._flush()
        else:
            await self._declare(name)  # which tells whether it is as we would make it

    async def _declare(self, name: str) -> None:
        declared = arguments(self._connection.version[1])
        try:
            await self.asking("queue_declare", name, durable=True, arguments=declared)
        except Closed as closed:
            found = _INEQUIVALENT.search(closed.text)
            if closed.code != _PRECONDITION_FAILED or found is None:
                raise
            argument, difference = found.groups()
            differs = f"queue {name!r} was declared otherwise than gotasks does: {argument}, {difference}"
            limited = argument == _LIMIT and not difference.endswith("current is none")
            if argument in _LOSES or limited:
                raise Closed(
                    closed.code,
                    f"{differs}. Tasks may be lost there: delete it, or choose another namespace=",
                ) from None
            if argument == _LIMIT:  # made by an earlier version of the server
                differs += ". RabbitMQ throws away what was delivered more than 20 times"
            logger.warning("%s. Delete it while it's empty, and it is made anew", differs)

    async def _flush(self) -> None:
        """See that a queue which was just made outlives a crash of the server.

        One that is killed within a second of making a quorum queue comes back without it, and so loses what it has
        confirmed since: it is late with a file, which it completes when it makes the next such queue.
        """
        name = self._names.flush()
        await self.asking("queue_delete", name)
        # Should this client end before it deletes it, the server does.
        declared = {**arguments(self._connection.version[1]), "x-expires": _MOMENT}
        await self.asking("queue_declare", name, durable=True, arguments=declared)
        await self.asking("queue_delete", name)
