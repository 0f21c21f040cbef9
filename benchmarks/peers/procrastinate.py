"""procrastinate on PostgreSQL through psycopg 3. A job whose worker died stays `doing` until someone retries it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from procrastinate import App, PsycopgConnector

from benchmarks.peers.kit import QUEUE, Peer, mark, setup
from benchmarks.protocol import NAP

app = App(connector=PsycopgConnector(conninfo=setup.url))


@app.task(queue=QUEUE)
async def one(number: int) -> None:
    """A job of one step."""
    mark(number)


@app.task(queue=QUEUE)
async def nap(number: int) -> None:
    """Keep a slot for a while."""
    mark(number)
    await asyncio.sleep(NAP)


@app.task(queue=QUEUE)
async def first(number: int) -> None:
    """Begin the chain; it has none of its own, so each step defers the next."""
    mark(3 * number)
    await second.defer_async(number=number)


@app.task(queue=QUEUE)
async def second(number: int) -> None:
    """Go on with the chain."""
    mark(3 * number + 1)
    await third.defer_async(number=number)


@app.task(queue=QUEUE)
async def third(number: int) -> None:
    """End the chain."""
    mark(3 * number + 2)


_JOBS = {"one": one, "nap": nap, "chain": first}


class Procrastinate(Peer):
    """Its command line; done jobs are deleted, as the other peers do."""

    module = "benchmarks.peers.procrastinate.app"

    async def prepare(self) -> None:
        """Install the schema."""
        await self.open()
        await app.schema_manager.apply_schema_async()
        await self.close()

    async def open(self) -> None:
        await app.open_async()

    async def close(self) -> None:
        await app.close_async()

    async def enqueue(self, job: str, number: int) -> None:
        await _JOBS[job].defer_async(number=number)

    async def enqueue_many(self, job: str, numbers: Sequence[int]) -> None:
        await _JOBS[job].batch_defer_async(*({"number": number} for number in numbers))

    async def pending(self) -> int:
        jobs = await app.job_manager.list_queues_async(queue=QUEUE)
        return sum(each["todo"] + each["doing"] + each["failed"] for each in jobs)

    def worker(self, number: int) -> list[str]:
        return [
            *("procrastinate", "--app", self.module, "--log-level", "warning", "worker"),
            *("--queues", QUEUE, "--concurrency", str(setup.concurrency), "--delete-jobs", "successful"),
        ]


peer = Procrastinate()
