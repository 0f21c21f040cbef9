"""Leases: deliveries that this process holds, and the one write that ends each of them.

The lane is the fence: it takes a write for what was delivered on it and is unsettled since, and when it ends, all
that is unsettled on it goes back, with one death more. What isn't in the table here isn't asked of the server at all,
since a stale tag would end the lane, and other leases with it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from itertools import count

from gotasks.broker import Lease, Write
from gotasks_rabbitmq.closed import GOODBYE, Closed
from gotasks_rabbitmq.lane import Lane
from gotasks_rabbitmq.pool import Pool

logger = logging.getLogger("gotasks")


class Held:
    """A delivery that isn't settled."""

    __slots__ = (
        "again",
        "lane",
        "moved",
        "nowhere",
        "queue",
        "receipt",
        "seq",
        "tag",
        "task_id",
        "writing",
    )

    def __init__(self, queue: str, task_id: str, lane: Lane, tag: int, receipt: str, *, again: bool) -> None:
        self.queue = queue
        self.task_id = task_id
        self.lane = lane
        self.tag = tag
        self.receipt = receipt
        self.again = again  #: it was stored again after a crash of the server, and another copy may be there
        self.moved = False  #: a copy is in the queue to which it shall move
        self.nowhere = False  #: it was acked, and no queue took its new body, as far as is known
        self.seq = 0  #: of the write that is under way
        self.writing: asyncio.Future[Failures] | None = None


#: By receipt, why a write failed.
Failures = Mapping[str, BaseException]

#: Carries writes out; returns when each is durable and its lease has ended, or has failed.
CarryOut = Callable[[Sequence[tuple[Held, Write]]], Awaitable[Failures]]


class Leases:
    """The table of one connection. For the I/O thread."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._held: dict[str, Held] = {}
        self._on_lane: dict[Lane, Held | None] = {}
        self._prefix = secrets.token_hex(8)
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, lease: Lease) -> bool:
        return self._find(lease) is not None

    def holds(self, held: Held) -> bool:
        """Whether it is held still."""
        return held.receipt in self._held

    def add(self, queue: str, task_id: str, lane: Lane, tag: int, *, again: bool = False) -> Held:
        """A delivery has come."""
        held = Held(queue, task_id, lane, tag, f"{self._prefix}-{next(self._numbers)}", again=again)
        self._held[held.receipt] = held
        if lane not in self._on_lane:
            lane.at_end(partial(self._lose, lane))
        self._on_lane[lane] = held
        return held

    def end(self, held: Held) -> None:
        """It was settled."""
        if self._held.pop(held.receipt, None) is not None:
            self._on_lane[held.lane] = None
            self._pool.give_back(held.lane)

    async def write(self, writes: Sequence[Write], carry_out: CarryOut) -> frozenset[str]:
        """Have writes carried out; the receipts that don't hold. Raises why one of them failed.

        A repeat of one that is still under way waits for the outcome of that.
        """
        lost: set[str] = set()
        fresh: list[tuple[Held, Write]] = []
        repeated: list[tuple[str, asyncio.Future[Failures]]] = []
        later: list[tuple[Write, asyncio.Future[Failures]]] = []
        for write in writes:
            held = self._find(write.lease)
            if held is None or write.seq < held.seq:
                lost.add(write.lease.receipt)
            elif held.writing is None:
                fresh.append((held, write))
            elif write.seq == held.seq:
                repeated.append((held.receipt, held.writing))
            else:
                later.append((write, held.writing))
        failures = dict(await self._carry_out(fresh, carry_out)) if fresh else {}
        if repeated or later:
            await asyncio.wait({writing for _, writing in (*repeated, *later)})
            for receipt, writing in repeated:
                failures.update((key, error) for key, error in writing.result().items() if key == receipt)
        for error in failures.values():
            raise error
        if later:
            lost |= await self.write([write for write, _ in later], carry_out)
        return frozenset(lost)

    def _find(self, lease: Lease) -> Held | None:
        held = self._held.get(lease.receipt)
        return held if held is not None and held.task_id == lease.envelope.id else None

    async def _carry_out(self, writes: Sequence[tuple[Held, Write]], carry_out: CarryOut) -> Failures:
        writing: asyncio.Future[Failures] = asyncio.get_running_loop().create_future()
        for held, write in writes:
            held.seq = write.seq
            held.writing = writing
        failures: Failures = {}
        try:
            failures = await carry_out(writes)
        except BaseException as error:
            failures = {held.receipt: error for held, _ in writes}
            if not isinstance(error, Exception):
                raise
        finally:
            for held, _ in writes:
                held.writing = None
                if held.receipt not in failures:
                    self.end(held)
            writing.set_result(failures)
        return failures

    def _lose(self, lane: Lane, closed: Closed) -> None:
        """The lane has ended, and what was held on it is lost."""
        held = self._on_lane.pop(lane)
        if held is None:
            return
        del self._held[held.receipt]
        if closed.code > GOODBYE and not lane.cut:  # of a connection that ends all who use it are told
            logger.warning("RabbitMQ took task %s of %r back: %s", held.task_id, held.queue, closed.text)
