"""Link: a connection with all that belongs to it, made when it's first wanted, and again when it was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gotasks_rabbitmq.bell import Bell
from gotasks_rabbitmq.boot import Boot
from gotasks_rabbitmq.leases import Leases
from gotasks_rabbitmq.management import Management
from gotasks_rabbitmq.names import Names
from gotasks_rabbitmq.policies import Policies
from gotasks_rabbitmq.pool import Pool
from gotasks_rabbitmq.publisher import Publisher, Stamps
from gotasks_rabbitmq.queues import Queues
from gotasks_rabbitmq.wire import Connection


class Link:
    """One connection and all that belongs to it; gone with it."""

    def __init__(
        self,
        connection: Connection,
        names: Names,
        stamps: Stamps,
        known: dict[str, asyncio.Task[None]],
        management: Management | None,
    ) -> None:
        policies = None if management is None else Policies(management.shown, management.policies)
        self.connection = connection
        self.boot = Boot(connection)
        self.queues = Queues(connection, names, known, policies)
        self.pool = Pool(connection)
        self.leases = Leases(self.pool)
        self.bell = Bell(connection, names)
        self.publisher = Publisher(connection, self.queues, names, stamps)


class Linked:
    """A link that is made when it's first wanted, and again when it was lost."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, Link]]) -> None:
        self._make = make
        self._making: asyncio.Task[Link] | None = None

    @property
    def now(self) -> Link | None:
        """The link, if there is one."""
        making = self._making
        if making is None or not making.done() or making.cancelled() or making.exception():
            return None
        link = making.result()
        return link if link.connection.closed is None else None

    async def get(self) -> Link:
        """The link. Raises Closed."""
        if self.now is None and (self._making is None or self._making.done()):
            self._making = asyncio.ensure_future(self._make())
        assert self._making is not None
        return await asyncio.shield(self._making)
