"""pgqueuer on PostgreSQL through asyncpg. A job whose worker died is picked again when its heartbeats are missed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
from pgqueuer import AsyncpgDriver, Job, PgQueuer, Queries

from benchmarks.peers.kit import Peer, mark, setup
from benchmarks.protocol import NAP

#: The job that a step enqueues when it is done. pgqueuer has no chains, so its users do that by hand.
_NEXT = {"first": "second", "second": "third"}


@asynccontextmanager
async def app() -> AsyncIterator[PgQueuer]:
    """What `pgq run` loads: the handlers, on a connection."""
    connection = await asyncpg.connect(setup.url)
    pgq = PgQueuer(AsyncpgDriver(connection))
    # Its own default has no limit but the batch. With one, the dequeue query counts what is picked.
    limit = setup.options.get("limit", 0)
    concurrency = {"concurrency_limit": limit} if limit else {}

    @pgq.entrypoint("one", **concurrency)
    async def one(job: Job) -> None:
        mark(_number(job))

    @pgq.entrypoint("nap", **concurrency)
    async def nap(job: Job) -> None:
        mark(_number(job))
        await asyncio.sleep(NAP)

    async def step(job: Job) -> None:
        number = _number(job)
        mark(3 * number + ("first", "second", "third").index(job.entrypoint))
        if job.entrypoint in _NEXT:
            await pgq.qm.queries.enqueue(_NEXT[job.entrypoint], job.payload)

    for name in ("first", "second", "third"):
        pgq.entrypoint(name, **concurrency)(step)
    try:
        yield pgq
    finally:
        await connection.close()


def _number(job: Job) -> int:
    assert job.payload is not None
    return int(json.loads(job.payload)["number"])


class Pgqueuer(Peer):
    """Its command line with a batch size."""

    module = "benchmarks.peers.pgqueuer:app"

    async def prepare(self) -> None:
        """Install the schema, in its default durability."""
        await self.open()
        await self._queries.install()
        await self.close()

    async def open(self) -> None:
        self._connection = await asyncpg.connect(setup.url)
        self._queries = Queries(AsyncpgDriver(self._connection))

    async def close(self) -> None:
        await self._connection.close()

    async def enqueue(self, job: str, number: int) -> None:
        await self._queries.enqueue(_entrypoint(job), json.dumps({"number": number}).encode())

    async def enqueue_many(self, job: str, numbers: Sequence[int]) -> None:
        payloads = [json.dumps({"number": number}).encode() for number in numbers]
        await self._queries.enqueue([_entrypoint(job)] * len(payloads), payloads, [0] * len(payloads))

    async def pending(self) -> int:
        return sum(each.count for each in await self._queries.queue_size())

    def worker(self, number: int) -> list[str]:
        return [
            *("pgq", "run", self.module),
            *("--batch-size", str(setup.options["batch"]), "--log-level", "WARNING"),
        ]


def _entrypoint(job: str) -> str:
    return "first" if job == "chain" else job


peer = Pgqueuer()
