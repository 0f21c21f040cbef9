"""streaQ on Redis streams. A task whose worker died is taken over by another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from streaq import Worker

from benchmarks.peers.kit import QUEUE, Peer, mark, setup
from benchmarks.protocol import NAP

worker: Worker[None] = Worker(redis_url=setup.url, queue_name=QUEUE, concurrency=setup.concurrency)


@worker.task
async def one(number: int) -> None:
    """A job of one step."""
    mark(number)


@worker.task
async def nap(number: int) -> None:
    """Keep a slot for a while."""
    mark(number)
    await asyncio.sleep(NAP)


@worker.task
async def first(number: int) -> int:
    """Begin the chain; what a task returns goes to the next."""
    mark(3 * number)
    return number


@worker.task
async def second(number: int) -> int:
    """Go on with the chain."""
    mark(3 * number + 1)
    return number


@worker.task
async def third(number: int) -> None:
    """End the chain."""
    mark(3 * number + 2)


_JOBS = {"one": one, "nap": nap}


class Streaq(Peer):
    """Its command line; chains by `then`."""

    module = "benchmarks.peers.streaq:worker"

    async def open(self) -> None:
        await worker.__aenter__()

    async def close(self) -> None:
        await worker.__aexit__(None, None, None)

    async def enqueue(self, job: str, number: int) -> None:
        if job == "chain":
            await first.enqueue(number).then(second).then(third)
        else:
            await _JOBS[job].enqueue(number)

    async def enqueue_many(self, job: str, numbers: Sequence[int]) -> None:
        if job == "chain":
            await super().enqueue_many(job, numbers)
        await worker.enqueue_many([_JOBS[job].enqueue(number) for number in numbers])

    async def pending(self) -> int:
        return int(await worker.queue_size())

    def worker(self, number: int) -> list[str]:
        return ["streaq", "run", self.module]


peer = Streaq()
