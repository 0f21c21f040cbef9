"""What the RabbitMQ backend relies on: experiments with the server itself, and what it does instead of what we wish."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import Any

import pika
import pytest

from gotasks.broker import BrokerURL
from gotasks.conformance.kit.proxy import Proxy
from gotasks_rabbitmq.address import Address
from gotasks_rabbitmq.answers import Answers
from gotasks_rabbitmq.lane import Delivery
from gotasks_rabbitmq.wire import Connection
from tests.backends.contract import eventually
from tests.rabbit_server import PrivateRabbit, QueueProcess, consumer_timeout

QUORUM = {"x-queue-type": "quorum"}
DURABLE = pika.BasicProperties(delivery_mode=2)


@contextmanager
def connected(server: PrivateRabbit) -> Iterator[Any]:
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", server.port))
    yield connection
    with suppress(pika.exceptions.AMQPError):
        connection.close()


@pytest.fixture
def connection(private_rabbit: PrivateRabbit) -> Iterator[Any]:
    with connected(private_rabbit) as connection:
        yield connection


@pytest.fixture
def queue(connection: Any) -> Iterator[str]:
    """A quorum queue; deleted afterwards."""
    name = f"q-{secrets.token_hex(6)}"
    connection.channel().queue_declare(name, durable=True, arguments=QUORUM)
    yield name
    if connection.is_open:
        connection.channel().queue_delete(name)


def put(connection: Any, queue: str, *bodies: bytes) -> None:
    channel = connection.channel()
    channel.confirm_delivery()
    for body in bodies:
        channel.basic_publish("", queue, body, DURABLE, mandatory=True)
    channel.close()


def get(channel: Any, queue: str) -> tuple[int, bytes, int]:
    """Tag, body and count of deaths of the next message."""
    found: list[Any] = []

    def there() -> bool:
        found[:] = channel.basic_get(queue)
        return found[0] is not None

    eventually(there, what="a message")
    method, properties, body = found
    return method.delivery_tag, body, int((properties.headers or {}).get("x-delivery-count", 0))


def transaction(connection: Any) -> Any:
    channel = connection.channel()
    channel.tx_select()
    return channel


def bodies(connection: Any, queue: str) -> list[bytes]:
    channel = connection.channel()
    found = []
    while (message := channel.basic_get(queue))[0] is not None:
        channel.basic_ack(message[0].delivery_tag)
        found.append(message[2])
    return found


def test_a_hop_is_both_or_nothing(connection: Any, private_rabbit: PrivateRabbit, queue: str) -> None:
    put(connection, queue, b"old")
    with connected(private_rabbit) as other:
        channel = transaction(other)
        tag, *_ = get(channel, queue)
        channel.basic_publish("", queue, b"new", DURABLE)
        channel.basic_ack(tag)
        other.process_data_events(0)
    assert get(connection.channel(), queue)[1:] == (b"old", 1)  # never committed


def hopping(connection: Any, queue: str, *, hops: int = 0) -> Any:
    """A channel on which there were so many hops, and on which the next one is only to be committed."""
    put(connection, queue, b"old")
    channel = transaction(connection)
    for hop in range(hops + 1):
        tag, *_ = get(channel, queue)
        channel.basic_publish("", queue, b"old" if hop < hops else b"new", DURABLE)
        channel.basic_ack(tag)
        if hop < hops:
            channel.tx_commit()
    return channel


@pytest.mark.timeout(180)
def test_a_hop_is_neither_if_the_server_is_killed_when_it_has_written_the_ack(
    private_rabbit: PrivateRabbit,
) -> None:
    """It writes the ack first, always. So what a kill may have torn is stored again; see `Settler._store_again`."""
    torn, after = (f"{word}-{secrets.token_hex(6)}" for word in ("torn", "after"))
    process = QueueProcess(private_rabbit, torn)
    with connected(private_rabbit) as connection, ThreadPoolExecutor(1) as pool:
        for name in (torn, after):
            connection.channel().queue_declare(name, durable=True, arguments=QUORUM)
        channel = hopping(connection, torn)
        with process.still():
            commit = pool.submit(channel.tx_commit)
            process.hop_waits()
            process.ask()
        process.answers()
        private_rabbit.kill()
        with pytest.raises(pika.exceptions.AMQPError):
            commit.result(30)
    private_rabbit.start()
    with connected(private_rabbit) as connection:
        put(connection, torn, b"it works")
        assert bodies(connection, torn) == [b"it works"]
        for name in (torn, after):
            connection.channel().queue_delete(name)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("hops, there", [(0, [b"new"]), (1, [])])
def test_a_hop_is_whole_though_its_client_ends_before_the_queue_comes_to_it_if_it_is_the_first_one_of_its_channel(
    connection: Any, private_rabbit: PrivateRabbit, queue: str, hops: int, there: list[bytes]
) -> None:
    """The end of a channel isn't put off, and from one that has ended a queue takes its first message only.

    So no second task is put back on a lane; see `Pool`.
    """
    process = QueueProcess(private_rabbit, queue)
    with Proxy("127.0.0.1", private_rabbit.port) as proxy, ThreadPoolExecutor(1) as pool:
        port = BrokerURL(proxy.through(private_rabbit.url)).hosts[0][1]
        other = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
        channel = hopping(other, queue, hops=hops)
        with process.still():
            commit = pool.submit(channel.tx_commit)
            process.hop_waits()
            proxy.cut()
            with pytest.raises(pika.exceptions.AMQPError):
                commit.result(30)
            process.is_told_of_an_end()
    put(connection, queue, b"it works")
    assert bodies(connection, queue) == [*there, b"it works"]


def test_a_new_body_has_no_deaths(connection: Any, queue: str) -> None:
    put(connection, queue, b"old")
    dying = connection.channel()
    get(dying, queue)
    dying.close()
    channel = transaction(connection)
    tag, _, deaths = get(channel, queue)
    assert deaths == 1
    channel.basic_publish("", queue, b"new", DURABLE)
    channel.basic_ack(tag)
    channel.tx_commit()
    assert get(channel, queue)[1:] == (b"new", 0)


def test_a_death_is_counted_however_it_comes(
    connection: Any, private_rabbit: PrivateRabbit, queue: str
) -> None:
    put(connection, queue, b"old")

    def nack(channel: Any, tag: int) -> None:
        channel.basic_nack(tag)

    def close(channel: Any, _: int) -> None:
        channel.close()

    def leave(channel: Any, _: int) -> None:
        channel.connection.close()

    for number, end in enumerate([nack, close, leave]):
        with connected(private_rabbit) as other:
            channel = other.channel()
            tag, body, deaths = get(channel, queue)
            assert (body, deaths) == (b"old", number)
            end(channel, tag)
    assert get(connection.channel(), queue)[2] == 3


def test_a_stale_tag_ends_its_channel_and_all_leases_on_it(connection: Any, queue: str) -> None:
    put(connection, queue, b"first", b"second")
    channel = transaction(connection)
    tag, *_ = get(channel, queue)
    get(channel, queue)
    channel.basic_ack(tag)
    channel.tx_commit()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="unknown delivery tag"):
        channel.basic_ack(tag)
        channel.tx_commit()
    assert get(connection.channel(), queue)[1:] == (b"second", 1)


def test_a_commit_is_answered_though_no_queue_took_the_message(connection: Any, queue: str) -> None:
    """So whether it was returned has to be looked at, and moves aren't made in a transaction."""
    put(connection, queue, b"old")
    channel = transaction(connection)
    returned: list[bytes] = []
    channel.add_on_return_callback(lambda *message: returned.append(message[3]))
    tag, *_ = get(channel, queue)
    channel.basic_publish("", f"{queue}-nowhere", b"new", DURABLE, mandatory=True)
    channel.basic_ack(tag)
    channel.tx_commit()
    connection.process_data_events(0)
    assert returned == [b"new"]
    channel.close()
    assert bodies(connection, queue) == []


