"""Queues with names of their own in a virtual host of RabbitMQ: deleted before each measurement and at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pika

from benchmarks.protocol import reply


def answer(command: Mapping[str, Any]) -> Mapping[str, Any]:
    """`url`: amqp://…; `queues`, `exchanges`: what the peer is going to declare. Deletes these and nothing else."""
    connection = pika.BlockingConnection(pika.URLParameters(command["url"]))
    try:
        channel = connection.channel()
        for queue in command.get("queues", ()):
            channel.queue_delete(queue)
        for exchange in command.get("exchanges", ()):
            channel.exchange_delete(exchange)
        version = connection._impl.server_properties["version"]  # noqa: SLF001 - pika shows it nowhere else
    finally:
        connection.close()
    return {"url": command["url"], "version": version}


if __name__ == "__main__":
    reply(answer)
