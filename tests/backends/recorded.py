"""RabbitMQ beside a record store: what the tests of it do to either."""

from __future__ import annotations

from urllib.parse import quote

import pika
import pytest

from gotasks.broker import BrokerURL
from gotasks_rabbitmq import recorded
from gotasks_rabbitmq.names import Names
from tests.backends.engine import QUEUE
from tests.rabbit_server import channel


def recorded_url(line: str, store: str) -> str:
    """The URL of both."""
    return f"{line}{'&' if '?' in line else '?'}records={quote(store, safe='')}"


def nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, who has looked into the store once finds nothing more without a pointer."""
    monkeypatch.setattr(recorded, "_LOOK", 3600.0)


def publish(url: str, *messages: tuple[str | None, bytes]) -> None:
    """Put messages into RabbitMQ, each an id and a body, as anybody could."""
    with channel(url) as other:
        other.confirm_delivery()
        other.queue_declare(_name(url), durable=True, arguments={"x-queue-type": "quorum"})
        for task_id, body in messages:
            properties = pika.BasicProperties(message_id=task_id)
            other.basic_publish("", _name(url), body, properties, mandatory=True)


def pointers(url: str, queue: str = QUEUE) -> int:
    """How many messages wait in a queue of RabbitMQ."""
    with channel(url) as other:
        found = other.queue_declare(_name(url, queue), passive=True)
    return int(found.method.message_count)


def forget_pointers(url: str) -> None:
    """Delete a queue in RabbitMQ."""
    with channel(url) as other:
        other.queue_delete(_name(url))


def told(caplog: pytest.LogCaptureFixture, text: str) -> int:
    """How many lines of the log have this text."""
    return sum(text in line for line in caplog.messages)


def _name(url: str, queue: str = QUEUE) -> str:
    return Names(BrokerURL(url).params["namespace"]).tasks(queue)
