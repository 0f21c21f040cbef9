"""celery on Redis or RabbitMQ, with threads and late acknowledgement; on RabbitMQ it waits for each confirm."""

from __future__ import annotations

import time

from celery import Celery as App
from celery import chain
from kombu import Connection

from benchmarks.peers.kit import QUEUE, Peer, mark, setup
from benchmarks.protocol import NAP

app = App("benchmarks", broker=setup.url)
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    task_default_queue=QUEUE,
    broker_connection_retry_on_startup=True,
)
if setup.url.startswith("amqp"):
    app.conf.broker_transport_options = {"confirm_publish": True}
if setup.options.get("queue_type") == "quorum":
    app.conf.update(task_default_queue_type="quorum", task_default_exchange_type="topic")


@app.task
def one(number: int) -> None:
    """A job of one step."""
    mark(number)


@app.task
def nap(number: int) -> None:
    """Keep a slot for a while."""
    mark(number)
    time.sleep(NAP)


@app.task
def first(number: int) -> int:
    """Begin the chain; what a task returns goes to the next."""
    mark(3 * number)
    return number


@app.task
def second(number: int) -> int:
    """Go on with the chain."""
    mark(3 * number + 1)
    return number


@app.task
def third(number: int) -> None:
    """End the chain."""
    mark(3 * number + 2)


class Celery(Peer):
    """Its command line with a pool of threads; chains by `chain`."""

    module = "benchmarks.peers.celery"

    async def open(self) -> None:
        with app.producer_pool.acquire(block=True) as producer:
            producer.connection.ensure_connection()

    async def enqueue(self, job: str, number: int) -> None:
        if job == "chain":
            chain(first.s(number), second.s(), third.s()).delay()
        else:
            {"one": one, "nap": nap}[job].delay(number)

    async def pending(self) -> int:
        with Connection(setup.url) as connection:
            channel = connection.default_channel
            if setup.url.startswith("amqp"):
                return int(channel.queue_declare(QUEUE, passive=True).message_count)
            return int(channel.client.llen(QUEUE) + channel.client.hlen("unacked"))

    def worker(self, number: int) -> list[str]:
        return [
            *("celery", "--app", self.module, "worker", "--loglevel", "WARNING"),
            *(
                "--pool",
                "threads",
                "--concurrency",
                str(setup.concurrency),
                "--hostname",
                f"bench{number}@%h",
            ),
        ]


peer = Celery()