def test_a_commit_is_answered_though_a_full_queue_refused_the_message(connection: Any, queue: str) -> None:
    """So a release into another queue is confirmed there before it is acked here."""
    full = f"{queue}-full"
    limits = {**QUORUM, "x-max-length": 1, "x-overflow": "reject-publish"}
    connection.channel().queue_declare(full, durable=True, arguments=limits)
    publisher = connection.channel()
    publisher.confirm_delivery()
    with pytest.raises(pika.exceptions.NackError):
        for _ in range(50):
            publisher.basic_publish("", full, b"filler", DURABLE)
    put(connection, queue, *[b"%d" % number for number in range(20)])
    channel = transaction(connection)
    for _ in range(20):
        tag, body, _ = get(channel, queue)
        channel.basic_publish("", full, body, DURABLE, mandatory=True)
        channel.basic_ack(tag)
        channel.tx_commit()
    channel.close()
    there = [body for body in bodies(connection, full) if body != b"filler"]
    assert len(there) < 20
    connection.channel().queue_delete(full)


def test_a_consumer_that_is_cancelled_as_a_message_comes_may_cost_a_death(
    private_rabbit: PrivateRabbit, queue: str
) -> None:
    """Nobody was given it, and it has died. So nobody here waits on a task; see `bell.py`."""
    address = Address.of(BrokerURL(private_rabbit.url))

    async def race() -> int:
        consuming, publishing = [await Connection.open(address, "test") for _ in range(2)]
        channel, publisher = await consuming.channel(), await publishing.channel()
        (lane,) = consuming.lanes(1)
        consuming.send(lane.open())
        await lane.opened
        try:
            for round_ in range(1000):
                got: list[int] = []

                def on_message(inner: Any, method: Any, *_: object, got: list[int] = got) -> None:
                    inner.basic_ack(method.delivery_tag)
                    got.append(method.delivery_tag)

                answer = await channel.call("basic_consume", queue, on_message)
                publishing.send(publisher.publish(queue, "task", round_, b"x"))
                await asyncio.sleep(random.uniform(0, 0.001))
                await channel.call("basic_cancel", answer.consumer_tag)
                while not got:
                    answers: Answers[str, Delivery | None] = Answers(1)
                    consuming.send(lane.get(queue, answers, queue))
                    for _, delivery in await answers.all():
                        if isinstance(delivery, Delivery):
                            if delivery.headers.get("x-delivery-count"):
                                return round_
                            got.append(delivery.tag)
                            consuming.send(lane.ack(delivery.tag) + lane.commit(Answers(1), queue))
        finally:
            await consuming.close(1.0)
            await publishing.close(1.0)
        return -1

    # With a server that doesn't do that `bell.py` isn't needed.
    assert asyncio.run(race()) >= 0


