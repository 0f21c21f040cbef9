"""taskiq: Redis streams or RabbitMQ, acknowledged after work; or Redis lists, which forget what they hand out."""

from __future__ import annotations

import asyncio

import aio_pika
from redis.asyncio import Redis
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue
from taskiq_pipelines import Pipeline, PipelineMiddleware
from taskiq_redis import ListQueueBroker, RedisStreamBroker

from benchmarks.peers.kit import QUEUE, Peer, mark, setup
from benchmarks.protocol import NAP

_kind = setup.options["broker"]
if _kind == "amqp":
    # Its defaults (quorum queues) under names of ours. aio-pika's channels confirm what they publish.
    broker = AioPikaBroker(
        setup.url,
        exchange=Exchange(name=QUEUE),
        task_queues=[Queue(name=QUEUE)],
        dead_letter_queue=Queue(name=f"{QUEUE}.dead_letter"),
        qos=setup.concurrency,
    )
elif _kind == "stream":
    # From the beginning of the stream, since tasks are enqueued before the worker starts.
    broker = RedisStreamBroker(setup.url, queue_name=QUEUE, consumer_id="0")
else:
    broker = ListQueueBroker(setup.url, queue_name=QUEUE)
broker.add_middlewares(PipelineMiddleware())


@broker.task
async def one(number: int) -> None:
    """A job of one step."""
    mark(number)


@broker.task
async def nap(number: int) -> None:
    """Keep a slot for a while."""
    mark(number)
    await asyncio.sleep(NAP)


@broker.task
async def first(number: int) -> int:
    """Begin the chain; what a task returns goes to the next."""
    mark(3 * number)
    return number


@broker.task
async def second(number: int) -> int:
    """Go on with the chain."""
    mark(3 * number + 1)
    return number


@broker.task
async def third(number: int) -> None:
    """End the chain."""
    mark(3 * number + 2)


class Taskiq(Peer):
    """Its command line with one process; chains by taskiq-pipelines."""

    module = "benchmarks.peers.taskiq:broker"

    async def open(self) -> None:
        await broker.startup()

    async def close(self) -> None:
        await broker.shutdown()

    async def enqueue(self, job: str, number: int) -> None:
        if job == "chain":
            await Pipeline(broker, first).call_next(second).call_next(third).kiq(number)
        else:
            await {"one": one, "nap": nap}[job].kiq(number)

    async def pending(self) -> int:
        if _kind == "amqp":
            async with await aio_pika.connect(setup.url) as connection:
                queue = await (await connection.channel()).declare_queue(QUEUE, passive=True)
                return int(queue.declaration_result.message_count or 0)
        async with Redis.from_url(setup.url) as client:
            if _kind == "list":
                return int(await client.llen(QUEUE))
            (group,) = await client.xinfo_groups(QUEUE)
            return int(group["pending"] + group["lag"])

    def worker(self, number: int) -> list[str]:
        return [
            *("taskiq", "worker", self.module, "benchmarks.peers.taskiq"),
            *("--workers", "1", "--max-async-tasks", str(setup.concurrency), "--log-level", "WARNING"),
        ]


peer = Taskiq()
