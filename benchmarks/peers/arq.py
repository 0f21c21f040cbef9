"""arq on Redis. A job stays in its queue until it is done, so another worker runs it after a crash."""

from __future__ import annotations

import asyncio
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings

from benchmarks.peers.kit import QUEUE, Peer, mark, setup
from benchmarks.protocol import NAP


async def one(_: Any, number: int) -> None:
    """A job of one step."""
    mark(number)


async def nap(_: Any, number: int) -> None:
    """Keep a slot for a while."""
    mark(number)
    await asyncio.sleep(NAP)


async def first(ctx: dict[str, Any], number: int) -> None:
    """Begin the chain; it has none of its own, so each step enqueues the next."""
    mark(3 * number)
    await ctx["redis"].enqueue_job("second", number)


async def second(ctx: dict[str, Any], number: int) -> None:
    """Go on with the chain."""
    mark(3 * number + 1)
    await ctx["redis"].enqueue_job("third", number)


async def third(_: Any, number: int) -> None:
    """End the chain."""
    mark(3 * number + 2)


class WorkerSettings:
    """What its command line loads."""

    functions = (one, nap, first, second, third)
    redis_settings = RedisSettings.from_dsn(setup.url)
    queue_name = QUEUE
    max_jobs = setup.concurrency


class Arq(Peer):
    """Its command line."""

    module = "benchmarks.peers.arq.WorkerSettings"

    async def open(self) -> None:
        self._pool = await create_pool(WorkerSettings.redis_settings, default_queue_name=QUEUE)

    async def close(self) -> None:
        await self._pool.aclose()

    async def enqueue(self, job: str, number: int) -> None:
        await self._pool.enqueue_job("first" if job == "chain" else job, number)

    async def pending(self) -> int:
        return int(await self._pool.zcard(QUEUE))

    def worker(self, number: int) -> list[str]:
        return ["arq", self.module]


peer = Arq()
