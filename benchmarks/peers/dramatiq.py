"""dramatiq on Redis or RabbitMQ, with threads. It acknowledges after work; on RabbitMQ it waits for each confirm."""

from __future__ import annotations

import time

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers.kit import QUEUE, Peer, mark, setup
from benchmarks.protocol import NAP

if setup.url.startswith("amqp"):
    broker = RabbitmqBroker(url=setup.url, confirm_delivery=True)
else:
    broker = RedisBroker(url=setup.url)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=QUEUE)
def one(number: int) -> None:
    """A job of one step."""
    mark(number)


@dramatiq.actor(queue_name=QUEUE)
def nap(number: int) -> None:
    """Keep a slot for a while."""
    mark(number)
    time.sleep(NAP)


@dramatiq.actor(queue_name=QUEUE)
def first(number: int) -> int:
    """Begin the chain; what an actor of a pipeline returns goes to the next."""
    mark(3 * number)
    return number


@dramatiq.actor(queue_name=QUEUE)
def second(number: int) -> int:
    """Go on with the chain."""
    mark(3 * number + 1)
    return number


@dramatiq.actor(queue_name=QUEUE)
def third(number: int) -> None:
    """End the chain."""
    mark(3 * number + 2)


class Dramatiq(Peer):
    """Its command line with one process of threads; chains are pipelines."""

    module = "benchmarks.peers.dramatiq"

    async def open(self) -> None:
        if isinstance(broker, RabbitmqBroker):
            broker.declare_queue(QUEUE, ensure=True)
        else:
            broker.client.ping()

    async def enqueue(self, job: str, number: int) -> None:
        if job == "chain":
            dramatiq.pipeline([first.message(number), second.message(), third.message()]).run()
        else:
            {"one": one, "nap": nap}[job].send(number)

    async def pending(self) -> int:
        if isinstance(broker, RabbitmqBroker):
            return int(sum(broker.get_queue_message_counts(QUEUE)))
        return int(broker.do_qsize(QUEUE))

    def worker(self, number: int) -> list[str]:
        return ["dramatiq", self.module, "--processes", "1", "--threads", str(setup.concurrency)]


peer = Dramatiq()
