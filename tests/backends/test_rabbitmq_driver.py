"""The short way of the frames of tasks, past pika: what goes there is what pika would send and read."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import gc
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pika
import pytest
from pika import frame, spec

from gotasks.broker import BrokerURL, Envelope, Lease, Write
from gotasks.conformance.kit.proxy import Proxy
from gotasks.errors import BrokerClosed, BrokerUnavailable, ConfigurationError
from gotasks_rabbitmq import RabbitBroker, frames, wire
from gotasks_rabbitmq.address import Address
from gotasks_rabbitmq.lane import Lane
from gotasks_rabbitmq.names import Names
from gotasks_rabbitmq.pool import Pool
from gotasks_rabbitmq.wire import Connection
from tests.backends.contract import eventually
from tests.rabbit_server import PrivateRabbit, channel

QUEUE = "orders"

#: What goes into one frame of a body where the server takes frames of 131,072 bytes.
MOST = 131_064


def opened(url: str) -> RabbitBroker:
    return RabbitBroker.from_url(BrokerURL(url))


def put(broker: RabbitBroker, bodies: dict[str, bytes]) -> None:
    broker.enqueue([Envelope(id=each, queue=QUEUE, body=body) for each, body in bodies.items()])


def take(broker: RabbitBroker, limit: int, *, wait: float = 5.0) -> list[Lease]:
    return broker.acquire(QUEUE, limit=limit, wait=wait, lease_for=60)


def write(lease: Lease, body: bytes = b"new") -> Write:
    return Write(lease=lease, body=body, seq=1)


@pytest.fixture
def broker(rabbitmq_url: str) -> Iterator[RabbitBroker]:
    broker = opened(rabbitmq_url)
    yield broker
    broker.close()


@pytest.fixture
def proxy(rabbitmq_url: str) -> Iterator[Proxy]:
    ((host, port),) = BrokerURL(rabbitmq_url).hosts
    with Proxy(host, port or 5672) as proxy:
        yield proxy


# -- frames -----------------------------------------------------------------------------------------------


def method(number: int, what: Any) -> bytes:
    return bytes(frame.Method(number, what).marshal())


def test_small_frames_are_as_pika_makes_them() -> None:
    assert frames.get(7, b"gt:orders") == method(7, spec.Basic.Get(queue="gt:orders"))
    assert frames.ack(7, 1 << 40) == method(7, spec.Basic.Ack(1 << 40))
    assert frames.commit(2047) == method(2047, spec.Tx.Commit())


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 200, 250])
def test_a_task_is_sent_as_pika_sends_it(size: int, again: bool) -> None:
    body, stamp = b"x" * size, 1_795_641_092_574_510_328
    headers = {"gt-again": stamp, "gt-n": stamp} if again else {"gt-n": stamp}
    properties = spec.BasicProperties(delivery_mode=2, message_id="an-id", headers=headers)
    publish = spec.Basic.Publish(exchange="", routing_key="gt:orders", mandatory=True)
    parts = [body[at : at + 100] for at in range(0, size, 100)]
    assert frames.publish(3, b"gt:orders", b"an-id", body, stamp=stamp, again=again, most=100) == b"".join(
        [
            method(3, publish),
            frame.Header(3, size, properties).marshal(),
            *(frame.Body(3, part).marshal() for part in parts),
        ]
    )


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"message_id": "an-id"},
        {"message_id": "an-id", "delivery_mode": 2, "headers": {}},
        {"message_id": "an-id", "delivery_mode": 2, "headers": {"gt-n": 1 << 60}},
        {
            "message_id": "an-id",
            "delivery_mode": 2,
            "headers": {"gt-n": 1 << 60, "x-delivery-count": -(1 << 40)},
        },
        {"message_id": "", "delivery_mode": 1, "headers": {"x-delivery-count": 3, "x-death": [{"count": 2}]}},
        {"headers": {"text": "é", "a": True, "b": 15, "c": None, "d": b"\xff", "e": {"f": [1, 2]}}},
        {
            "priority": 9,
            "timestamp": 1,
            "headers": {"gt-n": 1},
            "content_type": "text/plain",
            "reply_to": "me",
        },
    ],
)
def test_properties_are_read_as_pika_reads_them(properties: dict[str, Any]) -> None:
    given = spec.BasicProperties(**properties)
    content = frame.Header(1, 12, given).marshal()[frames.HEAD.size : -1]
    read = spec.BasicProperties()
    read.decode(content[12:])
    assert frames.properties_of(content) == (read.message_id, read.headers or {})
    assert frames.size_of(content) == 12


def test_properties_that_nobody_can_read_are_none() -> None:
    given = spec.BasicProperties(message_id="an-id", headers={"gt-n": 1 << 60})
    content = frame.Header(1, 12, given).marshal()[frames.HEAD.size : -1]
    assert frames.properties_of(content.replace(b"gt-nl", b"gt-n?")) == (None, {})


# -- on the network ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("slices", [1, 7, 1000])
def test_a_stream_may_be_cut_into_pieces_of_any_size(rabbitmq_url: str, proxy: Proxy, slices: int) -> None:
    broker = opened(proxy.through(rabbitmq_url))
    bodies = {f"t{number}": b"%d" % number * 300 for number in range(5)}
    proxy.slices = slices
    put(broker, bodies)
    leases = take(broker, 1)
    leases += take(broker, 4)
    assert {each.envelope.id: each.envelope.body for each in leases} == bodies
    assert broker.checkpoint([write(each) for each in leases[:2]]) == frozenset()
    assert broker.ack([write(each) for each in leases], keep_for=0) == {each.receipt for each in leases[:2]}
    assert broker.stats(QUEUE).ready == 2
    broker.close()


def test_a_body_may_have_any_size(broker: RabbitBroker) -> None:
    sizes = [0, 1, MOST - 1, MOST, MOST + 1, 2 * MOST, 3 * MOST + 5]
    bodies = {f"t{size}": bytes(number % 251 for number in range(size)) for size in sizes}
    put(broker, bodies)
    leases = take(broker, 1)
    leases += take(broker, len(sizes) - 1)
    assert {each.envelope.id: each.envelope.body for each in leases} == bodies
    assert broker.checkpoint([write(each, each.envelope.body[::-1]) for each in leases]) == frozenset()
    again = {each.envelope.id: each.envelope.body for each in take(broker, len(sizes))}
    assert again == {task_id: body[::-1] for task_id, body in bodies.items()}


def test_what_others_put_there_is_leased_whatever_it_says_of_itself(
    broker: RabbitBroker, rabbitmq_url: str
) -> None:
    strange: list[dict[str, Any]] = [
        {},
        {"message_id": "spaces and é"},
        {"message_id": "fine", "headers": {"x-delivery-count": "many"}},
        {
            "headers": {
                "when": dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc),
                "much": decimal.Decimal("1.5"),
                "deep": {"a": [{}]},
            }
        },
        {"headers": {"gt-n": "text", "x-death": [{"count": "two"}, 3]}, "content_type": "text/plain"},
    ]
    assert take(broker, 1, wait=0) == []
    with channel(rabbitmq_url) as other:
        name = Names(BrokerURL(rabbitmq_url).params["namespace"]).tasks(QUEUE)
        for number, properties in enumerate(strange):
            other.basic_publish("", name, b"%d" % number, pika.BasicProperties(**properties))

    def all_ready() -> bool:
        return broker.stats(QUEUE).ready == len(strange)

    eventually(all_ready, what="the messages")
    leases = take(broker, len(strange))
    assert sorted(each.envelope.body for each in leases) == [b"%d" % number for number in range(len(strange))]
    assert sum(each.envelope.id == "fine" for each in leases) == 1
    assert len({each.envelope.id for each in leases}) == len(strange)
    assert {each.deaths for each in leases} == {0}
    assert broker.ack([write(each) for each in leases], keep_for=0) == frozenset()


def test_what_came_before_a_cut_is_no_lease_that_never_ends(rabbitmq_url: str, proxy: Proxy) -> None:
    """Some of the answers to one `acquire` arrive, and then the connection ends."""
    other = opened(rabbitmq_url)
    put(other, {f"t{number}": b"x" * 100 for number in range(6)})
    for passes in range(100, 1600, 60):
        broker = opened(proxy.through(rabbitmq_url))
        leases = take(broker, 1)  # now it knows of the others, and asks for them at once
        trap = proxy.cut_after("replies", passes)
        with suppress(BrokerUnavailable):
            leases += take(broker, 5, wait=0)
        if not trap.sprung:
            proxy.disarm()
            proxy.cut()

        def all_lost(broker: RabbitBroker = broker, leases: list[Lease] = leases) -> bool:
            with suppress(BrokerUnavailable):  # it may not have noticed yet
                return len(broker.ack([write(each) for each in leases], keep_for=0)) == len(leases)
            return False

        eventually(all_lost, what="the end of the leases")
        broker.close()
    found: list[Lease] = []

    def all_there() -> bool:
        found.extend(take(other, 6, wait=0.1))
        return len(found) == 6

    eventually(all_there, what="all six tasks")
    other.close()


def test_a_connection_that_is_given_up_while_it_is_opened_is_told_of_once(
    rabbitmq_url: str, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    broker = opened(f"{proxy.through(rabbitmq_url)}&connect_timeout=0.1")
    with proxy.black_hole("replies"):
        for _ in range(6):  # pika stumbles over every other one, later
            with pytest.raises(BrokerUnavailable, match="no connection within"):
                put(broker, {"a": b""})
    broker.close()
    assert caplog.records == []


@pytest.mark.parametrize("when", ["while it is opened", "before it is used"])
def test_who_closes_while_it_connects_leaves_no_connection(
    rabbitmq_url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    begun = threading.Event()

    async def prepare(_: Pool) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Pool, "prepare", prepare)
    broker = opened(proxy.through(rabbitmq_url))
    with ThreadPoolExecutor(1) as pool, ExitStack() as network:
        if when == "while it is opened":
            network.enter_context(proxy.black_hole("replies"))
        call = pool.submit(broker.stats, QUEUE)
        eventually(lambda: proxy.open == 1, what="a connection")
        if when == "before it is used":
            assert begun.wait(10)
        broker.close()
        with pytest.raises(BrokerClosed):
            call.result(10)
        eventually(lambda: proxy.open == 0, what="its end")


# -- channels ---------------------------------------------------------------------------------------------


def test_no_more_is_leased_than_there_are_channels(
    broker: RabbitBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has one for itself: when it ends, nothing else does."""
    monkeypatch.setattr(wire, "_RESERVED", 2044)  # of 2047
    ids = [f"t{number}" for number in range(20)]
    put(broker, dict.fromkeys(ids, b"old"))
    for begin in range(0, 18, 3):  # and each of them comes and goes, over and over
        leases = take(broker, 9)
        assert [each.envelope.id for each in leases] == ids[begin : begin + 3]
        assert take(broker, 9, wait=0) == []
        assert broker.checkpoint([write(each) for each in leases]) == frozenset()
    assert broker.ack([write(each) for each in take(broker, 9)], keep_for=0) == frozenset()
    assert broker.stats(QUEUE).ready == 17


