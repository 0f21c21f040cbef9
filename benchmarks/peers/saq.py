"""SAQ on Redis. A job whose worker died is swept up and tried again."""

from __future__ import annotations

import asyncio
from typing import Any

from saq import Queue

from benchmarks.peers.kit import QUEUE, Peer, mark, setup
from benchmarks.protocol import NAP

queue = Queue.from_url(setup.url, name=QUEUE)


async def one(_: Any, *, number: int) -> None:
    """A job of one step."""
    mark(number)


async def nap(_: Any, *, number: int) -> None:
    """Keep a slot for a while."""
    mark(number)
    await asyncio.sleep(NAP)


async def first(_: Any, *, number: int) -> None:
    """Begin the chain; it has none of its own, so each step enqueues the next."""
    mark(3 * number)
    await queue.enqueue("second", number=number)


async def second(_: Any, *, number: int) -> None:
    """Go on with the chain."""
    mark(3 * number + 1)
    await queue.enqueue("third", number=number)


async def third(_: Any, *, number: int) -> None:
    """End the chain."""
    mark(3 * number + 2)


settings = {
    "queue": queue,
    "functions": [one, nap, first, second, third],
    "concurrency": setup.concurrency,
}


class Saq(Peer):
    """Its command line."""

    module = "benchmarks.peers.saq.settings"

    async def open(self) -> None:
        await queue.connect()

    async def close(self) -> None:
        await queue.disconnect()

    async def enqueue(self, job: str, number: int) -> None:
        await queue.enqueue("first" if job == "chain" else job, number=number)

    async def pending(self) -> int:
        return int(await queue.count("incomplete"))

    def worker(self, number: int) -> list[str]:
        return ["saq", self.module]


peer = Saq()