@pytest.mark.timeout(180)
def test_a_queue_that_was_just_made_is_lost_by_a_kill_unless_another_one_follows(
    private_rabbit: PrivateRabbit,
) -> None:
    """See `Queues._flush`."""
    lost, kept, after = (f"{word}-{secrets.token_hex(6)}" for word in ("lost", "kept", "after"))
    with connected(private_rabbit) as connection:
        channel = connection.channel()
        channel.queue_declare(kept, durable=True, arguments=QUORUM)
        channel.queue_declare(after, durable=True, arguments=QUORUM)
        put(connection, kept, b"kept")
        private_rabbit.kill()
    private_rabbit.start()
    with connected(private_rabbit) as connection:
        assert get(connection.channel(), kept)[1] == b"kept"
        connection.channel().queue_declare(lost, durable=True, arguments=QUORUM)
        put(connection, lost, b"lost")
        private_rabbit.kill()
    private_rabbit.start()
    # It is listed, and nobody leads it ever again: a get would be answered with an error, after a minute.
    assert "{ok," in private_rabbit.eval(f"ra:members({{'%2F_{kept}', node()}}, 3000)")
    assert "{timeout," in private_rabbit.eval(f"ra:members({{'%2F_{lost}', node()}}, 3000)")
    with connected(private_rabbit) as connection:
        for name in (kept, after):
            connection.channel().queue_delete(name)


@pytest.mark.timeout(120)
def test_a_commit_during_an_alarm_is_carried_out_when_it_is_over(
    connection: Any, private_rabbit: PrivateRabbit, queue: str
) -> None:
    """So one that isn't answered isn't sent again, but waited for."""
    put(connection, queue, b"old")
    with connected(private_rabbit) as blocked, ThreadPoolExecutor(1) as pool:
        channel = transaction(blocked)
        tag, *_ = get(channel, queue)
        with private_rabbit.alarm():
            channel.basic_publish("", queue, b"new", DURABLE)
            channel.basic_ack(tag)
            commit = pool.submit(channel.tx_commit)
            assert wait([commit], timeout=1).done == set()
        commit.result(timeout=60)
    assert get(connection.channel(), queue)[1:] == (b"new", 0)


def test_a_delivery_that_is_held_for_too_long_is_taken_back(
    connection: Any, private_rabbit: PrivateRabbit, queue: str
) -> None:
    put(connection, queue, b"old")
    with consumer_timeout(private_rabbit, 3):
        channel = connection.channel()
    began = time.monotonic()
    get(channel, queue)
    ended: list[str] = []
    channel._impl.add_on_close_callback(lambda _, error: ended.append(str(error)))
    while not ended and time.monotonic() < began + 20:
        connection.process_data_events(0.1)
    assert "timed out" in ended[0]
    assert time.monotonic() >= began + 3
    assert get(connection.channel(), queue)[1:] == (b"old", 1)
