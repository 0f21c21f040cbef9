"""Session: what a broker does on its two connections. All of it is for the I/O thread.

One connection holds leases and writes under them; the other one stores new tasks. So a server that takes no writes
blocks the one without the other, and a publisher in a hurry doesn't hold up who holds a lease.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from gotasks.broker import Lease
from gotasks.errors import BrokerUnavailable, Rejected
from gotasks_rabbitmq.address import Address
from gotasks_rabbitmq.closed import Closed
from gotasks_rabbitmq.link import Link, Linked
from gotasks_rabbitmq.names import Names
from gotasks_rabbitmq.publisher import Stamps
from gotasks_rabbitmq.settler import Settler
from gotasks_rabbitmq.taker import Taker
from gotasks_rabbitmq.wire import Connection

T = TypeVar("T")

#: How long a connection that isn't wanted any more takes to end. Seconds.
_GOODBYE = 0.5

#: A task that a dead holder left rings nobody: who waits looks that often. Seconds.
_LOOK = 0.9

#: A server that has said that it takes nothing may change its mind within this. Seconds.
_WHILE_BLOCKED = 1.0


class Session:
    """The two connections."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._names = Names(address.namespace)
        self._stamps = Stamps()
        self._known: dict[str, asyncio.Task[None]] = {}
        self._holding: Linked = Linked(lambda: self._connect("worker"))
        self._storing: Linked = Linked(lambda: self._connect("producer"))
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._interrupted: dict[str, int] = {}
        self._taker = Taker(self._holding, self._names, address.timeout)
        self.settler = Settler(self._holding, self._storing, self._names, self._stamps)

    async def _connect(self, purpose: str) -> Link:
        try:
            connection = await asyncio.wait_for(
                Connection.open(self._address, purpose), self._address.connect_timeout
            )
        except asyncio.TimeoutError:
            raise Closed(0, f"no connection within {self._address.connect_timeout:g} s") from None
        link = Link(connection, self._names, self._stamps, self._known, self._address.management)
        try:
            await link.pool.prepare()
        except BaseException:
            await connection.close(_GOODBYE)  # nobody else knows of it
            raise
        return link

    async def close(self, within: float) -> None:
        """Leave both connections."""
        links = [link for link in (self._holding.now, self._storing.now) if link is not None]
        await asyncio.gather(*(link.bell.flush() for link in links if not link.connection.blocked))
        await asyncio.gather(*(link.connection.close(within) for link in links), return_exceptions=True)

    # -- the calls ---------------------------------------------------------------------------------

    async def enqueue(self, queue: str, tasks: Sequence[tuple[str, bytes]]) -> None:
        """Store tasks."""
        link = await self._storing.get()
        if link.connection.blocked:
            raise Rejected(
                f"{self._address.shown} takes no tasks (an alarm)", ids=[task_id for task_id, _ in tasks]
            )
        await link.publisher.store(queue, tasks)
        link.bell.ring(queue)

    async def take(self, queue: str, limit: int) -> list[Lease]:
        """Lease what is ready now."""
        return await self._taker.take(queue, limit)

    async def wait(self, queue: str, limit: int, *, end: float, since: int) -> list[Lease]:
        """Lease what comes until `end` (monotonic), unless it's interrupted. `since`: from `interrupts`, before."""
        link = await self._bounded(self._holding.get())
        woken = asyncio.Event()
        waiting = self._waiting.setdefault(queue, set())
        waiting.add(woken)
        try:
            async with link.bell.heard(queue, woken, within=self._address.timeout):
                return await self._wait(link, queue, limit, woken=woken, end=end, since=since)
        finally:
            waiting.discard(woken)

    async def _wait(
        self, link: Link, queue: str, limit: int, *, woken: asyncio.Event, end: float, since: int
    ) -> list[Lease]:
        # What came before somebody could hear it is seen by this first look.
        look = True
        while True:
            if look:
                look = bool(await self._bounded(link.queues.ready(queue)))
            if look or woken.is_set():
                woken.clear()
                leases = await self._bounded(self._taker.take(queue, limit))
                if leases:
                    if self._taker.left(queue):
                        link.bell.ring(queue)
                    return leases
            left = end - time.monotonic()
            if left <= 0 or self.interrupts(queue) != since:
                return []
            if link.connection.closed is not None:
                raise link.connection.closed
            look = False
            try:
                await asyncio.wait_for(woken.wait(), min(left, _LOOK))
            except asyncio.TimeoutError:
                look = True

    def interrupts(self, queue: str) -> int:
        """How often who waits for a task of `queue` was told to return. From any thread."""
        return self._interrupted.get(queue, 0)

    def interrupt(self, queue: str) -> None:
        """Let who waits for a task of `queue` return."""
        self._interrupted[queue] = self.interrupts(queue) + 1
        for woken in self._waiting.get(queue, ()):
            woken.set()

    async def extend(self, leases: Iterable[Lease]) -> frozenset[str]:
        """The receipts that no longer hold; asks the server whether it is there."""
        link = self._holding.now
        if link is not None and not link.connection.blocked:
            await link.queues.ping()
            link = self._holding.now
        return frozenset(each.receipt for each in leases if link is None or each not in link.leases)

    async def ready(self, queue: str) -> int:
        """How many tasks are ready."""
        return await (await self._holding.get()).queues.ready(queue) or 0

    async def purge(self, queue: str) -> int:
        """Remove what is ready."""
        return await (await self._holding.get()).queues.purge(queue)

    async def version(self) -> tuple[str, tuple[int, ...]]:
        """The server's product and version."""
        return (await self._holding.get()).connection.version

    # -- time --------------------------------------------------------------------------------------

    def patience(self) -> float:
        """How long a call may take that begins now. From any thread."""
        return min(self._address.timeout, _WHILE_BLOCKED) if self._blocked() else self._address.timeout

    def late(self, within: float) -> BrokerUnavailable:
        """What to raise of a call that wasn't done within that. From any thread."""
        why = "the server takes no writes (an alarm)" if self._blocked() else f"no answer within {within:g} s"
        return BrokerUnavailable(f"{self._address.shown}: {why}")

    async def _bounded(self, work: Coroutine[Any, Any, T]) -> T:
        within = self.patience()
        try:
            return await asyncio.wait_for(work, within)
        except asyncio.TimeoutError:
            raise self.late(within) from None

    def _blocked(self) -> bool:
        links = (self._holding.now, self._storing.now)
        return any(link is not None and link.connection.blocked for link in links)