def test_who_waits_while_all_channels_are_taken_gets_the_next_one(
    broker: RabbitBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_RESERVED", 2046)  # of 2047
    put(broker, {"a": b"", "b": b""})
    (lease,) = take(broker, 1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(broker.acquire, QUEUE, limit=1, wait=10, lease_for=60)
        broker.ack([write(lease)], keep_for=0)
        assert [each.envelope.id for each in waiting.result(20)] == ["b"]


def test_a_server_that_allows_too_few_channels_is_refused(
    broker: RabbitBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Address.parameters

    def few(self: Address, purpose: str) -> Any:
        parameters = usual(self, purpose)
        parameters.channel_max = 15
        return parameters

    monkeypatch.setattr(Address, "parameters", few)
    with pytest.raises(ConfigurationError, match="15 channels, and 16 are needed: raise channel_max"):
        broker.stats(QUEUE)


def test_all_channels_are_told_of_the_end_of_their_connection(rabbitmq_url: str) -> None:
    """Though one of them has just been closed, and the loop hasn't turned since."""

    async def told() -> list[str]:
        connection = await Connection.open(Address.of(BrokerURL(rabbitmq_url)), "test")
        ended = asyncio.Event()
        connection._inner.add_on_close_callback(lambda *_: ended.set())
        lanes = await Pool(connection).take(3)
        lanes[0].abandon()
        lanes[0]._on_frame(frames.METHOD, frames.CLOSE_OK)
        connection._on_close(pika.exceptions.StreamLostError("cut"))
        closed = [str(lane.closed) for lane in lanes]
        connection._inner.close()
        await ended.wait()
        return closed

    assert asyncio.run(told())[1:] == ["cut", "cut"]


def test_a_channel_that_is_closed_is_freed_at_once(broker: RabbitBroker) -> None:
    """Each checkpoint has one: what is left to the collector of cycles would be much."""

    def lanes() -> int:
        return sum(isinstance(each, Lane) for each in gc.get_objects())

    put(broker, {"a": b"old"})
    gc.collect()
    before = lanes()
    gc.disable()
    try:
        for _ in range(30):
            broker.checkpoint([write(take(broker, 1)[0])])
        assert lanes() < before + 10
    finally:
        gc.enable()


def test_nobody_takes_a_channel_of_others(rabbitmq_url: str) -> None:
    async def taken() -> set[Lane]:
        connection = await Connection.open(Address.of(BrokerURL(rabbitmq_url)), "test")
        pool = Pool(connection)
        try:
            takes = await asyncio.gather(*(pool.take(5) for _ in range(20)))
        finally:
            await connection.close(1.0)
        return {lane for lanes in takes for lane in lanes}

    assert len(asyncio.run(taken())) == 100


# -- TLS --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("rabbit_program")
def test_it_works_over_tls(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    command = ["openssl", *words.split(), "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    files = {"cacertfile": certificate, "certfile": certificate, "keyfile": key}
    settings = {f"ssl_options.{name}": str(file) for name, file in files.items()}
    (tmp_path / "server").mkdir()
    server = PrivateRabbit(tmp_path / "server", {"listeners.ssl.1": f"127.0.0.1:{port}", **settings})
    server.start()
    try:
        with pytest.raises(BrokerUnavailable, match="certificate"):
            put(opened(f"amqps://127.0.0.1:{port}"), {"a": b""})
        broker = opened(f"amqps://127.0.0.1:{port}?ssl_ca_certs={certificate}")
        bodies = {"a": b"x" * 500_000, "b": b"y"}
        put(broker, bodies)
        leases = take(broker, 1)
        leases += take(broker, 1)
        assert {each.envelope.id: each.envelope.body for each in leases} == bodies
        assert (
            broker.checkpoint([write(leases[0])]) == broker.ack([write(leases[1])], keep_for=0) == frozenset()
        )
        broker.close()
    finally:
        server.close()
