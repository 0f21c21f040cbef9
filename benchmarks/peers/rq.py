"""RQ on Redis: a job at a time in a worker. A job whose worker died is kept as failed, for someone to requeue."""

from __future__ import annotations

import time
from collections.abc import Sequence

from redis import Redis
from rq import Queue

from benchmarks.peers.kit import QUEUE, Peer, mark, setup
from benchmarks.protocol import NAP

queue = Queue(QUEUE, connection=Redis.from_url(setup.url))


def one(number: int) -> None:
    """A job of one step."""
    mark(number)


def nap(number: int) -> None:
    """Keep a slot for a while."""
    mark(number)
    time.sleep(NAP)


def first(number: int) -> None:
    """Begin the chain."""
    mark(3 * number)


def second(number: int) -> None:
    """Go on with the chain."""
    mark(3 * number + 1)


def third(number: int) -> None:
    """End the chain."""
    mark(3 * number + 2)


_JOBS = {"one": one, "nap": nap}


class Rq(Peer):
    """Its command line; chains are jobs that depend on one another."""

    module = "rq"

    async def open(self) -> None:
        queue.connection.ping()

    async def enqueue(self, job: str, number: int) -> None:
        if job == "chain":
            begun = queue.enqueue(first, number)
            queue.enqueue(third, number, depends_on=queue.enqueue(second, number, depends_on=begun))
        else:
            queue.enqueue(_JOBS[job], number)

    async def enqueue_many(self, job: str, numbers: Sequence[int]) -> None:
        if job == "chain":
            await super().enqueue_many(job, numbers)
        queue.enqueue_many([Queue.prepare_data(_JOBS[job], (number,)) for number in numbers])

    async def pending(self) -> int:
        registries = (queue.started_job_registry, queue.deferred_job_registry, queue.failed_job_registry)
        return len(queue) + sum(len(registry) for registry in registries)

    def worker(self, number: int) -> list[str]:
        return [
            *("rq", "worker", QUEUE, "--url", setup.url, "--quiet"),
            *("--worker-class", f"rq.worker.{setup.options['worker']}"),
        ]


peer = Rq()
