"""pika: publish with confirms one by one, and consume with an ack for each message."""

from __future__ import annotations

from collections.abc import Mapping

import pika

from benchmarks.ceilings.kit import BODY, per_second
from benchmarks.peers.kit import setup
from benchmarks.protocol import reply

_QUEUE = "gotasks-bench-ceiling"
_CONFIRMED = 1_000
_CONSUMED = 5_000


def answer(_: Mapping[str, object]) -> Mapping[str, float]:
    """Messages a second by name, on a durable classic queue, persistent messages."""
    connection = pika.BlockingConnection(pika.URLParameters(setup.url))
    persistent = pika.BasicProperties(delivery_mode=2)
    try:
        channel = connection.channel()
        channel.queue_declare(_QUEUE, durable=True)
        channel.queue_purge(_QUEUE)

        def publish(count: int) -> int:
            for _ in range(count):
                channel.basic_publish("", _QUEUE, BODY, persistent)
            return count

        def consume() -> int:
            channel.basic_qos(prefetch_count=100)
            deliveries = channel.consume(_QUEUE, inactivity_timeout=10)
            for done, (method, _, _) in enumerate(deliveries, 1):
                assert method is not None
                channel.basic_ack(method.delivery_tag)
                if done == _CONSUMED:
                    break
            return _CONSUMED

        found = {"publish, no confirms": per_second(lambda: publish(_CONSUMED))}
        found["consume, ack each"] = per_second(consume)
        channel.cancel()
        channel.confirm_delivery()
        found["publish, confirmed one by one"] = per_second(lambda: publish(_CONFIRMED))
        channel.queue_delete(_QUEUE)
        return found
    finally:
        connection.close()


if __name__ == "__main__":
    reply(answer)
